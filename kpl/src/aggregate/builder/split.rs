//! Splitting a Kinesis record. All ways go through [`Sealer::split`]:
//!
//! * by shard, after the stream was resharded,
//! * in halves, to find the member for which a request fails,
//! * into single records, for shards that are not known,
//! * into the failed members and the others.

use std::collections::HashMap;
use std::hash::Hash;

use kinesis_aggregation::{AggregateBuilder, HashKey};

use super::{Sealer, droppable_of};
use crate::aggregate::kinesis_record::{HashKeySpan, KinesisRecord, Members, Sealed};
use crate::buffer::{QueueId, RECORD_OVERHEAD};
use crate::record::UserRecord;

impl Sealer {
    /// Splits a record by the queues that take its members now. The order and the sequence of the members are kept.
    ///
    /// `route` returns the queue of a hash key, and whether that queue aggregates.
    pub(crate) fn split_by_shard(
        &mut self,
        record: KinesisRecord,
        route: impl Fn(HashKey) -> (QueueId, bool),
    ) -> Vec<KinesisRecord> {
        let parts = self.split(record, |_, hash_key| {
            let (queue_id, aggregates) = route(hash_key);
            (queue_id, queue_id, aggregates)
        });
        parts.into_iter().map(|(_, part)| part).collect()
    }

    /// Splits the first `members` off an aggregate, as single records. The others stay together after them.
    pub(crate) fn split_off_singles(
        &mut self,
        aggregate: KinesisRecord,
        members: usize,
    ) -> Vec<KinesisRecord> {
        let queue_id = aggregate.queue_id;
        let parts = self.split(aggregate, |place, _| {
            let stays = place >= members;
            (stays, queue_id, stays)
        });
        parts.into_iter().map(|(_, part)| part).collect()
    }

    /// Splits an aggregate in halves, which stay in its queue.
    pub(crate) fn split_in_halves(&mut self, aggregate: KinesisRecord) -> Vec<KinesisRecord> {
        let (queue_id, first_half) = (aggregate.queue_id, aggregate.members.len() / 2);
        let parts = self.split(aggregate, |place, _| (place >= first_half, queue_id, true));
        parts.into_iter().map(|(_, part)| part).collect()
    }

    /// Splits the failed members off the others. Each failed member is a part, `true`. The others are one part,
    /// `false`, which keeps the room that a Kinesis record takes beside its members.
    pub(crate) fn split_failed(
        &mut self,
        record: KinesisRecord,
        has_failed: impl Fn(usize) -> bool,
    ) -> Vec<(bool, KinesisRecord)> {
        let queue_id = record.queue_id;
        let mut parts = self.split(record, |place, _| {
            let has_failed = has_failed(place);
            (has_failed, queue_id, !has_failed)
        });
        // The last part got the rest of the room. That is too much if it is a failed member.
        if let Some((true, last)) = parts.last_mut() {
            let surplus = last.charge.keep(last.user_bytes() + RECORD_OVERHEAD);
            if let Some(surplus) = surplus
                && let Some((_, stays)) = parts.iter_mut().find(|(has_failed, _)| !has_failed)
            {
                stays.charge.absorb(surplus);
            }
        }
        parts
    }

    /// Splits a record. `class` gets the position and the hash key of a member. It returns what the members of a part
    /// have in common, the queue of the part, and whether that queue aggregates.
    pub(crate) fn split<C: Copy + Eq + Hash>(
        &mut self,
        record: KinesisRecord,
        class: impl Fn(usize, HashKey) -> (C, QueueId, bool),
    ) -> Vec<(C, KinesisRecord)> {
        let users = record.user_records();
        let KinesisRecord {
            sequence,
            sealed,
            members,
            mut charge,
            lifetimes,
            history,
            hash_keys_kept,
            ..
        } = record;
        // The positions of the members of each part.
        let mut parts: Vec<(C, QueueId, Vec<usize>)> = Vec::new();
        let mut open: HashMap<C, usize> = HashMap::new();
        let mut separate = Vec::with_capacity(users.len());
        for (place, (user, member)) in users.into_iter().zip(members.separate()).enumerate() {
            let hash_key = user.hash_key();
            let (class, queue_id, aggregates) = class(place, hash_key);
            let part = match aggregates {
                true => *open.entry(class).or_insert(parts.len()),
                false => parts.len(),
            };
            match parts.get_mut(part) {
                Some((.., places)) => places.push(place),
                None => parts.push((class, queue_id, vec![place])),
            }
            separate.push(Some((user, hash_key, member)));
        }
        let mut records = Vec::with_capacity(parts.len());
        let mut parts = parts.into_iter().peekable();
        while let Some((class, queue_id, places)) = parts.next() {
            // Of exact size: many parts of one member may wait at the same time.
            let mut users = Vec::with_capacity(places.len());
            let mut hash_keys = Vec::with_capacity(places.len());
            let mut members = Vec::with_capacity(places.len());
            for (user, hash_key, member) in places.iter().filter_map(|p| separate[*p].take()) {
                users.push(user);
                hash_keys.push(hash_key);
                members.push(member);
            }
            let bytes = users.iter().map(|user| user.payload_len() + RECORD_OVERHEAD).sum();
            // The last part gets the rest.
            let mut share = charge.split(parts.peek().map_or(usize::MAX, |_| bytes));
            share.move_to(queue_id);
            let mut span = HashKeySpan::of(hash_keys[0]);
            hash_keys.iter().for_each(|hash_key| span.include(*hash_key));
            let droppable = droppable_of(&users);
            let mut resealed = self.seal_group(users, hash_keys[0]);
            if sealed.is_framed && !resealed.is_framed {
                // A copy, because a slice would keep the whole aggregate in memory.
                resealed.data.copy_out();
            }
            let record = KinesisRecord {
                sequence: sequence + places[0] as u64,
                queue_id,
                sealed: resealed,
                span,
                hash_keys_kept: if hash_keys_kept.is_empty() { Vec::new() } else { hash_keys },
                members: Members::Each(members),
                charge: share,
                lifetimes: lifetimes.of_members(&places),
                droppable,
                history: history.of_part(lifetimes.accepted(places[0])),
            };
            records.push((class, record));
        }
        records
    }

    fn seal_group(&mut self, mut users: Vec<UserRecord>, first_hash_key: HashKey) -> Sealed {
        if users.len() == 1
            && let Some(user) = users.pop()
        {
            return self.single(user);
        }
        // A part of an aggregate is not larger than the aggregate.
        let mut builder = AggregateBuilder::new(usize::MAX);
        for user in &users {
            builder
                .push(&user.partition_key, user.explicit_hash_key, &user.data)
                .expect("an aggregate without a limit takes every record");
        }
        self.aggregate(builder, first_hash_key)
    }
}
