//! What the placeholders of a request stand for, and which of them its expressions use.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::super::refusal::Refusal;
use super::super::request::Request;
use super::super::value::{AttributeValue, text};

/// The `ExpressionAttributeNames` and `ExpressionAttributeValues` of a request.
#[derive(Debug, Default)]
pub(crate) struct Placeholders {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, AttributeValue>,
    unused: BTreeSet<String>,
}

impl Placeholders {
    /// Reads those of a request. `expressions` are the members that may use them.
    pub(crate) fn read(request: Request<'_>, expressions: &[&str]) -> Result<Self, Refusal> {
        let names = request.object("ExpressionAttributeNames")?;
        let values = request.object("ExpressionAttributeValues")?;
        let any = (expressions.iter()).any(|expression| request.has(expression));
        for (member, given) in
            [("ExpressionAttributeNames", names), ("ExpressionAttributeValues", values)]
        {
            match given {
                Some(_) if !any => {
                    return Err(Refusal::validation(format!(
                        "{member} can only be specified when using expressions"
                    )));
                }
                Some(given) if given.is_empty() => {
                    return Err(Refusal::validation(format!("{member} must not be empty")));
                }
                _ => {}
            }
        }
        let mut read = Self::default();
        for (key, name) in checked("ExpressionAttributeNames", '#', names)? {
            read.names.insert(key.clone(), text(name)?.to_owned());
            read.unused.insert(key.clone());
        }
        for (key, value) in checked("ExpressionAttributeValues", ':', values)? {
            let value = AttributeValue::from_json(value).map_err(|refusal| {
                if refusal.code() != "ValidationException" {
                    return refusal;
                }
                Refusal::validation(format!(
                    "ExpressionAttributeValues contains invalid value: {} for key {key}",
                    refusal.message()
                ))
            })?;
            read.values.insert(key.clone(), value);
            read.unused.insert(key.clone());
        }
        Ok(read)
    }

    pub(super) fn name(&mut self, kind: &str, key: &str) -> Result<String, Refusal> {
        self.unused.remove(key);
        self.names.get(key).cloned().ok_or_else(|| {
            Refusal::validation(format!(
                "Invalid {kind}: An expression attribute name used in the document path is not \
                 defined; attribute name: {key}"
            ))
        })
    }

    pub(super) fn value(&mut self, kind: &str, key: &str) -> Result<AttributeValue, Refusal> {
        self.unused.remove(key);
        self.values.get(key).cloned().ok_or_else(|| {
            Refusal::validation(format!(
                "Invalid {kind}: An expression attribute value used in expression is not defined; \
                 attribute value: {key}"
            ))
        })
    }

    /// Refuses placeholders that no expression has used.
    pub(crate) fn check_used(&self) -> Result<(), Refusal> {
        for (member, mark) in
            [("ExpressionAttributeNames", '#'), ("ExpressionAttributeValues", ':')]
        {
            let unused: Vec<_> = (self.unused.iter())
                .filter(|key| key.starts_with(mark))
                .map(String::as_str)
                .collect();
            if !unused.is_empty() {
                return Err(Refusal::validation(format!(
                    "Value provided in {member} unused in expressions: keys: {{{}}}",
                    unused.join(", ")
                )));
            }
        }
        Ok(())
    }
}

/// The entries of a map of placeholders, whose keys begin with `mark`.
fn checked<'a>(
    member: &str,
    mark: char,
    given: Option<&'a Map<String, Value>>,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)>, Refusal> {
    let entries = given.into_iter().flatten();
    let malformed = entries.clone().find(|(key, _)| {
        let word = key.strip_prefix(mark).unwrap_or_default();
        let allowed = |char: char| char.is_ascii_alphanumeric() || char == '_';
        word.is_empty() || !word.chars().all(allowed)
    });
    match malformed {
        Some((key, _)) => Err(Refusal::validation(format!(
            "{member} contains invalid key: Syntax error; key: \"{key}\""
        ))),
        None => Ok(entries),
    }
}
