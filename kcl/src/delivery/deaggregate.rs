//! De-aggregation: which user records of the fetched records are delivered, under which sub-sequence numbers.

use std::sync::Arc;

use kinesis_aggregation::{Aggregate, Decoded, Decoder, FrameError, HashKeyRange};

use super::aggregate_log::AggregateLog;
use crate::clock::Clock;
use crate::config::AggregateRangePolicy;
use crate::processor::{Batch, Content, Entry, Kept, Plain};
use crate::retrieval::{Held, RawRecord};
use crate::sequence::ExtendedSequenceNumber;
use crate::snapshot::AggregateCounts;

/// The partition key that producers which predict shards give to an aggregate.
const AGGREGATE_KEY: &str = "a";

/// Decision of the range policy on one aggregate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RangeVerdict {
    /// No member is out of range, or the range is unknown.
    AllInRange,
    /// Members are out of range, and delivered nevertheless.
    KeepAll,
    /// Only these members are delivered.
    Keep(Vec<u32>),
}

/// Judges the first `sound` members of an aggregate. `record_key`: the partition key of the Kinesis record.
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
    // A producer that predicts shards notices which records are in the wrong shard, and sends those again. Another
    // producer may aggregate under a key of its user, which may be "a" by chance. Then the first member has that
    // key, too.
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

/// De-aggregates the records of one shard, in order.
pub(crate) struct Deaggregator {
    decoder: Decoder,
    selection: Selection,
}

/// Which user records of the decoded records are delivered.
struct Selection {
    policy: AggregateRangePolicy,
    range: Option<HashKeyRange>,
    /// The checkpoint. `None` after a later record was read.
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

    /// Returns the batch of a page with these records, and counts of its aggregates. Decompressed bytes count
    /// against the worker's byte budget, too.
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

    /// Returns the records to deliver, without those at or before the checkpoint.
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
        self.log.passed(record.arrival);
        let content = match decoded {
            Ok(Decoded::Aggregate(aggregate)) => {
                counts.aggregates += 1;
                let first = usize::try_from(first).unwrap_or(usize::MAX);
                let kept = self.select(&aggregate, &record, first, counts);
                Content::Aggregate { aggregate, kept }
            }
            // The record is not aggregated, and it is checkpointed.
            Ok(_) if first > 0 => return None,
            Ok(_) => Content::Plain(Plain {
                partition_key: record.partition_key,
                data: record.data,
                sub_sequence_number: 0,
                frame_error: None,
            }),
            Err(error) => {
                counts.frame_errors += 1;
                self.log.not_opened(&record.sequence_number, &error);
                Content::Plain(Plain {
                    partition_key: record.partition_key,
                    data: record.data,
                    // It may hold members after the checkpoint, so it is delivered again, at a position that
                    // may be checkpointed.
                    sub_sequence_number: first.saturating_sub(1),
                    frame_error: Some(error),
                })
            }
        };
        let RawRecord { sequence_number, arrival, .. } = record;
        Some(Entry { sequence_number, arrival, content })
    }

    /// Selects the members that are delivered, of those from `first` on.
    fn select(
        &mut self,
        aggregate: &Aggregate,
        record: &RawRecord,
        first: usize,
        counts: &mut AggregateCounts,
    ) -> Kept {
        if aggregate.is_compressed() {
            let sizes = aggregate.iter().map(|m| (m.data().len() + m.partition_key().len()) as u64);
            counts.decompressed_bytes += sizes.sum::<u64>();
        }
        // By the rule of the Java library, a member whose explicit hash key is not a number is broken.
        let is_strict = self.policy == AggregateRangePolicy::Strict;
        let defect = match is_strict {
            true => aggregate.strict_defect(),
            false => aggregate.defect(),
        };
        let mut sound = aggregate.len();
        if let Some(defect) = defect {
            counts.defects += 1;
            self.log.broken(&record.sequence_number, &defect);
            sound = sound.min(usize::try_from(defect.index()).unwrap_or(usize::MAX));
        }
        if !is_strict && aggregate.invalid_hash_keys() > 0 {
            counts.invalid_hash_keys += aggregate.invalid_hash_keys();
            self.log.invalid_hash_keys();
        }
        let (policy, key) = (self.policy, record.partition_key.as_deref());
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
                    AggregateRangePolicy::Auto => self.log.resent(dropped, record.arrival),
                    _ => self.log.dropped(dropped, record.arrival),
                }
                kept
            }
        };
        kept.retain(|index| *index as usize >= first);
        Kept::Only(kept)
    }
}

#[cfg(test)]
mod tests;
