//! When a step of the start is tried again, and which error it ends with.
//!
//! A failure that may pass is tried again until `startup_timeout`: services of one deployment start in any order, a
//! stream may be being created, and a fleet that starts at once exceeds the quotas of an account for a while. A failure
//! that cannot pass ends the start at once.

use std::time::Duration;

use tokio::time::error::Elapsed;

use crate::clock::{self, Instant};
use crate::producer::BuildError;
use crate::retry::{self, ErrorClass, START_BACKOFF};
use crate::service::{CallError, CallErrorKind};

/// A failure of a step that may pass.
#[derive(Debug, Clone)]
struct Passing {
    cause: String,
    /// The service did not answer at all.
    no_answer: bool,
}

/// One step of the start: a call that is made until it succeeds.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    stream: &'a str,
    /// The API call, for errors.
    operation: &'static str,
    /// When the whole start began, and how long it may take.
    began: Instant,
    limit: Duration,
    tries: u32,
    rng: fastrand::Rng,
    last: Option<Passing>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(
        stream: &'a str,
        operation: &'static str,
        (began, limit): (Instant, Duration),
        rng: fastrand::Rng,
    ) -> Self {
        Self { stream, operation, began, limit, tries: 0, rng, last: None }
    }

    /// Makes the call. It ends when the start must end.
    pub(crate) async fn attempt<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<Result<T, CallError>, Elapsed> {
        tokio::time::timeout(self.left(clock::now()), call).await
    }

    /// Judges the answer to an attempt. If it returns `None`, it has paused, and the caller tries again.
    pub(crate) async fn judge<T>(
        &mut self,
        answer: Result<Result<T, CallError>, Elapsed>,
    ) -> Result<Option<T>, BuildError> {
        match answer {
            Ok(Ok(done)) => Ok(Some(done)),
            Ok(Err(error)) => {
                let passing = self.passing(error)?;
                self.pause(passing).await.map(|()| None)
            }
            // The time was up during the call.
            Err(_) => {
                self.tries = self.tries.saturating_add(1);
                let last = self.last.take().unwrap_or_else(|| Passing {
                    cause: "the call was still under way".to_owned(),
                    no_answer: true,
                });
                Err(self.timed_out(last))
            }
        }
    }

    /// Pauses because the stream is not ready yet.
    pub(crate) async fn not_ready(&mut self, cause: String) -> Result<(), BuildError> {
        self.pause(Passing { cause, no_answer: false }).await
    }

    async fn pause(&mut self, passing: Passing) -> Result<(), BuildError> {
        if self.tries == 0 {
            let (operation, cause) = (self.operation, &passing.cause);
            tracing::info!(operation, cause, "the start waits, and tries again");
        }
        match self.failed(clock::now()) {
            Some(pause) => {
                self.last = Some(passing);
                tokio::time::sleep(pause).await;
                Ok(())
            }
            None => Err(self.timed_out(passing)),
        }
    }

    /// Counts a failed try. Returns the pause before the next one, or `None` if the time is up.
    fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.tries = self.tries.saturating_add(1);
        let pause = START_BACKOFF.delay(self.tries, &mut self.rng);
        let left = self.left(now);
        (!left.is_zero()).then(|| pause.min(left))
    }

    fn left(&self, now: Instant) -> Duration {
        self.limit.saturating_sub(now.saturating_duration_since(self.began))
    }

    fn timed_out(&self, last: Passing) -> BuildError {
        let (operation, tries, cause) = (self.operation, self.tries, last.cause);
        let elapsed = clock::now().saturating_duration_since(self.began);
        if last.no_answer {
            BuildError::EndpointUnreachable { operation, tries, elapsed, cause }
        } else {
            BuildError::TimedOut { operation, tries, elapsed, cause }
        }
    }

    /// Returns the failure if it may pass, and otherwise the error that the start ends with.
    fn passing(&self, error: CallError) -> Result<Passing, BuildError> {
        let CallError { kind, code, message, .. } = error;
        let cause = match (kind, &*message) {
            (CallErrorKind::Service | CallErrorKind::Unknown { .. }, "") => code.to_string(),
            (CallErrorKind::Service | CallErrorKind::Unknown { .. }, message) => {
                format!("{code}: {message}")
            }
            (_, message) => message.to_owned(),
        };
        let no_answer = match kind {
            CallErrorKind::NoCredentials => return Err(BuildError::NoCredentials { cause }),
            CallErrorKind::Timeout
            | CallErrorKind::Connection
            | CallErrorKind::CredentialsUnavailable => true,
            CallErrorKind::Unusable | CallErrorKind::Unknown { .. } => false,
            CallErrorKind::Service if retry::is_stream_missing(&code) => {
                return Err(BuildError::StreamNotFound { stream: self.stream.to_owned() });
            }
            // A running producer waits until expired credentials are renewed. At the start nothing
            // shows that they ever will be.
            CallErrorKind::Service if retry::is_credentials_refused(&code) => {
                let code = code.to_string();
                return Err(BuildError::CredentialsRefused { code, cause });
            }
            CallErrorKind::Service => match retry::classify(&code) {
                ErrorClass::Throttled | ErrorClass::Transient | ErrorClass::Blocked => false,
                ErrorClass::Rejected | ErrorClass::Fatal => {
                    return Err(BuildError::Service {
                        operation: self.operation,
                        code: code.to_string(),
                        message: message.to_string(),
                    });
                }
            },
        };
        Ok(Passing { cause, no_answer })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn step(began: Instant, seed: u64) -> Step<'static> {
        let rng = fastrand::Rng::with_seed(seed);
        Step::new("orders", "ListShards", (began, LIMIT), rng)
    }

    fn refused(code: &str) -> CallError {
        CallError {
            kind: CallErrorKind::Service,
            code: code.into(),
            message: "scripted".into(),
            may_have_been_written: false,
            source: None,
        }
    }

    proptest! {
        #[test]
        fn it_is_tried_until_the_limit_and_never_after(seed in any::<u64>(), took in 0..5_000_u64) {
            let began = clock::now();
            let mut retry = step(began, seed);
            let mut now = began;
            while let Some(pause) = retry.failed(now) {
                prop_assert!(now + pause <= began + LIMIT);
                now += pause + Duration::from_millis(took + 1);
                prop_assert!(retry.tries < 30_000, "it spins");
            }
            prop_assert!(now >= began + LIMIT);
        }
    }

    async fn told(error: CallError) -> BuildError {
        let mut step = step(clock::now(), 1);
        loop {
            let call = std::future::ready(Err::<(), _>(error.clone()));
            let answer = step.attempt(call).await;
            if let Err(error) = step.judge(answer).await {
                return error;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_until_the_limit_and_told_with_the_last_cause() {
        for code in [
            "LimitExceededException",
            "ProvisionedThroughputExceededException",
            "InternalFailure",
            "ExpiredNextTokenException",
        ] {
            let began = clock::now();
            let error = told(refused(code)).await;
            assert_eq!(clock::now() - began, LIMIT, "{code}");
            let BuildError::TimedOut { tries, .. } = error else {
                panic!("{error:?}");
            };
            assert!(tries > 10 && error.is_retryable());
            let text = format!(
                "the start was given up at ListShards of Kinesis, after {tries} tries within 20.0s \
                 ({code}: scripted): start again, or raise `startup_timeout`"
            );
            assert_eq!(error.to_string(), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_pass_fails_at_once() {
        for (code, text) in [
            (
                "ResourceNotFoundException",
                "stream \"orders\" does not exist: create it, or check the name, the region and the account",
            ),
            (
                "ExpiredTokenException",
                "AWS refused the credentials (ExpiredTokenException: scripted): check that they are \
                 current and belong to the right account",
            ),
            (
                "ValidationException",
                "Kinesis refused ListShards (ValidationException: scripted): check the stream and the version",
            ),
        ] {
            let began = clock::now();
            assert_eq!(told(refused(code)).await.to_string(), text);
            assert_eq!(clock::now(), began);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_cut_off_at_the_deadline() {
        let mut step = step(clock::now(), 1);
        let hangs = step.attempt(std::future::pending::<Result<(), CallError>>());
        let answer = hangs.await;
        let error = step.judge(answer).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "Kinesis did not answer ListShards in 1 tries within 20.0s (the call was still under way): \
             check the endpoint, the region and the network, or raise `startup_timeout`"
        );
    }
}
