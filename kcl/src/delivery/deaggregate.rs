//! Fetched records taken apart: which user records are delivered, under which sub-sequence number.

use std::sync::Arc;
use std::time::SystemTime;

use kinesis_aggregation::{Aggregate, Decoded, Decoder, FrameError, HashKeyRange};

use super::aggregate_log::AggregateLog;
use crate::clock::Clock;
use crate::config::AggregateRangePolicy;
use crate::processor::{Batch, Content, Entry, Kept};
use crate::retrieval::{Held, RawRecord};
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};
use crate::snapshot::AggregateCounts;

/// The partition key that producers which predict shards give to an aggregate.
const AGGREGATE_KEY: &str = "a";

/// What the range policy does with one aggregate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RangeVerdict {
    /// No member is out of range, or the range is not judged.
    AllInRange,
    /// Members are out of range, and delivered all the same.
    KeepAll,
    /// Only these are delivered.
    Keep(Vec<u32>),
}

/// Judges the first `sound` members of an aggregate that came under the partition key `record_key`, or
/// without one.
pub(crate) fn judge_range(
    policy: AggregateRangePolicy,
    record_key: Option<&str>,
    range: Option<HashKeyRange>,
    aggregate: &Aggregate,
    sound: usize,
) -> RangeVerdict {
    let Some(range) = range.filter(|range| *range != HashKeyRange::FULL) else {
        return RangeVerdict::AllInRange;
    };
    let hash_keys = aggregate.hash_keys();
    let in_range = |index: &usize| range.contains(hash_keys[*index]);
    if (0..sound).all(|index| in_range(&index)) {
        return RangeVerdict::AllInRange;
    }
    // A producer that predicts shards notices that the first record landed right, and the others
    // did not, by itself: it sends those again. The key of the first member tells it from a writer
    // that aggregates under a key of its user's, which might be "a" by chance.
    let predicts_shards = || {
        record_key == Some(AGGREGATE_KEY)
            && aggregate
                .get(0)
                .is_some_and(|first| in_range(&0) && first.partition_key() != AGGREGATE_KEY)
    };
    let keep_in_range = match policy {
        AggregateRangePolicy::Strict => return RangeVerdict::Keep(Vec::new()),
        AggregateRangePolicy::KeepAll => false,
        AggregateRangePolicy::KeepInRange => true,
        AggregateRangePolicy::Auto => predicts_shards(),
    };
    if !keep_in_range {
        return RangeVerdict::KeepAll;
    }
    RangeVerdict::Keep((0..sound).filter(in_range).map(|index| index as u32).collect())
}

/// Takes the records of one shard apart, in order.
pub(crate) struct Deaggregator {
    decoder: Decoder,
    selection: Selection,
}

/// Which user records of the decoded records are delivered.
struct Selection {
    policy: AggregateRangePolicy,
    range: Option<HashKeyRange>,
    /// Up to here everything was checkpointed; `None` once later records have come.
    done: Option<ExtendedSequenceNumber>,
    log: AggregateLog,
}

impl Deaggregator {
    pub(crate) fn new(
        shard_id: &str,
        range: Option<HashKeyRange>,
        done: Option<ExtendedSequenceNumber>,
        policy: AggregateRangePolicy,
        max_decompressed_size: usize,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            decoder: Decoder::new(max_decompressed_size),
            selection: Selection { policy, range, done, log: AggregateLog::new(shard_id, clock) },
        }
    }

    /// The batch of a page with these records, and what was found on the way. What compressed frames expand
    /// to counts against the worker's byte budget, too.
    pub(crate) fn batch(
        &mut self,
        records: Vec<RawRecord>,
        millis_behind_latest: Option<u64>,
        mut held: Held,
    ) -> (Batch, AggregateCounts) {
        let mut counts = AggregateCounts::default();
        let entries = self.expand(records, &mut counts);
        held.grow(usize::try_from(counts.decompressed_bytes).unwrap_or(usize::MAX));
        (Batch::new(entries, millis_behind_latest, held), counts)
    }

    /// The records to deliver, without those at or before the checkpoint.
    fn expand(&mut self, records: Vec<RawRecord>, counts: &mut AggregateCounts) -> Vec<Entry> {
        let data = records.iter().map(|record| record.data.clone()).collect();
        let decoded = self.decoder.decode_all(data);
        let entries = records
            .into_iter()
            .zip(decoded)
            .filter_map(|(record, decoded)| self.selection.entry(record, decoded, counts));
        entries.filter(|entry| entry.len() > 0).collect()
    }
}

impl Selection {
    fn entry(
        &mut self,
        record: RawRecord,
        decoded: Result<Decoded, FrameError>,
        counts: &mut AggregateCounts,
    ) -> Option<Entry> {
        let first = match &self.done {
            Some(done) if record.sequence_number < done.sequence_number => return None,
            Some(done) if record.sequence_number == done.sequence_number => {
                done.sub_sequence_number.saturating_add(1)
            }
            _ => {
                self.done = None;
                0
            }
        };
        let RawRecord { sequence_number, partition_key, data, arrival } = record;
        self.log.passed(arrival);
        let content = match decoded {
            Ok(Decoded::Aggregate(aggregate)) => {
                counts.aggregates += 1;
                let first = usize::try_from(first).unwrap_or(usize::MAX);
                let received = Received {
                    partition_key: partition_key.as_deref(),
                    sequence_number: &sequence_number,
                    arrival,
                };
                let kept = self.select(&aggregate, &received, first, counts);
                Content::Aggregate { aggregate, kept }
            }
            // A record on its own, and it is checkpointed.
            Ok(_) if first > 0 => return None,
            Ok(_) => {
                Content::Plain { partition_key, data, sub_sequence_number: 0, frame_error: None }
            }
            Err(error) => {
                counts.frame_errors += 1;
                self.log.not_opened(&sequence_number, &error);
                Content::Plain {
                    partition_key,
                    data,
                    // Members behind the checkpoint may be in it: it comes again rather than not at
                    // all, at a place that may be checkpointed.
                    sub_sequence_number: first.saturating_sub(1),
                    frame_error: Some(error),
                }
            }
        };
        Some(Entry { sequence_number, arrival, content })
    }

    /// Which members are delivered, of those from `first` on.
    fn select(
        &mut self,
        aggregate: &Aggregate,
        received: &Received<'_>,
        first: usize,
        counts: &mut AggregateCounts,
    ) -> Kept {
        if aggregate.is_compressed() {
            let sizes = aggregate.iter().map(|m| (m.data().len() + m.partition_key().len()) as u64);
            counts.decompressed_bytes += sizes.sum::<u64>();
        }
        // Where the Java library's rule is asked for, a member whose hash key is no number is broken.
        let is_strict = self.policy == AggregateRangePolicy::Strict;
        let defect = match is_strict {
            true => aggregate.strict_defect(),
            false => aggregate.defect(),
        };
        let mut sound = aggregate.len();
        if let Some(defect) = defect {
            counts.defects += 1;
            self.log.broken(received.sequence_number, &defect);
            sound = sound.min(usize::try_from(defect.index()).unwrap_or(usize::MAX));
        }
        if !is_strict && aggregate.invalid_hash_keys() > 0 {
            counts.invalid_hash_keys += aggregate.invalid_hash_keys();
            self.log.invalid_hash_keys();
        }
        let (policy, key) = (self.policy, received.partition_key);
        let mut kept = match judge_range(policy, key, self.range, aggregate, sound) {
            RangeVerdict::AllInRange if sound == aggregate.len() => return Kept::From(first),
            RangeVerdict::AllInRange => (0..sound as u32).collect(),
            RangeVerdict::KeepAll => {
                counts.aggregates_out_of_range += 1;
                self.log.kept();
                return Kept::From(first);
            }
            RangeVerdict::Keep(kept) => {
                let dropped = (sound - kept.len()) as u64;
                counts.aggregates_out_of_range += 1;
                counts.members_dropped += dropped;
                match self.policy {
                    AggregateRangePolicy::Auto => self.log.resent(dropped, received.arrival),
                    _ => self.log.dropped(dropped, received.arrival),
                }
                kept
            }
        };
        kept.retain(|index| *index as usize >= first);
        Kept::Only(kept)
    }
}

/// How a Kinesis record came.
struct Received<'a> {
    partition_key: Option<&'a str>,
    sequence_number: &'a SequenceNumber,
    arrival: Option<SystemTime>,
}

#[cfg(test)]
mod tests;
