//! Members of an aggregate that failed together. Their failure is visible at once, at the cost of one entry. The error
//! of each member is built later: when its `Delivery` is polled, or when the sender completes it.

use std::sync::Arc;

use crate::error::{DeliveryError, Failure};
use crate::record::UserRecord;

/// Takes the records of the failed members out of their aggregate, in order.
pub(crate) type Unpack = Box<dyn FnOnce() -> Vec<UserRecord> + Send>;

/// Room of the members in the memory budget. Do not drop it under a lock: that wakes tasks.
pub(crate) type Room = Box<dyn Send>;

pub(crate) struct FailedMembers {
    /// `None` after it was given back, and if other members of the record did not fail.
    pub(super) room: Option<Room>,
    pub(super) failure: Arc<Failure>,
    /// Index of each member in the slot, ascending.
    pub(super) indexes: Vec<u32>,
    /// `None` once the records are unpacked.
    unpack: Option<Unpack>,
    /// By position among the failed members; `None` where the error was built.
    records: Vec<Option<UserRecord>>,
    /// How many members [`next`](Self::next) has passed.
    passed: usize,
}

impl FailedMembers {
    pub(crate) fn new(
        failure: Arc<Failure>,
        indexes: Vec<u32>,
        unpack: Unpack,
        room: Option<Room>,
    ) -> Self {
        debug_assert!(indexes.is_sorted());
        Self { room, failure, indexes, unpack: Some(unpack), records: Vec::new(), passed: 0 }
    }

    /// The index of the first member, which names this failure within its slot.
    pub(super) fn first(&self) -> u32 {
        self.indexes.first().copied().unwrap_or_default()
    }

    /// The error of the member at `index`, if it is one of these and its error was not taken before.
    pub(super) fn take(&mut self, index: u32) -> Option<DeliveryError> {
        let position = self.indexes.binary_search(&index).ok()?;
        self.take_at(position)
    }

    /// The next member whose error was not taken before.
    pub(super) fn next(&mut self) -> Option<(u32, DeliveryError)> {
        while let Some(&index) = self.indexes.get(self.passed) {
            self.passed += 1;
            if let Some(error) = self.take_at(self.passed - 1) {
                return Some((index, error));
            }
        }
        None
    }

    fn take_at(&mut self, position: usize) -> Option<DeliveryError> {
        if let Some(unpack) = self.unpack.take() {
            self.records = unpack().into_iter().map(Some).collect();
        }
        let record = self.records.get_mut(position)?.take()?;
        Some(DeliveryError::new(Some(record), Arc::clone(&self.failure)))
    }
}
