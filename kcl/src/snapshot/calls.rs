//! The call of a processor that is under way, and its batch.

use std::fmt;
use std::time::Duration;

use super::ProcessorCall;
use crate::sequence::ExtendedSequenceNumber;

/// The batch and the call of a shard's processor.
#[derive(Debug, Default)]
pub(super) struct Work {
    batch: Option<BatchInHand>,
    call: Option<CallUnderWay>,
}

#[derive(Debug)]
struct BatchInHand {
    since: Duration,
    first: ExtendedSequenceNumber,
    last: ExtendedSequenceNumber,
}

#[derive(Debug)]
struct CallUnderWay {
    name: &'static str,
    since: Duration,
    /// How often it was reported as slow.
    reports: u32,
}

/// A call that takes long, for a log line.
#[derive(Debug)]
pub(super) struct SlowCall {
    pub(super) call: ProcessorCall,
    /// Positions of the first and the last record of the batch in hand.
    pub(super) records: Option<(ExtendedSequenceNumber, ExtendedSequenceNumber)>,
}

impl Work {
    pub(super) fn took_batch(
        &mut self,
        now: Duration,
        first: ExtendedSequenceNumber,
        last: ExtendedSequenceNumber,
    ) {
        // After a failure, the rest of the same batch is delivered again.
        let since = self.batch.as_ref().map_or(now, |batch| batch.since);
        self.batch = Some(BatchInHand { since, first, last });
    }

    pub(super) fn has_no_batch(&mut self) {
        self.batch = None;
    }

    pub(super) fn batch_in_hand_for(&self, now: Duration) -> Option<Duration> {
        let batch = self.batch.as_ref()?;
        Some(now.saturating_sub(batch.since))
    }

    pub(super) fn began(&mut self, name: &'static str, now: Duration) {
        self.call = Some(CallUnderWay { name, since: now, reports: 0 });
    }

    /// Notes that the call has ended. Returns whether it was reported as slow.
    pub(super) fn ended(&mut self) -> bool {
        self.call.take().is_some_and(|call| call.reports > 0)
    }

    /// The call that is under way.
    pub(super) fn call(&self, now: Duration) -> Option<ProcessorCall> {
        let CallUnderWay { name, since, .. } = self.call.as_ref()?;
        Some(ProcessorCall { name, running_for: now.saturating_sub(*since) })
    }

    /// Returns the call if it has run for another `limit` since it was last reported.
    pub(super) fn slow(&mut self, limit: Duration, now: Duration) -> Option<SlowCall> {
        let call = self.call(now)?;
        let reports = &mut self.call.as_mut()?.reports;
        if call.running_for < limit.saturating_mul(reports.saturating_add(1)) {
            return None;
        }
        *reports = reports.saturating_add(1);
        let batch = self.batch.as_ref();
        Some(SlowCall {
            call,
            records: batch.map(|batch| (batch.first.clone(), batch.last.clone())),
        })
    }
}

impl fmt::Display for SlowCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has run for {:.0?}", self.call.name, self.call.running_for)?;
        match &self.records {
            Some((first, last)) => write!(f, " on the records from {first} to {last}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn at(sequence: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(sequence.to_string().parse().unwrap(), 0)
    }

    #[test]
    fn a_slow_call_is_told_once_per_limit() {
        let mut work = Work::default();
        assert!(work.slow(LIMIT, LIMIT).is_none(), "no call");
        work.took_batch(Duration::ZERO, at(1), at(9));
        work.began("process_records", Duration::ZERO);
        assert!(work.slow(LIMIT, LIMIT / 2).is_none());
        let slow = work.slow(LIMIT, LIMIT).unwrap();
        assert_eq!(
            slow.to_string(),
            "process_records has run for 30s on the records from 1:0 to 9:0"
        );
        assert!(work.slow(LIMIT, LIMIT * 3 / 2).is_none());
        assert!(work.slow(LIMIT, LIMIT * 2).is_some());
        assert!(work.ended() && !work.ended());
    }

    #[test]
    fn a_batch_is_in_hand_until_all_of_it_is_done() {
        let mut work = Work::default();
        assert_eq!(work.batch_in_hand_for(LIMIT), None);
        work.took_batch(LIMIT, at(1), at(9));
        work.took_batch(LIMIT * 2, at(5), at(9));
        assert_eq!(work.batch_in_hand_for(LIMIT * 3), Some(LIMIT * 2));
        work.has_no_batch();
        assert_eq!(work.batch_in_hand_for(LIMIT * 3), None);
    }
}
