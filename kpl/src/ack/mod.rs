//! How the result of each record reaches its caller.

mod deliveries;
mod delivery;
mod failed;
mod outcomes;

pub use self::deliveries::Deliveries;
pub(crate) use self::delivery::{BitSet, Completer, Notification};
pub use self::delivery::{Delivery, Receipt};
pub(crate) use self::failed::{FailedMembers, Room};
pub(crate) use self::outcomes::{FailureHook, Outcomes};
