//! Updates: how an item changes.

use std::cmp::Reverse;

use super::super::refusal::Refusal;
use super::super::value::{AttributeValue, Item};
use super::parser::Parser;
use super::path::{Path, check_distinct};
use super::placeholders::Placeholders;
use super::projection::Projection;

/// What a value is set to. Paths are read from the item as it was before the update.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SetOperand {
    Path(Path),
    Value(AttributeValue),
    IfNotExists(Path, Box<Self>),
    ListAppend(Box<Self>, Box<Self>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SetValue {
    Operand(SetOperand),
    Sum(SetOperand, SetOperand),
    Difference(SetOperand, SetOperand),
}

/// The parsed update of an item.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Update {
    pub(crate) set: Vec<(Path, SetValue)>,
    pub(crate) remove: Vec<Path>,
    pub(crate) add: Vec<(Path, AttributeValue)>,
    pub(crate) delete: Vec<(Path, AttributeValue)>,
}

pub(super) const KIND: &str = "UpdateExpression";

impl Update {
    pub(crate) fn parse(text: &str, placeholders: &mut Placeholders) -> Result<Self, Refusal> {
        let mut parser = Parser::new(KIND, text, placeholders)?;
        let update = parser.update()?;
        parser.end()?;
        check_distinct(KIND, update.paths())?;
        Ok(update)
    }

    /// Every path that it changes.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let set = self.set.iter().map(|(path, _)| path);
        let add = self.add.iter().map(|(path, _)| path);
        let delete = self.delete.iter().map(|(path, _)| path);
        set.chain(&self.remove).chain(add).chain(delete)
    }

    /// The parts of an item that it changes.
    pub(crate) fn changed(&self) -> Projection {
        Projection::of(self.paths().cloned().collect())
    }

    /// The item after the update.
    pub(crate) fn apply(&self, before: &Item) -> Result<Item, Refusal> {
        let mut after = before.clone();
        let mut set = Vec::with_capacity(self.set.len());
        for (path, value) in &self.set {
            set.push((path, value.evaluate(before)?));
        }
        // Indices beyond the end of a list append in their order.
        set.sort_by_key(|(path, _)| path.list_index());
        for (path, value) in set {
            path.set(&mut after, value)?;
        }
        for (path, value) in &self.add {
            let sum = add(path.get(before), value)?;
            path.set(&mut after, sum)?;
        }
        for (path, value) in &self.delete {
            if let Some(held) = path.get(before) {
                match without(held, value)? {
                    Some(rest) => path.set(&mut after, rest)?,
                    None => path.remove(&mut after)?,
                }
            }
        }
        // Inner values first, and last indices first: what is still to be removed keeps its place.
        let mut remove: Vec<_> = self.remove.iter().collect();
        remove.sort_by_key(|path| Reverse((path.depth(), path.list_index())));
        for path in remove {
            path.remove(&mut after)?;
        }
        Ok(after)
    }
}

fn wrong_type() -> Refusal {
    Refusal::validation("An operand in the update expression has an incorrect data type")
}

impl SetValue {
    fn evaluate(&self, item: &Item) -> Result<AttributeValue, Refusal> {
        let (left, right, add) = match self {
            Self::Operand(operand) => return operand.evaluate(item),
            Self::Sum(left, right) => (left, right, true),
            Self::Difference(left, right) => (left, right, false),
        };
        match (left.evaluate(item)?, right.evaluate(item)?) {
            (AttributeValue::N(left), AttributeValue::N(right)) => {
                let number = if add { left.plus(right) } else { left.minus(right) };
                Ok(AttributeValue::N(number?))
            }
            _ => Err(wrong_type()),
        }
    }
}

impl SetOperand {
    fn evaluate(&self, item: &Item) -> Result<AttributeValue, Refusal> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Path(path) => path.get(item).cloned().ok_or_else(|| {
                Refusal::validation(
                    "The provided expression refers to an attribute that does not exist in the item",
                )
            }),
            Self::IfNotExists(path, otherwise) => match path.get(item) {
                Some(value) => Ok(value.clone()),
                None => otherwise.evaluate(item),
            },
            Self::ListAppend(first, second) => {
                match (first.evaluate(item)?, second.evaluate(item)?) {
                    (AttributeValue::L(mut first), AttributeValue::L(second)) => {
                        first.extend(second);
                        Ok(AttributeValue::L(first))
                    }
                    _ => Err(wrong_type()),
                }
            }
        }
    }
}

fn union<T: Ord + Clone>(held: &[T], more: &[T]) -> Vec<T> {
    let mut all = [held, more].concat();
    all.sort_unstable();
    all.dedup();
    all
}

/// ADD: a number is added, a set joined; what is absent counts as 0, or as empty.
fn add(held: Option<&AttributeValue>, value: &AttributeValue) -> Result<AttributeValue, Refusal> {
    use AttributeValue::{Bs, L, N, Ns, Ss};
    Ok(match (held, value) {
        (None, value) => value.clone(),
        (Some(N(held)), N(more)) => N(held.plus(*more)?),
        (Some(Ss(held)), Ss(more)) => Ss(union(held, more)),
        (Some(Ns(held)), Ns(more)) => Ns(union(held, more)),
        (Some(Bs(held)), Bs(more)) => Bs(union(held, more)),
        // By `AttributeUpdates` only: an expression cannot add a list.
        (Some(L(held)), L(more)) => L([held.as_slice(), more].concat()),
        _ => return Err(wrong_type()),
    })
}

/// DELETE: the members that stay in a set; none are no set.
fn without(
    held: &AttributeValue,
    value: &AttributeValue,
) -> Result<Option<AttributeValue>, Refusal> {
    use AttributeValue::{Bs, Ns, Ss};
    fn rest<T: PartialEq + Clone>(held: &[T], gone: &[T]) -> Option<Vec<T>> {
        let rest = held.iter().filter(|member| !gone.contains(member));
        let rest: Vec<_> = rest.cloned().collect();
        (!rest.is_empty()).then_some(rest)
    }
    match (held, value) {
        (Ss(held), Ss(gone)) => Ok(rest(held, gone).map(Ss)),
        (Ns(held), Ns(gone)) => Ok(rest(held, gone).map(Ns)),
        (Bs(held), Bs(gone)) => Ok(rest(held, gone).map(Bs)),
        _ => Err(wrong_type()),
    }
}
