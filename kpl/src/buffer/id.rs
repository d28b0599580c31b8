//! The numbers of queues.

/// Numbers the queues of a producer, in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueueId(pub(crate) u32);

impl QueueId {
    /// The queue of records whose shard is not predicted.
    pub(crate) const UNPREDICTED: Self = Self(0);
    /// Holds the room of permits, whose queue is known only with their record.
    pub(crate) const PERMITS: Self = Self(1);
    /// The first queue of a shard.
    pub(crate) const FIRST: u32 = 2;

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
