//! A permit: room in the buffer that is taken before the record is there.

use super::handle::Producer;
use crate::ack::Delivery;
use crate::aggregate::builder::cost_of;
use crate::buffer::Charge;
use crate::error::SendError;
use crate::record::Record;
use crate::shard::queue::NotAccepted;

/// Room in the buffer for one record; see [`Producer::reserve`]. Dropping it gives the room back.
///
/// It keeps the producer alive, as a clone does. [`flush`](Producer::flush) and [`close`](Producer::close) do not wait
/// for it.
#[must_use = "a permit that is dropped gives its room back"]
#[derive(Debug)]
pub struct Permit {
    pub(super) producer: Producer,
    pub(super) bytes: usize,
    pub(super) room: Charge,
}

impl Permit {
    /// The most bytes of key and data that the record may have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Accepts a record as [`Producer::send`] does, without waiting. Room that the record does not need is given back.
    ///
    /// A [`Droppable`](crate::Priority::Droppable) record is not dropped, because it has room.
    ///
    /// # Errors
    /// [`SendError`], with the record inside: the record is invalid, has more bytes than the permit
    /// ([`SendError::PermitTooSmall`]), or the producer is closed.
    pub fn send(self, record: Record<'_>) -> Result<Delivery, SendError> {
        if let Err(reason) = self.producer.check(&record) {
            return Err(self.producer.send_error(record, NotAccepted::Invalid(reason)));
        }
        if record.payload_len() > self.bytes {
            return Err(SendError::PermitTooSmall {
                reserved: self.bytes,
                actual: record.payload_len(),
                record: record.into_owned().into(),
            });
        }
        debug_assert!(cost_of(&record).1 <= self.room.bytes(), "it was reserved");
        self.producer.send_paid(record, self.room)
    }
}
