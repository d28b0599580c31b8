//! The worker: builds itself, runs a consumer for each lease that it owns, and stops.

mod batch_stream;
mod builder;
mod handle;
mod reading;
mod record_stream;
mod run;
mod shards;
mod shutdown;
mod uploads;
mod watchdog;
mod worker_stream;

pub use batch_stream::BatchStream;
pub use builder::{Scheduler, SchedulerBuilder};
pub use handle::WorkerHandle;
pub use record_stream::RecordStream;
pub use shutdown::ShutdownReport;
