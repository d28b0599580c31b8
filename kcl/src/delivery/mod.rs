//! From fetched records to the processor: de-aggregation, the batch, its checkpoints, and what
//! happens when user code fails.

mod aggregate_log;
mod auto_checkpoint;
mod batch;
mod checkpointer;
mod deaggregate;
mod guard;
mod progress;

pub(crate) use auto_checkpoint::AutoCheckpoint;
pub(crate) use batch::{Batch, CallTokens};
pub use batch::{Record, RecordBatch, Records};
pub use checkpointer::{Checkpointer, PreparedCheckpoint};
pub(crate) use deaggregate::{Deaggregator, Tally};
pub(crate) use guard::{drop_guarded, guarded};
