//! The records of one shard that are in process, and the tasks that run the handler on them.
//!
//! The consumer admits the records of each page to the [`Window`]. A task that is done with its record takes the next
//! one that may start, and starts tasks for others. So the handlers go on while the consumer waits for the lease
//! table or for a page. Each time the mark moves, it is noted in the shard's progress: from then on, checkpoints and
//! renewals cover the records up to it. [`super::failure::after`] decides what follows a failed attempt.

mod tasks;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use kinesis_common::backoff::Backoff;
use kinesis_common::sync::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::HandleRecord;
use super::schedule::Schedule;
use super::window::{Admission, Limits, Window};
use crate::error::WorkerError;
use crate::processor::batch::{Batch, Records};
use crate::processor::failure::Failures;
use crate::processor::user_records::UserRecords;
use crate::processor::{OwnedRecord, Services, ShardContext};
use crate::retrieval::HeldPage;
use crate::sequence::ExtendedSequenceNumber;

/// A page on its way into the window.
pub(crate) struct Incoming {
    page: Arc<UserRecords>,
    /// The records that are not admitted yet.
    records: Range<usize>,
    is_open: bool,
    /// While it is held, the shard reads only ahead what the worker has room for.
    _held: HeldPage,
}

impl From<Batch> for Incoming {
    fn from(batch: Batch) -> Self {
        let (page, records, held) = batch.into_parts();
        Self { page, records, is_open: false, _held: held }
    }
}

impl Incoming {
    fn is_admitted(&self) -> bool {
        self.records.is_empty() && !self.is_open
    }
}

/// The failed attempts of a record, and the pauses that follow further ones.
#[derive(Debug)]
struct Attempts {
    /// All failed attempts.
    failed: u32,
    /// Those that count by the failure policy.
    counted: Failures,
    backoff: Backoff,
}

struct State {
    window: Window<ExtendedSequenceNumber, OwnedRecord>,
    schedule: Schedule,
    /// The records at work and when their handlers began, in that order.
    at_work: BTreeMap<u64, (u64, Duration)>,
    /// The number of handlers that have begun.
    begun: u64,
    /// The attempts of the records that failed and do not run.
    attempts: HashMap<u64, Attempts>,
    /// The number of records whose last attempt failed.
    failing: usize,
    /// Health says that the handler fails.
    is_reported: bool,
    random: Rng,
    /// Cancelled when records no longer wait for their next attempt.
    winding_down: CancellationToken,
}

/// The records in process of one shard, which the consumer and the handler's tasks share.
pub(crate) struct InFlight {
    handler: Arc<HandleRecord>,
    shard: Arc<ShardContext>,
    services: Services,
    /// The places of all shards of the worker.
    places: Arc<Semaphore>,
    hasher: RandomState,
    state: Mutex<State>,
    has_room: Notify,
    is_at_rest: Notify,
    /// The mark has moved since [`take_progress`](Self::take_progress).
    has_progress: AtomicBool,
    progressed: Notify,
    tasks: TaskTracker,
    /// Cancelled when the handlers are dropped.
    dropped: CancellationToken,
    /// The error that ends the worker.
    fatal: Mutex<Option<WorkerError>>,
}

impl InFlight {
    pub(super) fn new(
        handler: Arc<HandleRecord>,
        shard: ShardContext,
        services: Services,
        places: Arc<Semaphore>,
    ) -> Self {
        let config = &services.config;
        let limits = Limits { records: config.max_window_records, bytes: config.max_window_bytes };
        let state = State {
            window: Window::new(limits),
            schedule: Schedule::new(config.concurrency_per_shard),
            at_work: BTreeMap::new(),
            begun: 0,
            attempts: HashMap::new(),
            failing: 0,
            is_reported: false,
            random: Rng::with_seed(services.seed),
            winding_down: CancellationToken::new(),
        };
        Self {
            handler,
            shard: Arc::new(shard),
            dropped: services.stop.lost.child_token(),
            services,
            places,
            hasher: RandomState::new(),
            state: Mutex::new(state),
            has_room: Notify::new(),
            is_at_rest: Notify::new(),
            has_progress: AtomicBool::new(false),
            progressed: Notify::new(),
            tasks: TaskTracker::new(),
            fatal: Mutex::new(None),
        }
    }
}

/// What the consumer of the shard calls.
impl InFlight {
    /// Admits the records of a page to the window, and waits for room where there is none.
    ///
    /// # Cancel safety
    /// If the call is dropped, the records that are not admitted are left in `incoming`.
    pub(crate) async fn admit(self: &Arc<Self>, incoming: &mut Incoming) {
        while !incoming.is_admitted() {
            self.change(|state| self.admit_now(state, incoming));
            if !incoming.is_admitted() {
                self.has_room.notified().await;
            }
        }
    }

    fn admit_now(&self, state: &mut State, incoming: &mut Incoming) {
        let State { window, schedule, .. } = state;
        let Incoming { page, records, is_open, .. } = incoming;
        if !*is_open {
            *is_open = window.open_page(page.memory());
        }
        if !*is_open {
            return;
        }
        let left = records.clone();
        for record in Records::new(page, slice::from_ref(&left)) {
            if !window.has_room() {
                return;
            }
            records.start += 1;
            // Records without a key have no order among each other.
            let key = record.partition_key().map(|key| self.hasher.hash_one(key));
            match window.admit(record.position(), record.to_owned_record()) {
                Admission::New(number) => schedule.add(number, key),
                // It was begun before the window was emptied.
                Admission::Done(number) => schedule.begun(number),
                Admission::BeforeMark => {}
            }
        }
        window.close_page();
        *is_open = false;
    }

    /// True if all records that were admitted are done.
    pub(crate) fn is_all_done(&self) -> bool {
        self.state.lock().window.is_all_done()
    }

    /// Whether the mark has moved since the last call.
    pub(crate) fn take_progress(&self) -> bool {
        self.has_progress.swap(false, Ordering::AcqRel)
    }

    /// The error that ends the worker, if a handler returned one.
    pub(crate) fn take_fatal(&self) -> Option<WorkerError> {
        self.fatal.lock().take()
    }

    /// Waits until the mark has moved, or a handler returned a fatal error.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub(crate) async fn progressed(&self) {
        while !self.has_progress.load(Ordering::Acquire) && self.fatal.lock().is_none() {
            self.progressed.notified().await;
        }
    }

    /// [Finishes](Self::finish_begun) what was begun, and removes the records that are not done. The shard is then read
    /// again from the mark or before. Records after the mark that are done stay known.
    ///
    /// # Cancel safety
    /// If the call is dropped, no later record is started before another call has returned.
    pub(crate) async fn interrupt(self: &Arc<Self>) {
        self.finish_begun().await;
        let mut state = self.state.lock();
        state.window.empty();
        state.schedule.clear();
        state.attempts.clear();
        state.failing = 0;
        state.winding_down = CancellationToken::new();
    }

    /// Forgets what was done, because the shard was moved. Nothing may be in process.
    pub(crate) fn moved(&self) {
        self.state.lock().window.reset();
        self.has_progress.store(false, Ordering::Release);
    }
}

/// What the processor calls at the end.
impl InFlight {
    /// Waits for the handlers at work, and starts only records before the newest one that was begun. So the mark moves
    /// up to that record, unless one fails.
    pub(super) async fn finish_begun(self: &Arc<Self>) {
        self.change(|state| {
            state.schedule.finish_begun();
            state.winding_down.cancel();
        });
        while !self.state.lock().schedule.is_at_rest() {
            self.is_at_rest.notified().await;
        }
    }

    /// Drops the handlers where they await, and waits until their tasks have ended.
    pub(super) async fn abort(&self) {
        self.drop_handlers();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Drops the handlers where they await.
    pub(super) fn drop_handlers(&self) {
        self.dropped.cancel();
        // Tells tasks that handlers have started, and the application that has records of a stream.
        self.shard.cancellation().cancel();
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("shard_id", &self.shard.shard_id()).finish_non_exhaustive()
    }
}
