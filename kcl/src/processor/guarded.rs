//! Calls of user code whose panics become errors.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use kinesis_common::panic_message::panic_message;

use crate::error::ProcessorError;

/// Awaits a call of user code. A panic in it becomes an error.
pub(crate) async fn guarded<T>(
    call: impl Future<Output = Result<T, ProcessorError>>,
) -> Result<T, ProcessorError> {
    AssertUnwindSafe(call)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(ProcessorError::panicked(&panic_message(panic.as_ref()))))
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
