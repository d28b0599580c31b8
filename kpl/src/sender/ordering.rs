//! Ordered mode: what keeps the records of a key in the order of `send`, apart from I/O.
//!
//! Three rules, each in one place:
//! * A queue has at most one Kinesis record under way, from its first attempt to its completion: `Collector::fill`.
//! * A queue goes ahead when no queue that took its keys before has anything under way: [`Succession`]. What such a queue had
//!   left stands at the head of the queues that follow it, by the order of sealing.
//! * When a record fails, those of its key that were accepted before anyone could know of it fail in the same instant:
//!   [`Gaps`].

mod gaps;
mod succession;

pub(crate) use gaps::Gaps;
pub(crate) use succession::Succession;
