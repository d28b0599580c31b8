//! Router: from a hash key to the queue of its shard, under one shard map. A new map makes a new router.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kinesis_aggregation::{HashKey, HashKeyRange};

use crate::aggregate::kinesis_record::{HashKeySpan, KinesisRecord};
use crate::buffer::QueueId;
use crate::record::InvalidRecord;
use crate::record::MAX_PARTITION_KEY_CHARS;
use crate::service::Shard;
use crate::shard::map::ShardMap;
use crate::shard::queue::Intake;

/// A shard map, and the intake of each of its open shards.
pub(crate) struct Router {
    /// Number of the refresh that brought the map; 0 before the first.
    pub(crate) generation: u64,
    map: ShardMap,
    /// By position among the open shards of the map.
    intakes: Vec<Arc<Intake>>,
    /// Takes the hash keys whose shard is not known: all of them if the role may not list shards.
    unpredicted: Arc<Intake>,
    ids: HashSet<QueueId>,
}

impl Router {
    pub(crate) fn without_shards(intake: Arc<Intake>, map: ShardMap) -> Self {
        let ids = HashSet::from([intake.id]);
        Self { generation: 0, map, intakes: Vec::new(), unpredicted: intake, ids }
    }

    /// Creates the router of a new map. A shard with an unchanged key range keeps its intake; `new_intake` makes the
    /// others.
    pub(crate) fn next(
        &self,
        generation: u64,
        map: ShardMap,
        mut new_intake: impl FnMut(Option<&Shard>) -> Arc<Intake>,
    ) -> Self {
        let kept: HashMap<_, _> = self
            .map
            .open()
            .iter()
            .zip(&self.intakes)
            .map(|(shard, intake)| ((&shard.id, shard.range), intake))
            .collect();
        let intakes: Vec<_> = map
            .open()
            .iter()
            .map(|shard| {
                kept.get(&(&shard.id, shard.range))
                    .map_or_else(|| new_intake(Some(shard)), |intake| Arc::clone(intake))
            })
            .collect();
        // If keys move between it and a shard, it is replaced, so that their earlier records are in a closed intake as
        // in a reshard.
        let unpredicted = if map.gaps() == self.map.gaps() {
            Arc::clone(&self.unpredicted)
        } else {
            new_intake(None)
        };
        let ids = intakes.iter().chain([&unpredicted]).map(|intake| intake.id).collect();
        Self { generation, map, intakes, unpredicted, ids }
    }

    /// The intake that takes `hash_key`.
    pub(crate) fn intake_of(&self, hash_key: HashKey) -> &Arc<Intake> {
        self.map.lookup(hash_key).map_or(&self.unpredicted, |position| &self.intakes[position])
    }

    pub(crate) fn map(&self) -> &ShardMap {
        &self.map
    }

    pub(crate) fn range_of(&self, shard_id: &str) -> Option<HashKeyRange> {
        self.map.range_of(shard_id)
    }

    pub(crate) fn intakes(&self) -> impl Iterator<Item = &Arc<Intake>> {
        self.intakes.iter().chain([&self.unpredicted])
    }

    /// The intake of hash keys whose shard is not known.
    pub(crate) fn unpredicted(&self) -> &Arc<Intake> {
        &self.unpredicted
    }

    /// Why a record that was accepted under another record distribution strategy cannot be sent under this one.
    pub(crate) fn refuses(&self, record: &KinesisRecord) -> Option<InvalidRecord> {
        let is_aggregate = record.is_framed && record.members.len() > 1;
        match self.map.is_service_placed() {
            true if record.is_framed && !is_aggregate => Some(InvalidRecord::LooksAggregated),
            false if record.partition_key.is_empty() => Some(InvalidRecord::PartitionKeyLength {
                limit: MAX_PARTITION_KEY_CHARS,
                actual: 0,
            }),
            _ => None,
        }
    }

    /// The intakes that may take a hash key in `span`.
    pub(crate) fn intakes_in(&self, span: HashKeySpan) -> impl Iterator<Item = &Arc<Intake>> {
        self.intakes().filter(move |intake| {
            intake.range.start() <= span.high && span.low <= intake.range.end()
        })
    }

    /// Whether a queue belongs to this router. If not, its shard is closed or has changed its range.
    pub(crate) fn has(&self, queue_id: QueueId) -> bool {
        self.ids.contains(&queue_id)
    }
}
