//! The shards of the stream: the map, the queue of each shard, and how fast each shard is sent to.

pub(crate) mod group;
pub(crate) mod limiter;
pub(crate) mod map;
pub(crate) mod queue;
pub(crate) mod router;
