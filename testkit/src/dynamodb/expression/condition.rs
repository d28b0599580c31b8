//! Conditions, and what they say of an item.

use std::cmp::Ordering;

use super::super::number::Number;
use super::super::refusal::Refusal;
use super::super::value::{AttributeValue, Item};
use super::parser::Parser;
use super::path::Path;
use super::placeholders::Placeholders;

/// What a condition compares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Path(Path),
    Value(AttributeValue),
    /// `size(...)`: characters, bytes or members.
    Size(Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A condition of a write, the filter of a read, or the conditions on the key of a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    Compare(Operand, Comparator, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Exists(Path),
    NotExists(Path),
    /// The value is of the type with this name.
    IsType(Path, String),
    BeginsWith(Operand, Operand),
    Contains(Operand, Operand),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

impl Condition {
    /// Parses a `ConditionExpression`, `FilterExpression` or `KeyConditionExpression`.
    pub(crate) fn parse(
        kind: &str,
        text: &str,
        placeholders: &mut Placeholders,
    ) -> Result<Self, Refusal> {
        let mut parser = Parser::new(kind, text, placeholders)?;
        let condition = parser.condition()?;
        parser.end()?;
        Ok(condition)
    }

    /// Whether it holds for an item; one that does not exist has no attributes.
    pub(crate) fn holds(&self, item: &Item) -> bool {
        match self {
            Self::Compare(left, comparator, right) => {
                comparator.holds(left.value(item).as_deref(), right.value(item).as_deref())
            }
            Self::Between(value, low, high) => {
                let (value, low, high) = (value.value(item), low.value(item), high.value(item));
                Comparator::GreaterOrEqual.holds(value.as_deref(), low.as_deref())
                    && Comparator::LessOrEqual.holds(value.as_deref(), high.as_deref())
            }
            Self::In(value, list) => {
                let value = value.value(item);
                list.iter().any(|member| {
                    Comparator::Equal.holds(value.as_deref(), member.value(item).as_deref())
                })
            }
            Self::Exists(path) => path.get(item).is_some(),
            Self::NotExists(path) => path.get(item).is_none(),
            Self::IsType(path, kind) => {
                path.get(item).is_some_and(|value| value.type_name() == kind)
            }
            Self::BeginsWith(value, prefix) => {
                match (value.value(item).as_deref(), prefix.value(item).as_deref()) {
                    (Some(AttributeValue::S(text)), Some(AttributeValue::S(prefix))) => {
                        text.starts_with(prefix)
                    }
                    (Some(AttributeValue::B(bytes)), Some(AttributeValue::B(prefix))) => {
                        bytes.starts_with(prefix)
                    }
                    _ => false,
                }
            }
            Self::Contains(value, part) => {
                match (value.value(item).as_deref(), part.value(item).as_deref()) {
                    (Some(value), Some(part)) => contains(value, part),
                    _ => false,
                }
            }
            Self::And(left, right) => left.holds(item) && right.holds(item),
            Self::Or(left, right) => left.holds(item) || right.holds(item),
            Self::Not(condition) => !condition.holds(item),
        }
    }

    /// Every path in it.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        fn of_operand(operand: &Operand) -> Option<&Path> {
            match operand {
                Operand::Path(path) => Some(path),
                Operand::Value(_) => None,
                Operand::Size(inner) => of_operand(inner),
            }
        }
        match self {
            Self::Compare(left, _, right)
            | Self::BeginsWith(left, right)
            | Self::Contains(left, right) => {
                [left, right].into_iter().filter_map(of_operand).collect()
            }
            Self::Between(a, b, c) => [a, b, c].into_iter().filter_map(of_operand).collect(),
            Self::In(value, list) => {
                std::iter::once(value).chain(list).filter_map(of_operand).collect()
            }
            Self::Exists(path) | Self::NotExists(path) | Self::IsType(path, _) => vec![path],
            Self::And(left, right) | Self::Or(left, right) => {
                [left.paths(), right.paths()].concat()
            }
            Self::Not(condition) => condition.paths(),
        }
    }
}

/// A value of an item, or one that was computed.
enum Found<'a> {
    Stored(&'a AttributeValue),
    Computed(AttributeValue),
}

impl Operand {
    fn value<'a>(&'a self, item: &'a Item) -> Option<FoundValue<'a>> {
        let found = match self {
            Self::Path(path) => Found::Stored(path.get(item)?),
            Self::Value(value) => Found::Stored(value),
            Self::Size(operand) => {
                let count = match &*operand.value(item)? {
                    AttributeValue::S(text) => text.encode_utf16().count(),
                    AttributeValue::B(bytes) => bytes.len(),
                    AttributeValue::Ss(members) => members.len(),
                    AttributeValue::Ns(members) => members.len(),
                    AttributeValue::Bs(members) => members.len(),
                    AttributeValue::L(members) => members.len(),
                    AttributeValue::M(members) => members.len(),
                    AttributeValue::N(_) | AttributeValue::Bool(_) | AttributeValue::Null => {
                        return None;
                    }
                };
                Found::Computed(AttributeValue::N(Number::from_count(count)))
            }
        };
        Some(FoundValue(found))
    }
}

struct FoundValue<'a>(Found<'a>);

impl std::ops::Deref for FoundValue<'_> {
    type Target = AttributeValue;

    fn deref(&self) -> &AttributeValue {
        match &self.0 {
            Found::Stored(value) => value,
            Found::Computed(value) => value,
        }
    }
}

impl Comparator {
    /// Whether two values compare so. What is absent, or of another type, is only ever unequal.
    fn holds(self, left: Option<&AttributeValue>, right: Option<&AttributeValue>) -> bool {
        let (Some(left), Some(right)) = (left, right) else {
            return self == Self::NotEqual;
        };
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            _ => order(left, right).is_some_and(|order| match self {
                Self::Less => order.is_lt(),
                Self::LessOrEqual => order.is_le(),
                Self::Greater => order.is_gt(),
                Self::GreaterOrEqual => order.is_ge(),
                Self::Equal | Self::NotEqual => false,
            }),
        }
    }

    /// The comparator for the operands the other way round.
    pub(crate) fn reversed(self) -> Self {
        match self {
            Self::Equal | Self::NotEqual => self,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}

/// The order of two values of one type that has an order.
pub(super) fn order(left: &AttributeValue, right: &AttributeValue) -> Option<Ordering> {
    match (left, right) {
        (AttributeValue::S(left), AttributeValue::S(right)) => Some(left.cmp(right)),
        (AttributeValue::N(left), AttributeValue::N(right)) => Some(left.cmp(right)),
        (AttributeValue::B(left), AttributeValue::B(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

fn contains(value: &AttributeValue, part: &AttributeValue) -> bool {
    match (value, part) {
        (AttributeValue::S(text), AttributeValue::S(part)) => text.contains(part),
        (AttributeValue::B(bytes), AttributeValue::B(part)) => {
            part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
        }
        (AttributeValue::Ss(members), AttributeValue::S(part)) => members.contains(part),
        (AttributeValue::Ns(members), AttributeValue::N(part)) => members.contains(part),
        (AttributeValue::Bs(members), AttributeValue::B(part)) => members.contains(part),
        (AttributeValue::L(members), part) => members.contains(part),
        _ => false,
    }
}
