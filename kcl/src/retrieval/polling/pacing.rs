//! When a shard may be read again, and how many records a read asks for. Pure: time and chance are passed in.
//!
//! A shard answers five reads and two MiB a second, to all its readers together, and readers do not
//! know of each other. As long as no read is throttled, a reader assumes that it is alone. A throttle
//! tells it that the shard's limits count (an emulator has none) and that they are used up. From then
//! on it keeps to a share of them, by additive increase and multiplicative decrease: readers that raise
//! their share by the same steps and halve it at a throttle end up with like shares. The constants are
//! tuned in `simulation.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use crate::retrieval::budget::MAX_PAGE_BYTES;

/// GetRecords calls that the service answers per shard and second.
const READS_PER_SECOND: usize = 5;
/// Bytes that the service returns per shard and second. A larger page is paid for afterwards: until
/// then each read is throttled.
const BYTES_PER_SECOND: f64 = (2 << 20) as f64;
/// Largest page while the limits count. At 10 MiB, one reader's page would throttle all others for
/// five seconds. At this size, the full byte rate needs four of the five reads.
const PAGE_BYTES: u64 = 512 << 10;
/// How long the limits count after a throttle.
const LIMITS_COUNT: Duration = Duration::from_secs(600);

/// Largest share of the shard's limits: what is left lets another reader in without a throttle.
const CEILING: f64 = 0.9;
/// Smallest share: a read every four seconds.
const FLOOR: f64 = 0.05;
/// What a throttle leaves of the share.
const CUT: f64 = 0.5;
/// Further throttles in a row say that the shard answers nothing at all, not that the share is too large.
const CUTS_IN_A_ROW: u32 = 2;
/// Rise of the share a second.
const RISE: f64 = 0.003;
/// The rise doubles with each such time without a throttle: the other readers are gone.
const RISE_DOUBLES: Duration = Duration::from_secs(60);
const FASTEST_RISE: f64 = 0.02;
/// Longest time for which pages that were taken beyond the limit of bytes are paid for.
const MOST_BYTES_OWED: Duration = Duration::from_secs(5);
/// Longest pause after throttles in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Each pause between two reads is spread by this factor, so that readers do not meet again and again.
const SPREAD: std::ops::Range<f64> = 0.8..1.2;

/// Paces the reads of one shard. Times are those of the injected clock.
#[derive(Debug)]
pub(crate) struct Pacer {
    idle: Duration,
    random: Rng,
    /// The last five reads.
    sent: VecDeque<Duration>,
    at_tip: bool,
    /// Factor of the pause that follows the last read.
    spread: f64,
    /// Share of the shard's limits that this reader takes while they count.
    share: f64,
    share_raised: Duration,
    limits_count_until: Duration,
    last_throttle: Duration,
    throttles_in_a_row: u32,
    /// When the bytes read so far are paid for by the share.
    bytes_paid: Duration,
    /// When they are paid for by the whole shard.
    bytes_paid_by_shard: Duration,
    /// The pause after a throttle.
    paused_until: Duration,
}

impl Pacer {
    pub(crate) fn new(idle: Duration, random: Rng) -> Self {
        Self {
            idle,
            random,
            sent: VecDeque::with_capacity(READS_PER_SECOND),
            at_tip: false,
            spread: 1.0,
            share: CEILING,
            share_raised: Duration::ZERO,
            limits_count_until: Duration::ZERO,
            last_throttle: Duration::ZERO,
            throttles_in_a_row: 0,
            bytes_paid: Duration::ZERO,
            bytes_paid_by_shard: Duration::ZERO,
            paused_until: Duration::ZERO,
        }
    }

    /// How long to wait at `now` before the next read is sent.
    pub(crate) fn delay(&self, now: Duration) -> Duration {
        let Some(&last) = self.sent.back() else {
            return self.paused_until.saturating_sub(now);
        };
        let mut next = last.max(self.paused_until);
        if self.sent.len() == READS_PER_SECOND {
            next = next.max(self.sent[0] + Duration::from_secs(1));
        }
        let mut interval = Duration::ZERO;
        if self.limits_count(now) {
            interval = self.read_interval();
            next = next.max(self.bytes_paid);
        }
        if self.at_tip {
            interval = interval.max(self.idle);
        }
        next.max(last + interval.mul_f64(self.spread)).saturating_sub(now)
    }

    /// Most bytes that the next page may have.
    pub(crate) fn page_bytes(&self, now: Duration) -> u64 {
        if self.limits_count(now) { PAGE_BYTES } else { u64::MAX }
    }

    /// A read was sent.
    pub(crate) fn sent(&mut self, now: Duration) {
        if self.sent.len() == READS_PER_SECOND {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
    }

    /// The read returned `bytes`; `at_tip`: there is no newer record.
    pub(crate) fn answered(&mut self, now: Duration, bytes: u64, at_tip: bool) {
        self.raise_share(now);
        let sent = self.sent.back().copied().unwrap_or(now);
        let by_shard = bytes as f64 / BYTES_PER_SECOND;
        // While the service lets more pass than its limit, the debt must not grow for ever: one throttle
        // would then stop the reader for as long.
        let most = sent + MOST_BYTES_OWED;
        let paid =
            |by: Duration, seconds: f64| by.clamp(sent, most) + Duration::from_secs_f64(seconds);
        self.bytes_paid = paid(self.bytes_paid, by_shard / self.share);
        self.bytes_paid_by_shard = paid(self.bytes_paid_by_shard, by_shard);
        self.throttles_in_a_row = 0;
        self.at_tip = at_tip;
        self.spread = self.draw(SPREAD);
    }

    /// The service refused a read because of its limits.
    pub(crate) fn throttled(&mut self, now: Duration) {
        // Before the limits counted, this reader took pages as large as it could: if they are not paid
        // for, the throttle says nothing about other readers.
        let own_pages = !self.limits_count(now) && now < self.bytes_paid_by_shard;
        if own_pages {
            self.bytes_paid = self.bytes_paid_by_shard;
        } else if self.throttles_in_a_row < CUTS_IN_A_ROW {
            self.share = (self.share * CUT).max(FLOOR);
        }
        let factor = 2f64.powi(self.throttles_in_a_row.min(10).cast_signed()) * self.draw(0.5..1.5);
        let pause = Duration::from_secs_f64(self.read_interval().as_secs_f64() * factor);
        self.paused_until = now + pause.min(LONGEST_PAUSE);
        self.throttles_in_a_row += 1;
        self.share_raised = now;
        self.last_throttle = now;
        self.limits_count_until = now + LIMITS_COUNT;
    }

    /// Throttled reads since the last one that was answered.
    pub(crate) fn throttles_in_a_row(&self) -> u32 {
        self.throttles_in_a_row
    }

    fn limits_count(&self, now: Duration) -> bool {
        now < self.limits_count_until
    }

    /// Mean pause between two reads that keep to the share.
    fn read_interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / (READS_PER_SECOND as f64 * self.share))
    }

    fn raise_share(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.share_raised).as_secs_f64();
        self.share_raised = self.share_raised.max(now);
        let calm = now.saturating_sub(self.last_throttle).as_secs_f64();
        let doublings = (calm / RISE_DOUBLES.as_secs_f64() - 1.0).clamp(0.0, 10.0);
        let rise = (RISE * doublings.exp2()).min(FASTEST_RISE);
        self.share = (self.share + rise * elapsed).min(CEILING);
    }

    fn draw(&mut self, range: std::ops::Range<f64>) -> f64 {
        range.start + self.random.f64() * (range.end - range.start)
    }
}

/// Assumed until the first page has been seen: large enough to be useful, small enough that a
/// page of ordinary aggregates stays small.
const FIRST_GUESS: u64 = 16 << 10;

/// Adapts the request's `Limit` so that a page has about the size wanted:
///
/// `limit = clamp(share / mean record size, 1, max_records)`, with
/// `share = clamp(budget / (2 x active shards), 256 KiB, 10 MiB)`: a shard holds one page that is
/// being processed and one that was fetched ahead. The mean is 16 KiB until a page was seen; it
/// rises to a page's mean at once and falls by halves.
///
/// A page that does not arrive within the time limit of a read is asked for with half as many records,
/// down to one. The limit doubles again with each page that takes less than a quarter of that time:
/// twice as many records then still arrive in time.
#[derive(Debug)]
pub(crate) struct PageSize {
    max_records: u32,
    /// Most records that arrive in time, as far as known.
    in_time: u32,
    mean: Option<u64>,
}

impl PageSize {
    pub(crate) fn new(max_records: u32) -> Self {
        Self { max_records, in_time: max_records, mean: None }
    }

    fn mean(&self) -> u64 {
        self.mean.unwrap_or(FIRST_GUESS).max(1)
    }

    /// Records to ask for so that the page has about `share` bytes.
    pub(crate) fn limit(&self, share: u64) -> u32 {
        u32::try_from(share / self.mean()).unwrap_or(u32::MAX).clamp(1, self.in_time)
    }

    /// Bytes that such a page will probably have.
    pub(crate) fn expected_bytes(&self, share: u64) -> u64 {
        (u64::from(self.limit(share)) * self.mean()).min(MAX_PAGE_BYTES)
    }

    /// A page of up to `asked` records did not arrive whole.
    pub(crate) fn did_not_arrive(&mut self, asked: u32) {
        self.in_time = (asked / 2).max(1);
    }

    /// A page arrived in `took`, of the time limit `timeout`.
    pub(crate) fn arrived(&mut self, took: Duration, timeout: Duration) {
        if took < timeout / 4 {
            self.in_time = self.in_time.saturating_mul(2).min(self.max_records);
        }
    }

    /// A page of `records` with `bytes` arrived.
    pub(crate) fn observe(&mut self, records: u64, bytes: u64) {
        let Some(page) = bytes.checked_div(records) else {
            return;
        };
        self.mean = Some(match self.mean {
            Some(mean) if mean > page => mean.midpoint(page),
            _ => page,
        });
    }
}

#[cfg(test)]
mod page_size_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
