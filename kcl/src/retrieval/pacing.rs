//! When a shard may be read again.

use std::collections::VecDeque;
use std::time::Duration;

/// The service answers this many GetRecords calls per shard and second, to all readers together.
const READS_PER_SECOND: usize = 5;
/// The service returns this many bytes per shard and second; a larger page is paid for afterwards.
const BYTES_PER_SECOND: u64 = 2 << 20;
/// How long the byte rate is kept after the service has throttled a read.
const BYTE_PACING: Duration = Duration::from_secs(60);

/// Paces the reads of one shard: at once while behind the tip, up to five in any second; one per
/// idle time at the tip. After a throttle the byte rate is kept too, for a minute.
///
/// Times are those of the injected clock.
#[derive(Debug)]
pub(crate) struct Pacer {
    idle: Duration,
    sent: VecDeque<Duration>,
    last_bytes: u64,
    at_tip: bool,
    bytes_paced_until: Duration,
}

impl Pacer {
    pub(crate) fn new(idle: Duration) -> Self {
        Self {
            idle,
            sent: VecDeque::with_capacity(READS_PER_SECOND),
            last_bytes: 0,
            at_tip: false,
            bytes_paced_until: Duration::ZERO,
        }
    }

    /// How long to wait at `now` before the next read is sent.
    pub(crate) fn delay(&self, now: Duration) -> Duration {
        let Some(&last) = self.sent.back() else {
            return Duration::ZERO;
        };
        let mut next = last;
        if self.sent.len() == READS_PER_SECOND {
            next = next.max(self.sent[0] + Duration::from_secs(1));
        }
        if self.at_tip {
            next = next.max(last + self.idle);
        }
        if now < self.bytes_paced_until {
            let micros = self.last_bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND;
            next = next.max(last + Duration::from_micros(micros));
        }
        next.saturating_sub(now)
    }

    /// A read was sent.
    pub(crate) fn sent(&mut self, now: Duration) {
        if self.sent.len() == READS_PER_SECOND {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
    }

    /// The read returned `bytes`; `at_tip`: there is no newer record.
    pub(crate) fn answered(&mut self, bytes: u64, at_tip: bool) {
        self.last_bytes = bytes;
        self.at_tip = at_tip;
    }

    /// The service refused the read because of its limits.
    pub(crate) fn throttled(&mut self, now: Duration) {
        self.bytes_paced_until = now + BYTE_PACING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: Duration = Duration::from_millis(250);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_first_read_is_sent_at_once() {
        assert_eq!(Pacer::new(IDLE).delay(ms(0)), Duration::ZERO);
    }

    #[test]
    fn at_the_tip_the_idle_time_counts_from_the_last_read() {
        let mut pacer = Pacer::new(IDLE);
        pacer.sent(ms(1000));
        pacer.answered(10, true);
        assert_eq!(pacer.delay(ms(1000)), IDLE);
        assert_eq!(pacer.delay(ms(1100)), ms(150));
        assert_eq!(pacer.delay(ms(1250)), Duration::ZERO);
        assert_eq!(pacer.delay(ms(9000)), Duration::ZERO);
    }

    #[test]
    fn behind_the_tip_the_next_read_is_sent_at_once_up_to_five_in_a_second() {
        let mut pacer = Pacer::new(IDLE);
        for i in 0..5 {
            assert_eq!(pacer.delay(ms(1000 + i)), Duration::ZERO, "read {i}");
            pacer.sent(ms(1000 + i));
            pacer.answered(10 << 20, false);
        }
        assert_eq!(pacer.delay(ms(1005)), ms(995));
    }

    #[test]
    fn after_a_throttle_the_byte_rate_is_kept_for_a_while() {
        let mut pacer = Pacer::new(IDLE);
        pacer.sent(ms(0));
        pacer.answered(10 << 20, false);
        assert_eq!(pacer.delay(ms(0)), Duration::ZERO);
        pacer.throttled(ms(0));
        assert_eq!(pacer.delay(ms(0)), ms(5000));
        assert_eq!(pacer.delay(BYTE_PACING), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn never_six_reads_in_a_second(waits in prop::collection::vec((0u64..400, any::<bool>()), 1..80)) {
            let mut pacer = Pacer::new(IDLE);
            let mut now = Duration::ZERO;
            let mut sent = Vec::new();
            for (wait, at_tip) in waits {
                now += ms(wait);
                now += pacer.delay(now);
                prop_assert_eq!(pacer.delay(now), Duration::ZERO);
                pacer.sent(now);
                pacer.answered(0, at_tip);
                sent.push(now);
            }
            for window in sent.windows(6) {
                prop_assert!(window[5] - window[0] >= Duration::from_secs(1));
            }
        }
    }
}
