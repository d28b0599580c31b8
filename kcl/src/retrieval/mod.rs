//! Reading one shard.
//!
//! Two modules read shards: [`polling`] by GetRecords, and [`fan_out`] by SubscribeToShard. Each implements
//! [`Retrieval`] and [`ShardSource`]. `SchedulerBuilder::build` chooses one of them by the settings. Both need what is
//! here: the [`Position`] to start at, the [`Page`], the channel of pages to the shard's consumer ([`pages`]), the
//! [`budget`] that bounds memory, and the [`watch`](shard_watch) over what may have happened to the shard while it was
//! not read.
//!
//! A source runs as a task of its own until it is dropped. To read from another position, or not at all for a while,
//! the consumer drops the source and opens another one later.

mod bound;
mod budget;
#[cfg(test)]
mod embedded;
mod failure;
pub(crate) mod fan_out;
mod pages;
mod polling;
mod raw_records;
mod shard_watch;
mod shared_call;
mod stream_check;
mod trimmed;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::types::{self, ShardIteratorType};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_aggregation::HashKeyRange;

pub(crate) use self::bound::{Bound, Bounds};
pub use self::budget::Held;
pub(crate) use self::budget::{ByteBudget, HeldBytes, HeldPage, ShardBudget};
pub(crate) use self::pages::Pages;
pub use self::pages::{PageSender, Room};
pub(crate) use self::polling::PollingRetrieval;
#[cfg(any(test, feature = "testing", feature = "internals"))]
pub use self::raw_records::RawRecord;
pub use self::raw_records::RawRecords;
pub(crate) use self::stream_check::StreamCheck;
use crate::checkpoint::Checkpoint;
use crate::config::{InitialPosition, StreamPosition};
use crate::error::WorkerError;
use crate::lease::{ChildShard, StreamIdentity};
use crate::sequence::SequenceNumber;
use crate::snapshot::ShardStatus;

/// A way to read shards: opens a source for each shard that the worker owns.
pub trait Retrieval: Send + Sync {
    /// A source of one shard. It has read nothing yet.
    fn open(&self, start: Start) -> Box<dyn ShardSource>;

    /// Frees what the service keeps for the worker, within `limit`. Called when the worker ends. Default: does nothing.
    fn stopped(&self, _limit: Duration) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// The shard to read, and the position to start at.
#[derive(Debug)]
pub struct Start {
    /// Names the shard. The source notes its failures and its progress here.
    pub(crate) status: Arc<ShardStatus>,
    pub position: Position,
    /// The stream that the lease names, if it names one.
    pub(crate) stream: Option<StreamIdentity>,
    /// Time up to which all records were read and checkpointed, as the lease notes it.
    pub(crate) read_to: Option<SystemTime>,
    /// Seed of all random choices of the source.
    pub seed: u64,
}

/// Reads one shard.
pub trait ShardSource: Send {
    /// Reads the shard in its order, and sends each page that has records, and the last page of the shard. Reading
    /// stops when the future is dropped.
    ///
    /// # Errors
    /// The shard cannot be read any more, because its stream was deleted or created again. The worker ends.
    /// Every other failure is retried.
    fn run(self: Box<Self>, pages: PageSender) -> BoxFuture<'static, Result<(), WorkerError>>;
}

/// The position in a shard to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The oldest record that the stream keeps.
    TrimHorizon,
    /// Records that are put from now on.
    Latest,
    /// The first record that arrived at this time or later.
    Time(SystemTime),
    /// This record. User records of it that are checkpointed are left out after de-aggregation.
    At(SequenceNumber),
    /// After this record, which was the last one fetched.
    After(SequenceNumber),
}

impl Position {
    /// The last record fetched. `None` if nothing was fetched yet.
    pub(crate) fn fetched(&self) -> Option<&SequenceNumber> {
        match self {
            Self::After(number) => Some(number),
            _ => None,
        }
    }

    /// The position after an event of a subscription that gave `next` as the number to continue after.
    fn after_event(&self, next: SequenceNumber, has_records: bool) -> Self {
        match self {
            // The record itself was not received yet. Its user records may be checkpointed in part.
            Self::At(number) if !has_records && next <= *number => self.clone(),
            // What was received is not received again.
            Self::After(number) if next < *number => self.clone(),
            _ => Self::After(next),
        }
    }

    /// The position as the service takes it: its type, sequence number, and time.
    fn parts(&self) -> (ShardIteratorType, Option<&SequenceNumber>, Option<SystemTime>) {
        match self {
            Self::TrimHorizon => (ShardIteratorType::TrimHorizon, None, None),
            Self::Latest => (ShardIteratorType::Latest, None, None),
            Self::Time(time) => (ShardIteratorType::AtTimestamp, None, Some(*time)),
            Self::At(number) => (ShardIteratorType::AtSequenceNumber, Some(number), None),
            Self::After(number) => (ShardIteratorType::AfterSequenceNumber, Some(number), None),
        }
    }

    /// Returns the start position of the owner of a lease. `None`: the shard is finished.
    ///
    /// `resume_from` is the time at which a lease at `LATEST` was created. Its first owner starts there, so it
    /// misses no record that was put since.
    pub(crate) fn start(
        checkpoint: &Checkpoint,
        resume_from: Option<SystemTime>,
        initial: &InitialPosition,
    ) -> Option<Self> {
        Some(match checkpoint {
            Checkpoint::Before(number) => Self::At(number.clone()),
            Checkpoint::At(position) => Self::At(position.sequence_number.clone()),
            Checkpoint::TrimHorizon => Self::TrimHorizon,
            Checkpoint::Latest => resume_from.map_or(Self::Latest, Self::Time),
            Checkpoint::AtTimestamp => match (resume_from, initial.of_others()) {
                (Some(time), _) | (None, StreamPosition::AtTimestamp(time)) => Self::Time(time),
                // The settings have changed since the lease was created. No record may be skipped.
                _ => Self::TrimHorizon,
            },
            Checkpoint::ShardEnd => return None,
        })
    }
}

/// One page of a shard.
#[derive(Debug)]
pub struct Page {
    pub records: RawRecords,
    pub millis_behind_latest: Option<u64>,
    /// The children of the shard on its last page, if the service named them. `None` on every other page.
    pub end: Option<Vec<ChildShard>>,
    pub held: Held,
}

impl Page {
    /// The last page of a shard that the stream no longer lists, because its retention is over.
    fn vanished(status: &ShardStatus, held: Held) -> Self {
        tracing::error!(
            shard_id = status.shard_id(),
            "the shard does not exist any more: records that were not read before the end of their retention are lost"
        );
        Self {
            records: RawRecords::default(),
            millis_behind_latest: None,
            end: Some(Vec::new()),
            held,
        }
    }
}

/// Returns `None` if one of the children cannot be used. The children are then taken from ListShards.
fn read_children(children: Vec<types::ChildShard>) -> Option<Vec<ChildShard>> {
    children.into_iter().map(read_child).collect()
}

fn read_child(child: types::ChildShard) -> Option<ChildShard> {
    let range = child.hash_key_range?;
    Some(ChildShard {
        shard_id: child.shard_id,
        parents: child.parent_shards,
        hash_key_range: HashKeyRange::new(
            range.starting_hash_key.parse().ok()?,
            range.ending_hash_key.parse().ok()?,
        )
        .ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::sequence::ExtendedSequenceNumber;

    #[test]
    fn each_checkpoint_starts_where_it_says() {
        let number: SequenceNumber = "42".parse().unwrap();
        let at = Checkpoint::At(ExtendedSequenceNumber::new(number.clone(), 3));
        let early = UNIX_EPOCH + Duration::from_secs(1);
        let late = UNIX_EPOCH + Duration::from_secs(2);
        use InitialPosition::{AtTimestamp, Latest, TrimHorizon};
        for (checkpoint, resume_from, initial, expected) in [
            (&at, Some(early), Latest, Some(Position::At(number.clone()))),
            (&Checkpoint::Before(number.clone()), None, Latest, Some(Position::At(number))),
            (&Checkpoint::TrimHorizon, None, Latest, Some(Position::TrimHorizon)),
            (&Checkpoint::Latest, None, TrimHorizon, Some(Position::Latest)),
            (&Checkpoint::Latest, Some(early), Latest, Some(Position::Time(early))),
            (&Checkpoint::AtTimestamp, None, AtTimestamp(late), Some(Position::Time(late))),
            (&Checkpoint::AtTimestamp, Some(early), AtTimestamp(late), Some(Position::Time(early))),
            (&Checkpoint::AtTimestamp, Some(early), Latest, Some(Position::Time(early))),
            (&Checkpoint::AtTimestamp, None, Latest, Some(Position::TrimHorizon)),
            (&Checkpoint::ShardEnd, None, TrimHorizon, None),
        ] {
            let start = Position::start(checkpoint, resume_from, &initial);
            assert_eq!(start, expected, "{checkpoint} {resume_from:?} {initial:?}");
        }
    }
}
