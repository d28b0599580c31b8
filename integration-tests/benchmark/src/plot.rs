//! Bar charts of comparisons, as SVG.

use std::fmt::Write as _;

use crate::comparison::Measured;

const WIDTH: f64 = 720.0;
/// Where the bars begin; the names of the sides stand before them.
const BARS: f64 = 140.0;
/// Length of the longest bar; its figures stand behind it.
const LONGEST: f64 = 400.0;
const ROW: f64 = 24.0;
const MARGIN: f64 = 16.0;

/// Draws a bar for each side, as long as its [ratio](Measured::ratio), with a line at the floor's.
///
/// `groups`: what the sides did, such as the size of the records, and their figures. The chart has a light background of
/// its own, so that it can be read on dark pages, too.
pub fn bars(title: &str, groups: &[(&str, &[Measured])]) -> String {
    let ratios = groups.iter().flat_map(|(_, sides)| sides.iter().map(|side| side.ratio));
    let scale = LONGEST / ratios.fold(1.0, f64::max);
    let mut shapes = String::new();
    let mut y = MARGIN + ROW;
    text(&mut shapes, MARGIN, y - ROW / 3.0, "bold", title);
    for (name, sides) in groups {
        y += ROW / 2.0;
        text(&mut shapes, MARGIN, y + ROW * 2.0 / 3.0, "italic", name);
        y += ROW;
        let top = y;
        for (place, side) in sides.iter().enumerate() {
            let fill = if place == 0 { "#8c959f" } else { "#2f81d6" };
            rectangle(&mut shapes, BARS, y + 3.0, side.ratio * scale, ROW - 6.0, fill);
            let line = y + ROW * 2.0 / 3.0;
            text(&mut shapes, MARGIN, line, "", &side.name);
            let figures = format!("{:.2} ({:.2} us a record)", side.ratio, side.cpu_micros);
            text(&mut shapes, BARS + side.ratio * scale + 6.0, line, "", &figures);
            y += ROW;
        }
        rectangle(&mut shapes, BARS + scale - 0.5, top, 1.0, y - top, "#24292f");
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"#f6f8fa\"/>\n{shapes}</svg>\n"
    )
}

fn rectangle(shapes: &mut String, x: f64, y: f64, width: f64, height: f64, fill: &str) {
    let _ = writeln!(
        shapes,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
    );
}

fn text(shapes: &mut String, x: f64, y: f64, style: &str, text: &str) {
    let style = match style {
        "bold" => " font-weight=\"bold\"",
        "italic" => " font-style=\"italic\"",
        _ => "",
    };
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(shapes, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#24292f\"{style}>{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, ratio: f64) -> Measured {
        Measured { name: name.to_owned(), cpu_micros: ratio / 2.0, ratio, rate: 1.0 }
    }

    #[test]
    fn bars_are_as_long_as_the_ratios_of_all_groups() {
        let small = [side("floor", 1.0), side("ours", 2.0)];
        let large = [side("floor", 1.0), side("ours", 0.5)];
        let svg = bars("CPU & more", &[("100 B", &small), ("1 KiB", &large)]);
        let widths: Vec<_> = svg
            .lines()
            .filter(|line| line.contains("x=\"140.0\""))
            .filter_map(|line| line.split_once("width=\"")?.1.split_once('"'))
            .map(|(width, _)| width)
            .collect();
        assert_eq!(widths, ["200.0", "400.0", "200.0", "100.0"]);
        assert!(svg.contains(">CPU &amp; more<") && svg.contains(">0.50 (0.25 us a record)<"));
        // The lines at the floor's ratio.
        assert_eq!(svg.matches("x=\"339.5\"").count(), 2);
    }
}
