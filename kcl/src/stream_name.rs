//! The stream, as a request names it.

/// A stream by its name or its ARN.
#[derive(Debug, Clone)]
pub(crate) struct StreamName(String);

impl StreamName {
    pub(crate) fn new(name_or_arn: &str) -> Self {
        Self(name_or_arn.to_owned())
    }

    /// As given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn arn(&self) -> Option<String> {
        self.0.starts_with("arn:").then(|| self.0.clone())
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.arn().is_none().then(|| self.0.clone())
    }
}
