//! Decides when a shard may be read again, and how many records a read asks for. Pure: the time and the random
//! source are passed in.
//!
//! A shard answers five reads and 2 MiB a second to all its readers together, and readers do not know of each
//! other. A reader spreads its reads over the second: there are always 208 ms between two of them, so that no pause,
//! of the processor or for memory, is followed by a burst that throttles other readers.
//!
//! As long as no read is throttled, a reader assumes that it is alone. A throttle shows that the limits of the shard
//! apply (an emulator has none) and that they are used up. From then on, the reader keeps to a share of them, by
//! additive increase and multiplicative decrease. Readers that raise their shares by the same steps and halve them at
//! a throttle end up with similar shares. The constants are tuned in `simulation.rs`.
//!
//! At the tip, a reader pauses for the idle time. It is the same whether records come or not: a read costs no money,
//! and a longer pause of a quiet shard would delay the first record after the quiet. Java has a second setting for the
//! tip, `millisBehindLatestThresholdForReducedTps`, because its idle time applies behind the tip, too.

use std::time::Duration;

use fastrand::Rng;

/// GetRecords calls that the service answers per shard and second.
const READS_PER_SECOND: u32 = 5;
/// Shortest time from one read to the next: 4.8 reads a second. At five a second, a reader would take each read as soon
/// as the shard allows it. It would never be throttled, and no other reader would ever be answered.
const LEAST_INTERVAL: Duration = Duration::from_millis(208);
/// Bytes that the service returns per shard and second. After a larger page, it throttles each read until the
/// page is paid for.
const BYTES_PER_SECOND: f64 = (2 << 20) as f64;
/// Largest page while the limits apply. A page of 10 MiB would throttle all other readers for five seconds. With
/// pages of this size, three of the five reads reach the full byte rate. Two remain for readers at the tip.
const PAGE_BYTES: u64 = 768 << 10;
/// Time after a throttle for which the limits apply.
const LIMITS_APPLY: Duration = Duration::from_secs(600);

/// Largest share of the shard's limits: 2.01 MB a second. The rest admits another reader at the tip without a throttle.
const CEILING: f64 = 0.96;
/// Smallest share: one read every four seconds.
const FLOOR: f64 = 0.05;
/// Factor by which a throttle cuts the share.
const CUT: f64 = 0.5;
/// Throttles in a row that cut the share. More of them mean that the shard answers no reads at all, not that the
/// share is too large.
const CUTS_IN_A_ROW: u32 = 2;
/// Rise of the share a second.
const RISE: f64 = 0.003;
/// Time without a throttle after which the rise doubles, again and again, because other readers have gone.
const RISE_DOUBLES: Duration = Duration::from_secs(60);
/// Largest rise of the share a second.
const FASTEST_RISE: f64 = 0.02;
/// Longest time for which pages beyond the byte limit delay further reads.
const MOST_BYTES_OWED: Duration = Duration::from_secs(5);
/// Longest pause after throttles in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Random factor of each pause between two reads, so that readers do not collide again and again.
const SPREAD: std::ops::Range<f64> = 0.8..1.2;

/// Paces the reads of one shard. Times are those of the injected clock.
#[derive(Debug)]
pub(crate) struct Pacer {
    idle: Duration,
    random: Rng,
    /// When the last read was sent.
    sent: Option<Duration>,
    at_tip: bool,
    /// Factor of the pause that follows the last read.
    spread: f64,
    /// Share of the shard's limits that this reader takes while they apply.
    share: f64,
    share_raised: Duration,
    limits_apply_until: Duration,
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
            sent: None,
            at_tip: false,
            spread: 1.0,
            share: CEILING,
            share_raised: Duration::ZERO,
            limits_apply_until: Duration::ZERO,
            last_throttle: Duration::ZERO,
            throttles_in_a_row: 0,
            bytes_paid: Duration::ZERO,
            bytes_paid_by_shard: Duration::ZERO,
            paused_until: Duration::ZERO,
        }
    }

    /// The time from `now` until the next read may be sent.
    pub(crate) fn delay(&self, now: Duration) -> Duration {
        let Some(last) = self.sent else {
            return self.paused_until.saturating_sub(now);
        };
        let mut next = self.paused_until.max(last + LEAST_INTERVAL);
        let mut interval = Duration::ZERO;
        if self.limits_apply(now) {
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
        if self.limits_apply(now) { PAGE_BYTES } else { u64::MAX }
    }

    /// Notes that a read was sent.
    pub(crate) fn sent(&mut self, now: Duration) {
        self.sent = Some(now);
    }

    /// Notes that the read returned `bytes`. `at_tip`: there is no newer record.
    pub(crate) fn answered(&mut self, now: Duration, bytes: u64, at_tip: bool) {
        self.raise_share(now);
        let sent = self.sent.unwrap_or(now);
        let by_shard = bytes as f64 / BYTES_PER_SECOND;
        // The debt is bounded, because the service may let more bytes pass than its limit. Without a bound, a
        // later throttle would stop the reader for the whole debt.
        let most = sent + MOST_BYTES_OWED;
        let paid =
            |by: Duration, seconds: f64| by.clamp(sent, most) + Duration::from_secs_f64(seconds);
        self.bytes_paid = paid(self.bytes_paid, by_shard / self.share);
        self.bytes_paid_by_shard = paid(self.bytes_paid_by_shard, by_shard);
        self.throttles_in_a_row = 0;
        self.at_tip = at_tip;
        self.spread = self.draw(SPREAD);
    }

    /// Notes that the service throttled a read.
    pub(crate) fn throttled(&mut self, now: Duration) {
        // Until the limits apply, this reader takes pages of any size. While these are not paid for, a throttle
        // does not mean that there are other readers.
        let own_pages = !self.limits_apply(now) && now < self.bytes_paid_by_shard;
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
        self.limits_apply_until = now + LIMITS_APPLY;
    }

    /// Throttled reads since the last one that was answered.
    pub(crate) fn throttles_in_a_row(&self) -> u32 {
        self.throttles_in_a_row
    }

    fn limits_apply(&self, now: Duration) -> bool {
        now < self.limits_apply_until
    }

    /// Mean pause between two reads that keep to the share.
    fn read_interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / (f64::from(READS_PER_SECOND) * self.share))
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

/// Mean record size that is assumed before the first page. It is so large that a first page of ordinary aggregates
/// stays small.
const FIRST_GUESS: u64 = 16 << 10;

/// Adapts the number of records that a read asks for, so that a page takes about the shard's share of the memory, and
/// has no more bytes than the shard's limits allow: `clamp(size / mean size of a record, 1, max_records)`. The service
/// counts data and keys alone. In memory a record takes more: in CBOR about 170 bytes, in JSON 90.
///
/// After a page that does not arrive within the time limit of a read, the number of records is halved, down to
/// one. It doubles again with each page that takes less than a quarter of that time, because twice as many records
/// then still arrive in time.
#[derive(Debug)]
pub(crate) struct PageSize {
    max_records: u32,
    /// Most records that arrive within the time limit, as far as known.
    in_time: u32,
    /// Of the bytes that the service counts.
    payload: MeanSize,
    memory: MeanSize,
}

/// Mean size of a record in bytes. It is 16 KiB before the first page. It rises to the mean of a page at once, and falls
/// by half of the difference.
#[derive(Debug, Default)]
struct MeanSize(Option<u64>);

impl MeanSize {
    fn get(&self) -> u64 {
        self.0.unwrap_or(FIRST_GUESS).max(1)
    }

    fn observe(&mut self, records: u64, bytes: u64) {
        let Some(page) = bytes.checked_div(records) else {
            return;
        };
        self.0 = Some(match self.0 {
            Some(mean) if mean > page => mean.midpoint(page),
            _ => page,
        });
    }
}

impl PageSize {
    pub(crate) fn new(max_records: u32) -> Self {
        Self {
            max_records,
            in_time: max_records,
            payload: MeanSize::default(),
            memory: MeanSize::default(),
        }
    }

    /// The number of records for a page that takes about `memory` bytes and has at most about `payload`.
    pub(crate) fn limit(&self, memory: u64, payload: u64) -> u32 {
        let records = (memory / self.memory.get()).min(payload / self.payload.get());
        u32::try_from(records).unwrap_or(u32::MAX).clamp(1, self.in_time)
    }

    /// The memory that such a page will probably take, in bytes.
    pub(crate) fn expected_memory(&self, limit: u32) -> u64 {
        u64::from(limit) * self.memory.get()
    }

    /// Notes that a page of up to `asked` records did not arrive completely.
    pub(crate) fn did_not_arrive(&mut self, asked: u32) {
        self.in_time = (asked / 2).max(1);
    }

    /// Notes that a page arrived within `took`. `timeout`: the time limit of a read.
    pub(crate) fn arrived(&mut self, took: Duration, timeout: Duration) {
        if took < timeout / 4 {
            self.in_time = self.in_time.saturating_mul(2).min(self.max_records);
        }
    }

    /// Notes a page: its records, the bytes that the service counts, and the memory that it takes.
    pub(crate) fn observe(&mut self, records: u64, payload: u64, memory: u64) {
        self.payload.observe(records, payload);
        self.memory.observe(records, memory);
    }
}

#[cfg(test)]
mod page_size_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
