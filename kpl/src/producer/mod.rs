//! The handle that applications hold, and what builds it.

mod build_error;
pub(crate) mod builder;
mod handle;
mod permit;
mod send_all;
#[cfg(feature = "sink")]
mod sink;
mod start_retry;

pub use self::build_error::BuildError;
pub use self::builder::ProducerBuilder;
pub use self::handle::{CloseReport, Producer};
pub use self::permit::Permit;
pub use self::send_all::{SendAll, SendAllError};
#[cfg(feature = "sink")]
pub use self::sink::{RecordSink, SinkError};
