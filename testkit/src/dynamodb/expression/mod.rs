//! Expressions: conditions, filters, key conditions, updates and projections.
//!
//! A text is cut into tokens ([`lexer`]), parsed into a tree in which every placeholder is replaced
//! by what it stands for ([`parser`]), and evaluated on items. The parameters that came before
//! expressions are turned into the same trees (`legacy.rs`).

mod condition;
mod lexer;
mod parser;
mod path;
mod placeholders;
mod projection;
mod reserved;
mod update;

pub(super) use self::condition::{Comparator, Condition, Operand};
pub(super) use self::path::Path;
pub(super) use self::placeholders::Placeholders;
pub(super) use self::projection::Projection;
pub(super) use self::update::{SetOperand, SetValue, Update};

#[cfg(test)]
mod tests;
