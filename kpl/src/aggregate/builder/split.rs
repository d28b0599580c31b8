//! Splitting a Kinesis record. All ways go through [`Sealer::split`]:
//!
//! * by shard, after the stream was resharded,
//! * in halves, to find the member for which a request fails,
//! * into single records, for shards that are not known,
//! * into the failed members and the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use kinesis_aggregation::{AggregateBuilder, HashKey};

use super::{Sealed, Sealer, droppable_of};
use crate::ack::Completer;
use crate::aggregate::compression::Data;
use crate::aggregate::kinesis_record::{HashKeySpan, KinesisRecord, Members};
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

    /// Splits the first `members` off an aggregate, as single records. The others stay together behind them.
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
        let was_framed = record.is_framed;
        let KinesisRecord {
            sequence, members, mut charge, lifetimes, history, hash_keys_kept, ..
        } = record;
        let keeps_hash_keys = !hash_keys_kept.is_empty();
        let mut groups: Vec<Group<C>> = Vec::new();
        let mut open: HashMap<C, usize> = HashMap::new();
        for (place, (member, user)) in members.separate().into_iter().zip(users).enumerate() {
            let hash_key = user.hash_key();
            let (class, queue_id, aggregates) = class(place, hash_key);
            let group = match aggregates {
                true => *open.entry(class).or_insert(groups.len()),
                false => groups.len(),
            };
            match groups.get_mut(group) {
                Some(group) => group.add(place, user, hash_key, member),
                None => groups.push(Group {
                    sequence: sequence + place as u64,
                    class,
                    queue_id,
                    places: vec![place],
                    users: vec![user],
                    first_hash_key: hash_key,
                    span: HashKeySpan::of(hash_key),
                    hash_keys: vec![hash_key],
                    members: vec![member],
                }),
            }
        }
        let mut regrouped = Vec::with_capacity(groups.len());
        let mut groups = groups.into_iter().peekable();
        while let Some(group) = groups.next() {
            let bytes = group.users.iter().map(|user| user.payload_len() + RECORD_OVERHEAD).sum();
            let mut share = match groups.peek() {
                Some(_) => charge.split(bytes),
                None => charge.split(usize::MAX),
            };
            share.move_to(group.queue_id);
            let Group {
                sequence,
                class,
                queue_id,
                places,
                users,
                first_hash_key,
                span,
                hash_keys,
                members,
            } = group;
            let droppable = droppable_of(&users);
            let mut sealed = self.seal_group(users, first_hash_key);
            if was_framed && !sealed.is_framed {
                // A copy, because a slice would keep the whole aggregate in memory.
                sealed.data = Data::Final(Bytes::copy_from_slice(&sealed.data.bytes()));
            }
            let part = KinesisRecord {
                sequence,
                queue_id,
                data: sealed.data,
                partition_key: sealed.partition_key,
                explicit_hash_key: sealed.explicit_hash_key,
                is_framed: sealed.is_framed,
                is_raw: sealed.is_raw,
                span,
                hash_keys_kept: if keeps_hash_keys { hash_keys } else { Vec::new() },
                members: Members::Each(members),
                charge: share,
                lifetimes: lifetimes.of_members(&places),
                droppable,
                history: history.of_part(lifetimes.accepted(places[0])),
            };
            regrouped.push((class, part));
        }
        regrouped
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

/// Members of a record that stay together.
struct Group<C> {
    /// Sequence of the first member.
    sequence: u64,
    class: C,
    queue_id: QueueId,
    /// Positions of the members in the record that is split.
    places: Vec<usize>,
    users: Vec<UserRecord>,
    first_hash_key: HashKey,
    span: HashKeySpan,
    hash_keys: Vec<HashKey>,
    members: Vec<(Arc<Completer>, u32)>,
}

impl<C> Group<C> {
    fn add(
        &mut self,
        place: usize,
        user: UserRecord,
        hash_key: HashKey,
        member: (Arc<Completer>, u32),
    ) {
        self.places.push(place);
        self.users.push(user);
        self.span.include(hash_key);
        self.hash_keys.push(hash_key);
        self.members.push(member);
    }
}
