//! Dead letters: records that a processor could not process, the sinks that they are written to, and their redrive.
//!
//! The module knows nothing of delivery. Delivery builds a [`DeadLetter`] and hands it to the [`DeadLetterSink`].

#[cfg(feature = "dead-letters")]
mod batches;
#[cfg(feature = "dead-letters")]
mod file;
#[cfg(feature = "dead-letters")]
mod file_source;
#[cfg(feature = "dead-letters")]
mod json;
mod letter;
#[cfg(feature = "dead-letters")]
mod locate;
#[cfg(feature = "object-store")]
mod objects;
#[cfg(feature = "dead-letters")]
mod put;
#[cfg(feature = "dead-letters")]
mod redrive;
mod sink;
#[cfg(feature = "dead-letters")]
mod source;
#[cfg(feature = "sqs")]
mod sqs;
#[cfg(feature = "dead-letters")]
mod stream_sink;

#[cfg(feature = "dead-letters")]
pub use self::file::FileSink;
#[cfg(feature = "dead-letters")]
pub use self::file_source::FileSource;
#[cfg(feature = "dead-letters")]
pub use self::json::InvalidDeadLetter;
pub use self::letter::{DeadLetter, DeadLetterCondition};
#[cfg(feature = "object-store")]
pub use self::objects::{ObjectStoreSink, ObjectStoreSource};
#[cfg(feature = "dead-letters")]
pub use self::redrive::{Redrive, RedriveError, RedriveReport};
pub(crate) use self::sink::ErasedSink;
#[cfg(feature = "dead-letters")]
pub use self::sink::SinkError;
pub use self::sink::{DeadLetterSink, MapSink};
#[cfg(feature = "dead-letters")]
pub use self::source::{DeadLetterSource, StoredLetter};
#[cfg(feature = "sqs")]
pub use self::sqs::{SqsSink, SqsSource};
#[cfg(feature = "dead-letters")]
pub use self::stream_sink::KinesisSink;

/// Tag of a redriven record in its aggregate: how often it was redriven, in decimal.
pub(crate) const REDRIVES_TAG: &str = "redrives";
