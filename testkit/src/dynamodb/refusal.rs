//! Refusals of DynamoDB: a code, a message, and the details that some codes carry.

use serde_json::{Map, Value};

use crate::kinesis::ApiError;

/// A request that is refused, as the client sees it.
///
/// Boxed, because results of many small steps carry it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal(Box<Body>);

#[derive(Debug, Clone, PartialEq)]
struct Body {
    error: ApiError,
    /// Members beside the code and the message.
    details: Map<String, Value>,
}

const SERVICE: &str = "com.amazonaws.dynamodb.v20120810#";

impl Refusal {
    fn new(error: ApiError) -> Self {
        let details = Map::new();
        Self(Box::new(Body { error, details }))
    }

    /// A refusal with a code of the service's own model.
    pub(super) fn of_service(code: &str, message: impl Into<String>) -> Self {
        Self::new(ApiError::new(format!("{SERVICE}{code}"), message))
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        let code = "com.amazon.coral.validate#ValidationException";
        Self::new(ApiError::new(code, message))
    }

    /// A value outside what the model of the service allows.
    pub(super) fn constraint(value: &str, field: &str, constraint: &str) -> Self {
        Self::validation(format!(
            "1 validation error detected: Value {value} at '{field}' failed to satisfy constraint: \
             {constraint}"
        ))
    }

    /// Parameters that contradict each other or the table.
    pub(super) fn invalid(message: impl std::fmt::Display) -> Self {
        Self::validation(format!("One or more parameter values were invalid: {message}"))
    }

    pub(super) fn serialization(message: impl Into<String>) -> Self {
        let code = "com.amazon.coral.service#SerializationException";
        Self::new(ApiError::new(code, message))
    }

    pub(super) fn unknown_operation(operation: &str) -> Self {
        let code = "com.amazon.coral.service#UnknownOperationException";
        let message = format!("{operation} is not an operation of testkit");
        Self::new(ApiError::new(code, message))
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::of_service("ResourceNotFoundException", message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::of_service("InternalServerError", message)
    }

    /// The condition of a write does not hold; `item` is shown if the request asks for it.
    pub(super) fn condition_failed(item: Option<Value>) -> Self {
        let refusal =
            Self::of_service("ConditionalCheckFailedException", "The conditional request failed");
        match item {
            Some(item) => refusal.with("Item", item),
            None => refusal,
        }
    }

    pub(super) fn with(mut self, member: &str, value: Value) -> Self {
        self.0.details.insert(member.to_owned(), value);
        self
    }

    /// The code without the namespace before it.
    pub(super) fn code(&self) -> &str {
        let code = self.0.error.code.as_ref();
        code.rsplit_once('#').map_or(code, |(_, code)| code)
    }

    pub(super) fn message(&self) -> &str {
        &self.0.error.message
    }

    pub(super) fn detail(&self, member: &str) -> Option<&Value> {
        self.0.details.get(member)
    }

    pub(crate) fn status(&self) -> u16 {
        self.0.error.status()
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let Body { error, details } = &*self.0;
        let mut body = details.clone();
        body.insert("__type".to_owned(), error.code.as_ref().into());
        body.insert("message".to_owned(), error.message.as_str().into());
        Value::Object(body).to_string().into_bytes()
    }
}
