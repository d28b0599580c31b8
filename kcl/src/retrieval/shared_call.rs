//! One call for all tasks that need its answer at the same time.

use std::fmt;
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
/// Most that a random part adds to that after a failure. It doubles with each further failure in a row, up
/// to [`LONGEST_DELAY`].
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(4);

/// A call of a service that many tasks need at the same time. At most one is under way. Its answer, a
/// failure too, is that of all tasks that asked before the call began.
pub(super) struct SharedCall<T, E> {
    clock: Arc<dyn Clock>,
    /// Calls that began so far.
    begun: AtomicU64,
    /// Held by the task that makes the call, also while it waits for its turn.
    turn: Mutex<Turn<T, E>>,
}

struct Turn<T, E> {
    /// The last answer, and the number of its call.
    last: Option<(u64, Result<T, E>)>,
    /// No call begins earlier.
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

    /// The answer of a call that begins after this moment: of the caller's, or of another task's.
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
        // Before the call: one that is dropped counts, too.
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

impl<T, E> fmt::Debug for SharedCall<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCall").field("begun", &self.begun).finish_non_exhaustive()
    }
}
