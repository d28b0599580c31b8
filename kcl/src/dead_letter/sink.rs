//! Where dead letters go.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::letter::DeadLetter;

/// Destination of dead letters.
///
/// The worker checkpoints past a record only after the sink has accepted its letter. If the sink fails, the worker
/// calls it again, and the shard waits.
///
/// ```
/// use kcl::{DeadLetter, DeadLetterSink};
///
/// struct Outbox(tokio::sync::mpsc::Sender<DeadLetter>);
///
/// impl DeadLetterSink for Outbox {
///     type Error = Box<dyn std::error::Error + Send + Sync>;
///
///     async fn write(&self, letters: &[DeadLetter]) -> Result<(), Self::Error> {
///         for letter in letters {
///             self.0.send(letter.clone()).await?;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait DeadLetterSink: Send + Sync + 'static {
    /// Error of a write. Its text appears in logs and in health, so keep payload and keys out of it.
    type Error: Into<Box<dyn Error + Send + Sync>> + Send;

    /// Writes the letters. `Ok`: all of them are stored durably, in any order. Several shards may call it at a time.
    ///
    /// # Errors
    /// At least one letter may not have been stored. The worker writes all of them again, with the same
    /// [idempotency keys](DeadLetter::idempotency_key), so some may be stored twice.
    ///
    /// # Cancel safety
    /// The worker drops the future if it loses the lease. Some of the letters may then be stored, and the next owner of
    /// the shard may write them again.
    fn write(&self, letters: &[DeadLetter])
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Changes each letter before this sink writes it, for example to redact or to encrypt its payload. What locates
    /// the record should stay: stream, shard and position.
    ///
    /// ```no_run
    /// use kcl::{DeadLetter, DeadLetterSink};
    /// # fn over(sink: impl DeadLetterSink) {
    /// let sink = sink.map(|mut letter: DeadLetter| {
    ///     letter.payload = Some("redacted".into());
    ///     letter
    /// });
    /// # }
    /// ```
    fn map<F>(self, change: F) -> MapSink<Self, F>
    where
        Self: Sized,
        F: Fn(DeadLetter) -> DeadLetter + Send + Sync + 'static,
    {
        MapSink { sink: self, change }
    }
}

impl<S: DeadLetterSink> DeadLetterSink for Arc<S> {
    type Error = S::Error;

    fn write(
        &self,
        letters: &[DeadLetter],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        S::write(self, letters)
    }
}

/// A sink that changes each letter first: from [`DeadLetterSink::map`].
///
/// A panic of the function is a panic of the write.
#[derive(Clone)]
pub struct MapSink<S, F> {
    sink: S,
    change: F,
}

impl<S, F> DeadLetterSink for MapSink<S, F>
where
    S: DeadLetterSink,
    F: Fn(DeadLetter) -> DeadLetter + Send + Sync + 'static,
{
    type Error = S::Error;

    async fn write(&self, letters: &[DeadLetter]) -> Result<(), S::Error> {
        let changed: Vec<_> = letters.iter().cloned().map(&self.change).collect();
        self.sink.write(&changed).await
    }
}

impl<S: fmt::Debug, F> fmt::Debug for MapSink<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapSink").field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// [`DeadLetterSink`] as an object.
pub(crate) trait ErasedSink: Send + Sync {
    fn write<'a>(
        &'a self,
        letters: &'a [DeadLetter],
    ) -> BoxFuture<'a, Result<(), Box<dyn Error + Send + Sync>>>;
}

impl<S: DeadLetterSink> ErasedSink for S {
    fn write<'a>(
        &'a self,
        letters: &'a [DeadLetter],
    ) -> BoxFuture<'a, Result<(), Box<dyn Error + Send + Sync>>> {
        DeadLetterSink::write(self, letters).map(|result| result.map_err(Into::into)).boxed()
    }
}

/// Error of a sink of this crate. Its text holds neither payload nor keys.
#[cfg(feature = "dead-letters")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    File {
        /// The operation.
        action: &'static str,
        /// The file.
        path: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file sink has as many files as it may have.
    #[error("{path} has {files} rotated files, as many as allowed: redrive them or move them away")]
    Full {
        /// File that would be rotated.
        path: String,
        /// Number of files.
        files: usize,
    },
    /// The task that works on the files ended without a result, because the runtime ended or the task panicked.
    #[error("the task that works on the files ended without a result")]
    TaskEnded,
    /// A call of a service failed, also when it was repeated.
    #[error("{call} failed for {target}: {cause}")]
    Call {
        /// The call.
        call: &'static str,
        /// Stream, queue or object.
        target: String,
        /// Error code and message of the service, or causes of the transport.
        cause: String,
    },
    /// A letter is larger than the limit of the sink, even without its payload.
    #[error(
        "a dead letter without payload has {size} bytes, over the limit of {limit}: give the sink a limit of 64 KiB or more"
    )]
    TooLarge {
        /// Size of the letter, in bytes.
        size: usize,
        /// Limit, in bytes.
        limit: usize,
    },
    /// A setting is invalid.
    #[error("{problem}")]
    Invalid {
        /// What is invalid, and what to give instead.
        problem: String,
    },
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use super::*;
    use crate::sequence::ExtendedSequenceNumber;

    #[derive(Default)]
    struct Memory {
        written: Mutex<Vec<DeadLetter>>,
        fails: bool,
    }

    impl DeadLetterSink for Memory {
        type Error = &'static str;

        async fn write(&self, letters: &[DeadLetter]) -> Result<(), Self::Error> {
            if self.fails {
                return Err("the sink is down");
            }
            self.written.lock().unwrap().extend_from_slice(letters);
            Ok(())
        }
    }

    fn letter() -> DeadLetter {
        let position = ExtendedSequenceNumber::new("1".parse().unwrap(), 0);
        DeadLetter::new("app", "orders", "shardId-0", position, "data", SystemTime::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_sink_as_an_object_passes_letters_and_errors() {
        let memory = Arc::new(Memory::default());
        let erased: Arc<dyn ErasedSink> = Arc::new(Arc::clone(&memory));
        erased.write(&[letter(), letter()]).await.unwrap();
        assert_eq!(memory.written.lock().unwrap().len(), 2);

        let erased: Box<dyn ErasedSink> = Box::new(Memory { fails: true, ..Memory::default() });
        let error = erased.write(&[letter()]).await.unwrap_err();
        assert_eq!(error.to_string(), "the sink is down");
    }

    #[tokio::test]
    async fn a_mapped_sink_gets_the_changed_letter_and_leaves_the_original() {
        let memory = Arc::new(Memory::default());
        let sink = Arc::clone(&memory).map(|mut letter| {
            letter.payload = Some("redacted".into());
            letter
        });
        let letters = [letter()];
        DeadLetterSink::write(&sink, &letters).await.unwrap();
        let written = memory.written.lock().unwrap();
        assert_eq!(written[0].payload.as_deref(), Some(&b"redacted"[..]));
        assert_eq!(letters[0].payload.as_deref(), Some(&b"data"[..]));
        assert_eq!(written[0].idempotency_key(), letters[0].idempotency_key());
    }

    #[tokio::test]
    async fn a_mapped_sink_fails_as_its_sink_does() {
        let sink = Memory { fails: true, ..Memory::default() }.map(|letter| letter);
        assert_eq!(DeadLetterSink::write(&sink, &[letter()]).await, Err("the sink is down"));
    }
}
