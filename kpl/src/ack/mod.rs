//! How the result of each record reaches its caller.

mod delivery;
mod failed;
mod settlement;

pub(crate) use self::delivery::{BitSet, News, Placement, Settler};
pub use self::delivery::{Delivery, Receipt};
pub(crate) use self::failed::{FailedMembers, Room};
pub(crate) use self::settlement::{FailureHook, Settlement};
