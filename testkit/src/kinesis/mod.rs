//! A small Kinesis: a pure state machine that is told the time, and the service that speaks for it.
//!
//! Every operation is a method of [`Kinesis`] that takes the time and a request and gives a
//! response or a refusal. Nothing here waits, reads a clock or knows a socket; [`service`] puts a
//! lock, the clock and JSON around it.

mod consumers;
mod describe;
mod error;
mod event_stream;
mod get;
mod hash_key;
mod iterator;
mod lifecycle;
mod limits;
mod list_shards;
mod mode;
mod monitoring;
mod page_token;
mod put;
mod reshard;
mod scaling;
mod sequence;
mod service;
mod shard;
mod stream;
mod subscribe;
mod tags;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::error::ApiError;
pub(crate) use self::event_stream::frames;
use self::limits::CallRate;
pub(crate) use self::service::KinesisService;
pub(crate) use self::shard::{Record, Shard};
use self::stream::Stream;
use self::wire::StreamRef;
use crate::clock::Timestamp;

/// The account all streams belong to.
pub(crate) const ACCOUNT: &str = "000000000000";
/// The region all streams live in.
pub(crate) const REGION: &str = "us-east-1";

/// What a [`LocalAws`](crate::LocalAws) sets.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Whether shards limit what goes in and out, and consumers with fan-out are limited.
    pub(crate) shard_limits: bool,
    pub(crate) iterator_ttl: Duration,
    /// How long a subscription to a shard lasts.
    pub(crate) subscription_time: Duration,
    /// How long creating, deleting and resharding take.
    pub(crate) transition: Duration,
    /// Whether records past retention stay in memory, for the oracle only.
    pub(crate) keep_expired: bool,
    /// Most bytes a shard holds; the oldest records beyond it are freed.
    pub(crate) shard_capacity: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shard_limits: false,
            iterator_ttl: Duration::from_secs(300),
            subscription_time: Duration::from_secs(300),
            transition: Duration::ZERO,
            keep_expired: false,
            shard_capacity: None,
        }
    }
}

/// All streams of the account.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Kinesis {
    /// They are those of the process, not of the streams.
    #[serde(skip)]
    settings: Settings,
    streams: BTreeMap<String, Stream>,
    incarnations: u64,
    /// None before the first registration.
    #[serde(skip)]
    registrations: Option<CallRate>,
}

impl Kinesis {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// The streams as they were kept, under new settings. Without `complete`, changes were made since:
    /// no number that a client may have seen is given again.
    pub(crate) fn restored(self, settings: Settings, complete: bool) -> Self {
        /// Streams and consumers that may have been made and lost.
        const GAP: u64 = 1 << 32;
        let mut restored = Self { settings, ..self };
        if !complete {
            restored.incarnations += GAP;
            let streams = restored.streams.values_mut();
            streams.flat_map(|stream| &mut stream.shards).for_each(Shard::leave_gap);
        }
        restored
    }

    fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// The stream a request names, with every change in effect whose time has come.
    fn stream(&mut self, now: Timestamp, stream: StreamRef<'_>) -> Result<&mut Stream, ApiError> {
        let name = resolve(stream)?;
        self.settle(now, name);
        let keep_expired = self.settings.keep_expired;
        let stream = self.streams.get_mut(name).ok_or_else(|| {
            ApiError::not_found(format!("Stream {name} under account {ACCOUNT} not found."))
        })?;
        if !keep_expired {
            stream.free_expired(now);
        }
        Ok(stream)
    }

    /// The same, for changes: the stream must not be in the middle of one.
    fn active(&mut self, now: Timestamp, stream: StreamRef<'_>) -> Result<&mut Stream, ApiError> {
        let stream = self.stream(now, stream)?;
        if stream.is_active() {
            return Ok(stream);
        }
        Err(ApiError::in_use(format!(
            "Stream {} under account {ACCOUNT} not ACTIVE, instead in state {}",
            stream.name,
            stream.status()
        )))
    }

    /// The same, for records: the stream must be active or updating.
    fn serving(&mut self, now: Timestamp, stream: StreamRef<'_>) -> Result<&mut Stream, ApiError> {
        let stream = self.stream(now, stream)?;
        if stream.serves_data() {
            return Ok(stream);
        }
        Err(ApiError::not_found(format!(
            "Stream {} under account {ACCOUNT} is {}: it neither takes nor gives records",
            stream.name,
            stream.status()
        )))
    }

    fn settle(&mut self, now: Timestamp, name: &str) {
        let Some(stream) = self.streams.get_mut(name) else {
            return;
        };
        stream.settle(now);
        if stream.is_deleted() {
            self.streams.remove(name);
        }
    }

    fn settle_all(&mut self, now: Timestamp) {
        for stream in self.streams.values_mut() {
            stream.settle(now);
        }
        self.streams.retain(|_, stream| !stream.is_deleted());
    }

    /// The shards of a stream, for the oracle.
    pub(crate) fn shards_of(&mut self, now: Timestamp, name: &str) -> Result<&[Shard], ApiError> {
        let stream = self.stream(now, StreamRef { name: Some(name), arn: None })?;
        Ok(&stream.shards)
    }
}

/// The name a request means.
fn resolve(stream: StreamRef<'_>) -> Result<&str, ApiError> {
    let from_arn = match stream.arn {
        None => None,
        Some(arn) => Some(name_of_arn(arn).ok_or_else(|| {
            ApiError::not_found(format!(
                "StreamARN {arn} names no stream of account {ACCOUNT} in {REGION}"
            ))
        })?),
    };
    match (stream.name, from_arn) {
        (Some(name), Some(from_arn)) if name != from_arn => Err(ApiError::invalid_argument(
            format!("StreamName {name} and StreamARN name different streams"),
        )),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => {
            Err(ApiError::invalid_argument("Either StreamName or StreamARN must be given."))
        }
    }
}

fn arn_of(name: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}")
}

/// The name in a stream's ARN, if it is one of this account and region.
fn name_of_arn(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let prefix = [parts.next()?, parts.next()?, parts.next()?];
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    (prefix == ["arn", "aws", "kinesis"] && region == REGION && account == ACCOUNT)
        .then(|| resource.strip_prefix("stream/"))
        .flatten()
}
