//! Where a redrive reads dead letters.

use std::error::Error;
use std::future::Future;

use super::json::InvalidDeadLetter;
use super::letter::DeadLetter;

/// Store of dead letters that a [`Redrive`](crate::Redrive) reads and empties.
pub trait DeadLetterSource: Send {
    /// Error of the store.
    type Error: Into<Box<dyn Error + Send + Sync>> + Send;

    /// Reads the next letters, at most a few megabytes, in the order in which they were written if the store keeps it.
    /// Empty: there are no more. Each letter comes once, unless the store offers letters that are still there again.
    ///
    /// # Errors
    /// The store cannot be read. The redrive ends.
    fn read(&mut self) -> impl Future<Output = Result<Vec<StoredLetter>, Self::Error>> + Send;

    /// Removes letters of the last [`read`](Self::read), because they were redriven. The others stay in the store.
    ///
    /// # Errors
    /// Some of them may still be there. The redrive ends, and a later one redrives them again.
    fn remove(&mut self, ids: &[String]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Ends the reading. It is called once, also after an error. Default: does nothing.
    ///
    /// # Errors
    /// Letters that were removed may still be there.
    fn finish(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        async { Ok(()) }
    }
}

/// Letter in a [`DeadLetterSource`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoredLetter {
    /// Names the letter in its store. It is the same if the store offers the letter again.
    pub id: String,
    /// The letter, or why it cannot be read. A letter that cannot be read stays in the store.
    pub letter: Result<DeadLetter, InvalidDeadLetter>,
}

impl StoredLetter {
    /// Reads a letter that [`DeadLetter::to_json`] wrote.
    pub fn from_json(id: impl Into<String>, json: &[u8]) -> Self {
        Self { id: id.into(), letter: DeadLetter::from_json(json) }
    }
}
