//! One shard: its range, its kin, and its records in order.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::Notify;

use super::limits::ShardLimits;
use super::sequence::SequenceNumber;
use crate::clock::Timestamp;

/// The name of a shard: `shardId-` and twelve digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ShardId(pub(crate) u32);

impl ShardId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("shardId-")?;
        let well_formed = digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_digit());
        well_formed.then(|| digits.parse().ok().map(Self)).flatten()
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

impl Serialize for ShardId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // By hand: a batch of records names its shards five hundred times.
        let mut text = *b"shardId-000000000000";
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        serializer.serialize_str(str::from_utf8(&text).expect("it is ASCII"))
    }
}

impl<'de> Deserialize<'de> for ShardId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("{text} is no shard id")))
    }
}

/// A record as the stream holds it. Clones share the bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) sequence_number: SequenceNumber,
    pub(crate) arrival: Timestamp,
    pub(crate) partition_key: Arc<str>,
    pub(crate) explicit_hash_key: Option<u128>,
    pub(crate) data: Bytes,
    pub(crate) encrypted: bool,
}

impl Record {
    /// What limits count: the data and the partition key.
    pub(crate) fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// The index of a record within its shard. The first record has 1.
pub(crate) type Position = u64;

/// Positions that a shard leaves out when records may have been lost that readers have seen.
const GAP: Position = 1 << 32;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    /// First and last hash key.
    pub(crate) range: (u128, u128),
    /// None, the shard that was split, or the two that were merged (adjacent one last).
    pub(crate) parents: Vec<ShardId>,
    pub(crate) children: Vec<ShardId>,
    pub(crate) opened: Timestamp,
    pub(crate) closed: Option<Timestamp>,
    #[serde(skip, default = "ShardLimits::rested")]
    pub(crate) limits: ShardLimits,
    /// Wakes whoever waits for records, or for the end.
    #[serde(skip)]
    pub(crate) changed: Arc<Notify>,
    /// Orders this shard's sequence numbers after its parents'.
    pub(crate) epoch: u64,
    records: VecDeque<Record>,
    /// Of all records held.
    bytes: usize,
    /// The position of the next record. Positions of records increase, not always by one.
    next: Position,
    last_arrival: Timestamp,
}

impl Shard {
    pub(crate) fn open(
        id: ShardId,
        range: (u128, u128),
        parents: &[&Self],
        now: Timestamp,
    ) -> Self {
        let parents_epoch = parents.iter().map(|parent| parent.epoch + 1).max().unwrap_or(0);
        Self {
            id,
            range,
            parents: parents.iter().map(|parent| parent.id).collect(),
            children: Vec::new(),
            opened: now,
            closed: None,
            limits: ShardLimits::new(now),
            changed: Arc::default(),
            epoch: now.seconds().max(parents_epoch),
            records: VecDeque::new(),
            bytes: 0,
            next: 1,
            last_arrival: now,
        }
    }

    /// Appends a record: its number is given and it becomes visible in one step.
    pub(crate) fn append(
        &mut self,
        now: Timestamp,
        partition_key: Arc<str>,
        explicit_hash_key: Option<u128>,
        data: Bytes,
        encrypted: bool,
    ) -> SequenceNumber {
        // Arrivals never go back, even if the clock does: timestamps are searched by bisection.
        let arrival = now.max(self.last_arrival);
        let sequence_number =
            SequenceNumber::new(self.epoch, self.id.0, self.end(), arrival.seconds());
        self.next += 1;
        self.last_arrival = arrival;
        self.bytes += data.len() + partition_key.len();
        self.records.push_back(Record {
            sequence_number,
            arrival,
            partition_key,
            explicit_hash_key,
            data,
            encrypted,
        });
        self.changed.notify_waiters();
        sequence_number
    }

    pub(crate) fn close(&mut self, now: Timestamp, children: Vec<ShardId>) {
        self.closed = Some(now.max(self.last_arrival));
        self.children = children;
        self.changed.notify_waiters();
    }

    pub(crate) fn starting_sequence_number(&self) -> SequenceNumber {
        SequenceNumber::new(self.epoch, self.id.0, 0, self.opened.seconds())
    }

    pub(crate) fn ending_sequence_number(&self) -> Option<SequenceNumber> {
        self.closed.map(|closed| SequenceNumber::end(self.epoch, self.id.0, closed.seconds()))
    }

    /// Whether it is open, or was at `horizon` or later: then it may hold records in retention.
    pub(crate) fn is_retained(&self, horizon: Timestamp) -> bool {
        self.closed.is_none_or(|closed| closed >= horizon)
    }

    /// One past the last record.
    pub(crate) fn end(&self) -> Position {
        self.next
    }

    /// Leaves positions out: a reader that has gone beyond the end, to records that were lost since,
    /// misses none of those to come.
    pub(crate) fn leave_gap(&mut self) {
        if self.closed.is_none() {
            self.next += GAP;
        }
    }

    /// Which of the records held is the first at `position` or later.
    fn nth_from(&self, position: Position) -> usize {
        let before = |record: &Record| record.sequence_number.index() < position;
        self.records.partition_point(before)
    }

    /// The record at `position`, if it is held.
    fn at(&self, position: Position) -> Option<&Record> {
        let record = self.records.get(self.nth_from(position))?;
        (record.sequence_number.index() == position).then_some(record)
    }

    /// The number of the record before `position`: a reader that goes on after it misses none.
    pub(crate) fn number_before(&self, position: Position) -> SequenceNumber {
        let index = position.saturating_sub(1);
        self.at(index).map_or_else(
            || SequenceNumber::new(self.epoch, self.id.0, index, self.last_arrival.seconds()),
            |record| record.sequence_number,
        )
    }

    /// The first record that arrived at `time` or later.
    pub(crate) fn position_at(&self, time: Timestamp) -> Position {
        let nth = self.records.partition_point(|record| record.arrival < time);
        let record = self.records.get(nth);
        record.map_or(self.next, |record| record.sequence_number.index())
    }

    /// The records from `position` on that arrived at `horizon` or later, at most `limit` and about
    /// `max_bytes` (one record always fits), and the position after them.
    pub(crate) fn read(
        &self,
        position: Position,
        horizon: Timestamp,
        limit: usize,
        max_bytes: usize,
    ) -> (Vec<Record>, Position) {
        let start = position.max(self.position_at(horizon)).min(self.end());
        let mut bytes = 0;
        let records: Vec<Record> = self
            .records
            .range(self.nth_from(start)..)
            .take(limit)
            .enumerate()
            .take_while(|(nth, record)| {
                bytes += record.size();
                *nth == 0 || bytes <= max_bytes
            })
            .map(|(_, record)| record.clone())
            .collect();
        let next = records.last().map_or(start, |last| last.sequence_number.index() + 1);
        (records, next)
    }

    /// Frees the records that arrived before `horizon`.
    pub(crate) fn free_before(&mut self, horizon: Timestamp) {
        while self.records.front().is_some_and(|record| record.arrival < horizon) {
            self.free_first();
        }
        // The places of records that are gone are memory too.
        if self.records.len() < self.records.capacity() / 4 {
            self.records.shrink_to(self.records.len() * 2);
        }
    }

    /// Frees the oldest records while there are more than so many bytes; the last one stays.
    pub(crate) fn free_above(&mut self, bytes: usize) {
        while self.bytes > bytes && self.records.len() > 1 {
            self.free_first();
        }
    }

    fn free_first(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.bytes -= record.size();
        }
    }

    /// Every record held, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// When the record at `position` arrived, if it is held.
    pub(crate) fn arrival_of(&self, position: Position) -> Option<Timestamp> {
        self.at(position).map(|record| record.arrival)
    }
}
