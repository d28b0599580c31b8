//! The `NextToken` of operations that list: where the listing goes on. Opaque to clients.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use crate::clock::Timestamp;

const TTL_MILLIS: u64 = 300_000;

#[derive(Debug, Serialize, Deserialize)]
struct Token<T> {
    operation: String,
    issued: u64,
    place: T,
}

/// The token of an operation for a place in its listing.
pub(crate) fn encode<T: Serialize>(operation: &str, now: Timestamp, place: T) -> String {
    let token = Token { operation: operation.to_owned(), issued: now.millis(), place };
    let json = serde_json::to_vec(&token).unwrap_or_default();
    base64_simd::URL_SAFE.encode_to_string(json)
}

/// The place that a token of this operation means.
pub(crate) fn decode<T: DeserializeOwned>(
    operation: &str,
    now: Timestamp,
    text: &str,
) -> Result<T, ApiError> {
    let token = base64_simd::URL_SAFE.decode_to_vec(text).ok();
    let token: Option<Token<T>> = token.and_then(|json| serde_json::from_slice(&json).ok());
    let token = token.filter(|token| token.operation == operation);
    let token = token.ok_or_else(|| {
        ApiError::invalid_argument(format!("NextToken is not one of {operation}."))
    })?;
    if now.millis().saturating_sub(token.issued) > TTL_MILLIS {
        return Err(ApiError::new(
            "ExpiredNextTokenException",
            "The NextToken is older than 300 seconds: list from the start.",
        ));
    }
    Ok(token.place)
}

/// Refuses members beside a token that already says what they would.
pub(crate) fn check_alone(others: &[(&str, bool)]) -> Result<(), ApiError> {
    match others.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((member, _)) => Err(ApiError::invalid_argument(format!(
            "NextToken and {member} cannot be provided together."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_its_operation_and_expires() {
        let now = Timestamp::from_millis(1_767_225_600_000);
        let token = encode("ListStreams", now, "orders");
        let at = |millis: u64, operation: &str| {
            let now = Timestamp::from_millis(now.millis() + millis);
            decode::<String>(operation, now, &token).map_err(|error| error.code)
        };
        assert_eq!(at(300_000, "ListStreams").as_deref(), Ok("orders"));
        assert_eq!(at(300_001, "ListStreams").unwrap_err(), "ExpiredNextTokenException");
        assert_eq!(at(0, "ListShards").unwrap_err(), "InvalidArgumentException");
    }
}
