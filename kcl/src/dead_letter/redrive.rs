//! Redrive: dead letters back into the stream, or to a handler.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_types::SdkConfig;
use kinesis_aggregation::AggregateBuilder;
use kinesis_common::stream_name::StreamName;

use super::REDRIVES_TAG;
use super::letter::DeadLetter;
use super::locate::{Located, locate};
use super::put::{Entry, client_config, put, put_client};
use super::sink::SinkError;
use super::source::{DeadLetterSource, StoredLetter};
use super::stream_sink::key_of;

const DEFAULT_MAX_REDRIVES: u32 = 3;
/// Attempts to read a record of a letter without payload.
const READ_ATTEMPTS: u32 = 5;

/// Puts dead letters into the stream again, or hands them to a handler, and removes them from where they were stored.
///
/// ```no_run
/// use kcl::{FileSource, Redrive};
///
/// # async fn redrive(sdk_config: aws_types::SdkConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let mut letters = FileSource::new("/var/lib/billing/dead-letters.ndjson");
/// let report = Redrive::new(&sdk_config).run(&mut letters).await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
///
/// **What is put.** The record has the payload, the partition key and the explicit hash key of the letter, so it goes
/// to the shard that has its hash key now. It is an aggregate of one record in the KPL's format, marked with the number
/// of its redrives, which [`Record::redrives`](crate::Record::redrives) returns. Java consumers read it too, and ignore
/// the mark. A record that was put without a partition key gets one. The sequence number is a new one.
///
/// **No loop.** If the record fails again, its next letter has the number of redrives, and a redrive leaves letters
/// that reached [the limit](Self::with_max_redrives).
///
/// **Nothing is lost.** A letter is removed from its source after its record is in the stream, or the handler returned
/// `Ok`. If the process ends in between, the next redrive does it again. A letter that is not redriven stays in the
/// source, and the [`RedriveReport`] counts it.
///
/// **Order.** Letters of one partition key are put one after the other, in the order in which the source has them. If
/// one fails, the later ones of its key stay in the source, too.
///
/// A letter without payload is completed from its stream, if that still has the record. That needs
/// `kinesis:GetShardIterator` and `kinesis:GetRecords` on the stream, and putting needs `kinesis:PutRecords`.
#[derive(Clone)]
pub struct Redrive {
    puts: Client,
    reads: Client,
    stream: Option<StreamName>,
    max_redrives: u32,
    change: Option<Arc<dyn Fn(DeadLetter) -> DeadLetter + Send + Sync>>,
}

/// Counts of a redrive. Each letter that was read counts in one of the fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RedriveReport {
    /// Letters that were redriven and removed.
    pub redriven: u64,
    /// Letters that stay because they were redriven as often as allowed.
    pub redriven_too_often: u64,
    /// Letters without payload that stay because the stream does not hold their record any more.
    pub gone: u64,
    /// Letters that stay because they cannot be read.
    pub unreadable: u64,
    /// Letters that stay because the put, the handler, or the read of their record failed.
    pub failed: u64,
    /// Letters that stay because an earlier one of their partition key failed.
    pub held: u64,
}

impl RedriveReport {
    /// Number of letters that stay in the source.
    pub fn left(&self) -> u64 {
        self.redriven_too_often + self.gone + self.unreadable + self.failed + self.held
    }
}

impl fmt::Display for RedriveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { redriven, redriven_too_often, gone, unreadable, failed, held } = self;
        write!(
            f,
            "redriven={redriven} redriven_too_often={redriven_too_often} gone={gone} unreadable={unreadable} \
             failed={failed} held={held}"
        )
    }
}

/// Error of a redrive: its source failed.
#[derive(Debug, thiserror::Error)]
#[error("the redrive ended early ({report})")]
#[non_exhaustive]
pub struct RedriveError {
    /// Counts up to the error. Redriven letters of the last batch may not be removed.
    pub report: RedriveReport,
    /// Error of the source.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl Redrive {
    /// Creates a redrive that puts each letter into the stream that it came from.
    pub fn new(sdk_config: &SdkConfig) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(READ_ATTEMPTS);
        let reads = client_config(sdk_config).retry_config(retries);
        Self {
            puts: put_client(sdk_config),
            reads: Client::from_conf(reads.build()),
            stream: None,
            max_redrives: DEFAULT_MAX_REDRIVES,
            change: None,
        }
    }

    /// Puts all letters into this stream, a name or an ARN. Default: the stream that the letter came from.
    ///
    /// # Errors
    /// [`SinkError::Invalid`]: the text is no name or ARN of a stream.
    pub fn into_stream(mut self, stream: impl AsRef<str>) -> Result<Self, SinkError> {
        self.stream = Some(stream_name(stream.as_ref())?);
        Ok(self)
    }

    /// Sets how often a record may be redriven. Default: 3. A letter of a record that was redriven as often stays in
    /// the source.
    #[must_use]
    pub fn with_max_redrives(mut self, max_redrives: u32) -> Self {
        self.max_redrives = max_redrives;
        self
    }

    /// Changes each letter before it is redriven, for example to decrypt what [`map`](crate::DeadLetterSink::map) of
    /// the sink encrypted. It is called for letters without payload, too, before their payload is read from the stream.
    #[must_use]
    pub fn map(
        mut self,
        change: impl Fn(DeadLetter) -> DeadLetter + Send + Sync + 'static,
    ) -> Self {
        self.change = Some(Arc::new(change));
        self
    }

    /// Puts the letters of `source` into the stream again, until the source has none that it did not offer before.
    ///
    /// **Memory.** One batch of letters, and about 100 bytes for each letter that stays.
    ///
    /// # Errors
    /// The source failed. The error has the counts up to then.
    ///
    /// # Cancel safety
    /// Letters of the current batch may be in the stream and in the source, and the next redrive puts them again.
    pub async fn run<S: DeadLetterSource>(
        &self,
        source: &mut S,
    ) -> Result<RedriveReport, RedriveError> {
        let mut run = Run::new(self);
        let ended = async {
            while let Some(ready) = run.next(source).await? {
                let done = run.put(ready).await;
                run.remove(source, done).await?;
            }
            Ok(())
        };
        let ended = ended.await;
        run.end(source, ended).await
    }

    /// Hands the letters of `source` to `handler`, one after the other, until the source has none that it did not offer
    /// before. A letter is removed after the handler returned `Ok`. Each has its payload.
    ///
    /// # Errors
    /// The source failed. The error has the counts up to then. An error of the handler is logged and counted, and the
    /// letter stays.
    ///
    /// # Cancel safety
    /// Letters of the current batch may be handled and still be in the source.
    pub async fn run_with<S, F, R, E>(
        &self,
        source: &mut S,
        mut handler: F,
    ) -> Result<RedriveReport, RedriveError>
    where
        S: DeadLetterSource,
        F: FnMut(DeadLetter) -> R,
        R: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let mut run = Run::new(self);
        let ended = async {
            while let Some(ready) = run.next(source).await? {
                let mut done = Vec::new();
                for Ready { id, letter } in ready {
                    let (key, name) = (key_of(&letter), letter.idempotency_key());
                    if run.failed_keys.contains(&key) {
                        run.held(id);
                        continue;
                    }
                    match handler(letter).await {
                        Ok(()) => done.push(id),
                        Err(error) => run.failed(id, key, &name, &error.to_string()),
                    }
                }
                run.remove(source, done).await?;
            }
            Ok(())
        };
        let ended = ended.await;
        run.end(source, ended).await
    }

    /// The stream that the letter's record is in.
    fn origin(letter: &DeadLetter) -> Result<StreamName, SinkError> {
        stream_name(letter.stream_arn.as_ref().unwrap_or(&letter.stream))
    }
}

impl fmt::Debug for Redrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive")
            .field("stream", &self.stream)
            .field("max_redrives", &self.max_redrives)
            .finish_non_exhaustive()
    }
}

type SourceError = Box<dyn Error + Send + Sync>;

/// One run over a source.
struct Run<'a> {
    redrive: &'a Redrive,
    report: RedriveReport,
    /// Letters that stay. A source may offer them again.
    left: HashSet<String>,
    /// Partition keys of letters that failed: their later letters must not overtake them.
    failed_keys: HashSet<String>,
}

/// A letter that may be redriven. It has its payload.
struct Ready {
    id: String,
    letter: DeadLetter,
}

/// Why a letter that can be read is not redriven.
enum Refusal {
    TooOften,
    Gone,
    Failed(String),
}

impl<'a> Run<'a> {
    fn new(redrive: &'a Redrive) -> Self {
        Self {
            redrive,
            report: RedriveReport::default(),
            left: HashSet::new(),
            failed_keys: HashSet::new(),
        }
    }

    /// Reads the next letters, and sorts out those that stay. `None`: the source has no new ones.
    async fn next<S: DeadLetterSource>(
        &mut self,
        source: &mut S,
    ) -> Result<Option<Vec<Ready>>, SourceError> {
        let mut letters = source.read().await.map_err(Into::into)?;
        letters.retain(|stored| !self.left.contains(&stored.id));
        if letters.is_empty() {
            return Ok(None);
        }
        let mut ready = Vec::new();
        for StoredLetter { id, letter } in letters {
            let letter = match letter {
                Ok(letter) => letter,
                Err(error) => {
                    tracing::warn!(id, %error, "a dead letter cannot be read and stays where it is");
                    self.report.unreadable += 1;
                    self.left.insert(id);
                    continue;
                }
            };
            let (key, name) = (key_of(&letter), letter.idempotency_key());
            match self.complete(letter).await {
                Ok(letter) => ready.push(Ready { id, letter }),
                Err(Refusal::TooOften) => {
                    let redrives = self.redrive.max_redrives;
                    tracing::warn!(letter = name, redrives, "the record was redriven too often");
                    self.report.redriven_too_often += 1;
                    self.left.insert(id);
                }
                Err(Refusal::Gone) => {
                    tracing::warn!(letter = name, "the stream does not hold the record any more");
                    self.report.gone += 1;
                    self.left.insert(id);
                }
                Err(Refusal::Failed(cause)) => self.failed(id, key, &name, &cause),
            }
        }
        Ok(Some(ready))
    }

    /// Changes a letter as the application asked, and reads its payload if it has none.
    async fn complete(&self, letter: DeadLetter) -> Result<DeadLetter, Refusal> {
        if letter.redrives >= self.redrive.max_redrives {
            return Err(Refusal::TooOften);
        }
        let mut letter = match &self.redrive.change {
            Some(change) => change(letter),
            None => letter,
        };
        if letter.payload.is_none() {
            let stream = Redrive::origin(&letter).map_err(|e| Refusal::Failed(e.to_string()))?;
            match locate(&self.redrive.reads, &stream, &letter).await {
                Ok(Located::Found(payload)) => letter.payload = Some(payload),
                Ok(Located::Gone) => return Err(Refusal::Gone),
                Err(cause) => return Err(Refusal::Failed(cause)),
            }
        }
        Ok(letter)
    }

    /// Puts letters into their streams, and returns the ids of those that are there.
    async fn put(&mut self, ready: Vec<Ready>) -> Vec<String> {
        let mut done = Vec::new();
        for round in rounds(ready) {
            let mut streams: Vec<(StreamName, Vec<Ready>)> = Vec::new();
            for ready in round {
                let key = key_of(&ready.letter);
                if self.failed_keys.contains(&key) {
                    self.held(ready.id);
                    continue;
                }
                match self.redrive.stream.clone().map_or_else(|| Redrive::origin(&ready.letter), Ok)
                {
                    Ok(stream) => match streams.iter_mut().find(|(other, _)| *other == stream) {
                        Some((_, letters)) => letters.push(ready),
                        None => streams.push((stream, vec![ready])),
                    },
                    Err(error) => {
                        let name = ready.letter.idempotency_key();
                        self.failed(ready.id, key, &name, &error.to_string());
                    }
                }
            }
            for (stream, letters) in streams {
                let entries: Vec<_> = letters.iter().map(|ready| entry(&ready.letter)).collect();
                let failures = put(&self.redrive.puts, &stream, &entries).await;
                let mut failures = failures.into_iter().peekable();
                for (index, Ready { id, letter }) in letters.into_iter().enumerate() {
                    match failures.next_if(|(failed, _)| *failed == index) {
                        None => done.push(id),
                        Some((_, cause)) => {
                            self.failed(id, key_of(&letter), &letter.idempotency_key(), &cause);
                        }
                    }
                }
            }
        }
        done
    }

    async fn remove<S: DeadLetterSource>(
        &mut self,
        source: &mut S,
        done: Vec<String>,
    ) -> Result<(), SourceError> {
        if !done.is_empty() {
            source.remove(&done).await.map_err(Into::into)?;
        }
        self.report.redriven += done.len() as u64;
        Ok(())
    }

    fn failed(&mut self, id: String, key: String, letter: &str, cause: &str) {
        tracing::warn!(letter, cause, "a dead letter was not redriven and stays where it is");
        self.report.failed += 1;
        self.failed_keys.insert(key);
        self.left.insert(id);
    }

    fn held(&mut self, id: String) {
        self.report.held += 1;
        self.left.insert(id);
    }

    async fn end<S: DeadLetterSource>(
        self,
        source: &mut S,
        ended: Result<(), SourceError>,
    ) -> Result<RedriveReport, RedriveError> {
        let finished = source.finish().await.map_err(Into::into);
        match ended.and(finished) {
            Ok(()) => Ok(self.report),
            Err(source) => Err(RedriveError { report: self.report, source }),
        }
    }
}

/// Divides letters into rounds: each has at most one letter of a partition key, because the records of a PutRecords
/// request may be stored in any order.
fn rounds(ready: Vec<Ready>) -> Vec<Vec<Ready>> {
    let mut rounds: Vec<Vec<Ready>> = Vec::new();
    let mut next_of_key: HashMap<String, usize> = HashMap::new();
    for ready in ready {
        let next = next_of_key.entry(key_of(&ready.letter)).or_default();
        if *next == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*next].push(ready);
        *next += 1;
    }
    rounds
}

/// The record of a letter: an aggregate of one, with the number of its redrives.
fn entry(letter: &DeadLetter) -> Entry {
    let partition_key = key_of(letter);
    let payload = letter.payload.as_deref().unwrap_or_default();
    let redrives = letter.redrives.saturating_add(1).to_string();
    let mut aggregate = AggregateBuilder::new(0);
    let tags = [(REDRIVES_TAG, &redrives[..])];
    let pushed = aggregate.push_tagged(&partition_key, letter.explicit_hash_key, payload, &tags);
    pushed.expect("the first record always fits");
    Entry {
        explicit_hash_key: letter.explicit_hash_key,
        data: aggregate.seal().into_bytes(),
        partition_key,
    }
}

fn stream_name(text: &str) -> Result<StreamName, SinkError> {
    let named = text.parse::<StreamName>();
    named.map_err(|problem| SinkError::Invalid { problem: format!("the stream {problem}") })
}

#[cfg(test)]
mod tests;
