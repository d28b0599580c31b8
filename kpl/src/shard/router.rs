//! Routing: the shard map of the moment and the lane of each open shard.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kinesis_aggregation::{HashKey, HashKeyRange};

use crate::aggregate::kinesis_record::KinesisRecord;
use crate::aggregate::verdict::HashKeySpan;
use crate::buffer::LaneId;
use crate::record::InvalidRecord;
use crate::record::MAX_PARTITION_KEY_CHARS;
use crate::service::Shard;
use crate::shard::map::ShardMap;
use crate::shard::queue::Lane;

pub(crate) struct Routing {
    /// The number of the refresh that made it; 0 before the first.
    pub(crate) generation: u64,
    map: ShardMap,
    /// By position among the open shards of the map.
    lanes: Vec<Arc<Lane>>,
    /// For hash keys whose shard is not known: without the permission to list shards, all of them.
    unpredicted: Arc<Lane>,
    ids: HashSet<LaneId>,
}

impl Routing {
    pub(crate) fn without_shards(lane: Arc<Lane>, map: ShardMap) -> Self {
        let ids = HashSet::from([lane.id]);
        Self { generation: 0, map, lanes: Vec::new(), unpredicted: lane, ids }
    }

    /// The routing under a new map: a lane that takes the same keys for the same shard stays, `new_lane` makes the others.
    pub(crate) fn next(
        &self,
        generation: u64,
        map: ShardMap,
        mut new_lane: impl FnMut(Option<&Shard>) -> Arc<Lane>,
    ) -> Self {
        let kept: HashMap<_, _> = self
            .map
            .open()
            .iter()
            .zip(&self.lanes)
            .map(|(shard, lane)| ((&shard.id, shard.range), lane))
            .collect();
        let lanes: Vec<_> = map
            .open()
            .iter()
            .map(|shard| {
                kept.get(&(&shard.id, shard.range))
                    .map_or_else(|| new_lane(Some(shard)), |lane| Arc::clone(lane))
            })
            .collect();
        // Keys that move between it and a shard's lane leave a lane that is retired, as all that move.
        let unpredicted = if map.gaps() == self.map.gaps() {
            Arc::clone(&self.unpredicted)
        } else {
            new_lane(None)
        };
        let ids = lanes.iter().chain([&unpredicted]).map(|lane| lane.id).collect();
        Self { generation, map, lanes, unpredicted, ids }
    }

    /// The lane that takes `hash_key`.
    pub(crate) fn lane(&self, hash_key: HashKey) -> &Arc<Lane> {
        self.map.lookup(hash_key).map_or(&self.unpredicted, |position| &self.lanes[position])
    }

    pub(crate) fn map(&self) -> &ShardMap {
        &self.map
    }

    pub(crate) fn range_of(&self, shard_id: &str) -> Option<HashKeyRange> {
        self.map.range_of(shard_id)
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes.iter().chain([&self.unpredicted])
    }

    /// The lane of hash keys whose shard is not known.
    pub(crate) fn unpredicted(&self) -> &Arc<Lane> {
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

    /// The lanes that a hash key in `span` may belong to.
    pub(crate) fn lanes_of(&self, span: HashKeySpan) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes()
            .filter(move |lane| lane.range.start() <= span.high && span.low <= lane.range.end())
    }

    /// Whether a lane, perhaps of an older routing, is one of this.
    pub(crate) fn has(&self, lane: LaneId) -> bool {
        self.ids.contains(&lane)
    }
}
