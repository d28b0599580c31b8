//! What the lock file must not hold.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is a failure")]

use std::path::Path;

/// A lock file holds one crate that links SQLite, of one version: with it here, no program that has
/// testkit in its workspace could choose its own (`rusqlite`, `sqlx`, `diesel`).
#[test]
fn no_crate_links_sqlite() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = "));
    let names: Vec<_> = names.map(|name| name.trim_matches('"')).collect();
    assert!(names.contains(&"kinesis-testkit"), "{} names", names.len());
    let sqlite = names.iter().filter(|name| name.contains("sqlite") || name.contains("dynoxide"));
    assert_eq!(sqlite.collect::<Vec<_>>(), Vec::<&&str>::new());
}
