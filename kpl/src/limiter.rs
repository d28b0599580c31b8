//! Limiter: what one shard may be sent, as two token buckets. Pure: time is passed in.

use std::time::Duration;

use crate::clock::Instant;

const SHARD_RECORDS_PER_SECOND: f64 = 1000.0;
const SHARD_BYTES_PER_SECOND: f64 = 1024.0 * 1024.0;

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
}

impl ShardLimiter {
    /// `rate_limit` is in percent of the shard's limit; the burst is one second of the shard at 100 %.
    pub(crate) fn new(rate_limit: u32, now: Instant) -> Self {
        let factor = f64::from(rate_limit) / 100.0;
        Self {
            records: TokenBucket::new(
                SHARD_RECORDS_PER_SECOND * factor,
                SHARD_RECORDS_PER_SECOND,
                now,
            ),
            bytes: TokenBucket::new(SHARD_BYTES_PER_SECOND * factor, SHARD_BYTES_PER_SECOND, now),
        }
    }

    /// Lets one Kinesis record of `bytes` go, or says when it may.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        self.records.fill(now);
        self.bytes.fill(now);
        let cost = bytes as f64;
        let wait = self.records.wait_for(1.0).max(self.bytes.wait_for(cost));
        if !wait.is_zero() {
            return Err(now + wait);
        }
        self.records.tokens -= 1.0;
        self.bytes.tokens -= cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_record_above_the_burst_goes_when_the_bucket_is_full_and_is_paid_back() {
        let now = clock::now();
        let mut limiter = ShardLimiter::new(100, now);
        assert_eq!(limiter.take(10 * MIB, now), Ok(()));
        let ready = limiter.take(MIB, now).unwrap_err();
        let wait = (ready - now).as_secs_f64();
        assert!((10.0..10.1).contains(&wait), "{wait}");
        assert_eq!(limiter.take(MIB, ready), Ok(()));
    }

    proptest! {
        /// Over any window from the start: no more than burst + rate x time + one large record; and whoever waits as told may go.
        #[test]
        fn the_rate_holds_over_any_run(
            percent in 50..400_u32,
            steps in proptest::collection::vec((0..200_u64, 1..2 * MIB), 1..200),
        ) {
            let start = clock::now();
            let mut now = start;
            let mut limiter = ShardLimiter::new(percent, now);
            let (mut records, mut bytes, mut largest) = (0_f64, 0_f64, 0_f64);
            for (pause, size) in steps {
                now += Duration::from_millis(pause);
                if let Err(ready) = limiter.take(size, now) {
                    prop_assert!(ready > now);
                    now = ready;
                    prop_assert_eq!(limiter.take(size, now), Ok(()));
                }
                records += 1.0;
                bytes += size as f64;
                largest = largest.max(size as f64);
                let seconds = (now - start).as_secs_f64() * f64::from(percent) / 100.0;
                prop_assert!(records <= 1000.0 + 1000.0 * seconds + 1.0);
                prop_assert!(bytes <= MIB as f64 * (1.0 + seconds) + largest);
            }
        }
    }
}
