//! What a service answers when it refuses a request.

use std::borrow::Cow;

/// A refusal: AWS's code and a message, in the shape of the AWS JSON protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new("ResourceNotFoundException", message)
    }

    pub(crate) fn in_use(message: impl Into<String>) -> Self {
        Self::new("ResourceInUseException", message)
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new("InvalidArgumentException", message)
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    pub(crate) fn limit_exceeded(message: impl Into<String>) -> Self {
        Self::new("LimitExceededException", message)
    }

    pub(crate) fn throughput_exceeded(message: impl Into<String>) -> Self {
        Self::new("ProvisionedThroughputExceededException", message)
    }

    /// A value outside what the service's model allows, in the words AWS uses for it.
    pub(crate) fn constraint(field: &str, constraint: impl std::fmt::Display) -> Self {
        Self::validation(format!(
            "1 validation error detected: Value at '{field}' failed to satisfy constraint: {constraint}"
        ))
    }

    /// 500 or 503 for the service's own failures, 400 for everything else.
    pub(crate) fn status(&self) -> u16 {
        let is = |code: &str| self.code.contains(code);
        if is("ServiceUnavailable") {
            503
        } else if is("InternalFailure") || is("InternalServerError") {
            500
        } else {
            400
        }
    }

    /// `{"__type": ..., "message": ...}`
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::json!({ "__type": self.code, "message": self.message }).to_string().into_bytes()
    }
}
