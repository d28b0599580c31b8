//! When a step of the start is tried again, and with which error the start ends at its deadline.
//!
//! A transient failure is tried again until `startup_timeout`: the services of a deployment start
//! in any order, a table or stream may be in creation, and a fleet that starts at once exceeds the
//! quotas of its account for a while. Any other failure ends the start at once.

use std::time::Duration;

use fastrand::Rng;
use kinesis_common::backoff::Backoff;

use super::failure::{Failure, TransientFailure};
use crate::clock::Clock;
use crate::error::StartError;

/// Longest pause before the second try; it doubles with each one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two tries. With it, a fleet that exceeds the account's 20
/// DescribeStreamSummary calls a second spreads out to that rate, and a service that has come up is
/// found soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs the steps of one start, which share a deadline.
#[derive(Debug)]
pub(crate) struct Startup<'a> {
    clock: &'a dyn Clock,
    began: Duration,
    limit: Duration,
    random: Rng,
}

impl<'a> Startup<'a> {
    /// Begins now.
    pub(crate) fn begin(clock: &'a dyn Clock, limit: Duration, seed: u64) -> Self {
        Self { began: clock.now(), clock, limit, random: Rng::with_seed(seed) }
    }

    /// Runs one step until it succeeds, fails for good, or the deadline is over. The calls of a
    /// step must be idempotent. `operation`: the call that the error names if no call is answered
    /// in time.
    pub(crate) async fn step<T, F>(
        &mut self,
        service: &'static str,
        operation: &'static str,
        mut step: impl FnMut() -> F,
    ) -> Result<T, StartError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, self.random.fork());
        let mut last = TransientFailure {
            service,
            operation,
            cause: "the call was still under way".to_owned(),
            no_answer: true,
        };
        loop {
            match tokio::time::timeout(self.left(), step()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Failure::Final(error))) => return Err(error),
                Ok(Err(Failure::Transient(failure))) => {
                    if pauses.failures() == 0 {
                        let TransientFailure { operation, cause, .. } = &failure;
                        tracing::info!(
                            service,
                            operation,
                            cause,
                            "the start waits, and tries again"
                        );
                    }
                    last = failure;
                }
                // The deadline was over during a try.
                Err(_) => {}
            }
            let pause = pauses.next_delay().min(self.left());
            if self.left().is_zero() {
                return Err(last.at_deadline(pauses.failures(), self.elapsed()));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Time until the deadline.
    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().saturating_sub(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use crate::lease::{CallError, CallErrorKind};

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_until_the_limit_and_never_after() {
        for (seed, took) in (0..500).zip([0, 1, 300, 5_000].into_iter().cycle()) {
            let clock = TokioClock::new();
            let mut startup = Startup::begin(&clock, LIMIT, seed);
            let (mut tries, mut ended) = (0, Duration::ZERO);
            let refused = startup.step("Kinesis", "ListShards", || {
                let pause = clock.now() - ended;
                assert!(pause <= LONGEST_PAUSE, "{pause:?}");
                assert!(clock.now() <= LIMIT);
                tries += 1;
                ended = clock.now() + Duration::from_millis(took);
                async move {
                    tokio::time::sleep(Duration::from_millis(took)).await;
                    Err::<(), _>(throttled())
                }
            });
            refused.await.unwrap_err();
            assert!(tries < 1_000, "it spins");
            assert_eq!(clock.now(), LIMIT);
        }
    }

    fn throttled() -> Failure {
        Failure::not_ready("Kinesis", "ListShards", "LimitExceededException: Rate exceeded")
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_succeeds_late_is_done() {
        let clock = TokioClock::new();
        let mut startup = Startup::begin(&clock, LIMIT, 1);
        let mut tries = 0;
        let done = startup.step("Kinesis", "ListShards", || {
            tries += 1;
            let passed = clock.now() > Duration::from_secs(15);
            async move { if passed { Ok(7) } else { Err(throttled()) } }
        });
        assert_eq!(done.await.unwrap(), 7);
        assert!((10..100).contains(&tries), "{tries}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_steps_share_one_deadline_and_the_error_names_the_last_cause() {
        let clock = TokioClock::new();
        let mut startup = Startup::begin(&clock, LIMIT, 1);
        let first = startup.step("Kinesis", "DescribeStreamSummary", || async {
            tokio::time::sleep(LIMIT / 2).await;
            Ok(())
        });
        first.await.unwrap();
        let second = startup.step("Kinesis", "ListShards", || async { Err::<(), _>(throttled()) });
        let error = second.await.unwrap_err();
        let StartError::TimedOut { tries, elapsed, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((*elapsed, clock.now()), (LIMIT, LIMIT));
        let text = format!(
            "the start was given up at ListShards of Kinesis, after {tries} tries within 20.0s \
             (LimitExceededException: Rate exceeded): start again, or raise startup_timeout"
        );
        assert_eq!(error.to_string(), text);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_cut_off_at_the_deadline() {
        let clock = TokioClock::new();
        let mut startup = Startup::begin(&clock, LIMIT, 1);
        let hangs = startup.step::<(), _>("DynamoDB", "Scan", std::future::pending);
        let error = hangs.await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "DynamoDB did not answer Scan in 1 tries within 20.0s (the call was still under way): \
             check the endpoint, the region and the network, or raise startup_timeout"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_failure_is_not_tried_again() {
        let clock = TokioClock::new();
        let mut startup = Startup::begin(&clock, LIMIT, 1);
        let denied =
            CallError::new("UpdateItem (renew)", CallErrorKind::AccessDenied, "simulated".into());
        let mut tries = 0;
        let refused = startup.step("DynamoDB", "Scan", || {
            tries += 1;
            let failure = Failure::of_call("DynamoDB", "table billing", &denied);
            async { Err::<(), _>(failure) }
        });
        let error = refused.await.unwrap_err();
        assert_eq!((tries, clock.now()), (1, Duration::ZERO));
        let text = "the worker may not call dynamodb:UpdateItem on table billing (simulated): \
                    allow it in the policy of its role";
        assert_eq!(error.to_string(), text);
    }
}
