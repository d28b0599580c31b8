//! The README, testkit's README and the book: every page is in the summary, and every link, file and test that they
//! name exists.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const BOOK: &str = "docs/src";

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the book, its summary not among them.
fn book() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(root().join(BOOK)).unwrap();
    let pages = entries.map(|entry| entry.unwrap().path());
    pages
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .filter(|path| !path.ends_with("SUMMARY.md"))
        .collect()
}

/// All pages that are checked.
fn pages() -> Vec<PathBuf> {
    let others = ["README.md", "CONTRIBUTING.md", "testkit/README.md"];
    let others = others.map(|path| root().join(path));
    let summary = root().join(BOOK).join("SUMMARY.md");
    others.into_iter().chain([summary]).chain(book()).collect()
}

/// The lines outside of code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The texts between single backticks.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The targets of `[text](target)`.
fn links(page: &str) -> Vec<String> {
    let lines = prose(page).flat_map(|line| {
        // A code span may hold brackets; the text of a link may hold a code span.
        let spans = line.split('`').enumerate();
        let text: String = spans.map(|(n, part)| if n % 2 == 0 { part } else { "" }).collect();
        let targets = text.split("](").skip(1);
        let targets = targets.map(|rest| rest.split(')').next().unwrap_or(rest).to_owned());
        targets.collect::<Vec<_>>()
    });
    lines.collect()
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    });
    kept.collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// The fault of a link of a page. `None` if it is right, or leads to the web.
fn problem_of(link: &str, page: &Path) -> Option<String> {
    if link.contains("://") {
        return None;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => page.to_owned(),
        file => page.parent().unwrap().join(file),
    };
    let Ok(target) = fs::canonicalize(target) else {
        return Some("there is no such file".into());
    };
    let book = root().join(BOOK);
    if page.starts_with(&book) && !target.starts_with(&book) {
        return Some("it leads out of the book: the rendered book does not hold that file".into());
    }
    if !heading.is_empty() && !anchors(&read(&target)).contains(heading) {
        return Some("there is no such heading".into());
    }
    None
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_page_is_in_the_summary_once() {
    let book_folder = root().join(BOOK);
    let listed = links(&read(&book_folder.join("SUMMARY.md")));
    let pages: BTreeSet<PathBuf> = listed.iter().map(|link| book_folder.join(link)).collect();
    assert_eq!(pages, book());
    assert_eq!(pages.len(), listed.len(), "a page is listed twice");
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut problems = Vec::new();
    let mut found = 0;
    for page in pages() {
        for link in links(&read(&page)) {
            found += 1;
            let problem = problem_of(&link, &page);
            problems
                .extend(problem.map(|problem| format!("{}: {link}: {problem}", page.display())));
        }
    }
    assert_none(&problems);
    assert!(found > 50, "only {found} links were found");
}

/// A file of this repository, named by its path from the root.
fn is_path(span: &str) -> bool {
    let folders =
        ["aggregation/", "docs/", "examples/", "integration-tests/", "kcl/", "kpl/", "testkit/"];
    folders.iter().any(|folder| span.starts_with(folder)) && !span.contains(' ')
}

/// Every `path/of/a/file` exists, and so does each test that is named as "`test` in `path`".
#[test]
fn every_file_and_test_that_is_named_exists() {
    let mut problems = Vec::new();
    let mut tests = 0;
    for page in pages() {
        let text = read(&page);
        for line in prose(&text) {
            let spans: Vec<&str> = code_spans(line).collect();
            for path in spans.iter().filter(|span| is_path(span)) {
                if !root().join(path).exists() {
                    problems.push(format!("{}: {path}: there is no such file", page.display()));
                }
            }
            for pair in spans.windows(2) {
                let [test, path] = [pair[0], pair[1]];
                if !path.ends_with(".rs") || !line.contains(&format!("`{test}` in `{path}`")) {
                    continue;
                }
                tests += 1;
                let source = fs::read_to_string(root().join(path)).unwrap_or_default();
                if !source.contains(&format!("fn {test}(")) {
                    problems.push(format!("{}: {test}: not in {path}", page.display()));
                }
            }
        }
    }
    assert_none(&problems);
    assert!(tests > 20, "only {tests} tests were found");
}

#[test]
fn every_page_with_rust_code_is_compiled() {
    let compiled = read(&root().join("integration-tests/src/lib.rs"));
    for page in book() {
        let name = page.file_name().unwrap().to_str().unwrap();
        let has_code = read(&page).lines().any(|line| line.starts_with("```rust"));
        let is_compiled = compiled.contains(&format!("\"../../{BOOK}/{name}\""));
        assert_eq!(has_code, is_compiled, "{name}");
    }
}
