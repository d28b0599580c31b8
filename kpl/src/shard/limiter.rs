//! Limiter: how fast one shard may be sent to. Two token buckets whose rate adapts by AIMD, and a pause after each
//! throttle. Pure: time and chance are passed in.
//!
//! Producers that share a shard do not know of each other. Each raises its rate by steps while the shard accepts its
//! records, and cuts it by a factor when the shard refuses one. Steps that do not depend on the rate, and cuts that do,
//! lead all producers to similar rates, whatever rates they began with.
//!
//! * *Many producers.* Fixed steps are too large for small rates: most attempts would be refused. So below
//!   [`REFERENCE`] the steps shrink with the usual rate of the producer. They shrink a little more slowly than the
//!   rate, so that a producer above its fair share tolerates fewer refusals than one below it. Cuts shrink, too,
//!   because one refusal in many seconds says little. They stay large while most attempts are refused, so that a new
//!   producer finds its share soon.
//! * *A shard that becomes free.* Small steps would take hours. So a producer compares what it gains by steps with what
//!   it loses by cuts, which are equal where the rate balances. Once it has gained six cuts more than it lost, the
//!   shard counts as free, and the rate doubles each 45 s until the next throttle.
//!
//! The constants are tuned in `simulation.rs` and `recovery.rs`, which state the outcome.

use std::time::Duration;

use crate::clock::{self, Instant};
use crate::metrics::shard_load::{SHARD_BYTES_PER_SECOND, SHARD_RECORDS_PER_SECOND};
use crate::retry::PUT_BACKOFF;

/// Rise of the rate for each accepted record, as a share of the shard.
const STEP: f64 = 0.0005;

/// Smallest rise, in shares of the shard per second. It applies to few large records.
const SLOWEST_RISE: f64 = 0.0015;

/// Largest rise, in shares of the shard per second. It applies to many small records.
const FASTEST_RISE: f64 = 0.02;

/// Number of accepted records with which the rise doubles above the rate of the last cut. Without a throttle there, the
/// producers that competed are gone. Below [`REFERENCE`], where throttles come later, it takes up to four times as
/// many.
const RISE_DOUBLES: f64 = 32.0;

/// Rise without throttles after which the shard counts as free, in cuts; see [`ShardLimiter::headroom`].
const FREE_HEADROOM: f64 = 6.0;

/// Headroom that a throttle takes, in cuts. Where rises and cuts balance, the rate rises by one cut between two
/// throttles, so the headroom stays near zero.
const THROTTLE_HEADROOM: f64 = 2.0;

/// Time in which the rate doubles while the shard counts as free. It does not depend on the rate, so that the producer
/// that notices first is not far ahead of the others.
const FREE_DOUBLES: Duration = Duration::from_secs(45);

/// Largest rise for one record while the shard counts as free, in doublings. For producers with rare attempts, a shard
/// counts as free by mistake now and then.
const FREE_DOUBLINGS_PER_RECORD: f64 = 0.25;

/// Interval at which the rate is raised.
const RISE_INTERVAL: Duration = Duration::from_millis(50);

/// Share of the shard below which steps and cuts shrink: the fair share of twelve producers.
const REFERENCE: f64 = 0.08;

/// Power of the usual rate with which [`STEP`] shrinks below [`REFERENCE`]. With 1, the refused part of the attempts
/// would be constant, and rates would not converge. With 0, most attempts of a large fleet would be refused.
const STEP_POWER: f64 = 0.68;

/// Power of the usual rate with which [`SLOWEST_RISE`] shrinks below [`REFERENCE`]. It is per second and not per
/// record, so with 2 the refused part would be constant.
const SLOWEST_RISE_POWER: f64 = 1.9;

/// Part of the rate that a throttle takes, at [`REFERENCE`] and above.
const CUT: f64 = 0.3;

/// Smallest gain of a producer with a small rate; see [`ShardLimiter::gain`].
const LEAST_GAIN: f64 = 0.05;

/// Gain of a producer whose attempts are all refused, whatever its rate.
const REFUSED_GAIN: f64 = 0.25;

/// Power of the refused part of the attempts with which the gain falls. With 1, a few refusals by chance would cause
/// large steps and cuts, which drive the rates of a large fleet apart.
const REFUSED_GAIN_POWER: f64 = 1.5;

/// Number of attempts over which the refused part is averaged.
const REFUSED_WINDOW: f64 = 8.0;

/// Number of attempts over which the usual rate is averaged.
const USUAL_WINDOW: f64 = 200.0;

/// Largest factor between the rate and the usual rate.
const USUAL_SPREAD: f64 = 2.5;

/// Number of throttles in a row that count for the rate. More of them may be an outage: slow start undoes their cuts.
const CUTS_IN_A_ROW: u32 = 2;

/// Smallest number of attempts within the time to live of a record, however small the rate. With a smallest rate
/// instead, most attempts of a fleet with a smaller fair share would be refused.
const ATTEMPTS_IN_TIME_TO_LIVE: f64 = 4.0;

/// Longest gap between attempts, however long records live, so that a change at the shard is noticed. It is the gap of
/// records that live for five minutes.
const LONGEST_GAP: Duration = Duration::from_secs(75);

/// Keeps the arithmetic finite. [`ATTEMPTS_IN_TIME_TO_LIVE`] bounds the gap between attempts in practice.
const SMALLEST_RATE: f64 = 1e-6;

/// A bucket that fills at `rate` tokens a second up to `burst`.
///
/// A cost above the burst may be taken from a full bucket, and leaves a debt.
#[derive(Debug)]
struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate, burst, tokens: burst, filled_at: now }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst);
        self.filled_at = self.filled_at.max(now);
    }

    /// Whether less than half of the burst is left.
    fn is_scarce(&self) -> bool {
        self.tokens < self.burst / 2.0
    }

    /// Time until `cost` may be taken.
    fn wait_for(&self, cost: f64) -> Duration {
        let missing = cost.min(self.burst) - self.tokens;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        // Rounded up to a microsecond, so that the tokens are there after this time.
        Duration::from_micros((missing / self.rate * 1e6).ceil() as u64 + 1)
    }
}

/// The limits of one shard: records and bytes a second, partition keys counted.
#[derive(Debug)]
pub(crate) struct ShardLimiter {
    records: TokenBucket,
    bytes: TokenBucket,
    /// Share of the shard's limits that may be sent.
    rate: f64,
    ceiling: f64,
    /// Mean rate over the last attempts, on which the size of steps and cuts depends. With the rate itself, a producer
    /// that was cut by chance would be slow to rise again.
    usual_rate: f64,
    /// Refused part of the last attempts.
    refused: f64,
    /// Longest pause after an attempt, counted from [`worked_off_at`](Self::worked_off_at).
    longest_gap: Duration,
    /// When the shard has worked off the last attempt, at the ceiling or at its own limit if that is less.
    worked_off_at: Instant,
    raised_at: Instant,
    /// Records accepted since `raised_at`.
    served: u32,
    /// Rate before the last cut.
    cut_from: f64,
    /// Records accepted while the rate is above `cut_from`.
    served_past_cut: u32,
    /// Rise of the rate minus what throttles took, in cuts. It is large if the producers that competed for the shard
    /// are gone.
    headroom: f64,
    /// When the rate was cut last. Throttles of requests that began earlier count as the same one.
    cut_at: Option<Instant>,
    paused_until: Option<Instant>,
    throttles_in_a_row: u32,
    /// Rate at which slow start ends. Set after a long row of throttles.
    slow_start_until: Option<f64>,
}

impl ShardLimiter {
    /// `rate_limit` is the initial rate and the ceiling, in percent of the shard's limits. `time_to_live` is that of
    /// records.
    pub(crate) fn new(rate_limit: u32, time_to_live: Duration, now: Instant) -> Self {
        let ceiling = f64::from(rate_limit) / 100.0;
        let mut limiter = Self {
            records: TokenBucket::new(SHARD_RECORDS_PER_SECOND, SHARD_RECORDS_PER_SECOND, now),
            bytes: TokenBucket::new(SHARD_BYTES_PER_SECOND, SHARD_BYTES_PER_SECOND, now),
            rate: ceiling,
            ceiling,
            usual_rate: ceiling,
            // It knows nothing yet, so its first cuts are large.
            refused: 1.0,
            longest_gap: time_to_live.div_f64(ATTEMPTS_IN_TIME_TO_LIVE).min(LONGEST_GAP),
            worked_off_at: now,
            raised_at: now,
            served: 0,
            cut_from: ceiling,
            served_past_cut: 0,
            headroom: 0.0,
            cut_at: None,
            paused_until: None,
            throttles_in_a_row: 0,
            slow_start_until: None,
        };
        limiter.set_rate(ceiling);
        limiter
    }

    /// Whether one Kinesis record of `bytes` may be sent. The error is when it may.
    pub(crate) fn check(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(until);
        }
        self.fill(now);
        let cost = bytes as f64;
        let wait = self.records.wait_for(1.0).max(self.bytes.wait_for(cost));
        let by_rate = now + wait;
        let by_gap = clock::after(self.worked_off_at, self.longest_gap);
        let ready = by_rate.min(by_gap);
        if ready > now {
            return Err(ready);
        }
        Ok(())
    }

    /// Takes the tokens of one Kinesis record of `bytes`. The error is when it may be sent.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        self.check(bytes, now)?;
        let cost = bytes as f64;
        let shard_seconds = (cost / SHARD_BYTES_PER_SECOND).max(1.0 / SHARD_RECORDS_PER_SECOND);
        let seconds = shard_seconds / self.ceiling.min(1.0);
        self.worked_off_at = clock::after(now, Duration::from_secs_f64(seconds));
        // Earlier debt is dropped: `longest_gap` permits attempts without tokens, whose debt would otherwise grow
        // without bound.
        self.records.tokens = self.records.tokens.max(0.0) - 1.0;
        self.bytes.tokens = self.bytes.tokens.max(0.0) - cost;
        Ok(())
    }

    /// Notes that the shard accepted a record. The rate rises by a step if it limits the producer.
    pub(crate) fn served(&mut self, now: Instant) {
        self.throttles_in_a_row = 0;
        self.refused -= self.refused / REFUSED_WINDOW;
        self.fill(now);
        if let Some(until) = self.slow_start_until {
            self.slow_start(until, now);
            return;
        }
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
            let served = f64::from(std::mem::take(&mut self.served));
            self.raised_at = now;
            self.note_usual(served);
            let rise = self.rise(served, elapsed);
            self.set_rate(self.rate + rise);
        }
    }

    /// Notes that the shard was full for a record of a request that began at `sent`. The rate is cut, and the shard
    /// pauses. Refusals of requests that were in flight at the same time count as one.
    pub(crate) fn throttled(&mut self, sent: Instant, now: Instant, rng: &mut fastrand::Rng) {
        if self.cut_at.is_some_and(|cut| sent < cut) {
            return;
        }
        self.cut_at = Some(now);
        self.throttles_in_a_row += 1;
        // The pause must not use up the time of a short-lived record.
        let pause = PUT_BACKOFF.delay(self.throttles_in_a_row, rng);
        self.paused_until = Some(now + pause.min(self.longest_gap));
        self.fill(now);
        self.refused += (1.0 - self.refused) / REFUSED_WINDOW;
        if self.throttles_in_a_row <= CUTS_IN_A_ROW {
            self.cut_from = self.rate;
            self.slow_start_until = None;
        } else {
            self.slow_start_until = Some(self.cut_from);
        }
        let left = 1.0 - CUT * self.gain();
        self.set_rate(self.rate * left);
        self.note_usual(1.0);
        // The shard is full, so saved tokens are lost. The debt of a small rate lasts longer than the pause, so it gets
        // the jitter: producers that were refused at the same time must not try again at the same time.
        let jitter = 1.0 + (2.0 * rng.f64() - 1.0) * (1.0 - self.scale());
        self.records.tokens = self.records.tokens.min(0.0) * jitter;
        self.bytes.tokens = self.bytes.tokens.min(0.0) * jitter;
        self.raised_at = now;
        self.served = 0;
        self.served_past_cut = 0;
        self.headroom = (self.headroom - THROTTLE_HEADROOM).max(0.0);
    }

    /// Whether the shard has accepted nothing since it last refused a record.
    pub(crate) fn is_refused(&self) -> bool {
        self.throttles_in_a_row > 0
    }

    /// The rate, as a share of the shard's limits.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// Rise of the rate for `served` records that the shard accepted in `elapsed`.
    fn rise(&mut self, served: f64, elapsed: Duration) -> f64 {
        let seconds = elapsed.as_secs_f64();
        let scale = self.scale();
        let steps = served * STEP * scale.powf(STEP_POWER);
        let least = seconds * SLOWEST_RISE * scale.powf(SLOWEST_RISE_POWER);
        let rise = steps.max(least);
        // The gain scales rises and cuts alike, so it cancels out here.
        let cuts = rise / (self.rate * CUT);
        self.headroom = (self.headroom + cuts).min(FREE_HEADROOM);
        let free = match self.headroom < FREE_HEADROOM {
            true => 0.0,
            false => {
                let doublings = seconds / FREE_DOUBLES.as_secs_f64();
                let doublings = doublings.min(FREE_DOUBLINGS_PER_RECORD * served);
                self.rate * (doublings.exp2() - 1.0)
            }
        };
        let past_cut = f64::from(self.served_past_cut) / RISE_DOUBLES;
        let speed = (past_cut * scale.max(0.25)).min(20.0).exp2();
        (rise * self.gain() * speed).max(free).min(FASTEST_RISE * seconds).min(self.rate)
    }

    /// Factor of steps and cuts, from 0 to 1. It scales both, so the rate at which they balance does not depend on it.
    /// A large gain finds that rate sooner, and a small one keeps it steadier.
    fn gain(&self) -> f64 {
        let while_refused = REFUSED_GAIN * self.refused.powf(REFUSED_GAIN_POWER);
        self.scale().max(LEAST_GAIN).max(while_refused)
    }

    /// The usual rate as a part of [`REFERENCE`], at most 1.
    fn scale(&self) -> f64 {
        (self.usual_rate / REFERENCE).min(1.0)
    }

    /// Moves the usual rate towards the rate, by `attempts`, and faster while most of them are refused.
    fn note_usual(&mut self, attempts: f64) {
        let weight = self.refused.powi(3).max(1.0 / USUAL_WINDOW);
        let usual = self.usual_rate + (self.rate - self.usual_rate) * (weight * attempts).min(1.0);
        self.usual_rate = usual.clamp(self.rate / USUAL_SPREAD, self.rate * USUAL_SPREAD);
    }

    /// Doubles the rate for a record that the shard accepted after many throttles. The next record may be sent at once.
    fn slow_start(&mut self, until: f64, now: Instant) {
        self.set_rate((self.rate * 2.0).min(until));
        if self.rate >= until {
            self.slow_start_until = None;
        }
        self.records.tokens = self.records.burst;
        self.bytes.tokens = self.bytes.burst;
        self.raised_at = now;
        self.served = 0;
    }

    fn fill(&mut self, now: Instant) {
        self.records.fill(now);
        self.bytes.fill(now);
    }

    /// Sets the rate. The burst is one second of it, at most the shard's own.
    fn set_rate(&mut self, rate: f64) {
        self.rate = rate.max(SMALLEST_RATE).min(self.ceiling);
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
