//! Document paths: a name, and what lies inside its value.

use std::fmt;

use super::super::refusal::Refusal;
use super::super::value::{AttributeValue, Item};

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Name(String),
    Index(usize),
}

/// Where a value is in an item. The first step is a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.name)?;
        for step in &self.steps {
            match step {
                Step::Name(name) => write!(f, ", {name}")?,
                Step::Index(index) => write!(f, ", [{index}]")?,
            }
        }
        f.write_str("]")
    }
}

impl Path {
    /// The path of a whole attribute.
    pub(crate) fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), steps: Vec::new() }
    }

    /// The attribute that the path is in.
    pub(crate) fn attribute(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_whole_attribute(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn get<'a>(&self, item: &'a Item) -> Option<&'a AttributeValue> {
        let attribute = item.get(&self.name)?;
        let mut steps = self.steps.iter();
        steps.try_fold(attribute, |value, step| match (value, step) {
            (AttributeValue::M(members), Step::Name(name)) => members.get(name),
            (AttributeValue::L(members), Step::Index(index)) => members.get(*index),
            _ => None,
        })
    }

    /// The value that holds what the last step names.
    fn parent<'a>(&self, item: &'a mut Item) -> Option<&'a mut AttributeValue> {
        let (_, before) = self.steps.split_last()?;
        let attribute = item.get_mut(&self.name)?;
        let mut steps = before.iter();
        steps.try_fold(attribute, |value, step| match (value, step) {
            (AttributeValue::M(members), Step::Name(name)) => members.get_mut(name),
            (AttributeValue::L(members), Step::Index(index)) => members.get_mut(*index),
            _ => None,
        })
    }

    pub(super) fn set(&self, item: &mut Item, value: AttributeValue) -> Result<(), Refusal> {
        let Some(last) = self.steps.last() else {
            item.insert(self.name.clone(), value);
            return Ok(());
        };
        match (self.parent(item), last) {
            (Some(AttributeValue::M(members)), Step::Name(name)) => {
                members.insert(name.clone(), value);
            }
            (Some(AttributeValue::L(members)), Step::Index(index)) => {
                match members.get_mut(*index) {
                    Some(member) => *member = value,
                    // An index beyond the end appends.
                    None => members.push(value),
                }
            }
            _ => return Err(invalid_for_update()),
        }
        Ok(())
    }

    pub(super) fn remove(&self, item: &mut Item) -> Result<(), Refusal> {
        let Some(last) = self.steps.last() else {
            item.remove(&self.name);
            return Ok(());
        };
        match (self.parent(item), last) {
            (Some(AttributeValue::M(members)), Step::Name(name)) => {
                members.remove(name);
            }
            (Some(AttributeValue::L(members)), Step::Index(index)) => {
                if *index < members.len() {
                    members.remove(*index);
                }
            }
            _ => return Err(invalid_for_update()),
        }
        Ok(())
    }

    /// How many documents the value lies in.
    pub(super) fn depth(&self) -> usize {
        self.steps.len()
    }

    /// The index of the last step, if it is one.
    pub(super) fn list_index(&self) -> Option<usize> {
        match self.steps.last() {
            Some(Step::Index(index)) => Some(*index),
            _ => None,
        }
    }

    /// Whether one of the two lies within the other, or they are the same.
    fn overlaps(&self, other: &Self) -> bool {
        let common = self.steps.len().min(other.steps.len());
        self.name == other.name && self.steps[..common] == other.steps[..common]
    }

    /// Whether the two take the same value for a list and for a map.
    fn conflicts(&self, other: &Self) -> bool {
        let same = self.name == other.name;
        let mut pairs = self.steps.iter().zip(&other.steps);
        let differing = pairs.find(|(a, b)| a != b);
        same && differing
            .is_some_and(|(a, b)| matches!(a, Step::Name(_)) != matches!(b, Step::Name(_)))
    }
}

fn invalid_for_update() -> Refusal {
    Refusal::validation("The document path provided in the update expression is invalid for update")
}

/// Paths of one expression must not touch the same value.
pub(super) fn check_distinct<'a>(
    kind: &str,
    paths: impl Iterator<Item = &'a Path>,
) -> Result<(), Refusal> {
    let paths: Vec<_> = paths.collect();
    for (nth, one) in paths.iter().enumerate() {
        for two in &paths[nth + 1..] {
            let problem = if one.overlaps(two) {
                "overlap"
            } else if one.conflicts(two) {
                "conflict"
            } else {
                continue;
            };
            return Err(Refusal::validation(format!(
                "Invalid {kind}: Two document paths {problem} with each other; must remove or \
                 rewrite one of these paths; path one: {one}, path two: {two}"
            )));
        }
    }
    Ok(())
}
