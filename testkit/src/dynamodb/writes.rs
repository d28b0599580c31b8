//! Writes of single items, in two steps: one reads the request and the other looks at the table.
//!
//! A transaction takes both steps for all of its items before it changes the first.

use std::sync::Arc;

use serde_json::{Value, json};

use super::capacity::Capacity;
use super::expression::{Condition, Placeholders, Update};
use super::legacy;
use super::refusal::Refusal;
use super::request::Request;
use super::schema::Key;
use super::table::{Change, Table};
use super::value::{Item, item_from_json, item_to_json};

/// What a write does to its item.
#[derive(Debug)]
enum Effect {
    Put(Arc<Item>),
    Delete,
    /// `key` is the item to begin with where there is none.
    Update {
        update: Update,
        key: Item,
    },
    /// The condition of a transaction.
    Check,
}

/// A write that has been read from a request, for a table.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) key: Key,
    effect: Effect,
    condition: Option<Condition>,
    show_failed: bool,
}

/// What becomes of the item.
pub(super) enum Outcome {
    Write(Option<Arc<Item>>),
    Keep,
}

const LEGACY: [&str; 3] = ["Expected", "AttributeUpdates", "ConditionalOperator"];
const EXPRESSIONS: [&str; 2] = ["ConditionExpression", "UpdateExpression"];

impl Write {
    pub(super) fn put(table: &Table, request: Request<'_>) -> Result<Self, Refusal> {
        let item = item_from_json(request.required("Item")?)?;
        let key = table.schema.key_of(&item)?;
        Self::read(request, key, |_| Ok(Effect::Put(Arc::new(item))))
    }

    pub(super) fn delete(table: &Table, request: Request<'_>) -> Result<Self, Refusal> {
        let key = table.schema.key_named(&item_from_json(request.required("Key")?)?)?;
        Self::read(request, key, |_| Ok(Effect::Delete))
    }

    pub(super) fn check(table: &Table, request: Request<'_>) -> Result<Self, Refusal> {
        request.required_text("ConditionExpression")?;
        let key = table.schema.key_named(&item_from_json(request.required("Key")?)?)?;
        Self::read(request, key, |_| Ok(Effect::Check))
    }

    pub(super) fn update(table: &Table, request: Request<'_>) -> Result<Self, Refusal> {
        let named = item_from_json(request.required("Key")?)?;
        let key = table.schema.key_named(&named)?;
        let write = Self::read(request, key, |placeholders| {
            let update = match request.text("UpdateExpression")? {
                Some(text) => Update::parse(text, placeholders)?,
                None => legacy::update(request)?.unwrap_or_default(),
            };
            Ok(Effect::Update { update, key: named })
        })?;
        if let Effect::Update { update, .. } = &write.effect {
            let of_key = update.paths().find(|path| table.schema.has(path.attribute()));
            if let Some(path) = of_key {
                return Err(Refusal::invalid(format_args!(
                    "Cannot update attribute {}. This attribute is part of the key",
                    path.attribute()
                )));
            }
        }
        Ok(write)
    }

    fn read(
        request: Request<'_>,
        key: Key,
        effect: impl FnOnce(&mut Placeholders) -> Result<Effect, Refusal>,
    ) -> Result<Self, Refusal> {
        legacy::check_one_kind(request, &LEGACY, &EXPRESSIONS)?;
        let mut placeholders = Placeholders::read(request, &EXPRESSIONS)?;
        let effect = effect(&mut placeholders)?;
        let condition = match request.text("ConditionExpression")? {
            Some(text) => Some(Condition::parse("ConditionExpression", text, &mut placeholders)?),
            None => legacy::condition(request, "Expected")?,
        };
        placeholders.check_used()?;
        let words = ["NONE", "ALL_OLD"];
        let show_failed = request.choice("ReturnValuesOnConditionCheckFailure", &words)?;
        Ok(Self { key, effect, condition, show_failed: show_failed == "ALL_OLD" })
    }

    /// What the write comes to in this table as it is.
    pub(super) fn decide(&self, table: &Table) -> Result<Outcome, Refusal> {
        let old = table.get(&self.key);
        let none = Item::new();
        let seen = old.map_or(&none, |item| item);
        if let Some(condition) = &self.condition
            && !condition.holds(seen)
        {
            let item = old.filter(|_| self.show_failed);
            return Err(Refusal::condition_failed(item.map(|item| item_to_json(item))));
        }
        Ok(match &self.effect {
            Effect::Put(item) => {
                table.check(item, "Item size has exceeded the maximum allowed size")?;
                Outcome::Write(Some(Arc::clone(item)))
            }
            Effect::Delete => Outcome::Write(None),
            Effect::Check => Outcome::Keep,
            Effect::Update { update, key } => {
                let item = update.apply(old.map_or(key, |item| item))?;
                let too_large = "Item size to update has exceeded the maximum allowed size";
                table.check(&item, too_large)?;
                Outcome::Write(Some(Arc::new(item)))
            }
        })
    }

    /// Carries out what was decided.
    pub(super) fn apply(&self, table: &mut Table, outcome: Outcome) -> Change {
        match outcome {
            Outcome::Write(new) => table.replace(self.key.clone(), new),
            Outcome::Keep => {
                let item = table.get(&self.key).cloned();
                Change { old: item.clone(), new: item }
            }
        }
    }

    /// The attributes that the writer wants back.
    fn returned(&self, wanted: &str, change: &Change) -> Option<Value> {
        let item = match wanted {
            "ALL_OLD" | "UPDATED_OLD" => change.old.as_ref()?,
            "ALL_NEW" | "UPDATED_NEW" => change.new.as_ref()?,
            _ => return None,
        };
        match &self.effect {
            Effect::Update { update, .. } if wanted.starts_with("UPDATED") => {
                let changed = update.changed().of_item(item);
                (!changed.is_empty()).then(|| item_to_json(&changed))
            }
            _ => Some(item_to_json(item)),
        }
    }
}

/// Which write an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Update,
    Delete,
}

/// PutItem, UpdateItem or DeleteItem.
pub(super) fn write_item(
    table: &mut Table,
    kind: Kind,
    request: Request<'_>,
) -> Result<Value, Refusal> {
    let wanted = request
        .choice("ReturnValues", &["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"])?;
    if kind != Kind::Update && !matches!(wanted, "NONE" | "ALL_OLD") {
        return Err(Refusal::validation("ReturnValues can only be ALL_OLD or NONE"));
    }
    let mut capacity = Capacity::asked(request)?;
    let write = match kind {
        Kind::Put => Write::put(table, request)?,
        Kind::Update => Write::update(table, request)?,
        Kind::Delete => Write::delete(table, request)?,
    };
    let outcome = write.decide(table)?;
    let change = write.apply(table, outcome);
    capacity.write(table, &change, 1.0);
    let mut answer = json!({});
    if let Some(attributes) = write.returned(wanted, &change) {
        answer["Attributes"] = attributes;
    }
    if let Some(capacity) = capacity.of_one() {
        answer["ConsumedCapacity"] = capacity;
    }
    Ok(answer)
}
