//! Members of a request, of the type that they must have.

use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::settings::table_arn;

/// The members of a request. One that is null counts as absent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a>(&'a Map<String, Value>);

fn wrong_type(member: &str, expected: &str) -> Refusal {
    Refusal::serialization(format!("{member} must be {expected}"))
}

/// A member's name as messages write it: with a small first letter.
fn field(member: &str) -> String {
    let mut chars = member.chars();
    let first = chars.next().map(|char| char.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

impl<'a> Request<'a> {
    /// The members of an object, `what` it is.
    pub(super) fn within(what: &str, json: &'a Value) -> Result<Self, Refusal> {
        let members = json.as_object();
        Ok(Self(members.ok_or_else(|| wrong_type(what, "an object"))?))
    }

    /// The refusal of a request without this member.
    pub(super) fn missing(member: &str) -> Refusal {
        Refusal::constraint("null", &field(member), "Member must not be null")
    }

    pub(super) fn get(self, member: &str) -> Option<&'a Value> {
        self.0.get(member).filter(|value| !value.is_null())
    }

    pub(super) fn has(self, member: &str) -> bool {
        self.get(member).is_some()
    }

    fn typed<T>(
        self,
        member: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.get(member) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong_type(member, expected)),
        }
    }

    pub(super) fn text(self, member: &str) -> Result<Option<&'a str>, Refusal> {
        self.typed(member, "a string", Value::as_str)
    }

    pub(super) fn flag(self, member: &str) -> Result<Option<bool>, Refusal> {
        self.typed(member, "a boolean", Value::as_bool)
    }

    pub(super) fn integer(self, member: &str) -> Result<Option<i64>, Refusal> {
        self.typed(member, "an integer", Value::as_i64)
    }

    pub(super) fn object(self, member: &str) -> Result<Option<&'a Map<String, Value>>, Refusal> {
        self.typed(member, "an object", Value::as_object)
    }

    /// The members of an object; absent, there are none.
    pub(super) fn request(self, member: &str) -> Result<Option<Self>, Refusal> {
        Ok(self.object(member)?.map(Self))
    }

    /// The elements of a list; absent, there are none.
    pub(super) fn list(self, member: &str) -> Result<&'a [Value], Refusal> {
        let list = self.typed(member, "a list", Value::as_array)?;
        Ok(list.map(Vec::as_slice).unwrap_or_default())
    }

    pub(super) fn required_text(self, member: &str) -> Result<&'a str, Refusal> {
        self.text(member)?.ok_or_else(|| Self::missing(member))
    }

    pub(super) fn required(self, member: &str) -> Result<&'a Value, Refusal> {
        self.get(member).ok_or_else(|| Self::missing(member))
    }

    /// One of some words, the first of which is the default.
    pub(super) fn choice(
        self,
        member: &str,
        words: &[&'static str],
    ) -> Result<&'static str, Refusal> {
        let Some(given) = self.text(member)? else {
            return Ok(words[0]);
        };
        let word = words.iter().find(|word| **word == given);
        word.copied().ok_or_else(|| {
            Refusal::constraint(
                &format!("'{given}'"),
                &field(member),
                &format!("Member must satisfy enum value set: [{}]", words.join(", ")),
            )
        })
    }

    /// A number of at least one.
    pub(super) fn positive(self, member: &str) -> Result<Option<usize>, Refusal> {
        let Some(number) = self.integer(member)? else {
            return Ok(None);
        };
        let positive = usize::try_from(number).ok().filter(|number| *number > 0);
        positive.map(Some).ok_or_else(|| {
            Refusal::constraint(
                &format!("'{number}'"),
                &field(member),
                "Member must have value greater than or equal to 1",
            )
        })
    }

    /// The name of the table; its ARN stands for it.
    pub(super) fn table_name(self) -> Result<&'a str, Refusal> {
        let given = self.required_text("TableName")?;
        let name = match given.strip_prefix(&table_arn("")) {
            Some(name) => name,
            // A table of another account or region.
            None if given.starts_with("arn:") => {
                return Err(Refusal::not_found("Requested resource not found"));
            }
            None => given,
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(Refusal::constraint(
                &format!("'{name}'"),
                "tableName",
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
            ));
        }
        if !(3..=255).contains(&name.len()) {
            return Err(Refusal::validation(
                "TableName must be at least 3 characters long and at most 255 characters long",
            ));
        }
        Ok(name)
    }
}
