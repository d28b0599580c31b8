//! The text of an error of an AWS client, for log lines and error texts.
//!
//! The text must not hold data or keys. The client's debug output (and its `DisplayErrorContext`) shows
//! whole requests and answers, so it is never used, and the client's error is not kept as a source. The
//! text consists of the service's message, or of the causes of the transport where there was no answer.

use std::error::Error;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

use crate::retry;

/// Longest text of a message, in characters.
const LONGEST: usize = 500;

/// An error of the AWS client as text: what a public error has as its source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Cause(pub(crate) String);

/// What an error says, without anything of the request's or the answer's content.
pub(crate) fn error_text<E, R>(error: &SdkError<E, R>) -> String
where
    E: Error + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + 'static,
{
    match error {
        SdkError::ServiceError(service) => match (service.err().code(), service.err().message()) {
            (Some(code), Some(message)) => safe_message(code, message),
            (Some(code), None) => code.to_owned(),
            (None, _) => "an answer without an error code".to_owned(),
        },
        // The cause would quote what could not be read.
        SdkError::ResponseError(_) => {
            "the answer is cut short or not in the service's format".to_owned()
        }
        _ => cut(&root_cause(error)),
    }
}

/// The service's message to a code. Where the service refuses a value, its message may quote the value,
/// which may be a key or data.
pub(crate) fn safe_message(code: &str, message: &str) -> String {
    const BEFORE: &str = "Value '";
    const AFTER: &str = "' at '";
    match message.split_once(BEFORE) {
        None if retry::quotes_nothing(code) || message.contains("Value at '") => cut(message),
        None => "the service's message is left out, since it may quote the record".to_owned(),
        // `Value '...' at 'partitionKey' failed to satisfy constraint`: the value is left out. It ends at
        // the last such place: a value may look like the end of one.
        Some((intro, quoted)) => match quoted.rsplit_once(AFTER) {
            Some((_, rest)) => cut(&format!("{intro}Value (left out) at '{rest}")),
            None => cut(&format!("{intro}Value (left out)")),
        },
    }
}

/// The last of an error's causes.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_the_service_quotes_is_left_out() {
        let left_out = "the service's message is left out, since it may quote the record";
        for (code, message, expected) in [
            (
                "ValidationException",
                "1 validation error detected: Value 'secret' at 'partitionKey' failed to satisfy",
                "1 validation error detected: Value (left out) at 'partitionKey' failed to satisfy",
            ),
            // A value that looks like the end of one.
            (
                "ValidationException",
                "Value 'x' at 'y' secret' at 'data' failed",
                "Value (left out) at 'data' failed",
            ),
            ("ValidationException", "Value 'secret", "Value (left out)"),
            ("InvalidArgumentException", "Specified value was secret", left_out),
            ("NobodyKnows", "about 'secret'", left_out),
            (
                "ProvisionedThroughputExceededException",
                "Rate exceeded for shard shardId-1",
                "Rate exceeded for shard shardId-1",
            ),
        ] {
            assert_eq!(safe_message(code, message), expected);
        }
    }

    #[test]
    fn a_text_is_bounded() {
        let text = safe_message("InternalFailure", &"ä".repeat(10_000));
        assert_eq!(text.chars().count(), LONGEST + 3);
    }
}
