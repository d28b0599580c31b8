//! The report of a bounded replay.

use std::collections::BTreeMap;
use std::fmt;

use kinesis_common::sync::Mutex;

use crate::sequence::ExtendedSequenceNumber;

/// Report of a bounded replay: what this worker processed. [`Display`](fmt::Display) writes one line per shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReplayReport {
    /// Whether the worker ended because nothing was left to do: all its shards had finished, and no shard of the stream
    /// was left without a live worker. A job exits with success if this is true.
    pub is_complete: bool,
    /// Each shard of which this worker had the lease, by id.
    pub shards: BTreeMap<String, ReplayedShard>,
}

/// Work on one shard in a bounded replay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReplayedShard {
    /// User records for which `process_records` has returned `Ok`.
    pub records: u64,
    /// Payload bytes of those records.
    pub bytes: u64,
    /// Last record that was delivered. `None`: there was none.
    pub last: Option<ExtendedSequenceNumber>,
    /// How this worker's work on the shard ended.
    pub end: ReplayEnd,
}

/// End of the work on one shard in a bounded replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ReplayEnd {
    /// All records up to the bound were processed.
    Finished,
    /// The shard was split or merged, and processed to its end. Its children followed.
    ShardEnded,
    /// The worker gave the shard up before: it was stopped, or another worker took the lease. A shard whose parent
    /// finished before its end is given up, too, because all its records are beyond the bound.
    GivenUp,
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_complete { "complete" } else { "not complete" })?;
        for (shard_id, shard) in &self.shards {
            let ReplayedShard { records, bytes, last, end } = shard;
            write!(f, "\n{shard_id}: {end}, {records} records, {bytes} bytes")?;
            if let Some(last) = last {
                write!(f, ", last record {last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ReplayEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::ShardEnded => "processed to its end",
            Self::GivenUp => "given up",
        })
    }
}

/// Collects the report.
#[derive(Debug, Default)]
pub(crate) struct ReplayLog(Mutex<BTreeMap<String, ReplayedShard>>);

impl ReplayLog {
    /// Notes the work under one ownership of a shard, after the work under earlier ones.
    pub(crate) fn note(&self, shard_id: String, work: ReplayedShard) {
        let mut shards = self.0.lock();
        match shards.get_mut(&shard_id) {
            None => {
                shards.insert(shard_id, work);
            }
            Some(earlier) => {
                earlier.records += work.records;
                earlier.bytes += work.bytes;
                earlier.last = work.last.or(earlier.last.take());
                earlier.end = work.end;
            }
        }
    }

    pub(crate) fn report(&self, is_complete: bool) -> ReplayReport {
        ReplayReport { is_complete, shards: self.0.lock().clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(records: u64, last: Option<u64>, end: ReplayEnd) -> ReplayedShard {
        let last = last.map(|last| last.to_string().parse().unwrap());
        let last = last.map(|number| ExtendedSequenceNumber::new(number, 0));
        ReplayedShard { records, bytes: 10 * records, last, end }
    }

    #[test]
    fn the_ownerships_of_a_shard_are_added_up_and_the_last_one_decides() {
        let log = ReplayLog::default();
        log.note("a".into(), shard(3, Some(7), ReplayEnd::GivenUp));
        log.note("b".into(), shard(0, None, ReplayEnd::ShardEnded));
        log.note("a".into(), shard(0, None, ReplayEnd::Finished));
        let text = log.report(true).to_string();
        let lines = [
            "complete",
            "a: finished, 3 records, 30 bytes, last record 7:0",
            "b: processed to its end, 0 records, 0 bytes",
        ];
        assert_eq!(text, lines.join("\n"));
        assert!(log.report(false).to_string().starts_with("not complete\n"));
    }
}
