//! What is streamed: lines of a file, each with its partition key.

use std::io;
use std::path::Path;

use bytes::Bytes;

/// The flights that come with the example, keyed by airport.
const FLIGHTS: &str = include_str!("../data/flights-20k.ndjson");

/// One input record.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) key: String,
    pub(crate) text: String,
}

/// Why the input cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {path}: {source}; give an NDJSON or CSV file")]
    Read { path: String, source: io::Error },
    #[error("line {line}: not a JSON object: {source}")]
    Json { line: usize, source: serde_json::Error },
    #[error("line {line}: {source}")]
    Csv { line: usize, source: csv::Error },
    #[error("line {line} has no field {field:?}; name one that every record has with --key")]
    NoKey { line: usize, field: String },
    #[error("the input has no records")]
    Empty,
}

/// Reads `path`, or the flights.
pub(crate) fn load(path: Option<&Path>, key: &str) -> Result<Vec<Line>, InputError> {
    let lines = match path {
        None => ndjson(FLIGHTS, key)?,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| InputError::Read { path: path.display().to_string(), source })?;
            let is_csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
            if is_csv { csv(&text, key)? } else { ndjson(&text, key)? }
        }
    };
    if lines.is_empty() { Err(InputError::Empty) } else { Ok(lines) }
}

fn ndjson(text: &str, key: &str) -> Result<Vec<Line>, InputError> {
    let mut lines = Vec::new();
    for (at, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let line = at + 1;
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|source| InputError::Json { line, source })?;
        let key = match object.get(key) {
            Some(serde_json::Value::String(value)) if !value.is_empty() => value.clone(),
            Some(value) if value.is_number() || value.is_boolean() => value.to_string(),
            _ => {
                return Err(InputError::NoKey { line, field: key.to_owned() });
            }
        };
        lines.push(Line { key, text: text.to_owned() });
    }
    Ok(lines)
}

/// Each row becomes the JSON object that its header line describes.
fn csv(text: &str, key: &str) -> Result<Vec<Line>, InputError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|source| InputError::Csv { line: 1, source })?.clone();
    let mut lines = Vec::new();
    for (at, row) in reader.records().enumerate() {
        let line = at + 2;
        let row = row.map_err(|source| InputError::Csv { line, source })?;
        let object: serde_json::Map<String, serde_json::Value> = header
            .iter()
            .zip(row.iter())
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let key = match object.get(key).and_then(serde_json::Value::as_str) {
            Some(value) if !value.is_empty() => value.to_owned(),
            _ => {
                return Err(InputError::NoKey { line, field: key.to_owned() });
            }
        };
        lines.push(Line { key, text: serde_json::Value::Object(object).to_string() });
    }
    Ok(lines)
}

/// The payload of record `id`: run, id, text. The id is what the tally counts with.
pub(crate) fn payload(run: &str, id: u64, text: &str) -> Bytes {
    Bytes::from(format!("{run} {id} {text}"))
}

/// The id in a payload of this run. `None` if the record is of another run.
pub(crate) fn id_of(run: &str, payload: &[u8]) -> Option<u64> {
    let rest = payload.strip_prefix(run.as_bytes())?.strip_prefix(b" ")?;
    let end = rest.iter().position(|&b| b == b' ')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flights_are_all_there() {
        let lines = load(None, "origin").unwrap();
        assert_eq!(lines.len(), 20_000);
        assert_eq!(lines[0].key, "DTW");
    }

    #[test]
    fn csv_rows_become_objects() {
        let lines = csv("origin,delay\nSEA,4\nPDX,-1\n", "origin").unwrap();
        assert_eq!(lines[1].key, "PDX");
        assert_eq!(lines[1].text, r#"{"delay":"-1","origin":"PDX"}"#);
    }

    #[test]
    fn bad_input_is_named_by_its_line() {
        let missing = ndjson("{\"a\":1}\n{\"b\":2}\n", "a").unwrap_err();
        assert!(matches!(missing, InputError::NoKey { line: 2, .. }), "{missing}");
        assert!(matches!(ndjson("[1]", "a").unwrap_err(), InputError::Json { line: 1, .. }));
        assert!(matches!(csv("a,b\n1\n", "a").unwrap_err(), InputError::Csv { line: 2, .. }));
    }

    #[test]
    fn ids_come_back() {
        assert_eq!(id_of("r1", &payload("r1", 42, "{\"x\": 1}")), Some(42));
        assert_eq!(id_of("r2", &payload("r1", 42, "{}")), None);
        assert_eq!(id_of("r1", b"garbage"), None);
    }
}
