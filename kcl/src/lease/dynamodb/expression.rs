//! The text of a condition and an update expression, with their values.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

/// The expressions of one request, as they are built. The attribute names of the lease table are no reserved words
/// of DynamoDB, so they need no placeholders.
#[derive(Debug, Default)]
pub(super) struct Expression {
    conditions: Vec<String>,
    set: Vec<String>,
    remove: Vec<&'static str>,
    add: Vec<String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// A placeholder for this value.
    pub(super) fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    pub(super) fn condition(&mut self, condition: String) -> &mut Self {
        self.conditions.push(condition);
        self
    }

    pub(super) fn exists(&mut self, attribute: &'static str) -> &mut Self {
        self.condition(format!("attribute_exists({attribute})"))
    }

    pub(super) fn is_absent(&mut self, attribute: &'static str) -> &mut Self {
        self.condition(format!("attribute_not_exists({attribute})"))
    }

    pub(super) fn equals(&mut self, attribute: &'static str, value: AttributeValue) -> &mut Self {
        let placeholder = self.value(value);
        self.condition(format!("{attribute} = {placeholder}"))
    }

    pub(super) fn put(&mut self, attribute: &'static str, value: AttributeValue) -> &mut Self {
        let placeholder = self.value(value);
        self.set.push(format!("{attribute} = {placeholder}"));
        self
    }

    /// Sets the attribute, or removes it if there is no value.
    pub(super) fn put_or_remove(
        &mut self,
        attribute: &'static str,
        value: Option<AttributeValue>,
    ) -> &mut Self {
        match value {
            Some(value) => self.put(attribute, value),
            None => self.remove(attribute),
        }
    }

    pub(super) fn remove(&mut self, attribute: &'static str) -> &mut Self {
        self.remove.push(attribute);
        self
    }

    pub(super) fn add_one(&mut self, attribute: &'static str) -> &mut Self {
        let one = self.value(AttributeValue::N("1".to_owned()));
        self.add.push(format!("{attribute} {one}"));
        self
    }

    /// The condition, the update, and the values of both.
    pub(super) fn build(self) -> (String, String, Option<HashMap<String, AttributeValue>>) {
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
        let values = (!self.values.is_empty()).then_some(self.values);
        (self.conditions.join(" AND "), clauses.join(" "), values)
    }
}
