//! The numbers of lanes.

/// Numbers the lanes of a producer, in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId(pub(crate) u32);

impl LaneId {
    /// The lane of records whose shard is not predicted.
    pub(crate) const UNPREDICTED: Self = Self(0);
    /// Holds the room of permits, whose lane is known only with their record.
    pub(crate) const RESERVED: Self = Self(1);
    /// The first lane of a shard.
    pub(crate) const FIRST: u32 = 2;

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
