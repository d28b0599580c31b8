//! Spaces the subscriptions of a worker, so that many shards do not subscribe in one burst.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kinesis_common::sync::Mutex;

use crate::clock::Clock;

/// Mean time between two calls of a worker.
const SPACING: Duration = Duration::from_millis(10);
/// Largest mean time between two calls, after throttles.
const LONGEST_SPACING: Duration = Duration::from_millis(250);
/// Time after a throttle in which others do not count. They are of calls that were sent before the calls slowed down.
const SAME_BURST: Duration = Duration::from_secs(1);

/// Lets the shards of a worker subscribe one after the other. A throttle doubles the time between two calls for all of
/// them, at most once in [`SAME_BURST`]. Each call that succeeds takes a tenth of that time away.
#[derive(Debug)]
pub(super) struct SubscribeGate {
    clock: Arc<dyn Clock>,
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    /// Time of the next turn.
    next: Duration,
    spacing: Duration,
    /// Until then, throttles do not count.
    slowed_until: Duration,
    random: Rng,
}

impl SubscribeGate {
    pub(super) fn new(clock: Arc<dyn Clock>, random: Rng) -> Self {
        let turns =
            Turns { next: Duration::ZERO, spacing: SPACING, slowed_until: Duration::ZERO, random };
        Self { clock, turns: Mutex::new(turns) }
    }

    /// Waits for a turn.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves its turn unused.
    pub(super) async fn turn(&self) {
        let now = self.clock.now();
        let at = self.turns.lock().take(now);
        tokio::time::sleep(at.saturating_sub(now)).await;
    }

    /// Notes that the service throttled a call.
    pub(super) fn throttled(&self) {
        let now = self.clock.now();
        let mut turns = self.turns.lock();
        if now >= turns.slowed_until {
            turns.spacing = (turns.spacing * 2).min(LONGEST_SPACING);
            turns.slowed_until = now + SAME_BURST;
        }
    }

    /// Notes that the service accepted a call.
    pub(super) fn succeeded(&self) {
        let mut turns = self.turns.lock();
        turns.spacing = turns.spacing.mul_f64(0.9).max(SPACING);
    }
}

impl Turns {
    /// Takes the next turn, and returns its time.
    fn take(&mut self, now: Duration) -> Duration {
        let at = self.next.max(now);
        self.next = at + self.spacing.mul_f64(0.5 + self.random.f64());
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    fn gate() -> SubscribeGate {
        SubscribeGate::new(Arc::new(TokioClock::new()), Rng::with_seed(1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_spread_and_a_single_call_does_not_wait() {
        let gate = gate();
        gate.turn().await;
        assert_eq!(gate.clock.now(), Duration::ZERO);
        for _ in 0..1_000 {
            gate.turn().await;
        }
        let took = gate.clock.now();
        assert!((9..11).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn throttles_slow_all_down_and_success_speeds_them_up_again() {
        let gate = gate();
        for _ in 0..20 {
            gate.throttled();
        }
        assert_eq!(gate.turns.lock().spacing, 2 * SPACING, "of one burst");
        for _ in 0..20 {
            tokio::time::advance(SAME_BURST).await;
            gate.throttled();
        }
        gate.turn().await;
        let before = gate.clock.now();
        gate.turn().await;
        let slow = gate.clock.now() - before;
        assert!(slow >= LONGEST_SPACING / 2, "{slow:?}");
        for _ in 0..100 {
            gate.succeeded();
        }
        gate.turn().await;
        let before = gate.clock.now();
        gate.turn().await;
        assert!(gate.clock.now() - before <= SPACING * 3 / 2);
    }
}
