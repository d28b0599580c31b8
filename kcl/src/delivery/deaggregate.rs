//! De-aggregation: which user records of the fetched records are delivered, under which sub-sequence numbers.

use std::ops::Range;
use std::sync::Arc;

use kinesis_aggregation::{Aggregate, Decoded, Decoder, FrameError, HashKeyRange, looks_framed};

use super::aggregate_log::AggregateLog;
use crate::clock::Clock;
use crate::config::AggregateRangePolicy;
use crate::processor::{Batch, Kept, Runs, UserRecords};
use crate::retrieval::{Held, HeldBytes, RawRecords};
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

    /// Returns the batch of a page with these records, and counts of its aggregates. The index of aggregates and
    /// decompressed bytes count against the worker's byte budget, too.
    pub(crate) fn batch(
        &mut self,
        raw: RawRecords,
        millis_behind_latest: Option<u64>,
        held: Held,
    ) -> (Batch, AggregateCounts) {
        let (bytes, page) = held.split();
        let (records, counts) = self.user_records(raw, bytes);
        (Batch::new(records, millis_behind_latest, page), counts)
    }

    /// Returns the records to deliver, without those at or before the checkpoint.
    fn user_records(&mut self, raw: RawRecords, held: HeldBytes) -> (UserRecords, AggregateCounts) {
        let mut counts = AggregateCounts::default();
        let mut runs = Runs::default();
        let framed: Vec<_> =
            (0..raw.len()).filter(|index| looks_framed(raw.data(*index))).collect();
        let data = framed.iter().map(|index| raw.data_bytes(*index)).collect();
        let decoded = self.decoder.decode_all(data);
        let mut next = 0;
        for (index, decoded) in framed.into_iter().zip(decoded) {
            self.selection.plain(&raw, next..index, &mut runs);
            self.selection.framed(&raw, index, decoded, &mut runs, &mut counts);
            next = index + 1;
        }
        self.selection.plain(&raw, next..raw.len(), &mut runs);
        (UserRecords::new(raw, runs, held), counts)
    }
}

impl Selection {
    /// Adds records that are not aggregated.
    fn plain(&mut self, raw: &RawRecords, mut records: Range<usize>, runs: &mut Runs) {
        while let Some(done) = &self.done
            && !records.is_empty()
        {
            // A record that is not aggregated is checkpointed as a whole.
            if raw.sequence_number(records.start) <= done.sequence_number {
                records.start += 1;
            } else {
                self.done = None;
            }
        }
        if self.log.awaits_arrivals() {
            records.clone().for_each(|index| self.log.passed(raw.arrival(index)));
        }
        runs.push_plain(records);
    }

    /// Adds a record that begins like an aggregate.
    fn framed(
        &mut self,
        raw: &RawRecords,
        index: usize,
        decoded: Result<Decoded, FrameError>,
        runs: &mut Runs,
        counts: &mut AggregateCounts,
    ) {
        let number = raw.sequence_number(index);
        let first = match &self.done {
            Some(done) if number < done.sequence_number => return,
            Some(done) if number == done.sequence_number => {
                done.sub_sequence_number.saturating_add(1)
            }
            _ => {
                self.done = None;
                0
            }
        };
        self.log.passed(raw.arrival(index));
        match decoded {
            Ok(Decoded::Aggregate(aggregate)) => {
                counts.aggregates += 1;
                let first = usize::try_from(first).unwrap_or(usize::MAX);
                let kept = self.select(&aggregate, raw, index, first, counts);
                runs.push_aggregate(index, aggregate, kept);
            }
            // The record is not aggregated, and it is checkpointed.
            Ok(_) if first > 0 => {}
            Ok(_) => runs.push_plain(index..index + 1),
            Err(error) => {
                counts.frame_errors += 1;
                self.log.not_opened(&number, &error);
                // It may hold members after the checkpoint, so it is delivered again, at a position that may be
                // checkpointed.
                runs.push_unopened(index, first.saturating_sub(1), error);
            }
        }
    }

    /// Selects the members that are delivered, of those from `first` on.
    fn select(
        &mut self,
        aggregate: &Aggregate,
        raw: &RawRecords,
        index: usize,
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
            self.log.broken(&raw.sequence_number(index), &defect);
            sound = sound.min(usize::try_from(defect.index()).unwrap_or(usize::MAX));
        }
        if !is_strict && aggregate.invalid_hash_keys() > 0 {
            counts.invalid_hash_keys += aggregate.invalid_hash_keys();
            self.log.invalid_hash_keys();
        }
        let (policy, key) = (self.policy, raw.partition_key(index));
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
                    AggregateRangePolicy::Auto => self.log.resent(dropped, raw.arrival(index)),
                    _ => self.log.dropped(dropped, raw.arrival(index)),
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
