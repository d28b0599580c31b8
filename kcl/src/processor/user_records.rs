//! The user records of one page, after de-aggregation.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use kinesis_aggregation::{Aggregate, FrameError, Member};

use crate::retrieval::{HeldBytes, RawRecords};
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// The user records of one page, numbered from 0. Batches and kept records share them. Their memory counts against the
/// worker's byte budget until the last of these is dropped.
#[derive(Debug)]
pub(crate) struct UserRecords {
    raw: RawRecords,
    runs: Runs,
    held: HeldBytes,
}

/// User records in order, in runs: the members of an aggregate, or Kinesis records that were not aggregated. A page
/// without aggregates is one run.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    /// The number of user records.
    len: usize,
}

/// User records that follow each other. There is at least one.
#[derive(Debug)]
pub(crate) struct Run {
    /// The number of its first user record.
    start: usize,
    /// The index of its first Kinesis record.
    raw: usize,
    content: Content,
}

/// What a run is made of.
pub(crate) enum Content {
    /// Kinesis records that were not aggregated.
    Plain,
    /// A Kinesis record that could not be decompressed.
    Unopened {
        /// 0, or the checkpoint within the frame.
        sub_sequence_number: u64,
        error: FrameError,
    },
    /// Members of an aggregate.
    Aggregate { aggregate: Aggregate, kept: Kept },
}

impl fmt::Debug for Content {
    /// Shows neither data nor keys, because logs must not hold them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("Plain"),
            Self::Unopened { error, .. } => f.debug_tuple("Unopened").field(error).finish(),
            Self::Aggregate { aggregate, kept } => f
                .debug_struct("Aggregate")
                .field("members", &aggregate.len())
                .field("kept", kept)
                .finish(),
        }
    }
}

/// The members of an aggregate that are delivered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All from this index on.
    From(usize),
    /// These, in order.
    Only(Vec<u32>),
}

impl Kept {
    /// The number of members, of `all`.
    fn len(&self, all: usize) -> usize {
        match self {
            Self::From(first) => all.saturating_sub(*first),
            Self::Only(members) => members.len(),
        }
    }

    /// The index of the `nth` member in its aggregate.
    fn index(&self, nth: usize) -> usize {
        match self {
            Self::From(first) => first + nth,
            Self::Only(members) => members[nth] as usize,
        }
    }
}

impl Runs {
    /// Adds Kinesis records that were not aggregated.
    pub(crate) fn push_plain(&mut self, records: Range<usize>) {
        if records.is_empty() {
            return;
        }
        let goes_on = self.runs.last().is_some_and(|run| {
            matches!(run.content, Content::Plain)
                && run.raw + (self.len - run.start) == records.start
        });
        if !goes_on {
            self.push(records.start, Content::Plain);
        }
        self.len += records.len();
    }

    /// Adds a Kinesis record that could not be decompressed.
    pub(crate) fn push_unopened(
        &mut self,
        raw: usize,
        sub_sequence_number: u64,
        error: FrameError,
    ) {
        self.push(raw, Content::Unopened { sub_sequence_number, error });
        self.len += 1;
    }

    /// Adds members of an aggregate, if there are any.
    pub(crate) fn push_aggregate(&mut self, raw: usize, aggregate: Aggregate, kept: Kept) {
        let members = kept.len(aggregate.len());
        if members > 0 {
            self.push(raw, Content::Aggregate { aggregate, kept });
            self.len += members;
        }
    }

    fn push(&mut self, raw: usize, content: Content) {
        self.runs.push(Run { start: self.len, raw, content });
    }

    /// The memory that they take, in bytes.
    fn memory(&self) -> usize {
        let of_content = |run: &Run| match &run.content {
            Content::Plain | Content::Unopened { .. } => 0,
            Content::Aggregate { aggregate, kept: Kept::From(_) } => aggregate.memory(),
            Content::Aggregate { aggregate, kept: Kept::Only(members) } => {
                aggregate.memory() + members.capacity() * size_of::<u32>()
            }
        };
        self.runs.capacity() * size_of::<Run>() + self.runs.iter().map(of_content).sum::<usize>()
    }
}

impl UserRecords {
    /// `runs`: made of the records of `raw`, in their order.
    pub(crate) fn new(raw: RawRecords, mut runs: Runs, mut held: HeldBytes) -> Self {
        runs.runs.shrink_to_fit();
        held.resize(size_of::<Self>() + raw.memory() + runs.memory());
        Self { raw, runs, held }
    }

    /// The number of user records.
    pub(crate) fn len(&self) -> usize {
        self.runs.len
    }

    /// The memory that the page takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.held.bytes()
    }

    pub(crate) fn raw(&self) -> &RawRecords {
        &self.raw
    }

    /// The run of a user record, and the record's place in it.
    pub(super) fn locate(&self, record: usize) -> (usize, usize) {
        let runs = &self.runs.runs;
        let run = runs.partition_point(|run| run.start <= record).saturating_sub(1);
        (run, record - runs.get(run).map_or(0, |run| run.start))
    }

    /// The numbers of the user records of a run.
    pub(super) fn records_of(&self, run: usize) -> Range<usize> {
        let start = |run: usize| self.runs.runs.get(run).map_or(self.runs.len, |run| run.start);
        start(run)..start(run + 1)
    }

    pub(super) fn run(&self, run: usize) -> &Run {
        &self.runs.runs[run]
    }

    /// The position of a user record.
    pub(crate) fn position(&self, record: usize) -> ExtendedSequenceNumber {
        let (run, nth) = self.locate(record);
        let run = self.run(run);
        let number = self.raw.sequence_number(run.raw_index(nth));
        ExtendedSequenceNumber::new(number, run.sub_sequence_number(nth))
    }

    /// Time of arrival of a user record.
    pub(crate) fn arrival(&self, record: usize) -> Option<SystemTime> {
        let (run, nth) = self.locate(record);
        self.raw.arrival(self.run(run).raw_index(nth))
    }

    /// The first user record after `done`.
    pub(crate) fn first_after(&self, done: &ExtendedSequenceNumber) -> usize {
        let first_of = |run: &Run| self.raw.sequence_number(run.raw);
        let begun = self.runs.runs.partition_point(|run| first_of(run) <= done.sequence_number);
        // All runs before the last one that has begun are done.
        let Some(last) = begun.checked_sub(1) else { return 0 };
        let Range { start, end } = self.records_of(last);
        let run = self.run(last);
        start + run.done(end - start, done, |raw| self.raw.sequence_number(raw))
    }

    /// The user record at a position. `None`: there is none.
    pub(crate) fn find(&self, position: &ExtendedSequenceNumber) -> Option<usize> {
        let last = self.first_after(position).checked_sub(1)?;
        (self.position(last) == *position).then_some(last)
    }

    /// The size of the payloads of some user records, in bytes.
    pub(crate) fn payload_bytes(&self, records: Range<usize>) -> usize {
        if records.is_empty() {
            return 0;
        }
        let (first, last) = (self.locate(records.start).0, self.locate(records.end - 1).0);
        let of_run = |run| {
            let of_run = self.records_of(run);
            let start = records.start.max(of_run.start) - of_run.start;
            let end = records.end.min(of_run.end) - of_run.start;
            let run = self.run(run);
            match &run.content {
                Content::Aggregate { .. } => {
                    let members = (start..end).filter_map(|nth| run.member(nth));
                    members.map(|member| member.data().len()).sum()
                }
                _ => self.raw.data_len(run.raw + start..run.raw + end),
            }
        };
        (first..=last).map(of_run).sum::<usize>()
    }
}

impl Run {
    /// The index of the Kinesis record of the `nth` user record.
    pub(super) fn raw_index(&self, nth: usize) -> usize {
        match self.content {
            Content::Plain => self.raw + nth,
            _ => self.raw,
        }
    }

    /// The `nth` user record, if it is a member of an aggregate.
    pub(super) fn member(&self, nth: usize) -> Option<Member<'_>> {
        match &self.content {
            Content::Aggregate { aggregate, kept } => {
                let member = aggregate.get(kept.index(nth));
                Some(member.expect("only members of the aggregate are kept"))
            }
            _ => None,
        }
    }

    pub(super) fn sub_sequence_number(&self, nth: usize) -> u64 {
        match &self.content {
            Content::Plain => 0,
            Content::Unopened { sub_sequence_number, .. } => *sub_sequence_number,
            Content::Aggregate { kept, .. } => kept.index(nth) as u64,
        }
    }

    pub(super) fn frame_error(&self) -> Option<&FrameError> {
        match &self.content {
            Content::Unopened { error, .. } => Some(error),
            _ => None,
        }
    }

    /// How many of its `len` user records are not after `done`.
    fn done(
        &self,
        len: usize,
        done: &ExtendedSequenceNumber,
        number: impl Fn(usize) -> SequenceNumber,
    ) -> usize {
        let is_done = |nth: usize| {
            let order = number(self.raw_index(nth)).cmp(&done.sequence_number);
            let within = || self.sub_sequence_number(nth).cmp(&done.sub_sequence_number);
            order.then_with(within) != Ordering::Greater
        };
        // A binary search, since positions rise.
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low.midpoint(high);
            if is_done(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
