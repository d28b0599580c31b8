//! Dead letters in an object store.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures::stream::{BoxStream, Fuse, StreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};

use super::json::time_text;
use super::letter::DeadLetter;
use super::sink::{DeadLetterSink, SinkError};
use super::source::{DeadLetterSource, StoredLetter};

/// Objects that are written or read at a time.
const AT_A_TIME: usize = 8;
/// Letters that are read before they are redriven.
const BATCH: usize = 32;
/// Longest text of an error of the store, in bytes.
const LONGEST: usize = 500;

/// Sink that writes each letter as one object of JSON, as [`DeadLetter::to_json`] writes it: to Amazon S3, another
/// store of the crate `object_store`, or one of yours.
///
/// The store is a parameter, with its own credentials, time limits and retries. For Amazon S3, enable the feature `aws`
/// of `object_store` and build one with its `AmazonS3Builder`.
///
/// The name of an object is `PREFIX/SHARD/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-KEY`, with the time of arrival of the record
/// in UTC and its [idempotency key](DeadLetter::idempotency_key), as Lambda lays out its failure records. A letter that
/// is written again replaces its object. If the time of arrival is not known, the name is `PREFIX/SHARD/undated/KEY`.
#[derive(Clone)]
pub struct ObjectStoreSink {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl ObjectStoreSink {
    /// Creates a sink that writes under `prefix`, for example `dead-letters/billing`. Applications need different
    /// prefixes only to be told apart: the names of their objects differ anyway.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: impl Into<Path>) -> Self {
        Self { store, prefix: prefix.into() }
    }

    async fn put(&self, letter: &DeadLetter) -> Result<(), SinkError> {
        let path = self.path(letter);
        let put = self.store.put(&path, letter.to_json().into_bytes().into()).await;
        put.map(drop).map_err(|error| failed("put", &path, &error))
    }

    fn path(&self, letter: &DeadLetter) -> Path {
        let path = self.prefix.clone().join(letter.shard_id.as_str());
        let key = letter.idempotency_key();
        match letter.arrival {
            Some(arrival) => dated(path, arrival, &key),
            None => path.join("undated").join(key),
        }
    }
}

/// Adds a day and a name that begins with the time.
fn dated(path: Path, time: SystemTime, key: &str) -> Path {
    let text = time_text(time);
    let seconds = text.split('.').next().unwrap_or_default();
    let day = seconds.split('T').next().unwrap_or_default();
    let path = day.split('-').fold(path, |path, part| path.join(part));
    path.join(format!("{}-{key}", seconds.replace(':', ".")))
}

impl DeadLetterSink for ObjectStoreSink {
    type Error = SinkError;

    async fn write(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        // Of owned letters: the compiler cannot show that futures over references are `Send` here.
        let puts = letters.iter().cloned().map(|letter| {
            let sink = self.clone();
            async move { sink.put(&letter).await }
        });
        let puts: Vec<_> = futures::stream::iter(puts).buffer_unordered(AT_A_TIME).collect().await;
        puts.into_iter().collect()
    }
}

impl fmt::Debug for ObjectStoreSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreSink")
            .field("store", &self.store.to_string())
            .field("prefix", &self.prefix.as_ref())
            .finish()
    }
}

/// The letters that an [`ObjectStoreSink`] wrote, for a [`Redrive`](crate::Redrive). Objects of redriven letters are
/// deleted.
///
/// They come in the order in which the store lists them. Amazon S3 lists by name, which is by shard and time of
/// arrival. Objects under the prefix that are no letters stay. A store that checks permissions must allow it to list,
/// get and delete objects.
pub struct ObjectStoreSource {
    store: Arc<dyn ObjectStore>,
    /// Fused, because a store's stream may panic if it is polled after its end.
    listed: Fuse<BoxStream<'static, object_store::Result<ObjectMeta>>>,
    prefix: Path,
}

impl ObjectStoreSource {
    /// Creates a source of the letters under `prefix`, which is that of the sink, or a longer one: of one shard, or of
    /// one day of a shard.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: impl Into<Path>) -> Self {
        let prefix = prefix.into();
        Self { listed: store.list(Some(&prefix)).fuse(), store, prefix }
    }

    async fn get(
        store: Arc<dyn ObjectStore>,
        path: Path,
    ) -> Result<Option<StoredLetter>, SinkError> {
        let read = async { store.get(&path).await?.bytes().await };
        match read.await {
            Ok(json) => Ok(Some(StoredLetter::from_json(path.as_ref(), &json))),
            // It was deleted after it was listed.
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("get", &path, &error)),
        }
    }
}

impl DeadLetterSource for ObjectStoreSource {
    type Error = SinkError;

    async fn read(&mut self) -> Result<Vec<StoredLetter>, SinkError> {
        loop {
            let mut paths = Vec::new();
            while paths.len() < BATCH
                && let Some(listed) = self.listed.next().await
            {
                let listed = listed.map_err(|error| failed("list", &self.prefix, &error))?;
                paths.push(listed.location);
            }
            if paths.is_empty() {
                return Ok(Vec::new());
            }
            let gets = paths.into_iter().map(|path| Self::get(Arc::clone(&self.store), path));
            let letters: Vec<_> = futures::stream::iter(gets).buffered(AT_A_TIME).collect().await;
            let letters: Result<Vec<_>, _> =
                letters.into_iter().filter_map(Result::transpose).collect();
            let letters = letters?;
            if !letters.is_empty() {
                return Ok(letters);
            }
        }
    }

    async fn remove(&mut self, ids: &[String]) -> Result<(), SinkError> {
        let paths: Vec<_> = ids.iter().filter_map(|id| Path::parse(id).ok()).map(Ok).collect();
        let mut deleted = self.store.delete_stream(futures::stream::iter(paths).boxed());
        while let Some(deleted) = deleted.next().await {
            match deleted {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed("delete", &self.prefix, &error)),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectStoreSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreSource")
            .field("store", &self.store.to_string())
            .field("prefix", &self.prefix.as_ref())
            .finish_non_exhaustive()
    }
}

fn failed(call: &'static str, path: &Path, error: &object_store::Error) -> SinkError {
    let mut cause = error.to_string();
    cause.truncate(cause.floor_char_boundary(LONGEST));
    SinkError::Call { call, target: path.to_string(), cause }
}
