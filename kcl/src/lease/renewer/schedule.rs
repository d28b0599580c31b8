//! The times of renewals, and of repeated writes of a lease's owner: pure.
//!
//! Each lease is renewed after about half the failover time, at a time of its own. A renewal, a checkpoint, a transfer
//! or a release that failed is tried again after a random pause. The limit of the pauses doubles, and then shrinks with
//! the time that is left, so that attempts get denser towards the deadline.
//!
//! All leases of a worker share a budget of repeated attempts ([`RetryBudget`]). One last attempt of each lease, shortly
//! before its deadline, needs no budget. So a throttled table sees each lease about twice in the time in which it is
//! normally renewed once.

use std::time::Duration;

use fastrand::Rng;
use kinesis_common::sync::Mutex;

/// Limit of the first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Shortest pause. It prevents a busy loop if a call fails at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// The schedule of one lease.
#[derive(Debug)]
pub(super) struct RenewalSchedule {
    failover: Duration,
    random: Rng,
    /// The time from the last renewal to the next.
    pub(super) interval: Duration,
    /// Number of attempts since the last success that failed or had no budget.
    failures: u32,
    /// The time of the last attempt, which needs no budget. `None`: it was made, or nothing failed.
    last_attempt: Option<Duration>,
}

impl RenewalSchedule {
    pub(super) fn new(failover: Duration, mut random: Rng) -> Self {
        Self {
            interval: spread(failover, &mut random),
            failover,
            random,
            failures: 0,
            last_attempt: None,
        }
    }

    /// Notes that an attempt succeeded.
    pub(super) fn succeeded(&mut self) {
        self.interval = if self.failures > 0 {
            // This spreads the renewals of leases that failed together.
            spread(self.failover, &mut self.random)
        } else {
            let earlier = 0.01 * self.random.f64();
            (self.failover / 2).mul_f64(1.0 - earlier)
        };
        self.forget_failures();
    }

    /// The pause before the next attempt, after an attempt at `now` that failed or had no budget. `deadline`: the time at
    /// which the lease expires for this worker, or from which a planned stop does not wait for the lease table.
    pub(super) fn pause(&mut self, now: Duration, deadline: Duration) -> Duration {
        let left = deadline.saturating_sub(now);
        // If a planned stop began since the first failure, the last attempt comes earlier.
        if self.failures == 0 || self.last_attempt.is_some_and(|last| last >= deadline) {
            let span = self.failover.min(left.saturating_mul(2));
            let reserve = span.mul_f64(0.05 + 0.05 * self.random.f64());
            self.last_attempt = Some(deadline.saturating_sub(reserve));
        }
        let doubled =
            (self.failover / 40).min(FIRST_PAUSE).saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let limit = doubled.min(left / 2);
        let pause = limit.mul_f64(self.random.f64()).max(SHORTEST_PAUSE);
        match self.last_attempt {
            Some(last) => pause.min(last.saturating_sub(now).max(SHORTEST_PAUSE)),
            None => pause,
        }
    }

    /// Treats the next attempt as a first one.
    pub(super) fn forget_failures(&mut self) {
        self.failures = 0;
        self.last_attempt = None;
    }

    /// Returns whether an attempt that is due at `now` may be made. If not, the caller pauses again.
    pub(super) fn may_try(&mut self, now: Duration, budget: &RetryBudget) -> bool {
        if self.failures == 0 {
            return true;
        }
        if self.last_attempt.take_if(|last| *last <= now).is_some() {
            return true;
        }
        budget.take(now)
    }
}

/// A random time in the first half of the failover time, for leases that are acquired, or recover, together.
fn spread(failover: Duration, random: &mut Rng) -> Duration {
    (failover / 2).mul_f64(0.2 + 0.8 * random.f64())
}

/// Budget of repeated attempts to renew, transfer or release a lease, shared by all leases of a worker. It earns a fixed
/// number of attempts a second, and one for each such write that succeeds.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget(Mutex<Option<Saved>>);

#[derive(Debug, Clone, Copy)]
struct Saved {
    attempts: f64,
    at: Duration,
    logged: Option<Duration>,
}

impl RetryBudget {
    /// Attempts earned each second.
    const PER_SECOND: f64 = 20.0;
    /// Most attempts that the budget saves up.
    const MOST: f64 = 100.0;
    /// Time between two log lines about failed renewals, for all leases together.
    const LOG_INTERVAL: Duration = Duration::from_secs(2);

    fn with<T>(&self, now: Duration, act: impl FnOnce(&mut Saved) -> T) -> T {
        let mut saved = self.0.lock();
        let saved =
            saved.get_or_insert(Saved { attempts: Self::PER_SECOND, at: now, logged: None });
        let earned = Self::PER_SECOND * now.saturating_sub(saved.at).as_secs_f64();
        saved.attempts = (saved.attempts + earned).min(Self::MOST);
        saved.at = now;
        act(saved)
    }

    fn take(&self, now: Duration) -> bool {
        self.with(now, |saved| {
            let is_enough = saved.attempts >= 1.0;
            if is_enough {
                saved.attempts -= 1.0;
            }
            is_enough
        })
    }

    pub(super) fn succeeded(&self, now: Duration) {
        self.with(now, |saved| saved.attempts += 1.0);
    }

    /// Returns whether a failed renewal may be logged now.
    pub(super) fn may_log(&self, now: Duration) -> bool {
        self.with(now, |saved| {
            let recent = saved.logged.is_some_and(|at| now.saturating_sub(at) < Self::LOG_INTERVAL);
            if !recent {
                saved.logged = Some(now);
            }
            !recent
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Duration = Duration::from_secs(10);

    fn schedule(seed: u64) -> RenewalSchedule {
        RenewalSchedule::new(F, Rng::with_seed(seed))
    }

    #[test]
    fn renewals_are_due_at_half_the_failover_time_or_a_little_earlier() {
        for seed in 0..100 {
            let mut schedule = schedule(seed);
            assert!((F / 10..=F / 2).contains(&schedule.interval));
            for _ in 0..10 {
                schedule.succeeded();
                assert!((F.mul_f64(0.495)..=F / 2).contains(&schedule.interval));
            }
            schedule.pause(F, F * 2);
            schedule.succeeded();
            assert!((F / 10..=F / 2).contains(&schedule.interval));
        }
    }

    /// Attempts of one lease from half the failover time until it expires, `None` without a budget.
    fn attempts(seed: u64, budget: Option<&RetryBudget>) -> Vec<Duration> {
        let mut schedule = schedule(seed);
        let empty = RetryBudget::default();
        let (mut now, mut attempts) = (F / 2, Vec::new());
        while now < F {
            if budget.is_none() {
                empty.with(now, |saved| saved.attempts = 0.0);
            }
            if schedule.may_try(now, budget.unwrap_or(&empty)) {
                attempts.push(now);
            }
            now += schedule.pause(now, F);
        }
        attempts
    }

    #[test]
    fn attempts_get_denser_towards_the_deadline_and_are_bounded() {
        let (mut early, mut late) = (0, 0);
        for seed in 0..200 {
            let attempts = attempts(seed, Some(&RetryBudget::default()));
            assert!((6..60).contains(&attempts.len()), "{}", attempts.len());
            let middle = F.mul_f64(0.75);
            early += attempts.iter().filter(|at| **at < middle).count();
            late += attempts.iter().filter(|at| **at >= middle).count();
            let last = attempts.last().copied().unwrap_or_default();
            assert!(last >= F.mul_f64(0.9), "{last:?}");
        }
        assert!(late > early, "{late} late, {early} early");
    }

    #[test]
    fn without_a_budget_there_is_one_last_attempt_in_time() {
        for seed in 0..200 {
            let attempts = attempts(seed, None);
            assert_eq!(attempts.len(), 2, "{attempts:?}");
            let last = F.mul_f64(0.9)..=F.mul_f64(0.96);
            assert!(last.contains(&attempts[1]), "{attempts:?}");
        }
    }

    #[test]
    fn a_stop_that_begins_after_the_first_failure_brings_the_last_attempt_forward() {
        let (second, empty) = (Duration::from_secs(1), RetryBudget::default());
        for seed in 0..200 {
            let mut schedule = schedule(seed);
            let mut now = F / 2 + schedule.pause(F / 2, F);
            let last_calls = now + second;
            let mut attempts = 0;
            while now < last_calls {
                empty.with(now, |saved| saved.attempts = 0.0);
                attempts += u32::from(schedule.may_try(now, &empty));
                now += schedule.pause(now, last_calls);
            }
            assert_eq!(attempts, 1, "{seed}");
        }
    }

    #[test]
    fn the_budget_earns_a_fixed_number_a_second_and_one_for_each_success() {
        let budget = RetryBudget::default();
        let taken = |at| (0..1000).filter(|_| budget.take(at)).count();
        assert_eq!(taken(F), 20);
        assert_eq!(taken(F + Duration::from_secs(1)), 20);
        (0..7).for_each(|_| budget.succeeded(F + Duration::from_secs(1)));
        assert_eq!(taken(F + Duration::from_secs(1)), 7);
        assert_eq!(taken(F * 100), 100);
    }
}
