//! What one shard allows: bytes and records in, calls and bytes out, each second; and what consumers with fan-out
//! may call.

use std::time::Duration;

use crate::clock::Timestamp;

const WRITE_BYTES: i64 = 1 << 20;
const WRITE_RECORDS: i64 = 1000;
const READ_CALLS: i64 = 5;
const READ_BYTES: i64 = 2 << 20;
const REGISTRATIONS: i64 = 5;
const SUBSCRIBE_CALLS: i64 = 1;

/// A bucket that holds one second's worth and refills evenly. It may be overdrawn, and then pays
/// its debt before it gives again. Thousandths of tokens, so that milliseconds count exactly.
#[derive(Debug, Clone)]
struct TokenBucket {
    per_second: i64,
    milli_tokens: i64,
    refilled: Timestamp,
}

impl TokenBucket {
    fn full(per_second: i64, now: Timestamp) -> Self {
        Self { per_second, milli_tokens: per_second * 1000, refilled: now }
    }

    fn refill(&mut self, now: Timestamp) {
        // More than a day's refill never differs from a day's.
        let earned = now.since(self.refilled).min(86_400_000) as i64 * self.per_second;
        self.milli_tokens = (self.milli_tokens + earned).min(self.per_second * 1000);
        self.refilled = self.refilled.max(now);
    }

    /// Whether `amount` may go: it fits, or is more than a full bucket and the bucket is full.
    fn allows(&self, amount: i64) -> bool {
        self.milli_tokens >= amount.min(self.per_second) * 1000
    }

    fn take(&mut self, amount: i64) {
        self.milli_tokens -= amount * 1000;
    }
}

/// The limits of one shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardLimits {
    write_bytes: TokenBucket,
    write_records: TokenBucket,
    read_calls: TokenBucket,
    read_bytes: TokenBucket,
}

impl ShardLimits {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            write_bytes: TokenBucket::full(WRITE_BYTES, now),
            write_records: TokenBucket::full(WRITE_RECORDS, now),
            read_calls: TokenBucket::full(READ_CALLS, now),
            read_bytes: TokenBucket::full(READ_BYTES, now),
        }
    }

    /// Those of a shard that has not been used for long.
    pub(crate) fn rested() -> Self {
        Self::new(Timestamp::default())
    }

    /// Takes one record of `bytes` (partition key counted), or nothing if either limit forbids it.
    pub(crate) fn admit_write(&mut self, now: Timestamp, bytes: usize) -> bool {
        self.write_bytes.refill(now);
        self.write_records.refill(now);
        let admitted = self.write_bytes.allows(bytes as i64) && self.write_records.allows(1);
        if admitted {
            self.write_bytes.take(bytes as i64);
            self.write_records.take(1);
        }
        admitted
    }

    /// Takes one call. It is refused while earlier reads are still being paid for.
    pub(crate) fn admit_read(&mut self, now: Timestamp) -> bool {
        self.read_calls.refill(now);
        self.read_bytes.refill(now);
        let admitted = self.read_calls.allows(1) && self.read_bytes.allows(0);
        if admitted {
            self.read_calls.take(1);
        }
        admitted
    }

    /// Charges what an admitted read returned: up to 10 MiB, so it may overdraw five seconds.
    pub(crate) fn charge_read(&mut self, bytes: usize) {
        self.read_bytes.take(bytes as i64);
    }
}

/// The limit of one subscription to a shard.
#[derive(Debug)]
pub(crate) struct SubscriptionRate(TokenBucket);

impl SubscriptionRate {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self(TokenBucket::full(READ_BYTES, now))
    }

    /// How long what was sent is still being paid for; none if it is paid.
    pub(crate) fn wait(&mut self, now: Timestamp) -> Option<Duration> {
        self.0.refill(now);
        let debt = u64::try_from(-self.0.milli_tokens).ok();
        let debt = debt.filter(|debt| *debt > 0)?;
        Some(Duration::from_millis(debt.div_ceil(self.0.per_second.unsigned_abs())))
    }

    pub(crate) fn charge(&mut self, bytes: usize) {
        self.0.take(bytes as i64);
    }
}

/// A limit of calls in a second.
#[derive(Debug, Clone)]
pub(crate) struct CallRate(TokenBucket);

impl CallRate {
    /// RegisterStreamConsumer, of an account.
    pub(crate) fn of_registrations(now: Timestamp) -> Self {
        Self(TokenBucket::full(REGISTRATIONS, now))
    }

    /// SubscribeToShard, of a consumer to a shard.
    pub(crate) fn of_subscribe_calls(now: Timestamp) -> Self {
        Self(TokenBucket::full(SUBSCRIBE_CALLS, now))
    }

    /// Takes one call, if it is within the limit.
    pub(crate) fn admit(&mut self, now: Timestamp) -> bool {
        self.0.refill(now);
        let admitted = self.0.allows(1);
        if admitted {
            self.0.take(1);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_shard_takes_a_thousand_records_a_second() {
        let mut limits = ShardLimits::new(at(0));
        assert_eq!((0..1500).filter(|_| limits.admit_write(at(0), 10)).count(), 1000);
        assert!(!limits.admit_write(at(0), 10));
        assert_eq!((0..1500).filter(|_| limits.admit_write(at(250), 10)).count(), 250);
    }

    #[test]
    fn a_shard_takes_a_mebibyte_a_second_and_a_larger_record_only_when_rested() {
        let mut limits = ShardLimits::new(at(0));
        assert!(limits.admit_write(at(0), 1 << 19));
        assert!(!limits.admit_write(at(0), 10 << 20));
        assert!(limits.admit_write(at(500), 10 << 20));
        assert!(!limits.admit_write(at(9_000), 1), "nine mebibytes of debt");
        assert!(limits.admit_write(at(11_000), 1 << 19));
    }

    #[test]
    fn a_shard_gives_five_reads_and_two_mebibytes_a_second() {
        let mut limits = ShardLimits::new(at(0));
        assert_eq!((0..9).filter(|_| limits.admit_read(at(0))).count(), 5);
        assert!(limits.admit_read(at(200)));
        limits.charge_read(10 << 20);
        assert!(!limits.admit_read(at(4_100)));
        assert!(limits.admit_read(at(4_200)));
    }

    #[test]
    fn a_subscription_gives_two_mebibytes_a_second() {
        let mut rate = SubscriptionRate::new(at(0));
        rate.charge(2 << 20);
        assert_eq!(rate.wait(at(0)), None);
        rate.charge(3 << 20);
        assert_eq!(rate.wait(at(0)), Some(Duration::from_millis(1_500)));
        assert_eq!(rate.wait(at(1_499)), Some(Duration::from_millis(1)));
        assert_eq!(rate.wait(at(1_500)), None);
    }

    #[test]
    fn calls_are_admitted_up_to_the_limit_of_a_second() {
        let mut registrations = CallRate::of_registrations(at(0));
        assert_eq!((0..9).filter(|_| registrations.admit(at(0))).count(), 5);
        assert!(!registrations.admit(at(199)));
        assert!(registrations.admit(at(200)));
        let mut subscribe = CallRate::of_subscribe_calls(at(0));
        assert!(subscribe.admit(at(0)));
        assert!(!subscribe.admit(at(999)));
        assert!(subscribe.admit(at(1_000)));
    }
}
