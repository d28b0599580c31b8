//! The consumer of one owned shard, from the acquisition of its lease until the lease has left this worker.
//!
//! [`ShardState`] defines which states follow each other. Each method here does the work of one state, and returns
//! the event that ends it:
//!
//! 1. *Waiting on parents*: until the leases of the parent shards are at `SHARD_END`, or gone.
//! 2. *Waiting for the start*: until the service's time is that at which the shard starts, if its lease names one.
//! 3. *Initializing*: the processor is created and initialised.
//! 4. *Processing*: pages are read, de-aggregated, and delivered to the processor. The application may pause the
//!    shard, or [move](seek) it.
//! 5. *Shutting down*, for one of four reasons:
//!    * *Finished*: all records up to the bound of a replay were processed. The processor has its last chance to
//!      checkpoint, and the lease stays with this worker, in the state *finished*, until the worker ends.
//!    * *Shard end*: the last record was processed. The leases of the children are created and noted in this
//!      lease, then the processor checkpoints the end, then `SHARD_END` lets the children start.
//!    * *Requested*, by a planned stop of the worker or because the lease moves to another worker: the
//!      processor has its last chance to checkpoint, then the lease leaves this worker.
//!    * *Lease lost*: the processor is told, and nothing is written any more.
//! 6. *Done*.

mod in_process;
mod limits;
mod reading;
mod seek;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use self::in_process::InProcess;
use self::reading::{Reading, next_page};
use crate::checkpoint::CheckpointError;
use crate::clock::{Clock, until_next_second};
use crate::config::{CheckpointPolicy, ConsumerConfig};
use crate::delivery::{AutoCheckpoint, Delivered, Invoker, ReadToNote};
use crate::error::WorkerError;
use crate::executor::Executor;
use crate::health::ProblemKind;
use crate::lease::{ChildShard, HeldLease, LeaseEnd, Retry};
use crate::metrics::Metric;
use crate::processor::failure::{GivenUp, Origin, Sinks};
use crate::processor::{Checkpointer, ErasedFactory, ErasedProcessor, Services, ShardContext};
use crate::retrieval::{Bound, Bounds, ByteBudget, Page, Retrieval};
use crate::service_time::ServiceClock;
use crate::shard_state::{Event, ShardShutdown, ShardState, ShutdownReason};
use crate::snapshot::ShardStatus;

/// Time without a page after which a consumer checks whether to write `read_to` to the lease, at the next whole second.
const NOTE_CHECK_AFTER: Duration = Duration::from_secs(1);

/// The parts of a worker that all its shards share.
pub(crate) struct Worker {
    pub(crate) application: String,
    pub(crate) worker_id: String,
    /// Name or ARN, as given.
    pub(crate) stream: String,
    pub(crate) config: Arc<ConsumerConfig>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) service_clock: ServiceClock,
    /// Where shards finish. `None`: they do not.
    pub(crate) bounds: Option<Bounds>,
    pub(crate) retrieval: Arc<dyn Retrieval>,
    pub(crate) budget: Arc<ByteBudget>,
    pub(crate) factory: Arc<dyn ErasedFactory>,
    pub(crate) sinks: Sinks,
    /// Where processors and reads run.
    pub(crate) executor: Arc<dyn Executor>,
}

/// Drives one shard through its states.
pub(crate) struct ShardConsumer {
    worker: Arc<Worker>,
    held_lease: HeldLease,
    status: Arc<ShardStatus>,
    invoker: Invoker,
    /// Cancelled in a planned stop, when leases may leave this worker.
    may_relinquish: CancellationToken,
    random: Rng,
    /// The children that the last page of the shard named.
    children: Vec<ChildShard>,
    /// The bound of a replay.
    bound: Option<Bound>,
    /// The state of the lease after this worker ended its ownership.
    outcome: Option<ShardShutdown>,
}

/// An initialised processor.
struct Running {
    processor: Box<dyn ErasedProcessor>,
    checkpointer: Checkpointer,
}

impl ShardConsumer {
    pub(crate) fn new(
        worker: Arc<Worker>,
        held_lease: HeldLease,
        status: Arc<ShardStatus>,
        may_relinquish: CancellationToken,
        seed: u64,
    ) -> Self {
        let mut random = Rng::with_seed(seed);
        let stream_arn = held_lease.lease().stream.map(|stream| stream.arn);
        let origin = Origin {
            application: worker.application.clone(),
            worker_id: worker.worker_id.clone(),
            stream: worker.stream.clone(),
            stream_arn,
        };
        let (sinks, clock) = (worker.sinks.clone(), Arc::clone(&worker.clock));
        let given_up = GivenUp::new(sinks, Arc::clone(&status), clock, origin);
        let invoker = Invoker::new(
            held_lease.clone(),
            Arc::clone(&status),
            Arc::clone(&worker.config),
            Arc::clone(&worker.clock),
            random.fork(),
            given_up,
        );
        let bounds = worker.bounds.as_ref();
        Self {
            bound: bounds.map(|bounds| bounds.of(held_lease.shard_id())),
            worker,
            held_lease,
            status,
            invoker,
            may_relinquish,
            random,
            children: Vec::new(),
            outcome: None,
        }
    }

    /// Runs until the lease has left this worker. Returns the state of the lease.
    ///
    /// # Errors
    /// A failure that ends the whole worker.
    pub(crate) async fn run(mut self) -> Result<ShardShutdown, WorkerError> {
        let shard_id = self.held_lease.shard_id().to_owned();
        let mut state = ShardState::acquired(self.held_lease.lease().has_ended());
        let mut running = None;
        let mut fatal = None;
        while state != ShardState::Done {
            tracing::debug!(shard_id, ?state, "shard consumer");
            self.status.enter(state);
            let result = match state {
                ShardState::WaitingOnParents => self.wait_on_parents().await,
                ShardState::WaitingForStart => self.wait_for_start().await,
                ShardState::Initializing => self.initialize(&mut running).await,
                ShardState::Processing => match &mut running {
                    Some(running) => Err(self.process(running).await.unwrap_or_else(|error| {
                        // The worker ends. This shard still gets its last checkpoint.
                        fatal = Some(error);
                        ShutdownReason::Requested
                    })),
                    None => Err(ShutdownReason::Requested),
                },
                ShardState::Finished => Err(self.invoker.stop.raised().await),
                ShardState::ShuttingDown(ShutdownReason::Finished) => {
                    self.finish(&mut running).await
                }
                ShardState::ShuttingDown(ShutdownReason::ShardEnd) => {
                    self.end_shard(&mut running).await
                }
                ShardState::ShuttingDown(ShutdownReason::Requested) => {
                    self.give_up(&mut running).await
                }
                ShardState::ShuttingDown(ShutdownReason::LeaseLost) => {
                    Ok(self.lease_lost(&mut running).await)
                }
                ShardState::Done => Ok(Event::Finished),
            };
            state = state.on(result.unwrap_or_else(Event::ShutDown));
        }
        self.status.enter(state);
        self.invoker.drop_processor(running);
        fatal.map_or(Ok(self.outcome.unwrap_or(ShardShutdown::Lost)), Err)
    }

    /// Waits until the parent shards are done.
    async fn wait_on_parents(&self) -> Result<Event, ShutdownReason> {
        loop {
            match self.invoker.unless_given_up(self.held_lease.parents_ended()).await? {
                Ok(true) => return Ok(Event::ParentsEnded),
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    shard_id = self.held_lease.shard_id(), %error,
                    "the leases of the parent shards cannot be read; trying again"
                ),
            }
            self.invoker.pause(self.worker.config.parent_poll_interval).await?;
        }
    }

    /// Creates and initialises the processor.
    async fn initialize(&mut self, running: &mut Option<Running>) -> Result<Event, ShutdownReason> {
        let Worker { application, stream, worker_id, factory, .. } = &*self.worker;
        let tokens = self.invoker.stop.for_call();
        let context = ShardContext::new(&self.held_lease, tokens, application, stream, worker_id);
        let services = Services {
            executor: Arc::clone(&self.worker.executor),
            status: Arc::clone(&self.status),
            config: Arc::clone(&self.worker.config),
            clock: Arc::clone(&self.worker.clock),
            stop: self.invoker.stop.clone(),
            seed: self.random.u64(..),
            given_up: self.invoker.given_up.clone(),
        };
        let processor = self.invoker.initialize(&**factory, &context, &services).await?;
        *running =
            Some(Running { processor, checkpointer: Checkpointer::new(self.held_lease.clone()) });
        Ok(Event::Initialized)
    }

    /// Delivers records until the shard ends or is to be given up. Returns the reason.
    ///
    /// # Errors
    /// A failure that ends the whole worker.
    async fn process(&mut self, running: &mut Running) -> Result<ShutdownReason, WorkerError> {
        let mut reading = None;
        let ended = self.deliver(running, &mut reading).await;
        self.status.control().close();
        // Before the lease leaves this worker: the next owner may be refused while this one is subscribed.
        self.stop_reading(&mut reading).await;
        ended
    }

    /// Delivers pages until the shard ends or is to be given up. Returns the reason. `reading`: `None` while the shard is
    /// paused, or has stopped at records.
    ///
    /// # Errors
    /// A failure that ends the whole worker.
    async fn deliver(
        &mut self,
        running: &mut Running,
        reading: &mut Option<Reading>,
    ) -> Result<ShutdownReason, WorkerError> {
        let checkpoints = self.worker.config.checkpoint;
        let mut auto = AutoCheckpoint::new(checkpoints, self.worker.clock.now());
        let mut note = ReadToNote::new(self.held_lease.lease().read_to);
        let status = Arc::clone(&self.status);
        let in_flight = running.processor.in_flight();
        let mut window = InProcess::new(in_flight.as_ref());
        // What follows once all records that were read are done. Then nothing more is read.
        let mut then = None;
        loop {
            if let Some(error) = window.take_fatal() {
                return Err(error);
            }
            if window.take_progress() {
                auto.delivered();
                if self.has_reached_bound() {
                    return Ok(ShutdownReason::Finished);
                }
            }
            if let Some(reason) = then
                && window.is_all_done()
            {
                return Ok(reason);
            }
            let request = status.control().take_seek();
            let has_stopped = status.control().take_has_stopped();
            let is_halted = status.control().is_halted();
            if request.is_some() || is_halted || has_stopped {
                // What is not done is read again.
                if let Err(reason) = self.invoker.unless_given_up(window.interrupt()).await {
                    return Ok(reason);
                }
                then = None;
                self.stop_reading(reading).await;
            }
            if let Some(request) = request {
                if self.seek(&running.checkpointer, request).await {
                    window.moved();
                }
                auto = AutoCheckpoint::new(checkpoints, self.worker.clock.now());
            }
            if !is_halted && reading.is_none() {
                let (stopped, shard_id) = (ProblemKind::ShardStopped, self.held_lease.shard_id());
                status.problems().recovered(stopped, Some(shard_id));
                let Some(opened) = self.read() else {
                    return Ok(ShutdownReason::ShardEnd);
                };
                *reading = Some(opened);
            }
            status.paused(status.control().is_paused());
            // A renewal may have carried the checkpoint in the meantime.
            let carried_at = self.held_lease.progress().lock().carried_at;
            let now = self.worker.clock.now();
            let due = auto.due_in(now, carried_at);
            // The checkpoint comes before the next page. In the `select!` below it might never come: while the
            // shard is behind, a page is always ready, and a timer of no time is not ready at its first poll.
            if due == Some(Duration::ZERO) {
                let checkpoint = running.checkpointer.checkpoint_delivered(Retry::Never);
                match self.invoker.unless_given_up(checkpoint).await {
                    Ok(result) => {
                        let written = self.note_checkpoint(result);
                        auto.tried(self.worker.clock.now(), written);
                    }
                    Err(reason) => return Ok(reason),
                }
                continue;
            }
            let page = tokio::select! {
                biased;
                reason = self.invoker.stop.raised() => return Ok(reason),
                () = status.control().until_not(is_halted) => continue,
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => continue,
                () = window.admit(), if window.is_admitting() => continue,
                page = next_page(reading), if then.is_none() && !window.is_admitting() => page?,
                // Before the next checkpoint, further progress changes nothing.
                () = in_process::progressed(in_flight.as_deref()), if then.is_some() || due.is_none() => continue,
                // A busy shard needs no note, because its checkpoint is young.
                () = tokio::time::sleep(NOTE_CHECK_AFTER + until_next_second(now)) => {
                    self.note_read_to(&mut note).await;
                    if self.has_reached_bound() {
                        return Ok(ShutdownReason::Finished);
                    }
                    continue;
                }
            };
            let Page { mut records, millis_behind_latest, mut end, held } = page;
            let is_beyond = self.bound.as_ref().is_some_and(|bound| bound.cut(&mut records));
            if is_beyond {
                // The shard has records that are not delivered, so it has not ended for the application.
                end = None;
            }
            let last = records.last_sequence_number();
            let last = last.map(|number| (number, records.arrival(records.len() - 1)));
            let Some(Reading { deaggregator, .. }) = reading else {
                unreachable!("a page is read only while the shard is not halted")
            };
            let (batch, counts) = deaggregator.batch(records, millis_behind_latest, held);
            self.status.found(&counts);
            if let Some(children) = end {
                self.children = children;
                then = Some(ShutdownReason::ShardEnd);
            } else if is_beyond {
                then = Some(ShutdownReason::Finished);
            }
            if window.is_some() {
                self.take_in(batch, last, &mut window);
                continue;
            }
            let Running { processor, checkpointer } = running;
            let taken = self.invoker.process_records(&mut **processor, checkpointer, batch).await;
            match taken {
                Ok(Delivered::All) => {}
                // The rest of the batch is read again, even if the pause is over by now.
                Ok(Delivered::InPart) => {
                    self.stop_reading(reading).await;
                    auto.delivered();
                    then = None;
                    continue;
                }
                Ok(Delivered::Fatal(error)) => return Err(error),
                Err(reason) => return Ok(reason),
            }
            if last.is_some() {
                self.status.batch_processed();
            }
            auto.delivered();
            {
                let mut progress = self.held_lease.progress().lock();
                progress.page_processed(last);
                if auto.is_on() {
                    progress.offer_to_renewal();
                }
            }
            if then.is_none() && self.has_reached_bound() {
                then = Some(ShutdownReason::Finished);
            }
        }
    }

    /// Notes in the lease the time up to which everything was read and checkpointed, if the note is due.
    async fn note_read_to(&self, note: &mut ReadToNote) {
        let read_to = self.held_lease.progress().lock().read_to();
        let Some(read_to) = read_to.filter(|read_to| note.is_due(*read_to)) else { return };
        let written = self.invoker.unless_given_up(self.held_lease.note_read_to(read_to)).await;
        let Ok(written) = written else { return };
        // A failed write is not repeated: the next scheduled note replaces it.
        note.noted(read_to);
        if let Err(error) = written {
            tracing::debug!(shard_id = self.held_lease.shard_id(), %error, "the time up to which the shard was read could not be noted");
        }
    }

    /// Notes the result of an automatic checkpoint. Returns whether it was written. A failed checkpoint is covered by
    /// the next automatic checkpoint or lease renewal.
    fn note_checkpoint(&self, result: Result<(), CheckpointError>) -> bool {
        let (problems, kind) = (self.status.problems(), ProblemKind::CheckpointFailing);
        let shard_id = self.held_lease.shard_id();
        match &result {
            Ok(()) => {
                problems.recovered(kind, Some(shard_id));
            }
            Err(error) if problems.failed(kind, Some(shard_id), error).log => {
                tracing::warn!(shard_id, %error, "an automatic checkpoint was not written");
            }
            Err(_) => {}
        }
        result.is_ok()
    }

    /// Ends a shard whose last record was processed. The children are recorded first, then comes the processor's last
    /// call, then `SHARD_END`. In this order, the next owner finds all that it needs after a crash in between.
    async fn end_shard(&mut self, running: &mut Option<Running>) -> Result<Event, ShutdownReason> {
        let ended = self.try_end_shard(running).await;
        match ended {
            Ok(()) => {
                self.status.succeeded();
                self.outcome = Some(self.held_lease.end(LeaseEnd::ShardEnded).await);
                Ok(Event::Finished)
            }
            Err(ShutdownReason::LeaseLost) => Err(ShutdownReason::LeaseLost),
            // The end could not be checkpointed in time. The processor has its last chance to checkpoint the
            // records. The processor of the next owner is asked for the end again.
            Err(_) => self.give_up(running).await,
        }
    }

    async fn try_end_shard(&mut self, running: &mut Option<Running>) -> Result<(), ShutdownReason> {
        let mut backoff = self.invoker.backoff();
        loop {
            let record = self.held_lease.record_children(self.children.clone());
            match self.invoker.unless_given_up(record).await? {
                Ok(()) => break,
                Err(error) => tracing::warn!(
                    shard_id = self.held_lease.shard_id(), %error,
                    "recording the child shards failed; trying again"
                ),
            }
            self.invoker.pause(backoff.next_delay()).await?;
        }
        match running {
            Some(Running { processor, checkpointer }) => {
                self.invoker.end_shard(&mut **processor, checkpointer).await
            }
            // The lease was acquired at `SHARD_END`: an earlier owner checkpointed the end.
            None => Ok(()),
        }
    }

    /// Gives up a shard on request. The processor has its last chance to checkpoint, then the lease leaves this worker.
    async fn give_up(&mut self, running: &mut Option<Running>) -> Result<Event, ShutdownReason> {
        if let Some(Running { processor, checkpointer }) = running {
            self.invoker.check_lease()?;
            let is_ready = self.invoker.shutdown_requested(&mut **processor, checkpointer).await;
            if is_ready && self.worker.config.checkpoint != CheckpointPolicy::Manual {
                // With retries, because no later checkpoint makes up for it.
                self.note_checkpoint(checkpointer.checkpoint().await);
            }
        }
        self.wait_until_may_relinquish().await;
        self.invoker.check_lease()?;
        // Dropped before the lease leaves, because the processor may still do work in its `drop`.
        self.invoker.drop_processor(running.take());
        self.status.processor_stopped();
        let is_handoff = self.held_lease.handoff_requested().is_cancelled();
        let how = if is_handoff { LeaseEnd::Transfer } else { LeaseEnd::Relinquish };
        self.outcome = Some(self.held_lease.end(how).await);
        Ok(Event::Finished)
    }

    /// Waits until the lease may leave this worker. In a planned stop, that is when the worker's row is removed and the
    /// receivers of its leases are known. While the row exists, a leader may assign the lease to this worker again. A
    /// handoff has its receiver already, so it does not wait.
    async fn wait_until_may_relinquish(&self) {
        // The shard is given up for another reason than a planned stop.
        if !self.held_lease.shutdown_requested().is_cancelled() {
            return;
        }
        let (lost, handoff) = (self.held_lease.lost(), self.held_lease.handoff_requested());
        tokio::select! {
            biased;
            () = lost.cancelled() => {}
            () = handoff.cancelled() => {}
            () = self.may_relinquish.cancelled() => {}
        }
    }

    /// Tells the processor, if there is one, that the lease is lost.
    async fn lease_lost(&mut self, running: &mut Option<Running>) -> Event {
        self.status.meter().put(Metric::LostLeases, None, 1.0);
        if let Some(running) = running {
            self.invoker.lease_lost(&mut *running.processor).await;
        }
        self.outcome = Some(self.held_lease.end(LeaseEnd::Lost).await);
        Event::Finished
    }
}

#[cfg(test)]
mod tests;
