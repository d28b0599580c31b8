//! A call to the service that many readers of a worker need at the same time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use kinesis_common::backoff::Backoff;
use tokio::sync::Mutex;

use crate::clock::Clock;

/// Shortest time between the beginnings of two calls.
const SPACING: Duration = Duration::from_secs(1);
/// Limit of the random delay that a failure adds to the spacing. It doubles with each further failure in a
/// row, up to [`LONGEST_DELAY`].
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Largest limit of that delay.
const LONGEST_DELAY: Duration = Duration::from_secs(4);

/// A call that many tasks need at the same time. At most one is under way. All tasks that asked before it began
/// get its answer or its failure.
#[derive(Debug)]
pub(super) struct SharedCall<T, E> {
    clock: Arc<dyn Clock>,
    /// The number of calls that have begun.
    begun: AtomicU64,
    /// Locked by the task that makes the call, also while that task waits for `not_before`.
    turn: Mutex<Turn<T, E>>,
}

#[derive(Debug)]
struct Turn<T, E> {
    /// The last answer, and the number of its call.
    last: Option<(u64, Result<T, E>)>,
    /// Time before which no call begins.
    not_before: Duration,
    backoff: Backoff,
}

impl<T: Clone, E: Clone> SharedCall<T, E> {
    pub(super) fn new(clock: Arc<dyn Clock>, random: Rng) -> Self {
        Self {
            clock,
            begun: AtomicU64::new(0),
            turn: Mutex::new(Turn {
                last: None,
                not_before: Duration::ZERO,
                backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, random),
            }),
        }
    }

    /// Returns the result of a call that begins after this moment. The caller or another task makes it.
    ///
    /// # Cancel safety
    /// If the task that makes the call is dropped, the next task that waits makes one.
    pub(super) async fn ask<F>(&self, call: impl FnOnce() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let asked = self.begun.load(Ordering::Relaxed);
        let mut turn = self.turn.lock().await;
        if let Some((number, answer)) = &turn.last
            && *number > asked
        {
            return answer.clone();
        }
        let pause = turn.not_before.saturating_sub(self.clock.now());
        tokio::time::sleep(pause).await;
        // Tasks that ask from now on wait for the next call.
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        // Set before the call, so that a call that is dropped counts, too.
        turn.not_before = self.clock.now() + SPACING;
        let answer = call().await;
        match &answer {
            Ok(_) => turn.backoff.succeeded(),
            Err(_) => {
                let delay = turn.backoff.next_delay();
                turn.not_before = self.clock.now() + SPACING + delay;
            }
        }
        turn.last = Some((number, answer.clone()));
        answer
    }
}
