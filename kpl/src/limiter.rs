//! Limiter: what one shard may be sent now. Two token buckets whose rate adapts by AIMD, and a pause after each throttle.
//! Pure: time and chance are passed in.
//!
//! Several producers share a shard without knowing of each other. Each raises its rate by steps while the shard takes its
//! records, and cuts it by a factor when the shard refuses one: steps that do not depend on the rate, and cuts that do,
//! lead all of them to like rates, whatever they began with. The constants are tuned in `simulation.rs` and `recovery.rs`.
//!
//! Eight producers of 100 KiB records see 3 % of them refused, of 200 KiB 6 %, of 500 KiB 18 %: a shard takes two of the
//! last in a second, and senders that know nothing of each other cannot fill it without meeting there.

use std::time::Duration;

use crate::clock::Instant;
use crate::retry::Backoff;

const SHARD_RECORDS_PER_SECOND: f64 = 1000.0;
const SHARD_BYTES_PER_SECOND: f64 = 1024.0 * 1024.0;

/// How much each record that the shard took raises the rate, as a share of the shard.
const STEP: f64 = 0.0005;

/// How fast the rate rises at least, in shares of the shard a second: for a few large records.
const SLOWEST_RISE: f64 = 0.0015;

/// How fast the rate rises at most, in shares of the shard a second: for many small records.
const FASTEST_RISE: f64 = 0.02;

/// Past the rate of the last cut the rise doubles with each so many records: those who throttled then are gone, or the
/// next throttle would have come.
const RISE_DOUBLES: f64 = 32.0;

/// How often the rate is raised.
const RISE_INTERVAL: Duration = Duration::from_millis(50);

/// What a throttle leaves of the rate.
const CUT: f64 = 0.7;

/// While the shard takes nothing at all, no more throttles cut: they tell of an outage, not of a rate, and the pauses grow.
const CUTS_IN_A_ROW: u32 = 2;

/// The rate never falls below this share of the shard: an aggregate of 50 KiB still goes every 2.5 seconds.
const FLOOR: f64 = 0.02;

/// A bucket that fills at `rate` tokens a second up to `burst`.
///
/// A cost above the burst is allowed when the bucket is full, and leaves a debt: it is waited for, never refused.
#[derive(Debug)]
struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self {
            rate,
            burst,
            tokens: burst,
            filled_at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst);
        self.filled_at = self.filled_at.max(now);
    }

    /// Less than half of it is left.
    fn is_scarce(&self) -> bool {
        self.tokens < self.burst / 2.0
    }

    /// How long until `cost` may be taken.
    fn wait_for(&self, cost: f64) -> Duration {
        let missing = cost.min(self.burst) - self.tokens;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        // Rounded up to a microsecond, so that whoever waits this long finds the tokens there.
        Duration::from_micros((missing / self.rate * 1e6).ceil() as u64 + 1)
    }
}

/// The limits of one shard: records and bytes a second, partition keys counted.
#[derive(Debug)]
pub(crate) struct ShardLimiter {
    records: TokenBucket,
    bytes: TokenBucket,
    /// What may be sent, as a share of what the shard takes by itself.
    rate: f64,
    floor: f64,
    ceiling: f64,
    raised_at: Instant,
    /// Records that the shard took since.
    served: u32,
    /// The rate before the last cut.
    cut_from: f64,
    /// Records that the shard took since the rate is past it.
    served_past_cut: u32,
    /// Throttles of requests that began before this are known already.
    cut_at: Option<Instant>,
    paused_until: Option<Instant>,
    throttles_in_a_row: u32,
}

impl ShardLimiter {
    /// `rate_limit` is in percent of the shard's limit: where the rate begins, and its ceiling.
    pub(crate) fn new(rate_limit: u32, now: Instant) -> Self {
        let ceiling = f64::from(rate_limit) / 100.0;
        let mut limiter = Self {
            records: TokenBucket::new(SHARD_RECORDS_PER_SECOND, SHARD_RECORDS_PER_SECOND, now),
            bytes: TokenBucket::new(SHARD_BYTES_PER_SECOND, SHARD_BYTES_PER_SECOND, now),
            rate: ceiling,
            floor: FLOOR.min(ceiling),
            ceiling,
            raised_at: now,
            served: 0,
            cut_from: ceiling,
            served_past_cut: 0,
            cut_at: None,
            paused_until: None,
            throttles_in_a_row: 0,
        };
        limiter.set_rate(ceiling);
        limiter
    }

    /// Whether one Kinesis record of `bytes` may go; if not, says when it may.
    pub(crate) fn check(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(until);
        }
        self.fill(now);
        let cost = bytes as f64;
        let wait = self.records.wait_for(1.0).max(self.bytes.wait_for(cost));
        if !wait.is_zero() {
            return Err(now + wait);
        }
        Ok(())
    }

    /// Lets one Kinesis record of `bytes` go, or says when it may.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        self.check(bytes, now)?;
        self.records.tokens -= 1.0;
        self.bytes.tokens -= bytes as f64;
        Ok(())
    }

    /// The shard took a record: the rate rises by a step, if it is what holds the producer back.
    pub(crate) fn served(&mut self, now: Instant) {
        self.throttles_in_a_row = 0;
        self.fill(now);
        if !(self.records.is_scarce() || self.bytes.is_scarce()) {
            self.raised_at = now;
            self.served = 0;
            return;
        }
        self.served += 1;
        if self.rate > self.cut_from {
            self.served_past_cut = self.served_past_cut.saturating_add(1);
        }
        let elapsed = now.saturating_duration_since(self.raised_at);
        if elapsed >= RISE_INTERVAL {
            let speed = (f64::from(self.served_past_cut) / RISE_DOUBLES)
                .min(20.0)
                .exp2();
            let steps = f64::from(std::mem::take(&mut self.served)) * STEP;
            let seconds = elapsed.as_secs_f64();
            let rise = (steps.max(SLOWEST_RISE * seconds) * speed).min(FASTEST_RISE * seconds);
            self.raised_at = now;
            self.set_rate(self.rate + rise);
        }
    }

    /// The shard refused a record of a request that began at `sent`, because it is full: the rate is cut, and nothing goes
    /// there for a while. Of many refusals that could not know of each other, one counts.
    pub(crate) fn throttled(&mut self, sent: Instant, now: Instant, rng: &mut fastrand::Rng) {
        if self.cut_at.is_some_and(|cut| sent < cut) {
            return;
        }
        self.cut_at = Some(now);
        self.throttles_in_a_row += 1;
        self.paused_until = Some(now + Backoff::PUT.delay(self.throttles_in_a_row, rng));
        self.fill(now);
        if self.throttles_in_a_row <= CUTS_IN_A_ROW {
            self.cut_from = self.rate;
            self.set_rate(self.rate * CUT);
        }
        // The shard is empty: what was saved up cannot be spent there.
        self.records.tokens = self.records.tokens.min(0.0);
        self.bytes.tokens = self.bytes.tokens.min(0.0);
        self.raised_at = now;
        self.served = 0;
        self.served_past_cut = 0;
    }

    /// Whether the shard has taken nothing since it last refused a record.
    pub(crate) fn is_refused(&self) -> bool {
        self.throttles_in_a_row > 0
    }

    /// The rate, as a share of what the shard takes by itself.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    fn fill(&mut self, now: Instant) {
        self.records.fill(now);
        self.bytes.fill(now);
    }

    /// The burst is one second of the rate, and never more than the shard's own.
    fn set_rate(&mut self, rate: f64) {
        self.rate = rate.clamp(self.floor, self.ceiling);
        let burst = self.rate.min(1.0);
        for (bucket, full) in [
            (&mut self.records, SHARD_RECORDS_PER_SECOND),
            (&mut self.bytes, SHARD_BYTES_PER_SECOND),
        ] {
            bucket.rate = full * self.rate;
            bucket.burst = full * burst;
            bucket.tokens = bucket.tokens.min(bucket.burst);
        }
    }
}

#[cfg(test)]
mod recovery;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
