//! Limiter: what one shard may be sent now. Two token buckets whose rate adapts by AIMD, and a pause after each throttle.
//! Pure: time and chance are passed in.
//!
//! Producers that share a shard do not know of each other. Each raises its rate by steps while the shard accepts its
//! records, and cuts it by a factor when the shard refuses one. Steps that do not depend on the rate, and cuts that do, lead
//! all producers to similar rates, whatever rates they began with.
//!
//! Fixed steps are too large for many producers: the smaller the rate, the larger a step is beside it, and the more attempts
//! are refused. So below [`REFERENCE`] the steps shrink with the rate that the producer usually has: a little more slowly
//! than would keep the refused part of the attempts constant. A producer above its fair share then still tolerates fewer
//! refusals than one below it, which is what draws the rates together. Cuts shrink, too: a producer that makes one attempt
//! in ten seconds learns little from one refusal. They stay large as long as most attempts are refused, so that a
//! fleet that starts, or a producer that joins, finds its share soon.
//!
//! When most of the producers of a shard are gone, steps that fit a small rate would take hours. So a producer compares what it
//! gains by steps with what it loses by cuts. Where the rate balances, they are equal. Once it gained six cuts more than it
//! lost, the shard counts as free, and the rate doubles each 45 s until the next throttle.
//!
//! The constants are tuned in `simulation.rs` and `recovery.rs`, which state what comes of them.

use std::time::Duration;

use crate::clock::{self, Instant};
use crate::metrics::shard_load::{SHARD_BYTES_PER_SECOND, SHARD_RECORDS_PER_SECOND};
use crate::retry::PUT_BACKOFF;

/// How much each accepted record raises the rate, as a share of the shard.
const STEP: f64 = 0.0005;

/// The least rise, in shares of the shard a second: for a few large records.
const SLOWEST_RISE: f64 = 0.0015;

/// The largest rise, in shares of the shard a second: for many small records.
const FASTEST_RISE: f64 = 0.02;

/// Past the rate of the last cut the rise doubles with each so many records: the producers that competed then are gone, or
/// the next throttle would have come. Below [`REFERENCE`] throttles come later, so it takes up to four times as many.
const RISE_DOUBLES: f64 = 32.0;

/// How far the rate may rise without throttles until the shard counts as free, in cuts; see [`ShardLimiter::headroom`].
const FREE_HEADROOM: f64 = 6.0;

/// How much headroom a throttle takes, in cuts. Where rises and cuts balance, the rate rises by one cut between two throttles,
/// so the headroom stays near zero.
const THROTTLE_HEADROOM: f64 = 2.0;

/// Time in which the rate doubles while the shard counts as free. It does not depend on the rate: if it did, the producer that
/// notices first would be far ahead when the others do.
const FREE_DOUBLES: Duration = Duration::from_secs(45);

/// The largest rise for one record while the shard counts as free, in doublings. It slows down producers that make an attempt
/// in ten seconds or less: for them the shard counts as free by mistake now and then.
const FREE_DOUBLINGS_PER_RECORD: f64 = 0.25;

/// How often the rate is raised.
const RISE_INTERVAL: Duration = Duration::from_millis(50);

/// Share of the shard below which steps and cuts shrink: the fair share of twelve producers.
const REFERENCE: f64 = 0.08;

/// How [`STEP`] shrinks below [`REFERENCE`]: with this power of the usual rate. A power of 1 would keep the refused part of
/// the attempts constant and draw no rates together; 0 would refuse most attempts of a large fleet.
const STEP_POWER: f64 = 0.68;

/// How [`SLOWEST_RISE`] shrinks below [`REFERENCE`]. It is per second, not per record, so a power of 2 would keep the refused
/// part constant.
const SLOWEST_RISE_POWER: f64 = 1.9;

/// The part of the rate that a throttle takes, at [`REFERENCE`] and above.
const CUT: f64 = 0.3;

/// The least gain of a producer with a small rate; see [`ShardLimiter::gain`].
const LEAST_GAIN: f64 = 0.05;

/// The gain of a producer whose attempts are all refused, whatever its rate.
const REFUSED_GAIN: f64 = 0.25;

/// How the gain falls with the refused part of the attempts. With a power of 1, a producer that is refused three times of eight
/// by chance would make large steps and cuts, which drives the rates of a large fleet apart.
const REFUSED_GAIN_POWER: f64 = 1.5;

/// The refused part of the attempts is averaged over so many of them.
const REFUSED_WINDOW: f64 = 8.0;

/// The usual rate is the mean over about so many attempts.
const USUAL_WINDOW: f64 = 200.0;

/// The largest factor between the rate and the usual rate.
const USUAL_SPREAD: f64 = 2.5;

/// So many throttles in a row are news of the rate. More of them may as well be an outage: what they cut is given back by
/// slow start.
const CUTS_IN_A_ROW: u32 = 2;

/// Attempts within the time to live of a record, at the least, however small the rate: a floor in attempts over time, since
/// a floor in shares of the shard would refuse most attempts of a fleet whose fair share is less.
const ATTEMPTS_IN_TIME_TO_LIVE: f64 = 4.0;

/// The longest gap between attempts, however long records live: what changed at the shard is found out that soon. It keeps the
/// gap of records that live for five minutes.
const LONGEST_GAP: Duration = Duration::from_secs(75);

/// Keeps the arithmetic finite. The attempts within the time to live are the floor that counts.
const SMALLEST_RATE: f64 = 1e-6;

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
        Self { rate, burst, tokens: burst, filled_at: now }
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
        // Rounded up to a microsecond, so that the tokens are there after this time.
        Duration::from_micros((missing / self.rate * 1e6).ceil() as u64 + 1)
    }
}

/// The limits of one shard: records and bytes a second, partition keys counted.
#[derive(Debug)]
pub(crate) struct ShardLimiter {
    records: TokenBucket,
    bytes: TokenBucket,
    /// What may be sent, as a share of what the shard accepts.
    rate: f64,
    ceiling: f64,
    /// The mean of the rate over the last attempts: what the size of steps and cuts depends on. If they followed the rate
    /// itself, a producer that was cut by chance would be slow to rise again.
    usual_rate: f64,
    /// The refused part of the last attempts.
    refused: f64,
    /// The longest pause between two attempts, counted from [`worked_off_at`](Self::worked_off_at) of the first.
    longest_gap: Duration,
    /// When the last attempt is worked off at the ceiling, or at the limit of the shard if that is less.
    worked_off_at: Instant,
    raised_at: Instant,
    /// Records accepted since.
    served: u32,
    /// The rate before the last cut.
    cut_from: f64,
    /// Records accepted since the rate is past it.
    served_past_cut: u32,
    /// How far the rate rose beyond what throttles took, in cuts. It is large if far more records are accepted between
    /// throttles than where the rate balances: then the producers that competed for the shard are gone.
    headroom: f64,
    /// Throttles of requests that began before this are known already.
    cut_at: Option<Instant>,
    paused_until: Option<Instant>,
    throttles_in_a_row: u32,
    /// After a long row of throttles: the rate up to which slow start goes.
    slow_start_until: Option<f64>,
}

impl ShardLimiter {
    /// `rate_limit` is in percent of the shard's limit: where the rate begins, and its ceiling. `time_to_live` is that of
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

    /// Whether one Kinesis record of `bytes` may go; if not, says when it may.
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

    /// Lets one Kinesis record of `bytes` go, or says when it may.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        self.check(bytes, now)?;
        let cost = bytes as f64;
        let shard_seconds = (cost / SHARD_BYTES_PER_SECOND).max(1.0 / SHARD_RECORDS_PER_SECOND);
        let seconds = shard_seconds / self.ceiling.min(1.0);
        self.worked_off_at = clock::after(now, Duration::from_secs_f64(seconds));
        // An attempt that the longest gap allows would add to the debt of the one before, without end.
        self.records.tokens = self.records.tokens.max(0.0) - 1.0;
        self.bytes.tokens = self.bytes.tokens.max(0.0) - cost;
        Ok(())
    }

    /// The shard accepted a record: the rate rises by a step, if it is what holds the producer back.
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

    /// The shard refused a record of a request that began at `sent`, because it is full: the rate is cut, and nothing goes
    /// there for a while. Refusals of requests that were in flight at the same time count as one.
    pub(crate) fn throttled(&mut self, sent: Instant, now: Instant, rng: &mut fastrand::Rng) {
        if self.cut_at.is_some_and(|cut| sent < cut) {
            return;
        }
        self.cut_at = Some(now);
        self.throttles_in_a_row += 1;
        // A short-lived record must not spend its time in the pause.
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
        // The shard is full: what was saved up cannot be spent there. The debt of a small rate lasts longer than the pause
        // and is varied at random in its place, or producers that were refused at the same time would try again at the
        // same time.
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

    /// The rate, as a share of what the shard accepts.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// How far the rate rises for `served` records that the shard accepted in `elapsed`.
    fn rise(&mut self, served: f64, elapsed: Duration) -> f64 {
        let seconds = elapsed.as_secs_f64();
        let scale = self.scale();
        let steps = served * STEP * scale.powf(STEP_POWER);
        let least = seconds * SLOWEST_RISE * scale.powf(SLOWEST_RISE_POWER);
        let rise = steps.max(least);
        // Rises and cuts have the same gain, so it does not count here.
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

    /// The size of steps and cuts, from 0 to 1. It scales both alike, so the rate at which they balance does not depend on it. A
    /// large gain finds that rate sooner; a small one keeps it steadier.
    fn gain(&self) -> f64 {
        let while_refused = REFUSED_GAIN * self.refused.powf(REFUSED_GAIN_POWER);
        self.scale().max(LEAST_GAIN).max(while_refused)
    }

    /// How small the usual rate is: 1 at [`REFERENCE`] and above.
    fn scale(&self) -> f64 {
        (self.usual_rate / REFERENCE).min(1.0)
    }

    /// The usual rate follows the rate: by `attempts`, and faster while most of them are refused.
    fn note_usual(&mut self, attempts: f64) {
        let weight = self.refused.powi(3).max(1.0 / USUAL_WINDOW);
        let usual = self.usual_rate + (self.rate - self.usual_rate) * (weight * attempts).min(1.0);
        self.usual_rate = usual.clamp(self.rate / USUAL_SPREAD, self.rate * USUAL_SPREAD);
    }

    /// The shard accepts records again: the rate doubles with each, and the next goes at once.
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

    /// The burst is one second of the rate, and never more than the shard's own.
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
