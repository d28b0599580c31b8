//! The text of an error of an AWS client, for log lines, error texts and snapshots.
//!
//! The text must not hold payload or keys. The client's debug output (and its `DisplayErrorContext`)
//! shows whole requests and answers, so it is never used. The text consists of the error's kind, the
//! service's code and message, and for calls that got no answer the causes of the transport.

use std::error::Error;

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

/// Longest text of a message, in characters.
const LONGEST: usize = 500;

/// What an error says, without anything of the request's or the answer's content.
pub(crate) fn error_text<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let (error, status) = (service.err(), service.raw().status().as_u16());
            match (error.code(), error.message()) {
                (Some(code), Some(message)) => format!("{code}: {}", safe_message(message)),
                (Some(code), None) => code.to_owned(),
                (None, _) => format!("an answer without an error code, HTTP status {status}"),
            }
        }
        // The cause would quote what could not be read.
        SdkError::ResponseError(response) => format!(
            "the answer is cut short or not in the service's format, HTTP status {}",
            response.raw().status().as_u16()
        ),
        _ => cut(&chain(error)),
    }
}

/// An error and its causes, outermost first. Each text is taken once: many errors repeat their cause.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    for cause in causes {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// The service's message. Where the service refuses a value, its message quotes the value, which may be
/// a key or data: `Value '...' at 'partitionKey' failed to satisfy constraint`. The value is left out.
fn safe_message(message: &str) -> String {
    const BEFORE: &str = "Value '";
    const AFTER: &str = "' at '";
    let Some((intro, quoted)) = message.split_once(BEFORE) else {
        return cut(message);
    };
    // From the last place: a value may look like the end of one.
    match quoted.rsplit_once(AFTER) {
        Some((_, rest)) => cut(&format!("{intro}Value (left out) at '{rest}")),
        None => cut(&format!("{intro}Value (left out)")),
    }
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
        let constraint = "failed to satisfy constraint: Member must have length less than 257";
        for (message, expected) in [
            (
                format!(
                    "1 validation error detected: Value 'secret' at 'partitionKey' {constraint}"
                ),
                format!(
                    "1 validation error detected: Value (left out) at 'partitionKey' {constraint}"
                ),
            ),
            // A value that looks like the end of one.
            (
                format!("Value 'x' at 'y' secret' at 'data' {constraint}"),
                format!("Value (left out) at 'data' {constraint}"),
            ),
            ("Value 'secret".to_owned(), "Value (left out)".to_owned()),
            (
                "Rate exceeded for shard shardId-1".to_owned(),
                "Rate exceeded for shard shardId-1".to_owned(),
            ),
        ] {
            assert_eq!(safe_message(&message), expected);
        }
    }

    #[test]
    fn a_text_is_bounded() {
        let text = safe_message(&"ä".repeat(10_000));
        assert_eq!(text.chars().count(), LONGEST + 3);
    }
}
