//! Dead letters: records that a processor could not process, and the sinks that they are written to.
//!
//! The module knows nothing of delivery. Delivery builds a [`DeadLetter`] and hands it to the [`DeadLetterSink`].

#[cfg(feature = "dead-letters")]
mod file;
#[cfg(feature = "dead-letters")]
mod json;
mod letter;
mod sink;

#[cfg(feature = "dead-letters")]
pub use self::file::FileSink;
#[cfg(feature = "dead-letters")]
pub use self::json::InvalidDeadLetter;
pub use self::letter::{DeadLetter, DeadLetterCondition};
pub(crate) use self::sink::ErasedSink;
#[cfg(feature = "dead-letters")]
pub use self::sink::SinkError;
pub use self::sink::{DeadLetterSink, MapSink};
