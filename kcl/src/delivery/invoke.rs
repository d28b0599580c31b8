//! Panics in user code become errors.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt;
use kinesis_common::panic_message::panic_message;

use crate::error::ProcessorError;

/// Runs a call of user code. A panic in it is an error like any other.
///
/// Pass an `async` block around the call, so that what runs before the first await is guarded too.
pub(crate) async fn guarded<T>(
    call: impl Future<Output = Result<T, ProcessorError>>,
) -> Result<T, ProcessorError> {
    AssertUnwindSafe(call)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(ProcessorError::panicked(&panic_message(panic.as_ref()))))
}

/// Drops what is the user's. A panic in it is an error like any other.
pub(crate) fn drop_guarded<T>(value: T) -> Result<(), ProcessorError> {
    catch_unwind(AssertUnwindSafe(|| drop(value)))
        .map_err(|panic| ProcessorError::panicked(&panic_message(panic.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_message() {
        let error = guarded::<()>(async { panic!("no {}", "luck") }).await.unwrap_err();
        assert!(error.is_panic());
        assert_eq!(error.to_string(), "the processor panicked: no luck");
    }

    #[tokio::test]
    async fn results_pass() {
        assert_eq!(guarded(async { Ok(7) }).await.unwrap(), 7);
        let error = guarded::<()>(async { Err("x".into()) }).await.unwrap_err();
        assert!(!error.is_panic());
    }
}
