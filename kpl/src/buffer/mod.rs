//! The byte budget of accepted records, and the fair share of each queue that waits for room in it.

mod budget;
mod fair_share;
mod tournament;
mod wait_index;

pub use self::budget::MemoryBudget;
pub(crate) use self::budget::{
    AGGREGATE_OVERHEAD, Budget, Charge, Pressure, RECORD_OVERHEAD, Turn,
};
pub(crate) use self::fair_share::QueueId;
