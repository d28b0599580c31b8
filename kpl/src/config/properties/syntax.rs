//! The syntax of `java.util.Properties`. The only crate for it has had no release since 2023, and depends on a regex
//! engine and an encoder.

/// A key with its value, or the number of a line that cannot be read.
pub(super) type Property = Result<(String, String), usize>;

/// The properties in the order of the file. Lines are numbered from 1.
pub(super) fn parse(text: &str) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut lines = natural_lines(text).zip(1..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim_start_matches(is_space);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        // After an odd number of backslashes, the next line continues this one.
        while logical.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
            logical.pop();
            let Some((next, _)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_space));
        }
        let (key, value) = split(&logical);
        properties.push(match (unescape(key), unescape(value)) {
            (Some(key), Some(value)) => Ok((key, value)),
            _ => Err(number),
        });
    }
    properties
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0C')
}

/// Lines that end with `\n`, `\r` or both.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.split('\r')
    })
}

/// Splits at the first `=`, `:` or space that is not escaped, and removes one `=` or `:` and the space around it.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.find(|c| {
        let ends = !is_escaped && (matches!(c, '=' | ':') || is_space(c));
        is_escaped = !is_escaped && c == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_space);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_space))
}

/// Returns `None` for a `\u` without four hexadecimal digits, or half a surrogate pair.
fn unescape(text: &str) -> Option<String> {
    let mut units = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            '\\' => match characters.next()? {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'f' => '\x0C',
                'u' => {
                    let digits = characters.as_str().get(..4)?;
                    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                        return None;
                    }
                    units.push(u16::from_str_radix(digits, 16).ok()?);
                    characters = characters.as_str()[4..].chars();
                    continue;
                }
                other => other,
            },
            other => other,
        };
        units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}
