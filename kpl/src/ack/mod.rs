//! How the result of each record reaches its caller.

mod delivery;
mod settlement;

pub(crate) use self::delivery::{BitSet, News, Placement, Settler};
pub use self::delivery::{Delivery, Receipt};
pub(crate) use self::settlement::{FailureHook, Settlement};
