//! Builds the condition and update expressions of lease writes.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{self, attribute as name, number, text};
use super::model::{Lease, Stamp};
use super::store::Progress;

/// The parts of one UpdateItem. Attribute names of the lease table are no reserved words, so they
/// stand in the expressions as they are.
#[derive(Debug, Default)]
pub(super) struct Expression {
    conditions: Vec<String>,
    set: Vec<String>,
    remove: Vec<&'static str>,
    add: Vec<String>,
    values: HashMap<String, AttributeValue>,
}

/// Update expression, condition expression and values.
#[derive(Debug)]
pub(super) struct UpdateParts {
    update: String,
    condition: String,
    values: HashMap<String, AttributeValue>,
}

impl UpdateParts {
    pub(super) fn into_parts(self) -> (String, String, HashMap<String, AttributeValue>) {
        (self.update, self.condition, self.values)
    }
}

impl Expression {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    fn equals(&mut self, attribute: &'static str, value: AttributeValue) -> String {
        format!("{attribute} = {}", self.value(value))
    }

    fn absent(attribute: &'static str) -> String {
        format!("attribute_not_exists({attribute})")
    }

    fn condition(&mut self, condition: String) -> &mut Self {
        self.conditions.push(condition);
        self
    }

    pub(super) fn exists(&mut self) -> &mut Self {
        self.condition(format!("attribute_exists({})", name::KEY))
    }

    pub(super) fn lacks(&mut self, attribute: &'static str) -> &mut Self {
        self.condition(Self::absent(attribute))
    }

    pub(super) fn counter_is(&mut self, lease: &Lease) -> &mut Self {
        let condition = self.equals(name::COUNTER, number(lease.counter));
        self.condition(condition)
    }

    /// `leaseOwner` and `checkpointOwner` are as the caller knows them, or absent.
    pub(super) fn owners_are(&mut self, lease: &Lease) -> &mut Self {
        for (attribute, known) in
            [(name::OWNER, &lease.owner), (name::CHECKPOINT_OWNER, &lease.checkpoint_owner)]
        {
            let condition = match known {
                Some(owner) => self.equals(attribute, text(owner)),
                None => Self::absent(attribute),
            };
            self.condition(condition);
        }
        self
    }

    /// `worker` processes the shard, in the handoff that is known to be pending, or in none.
    pub(super) fn processed_by(&mut self, worker: &str, in_handoff: bool) -> &mut Self {
        if in_handoff {
            let condition = self.equals(name::CHECKPOINT_OWNER, text(worker));
            return self.condition(condition);
        }
        let owner = self.equals(name::OWNER, text(worker));
        self.condition(owner).condition(Self::absent(name::CHECKPOINT_OWNER))
    }

    /// `worker` processes the shard, whether or not a handoff began.
    pub(super) fn processed_by_even_in_handoff(&mut self, worker: &str) -> &mut Self {
        let me = self.value(text(worker));
        self.condition(format!(
            "({checkpoint_owner} = {me} OR ({owner} = {me} AND attribute_not_exists({checkpoint_owner})))",
            checkpoint_owner = name::CHECKPOINT_OWNER,
            owner = name::OWNER,
        ))
    }

    pub(super) fn put(&mut self, attribute: &'static str, value: AttributeValue) -> &mut Self {
        let assignment = self.equals(attribute, value);
        self.set.push(assignment);
        self
    }

    pub(super) fn remove(&mut self, attribute: &'static str) -> &mut Self {
        self.remove.push(attribute);
        self
    }

    fn add_one(&mut self, attribute: &'static str) -> &mut Self {
        let one = self.value(number(1));
        self.add.push(format!("{attribute} {one}"));
        self
    }

    /// One more than is known, and written by `process`.
    pub(super) fn next_counter(&mut self, lease: &Lease, process: u64) -> &mut Self {
        let stamp = Stamp::after(lease.counter, process);
        // With the new stamp, the item does not show any more that another library owned the lease.
        if lease.was_owned_by_another_library() {
            self.remove(name::READ_TO);
        }
        self.put(name::COUNTER, number(stamp.counter)).put(name::STAMP, text(stamp.to_string()))
    }

    pub(super) fn add_to_counter(&mut self) -> &mut Self {
        self.add_one(name::COUNTER)
    }

    /// Makes `to` the owner, and counts the switch if it is one, `from` another.
    pub(super) fn owner(&mut self, from: Option<&str>, to: &str) -> &mut Self {
        self.put(name::OWNER, text(to));
        // As Java: an unassigned lease has no owner to switch from.
        if from.is_some_and(|owner| owner != to) {
            self.add_one(name::OWNER_SWITCHES);
        }
        self
    }

    pub(super) fn progress(&mut self, progress: &Progress) -> &mut Self {
        let checkpoint = &progress.checkpoint;
        self.put(name::CHECKPOINT, text(checkpoint.as_str()));
        self.put(name::CHECKPOINT_SUB, number(checkpoint.sub_sequence_number()));
        self.put(name::OWNER_SWITCHES, number(0));
        if let Some(value) = progress.throughput {
            self.put(name::THROUGHPUT, item::throughput(value));
        }
        if !checkpoint.is_initial() {
            self.remove(name::RESUME_FROM);
        }
        match &progress.pending {
            Some(pending) => {
                self.put(name::PENDING, text(pending.checkpoint.as_str()));
                self.put(name::PENDING_SUB, number(pending.checkpoint.sub_sequence_number()));
                match &pending.state {
                    Some(state) => self.put(name::PENDING_STATE, item::binary(state)),
                    None => self.remove(name::PENDING_STATE),
                }
            }
            None => {
                self.remove(name::PENDING).remove(name::PENDING_SUB).remove(name::PENDING_STATE)
            }
        }
    }

    pub(super) fn build(self) -> UpdateParts {
        let mut clauses = Vec::new();
        for (verb, parts) in [
            ("SET", self.set),
            ("REMOVE", self.remove.into_iter().map(str::to_owned).collect()),
            ("ADD", self.add),
        ] {
            if !parts.is_empty() {
                clauses.push(format!("{verb} {}", parts.join(", ")));
            }
        }
        UpdateParts {
            update: clauses.join(" "),
            condition: self.conditions.join(" AND "),
            values: self.values,
        }
    }
}
