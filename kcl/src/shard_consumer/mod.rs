//! The life of one owned shard: parents first, then its records, then its end or its next owner.

mod caught_up;
mod ending;
mod processing;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kinesis_common::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use self::signals::Signals;
use crate::clock::Clock;
use crate::config::ConsumerConfig;
use crate::delivery::{drop_guarded, guarded};
use crate::error::{ProcessorError, WorkerError};
use crate::executor::Executor;
use crate::health::Failed;
use crate::lease::{ChildShard, LeaseOutcome, LeaseStoreError, Tenure};
use crate::metrics::Metric;
use crate::processor::{Checkpointer, ErasedFactory, ErasedProcessor, ShardContext};
use crate::retrieval::{ByteBudget, Retrieval};
use crate::sequence::ExtendedSequenceNumber;
use crate::shard_state::{Event, ShardState, ShutdownReason};
use crate::snapshot::ShardStatus;

/// Failures of a processor's call up to this many in a row are warnings, more are errors.
const LOUD_AFTER: u32 = 3;

/// A method of the processor, with the metrics of its result and its time.
#[derive(Debug, Clone, Copy)]
struct Call {
    name: &'static str,
    metrics: (Metric, Metric),
}

const INITIALIZE: Call =
    Call { name: "initialize", metrics: (Metric::InitializeTaskSuccess, Metric::InitializeTime) };
const PROCESS_RECORDS: Call = Call {
    name: "process_records",
    metrics: (Metric::ProcessTaskSuccess, Metric::ProcessRecordsTime),
};
const SHARD_ENDED: Call =
    Call { name: "shard_ended", metrics: (Metric::ShutdownTaskSuccess, Metric::ShutdownTime) };
const LEASE_LOST: Call =
    Call { name: "lease_lost", metrics: (Metric::ShutdownTaskSuccess, Metric::ShutdownTime) };
const SHUTDOWN_REQUESTED: Call = Call {
    name: "shutdown_requested",
    metrics: (Metric::ShutdownNotificationTaskSuccess, Metric::ShutdownNotificationTaskTime),
};

impl Call {
    /// Whether the call is made to end the shard: it is not told to stop, and its error is a failure at
    /// any time.
    fn is_last(self) -> bool {
        [LEASE_LOST.name, SHUTDOWN_REQUESTED.name].contains(&self.name)
    }
}

/// What all shards of a worker share.
pub(crate) struct Worker {
    pub(crate) application: String,
    pub(crate) worker_id: String,
    /// Name or ARN, as given.
    pub(crate) stream: String,
    pub(crate) config: Arc<ConsumerConfig>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) retrieval: Arc<dyn Retrieval>,
    pub(crate) budget: Arc<ByteBudget>,
    pub(crate) factory: Arc<dyn ErasedFactory>,
    /// Where processors and reads run.
    pub(crate) executor: Arc<dyn Executor>,
}

/// Drives one shard from the acquisition of its lease to the end of the tenure.
pub(crate) struct ShardConsumer {
    worker: Arc<Worker>,
    tenure: Tenure,
    signals: Signals,
    status: Arc<ShardStatus>,
    random: Rng,
    children: Vec<ChildShard>,
    /// Set when the tenure has ended.
    outcome: Option<LeaseOutcome>,
}

/// An initialised processor.
struct Running {
    processor: Box<dyn ErasedProcessor>,
    checkpointer: Checkpointer,
}

impl ShardConsumer {
    pub(crate) fn new(
        worker: Arc<Worker>,
        tenure: Tenure,
        status: Arc<ShardStatus>,
        may_give_away: CancellationToken,
        seed: u64,
    ) -> Self {
        Self {
            signals: Signals::new(&tenure, may_give_away),
            worker,
            tenure,
            status,
            random: Rng::with_seed(seed),
            children: Vec::new(),
            outcome: None,
        }
    }

    /// Runs to the end of the tenure; answers with what became of the lease.
    ///
    /// # Errors
    /// What ends the whole worker.
    pub(crate) async fn run(mut self) -> Result<LeaseOutcome, WorkerError> {
        let shard_id = self.tenure.shard_id().to_owned();
        let mut state = ShardState::acquired(self.tenure.lease().has_ended());
        let mut running = None;
        let mut fatal = None;
        while state != ShardState::Done {
            tracing::debug!(shard_id, ?state, "shard consumer");
            self.status.enter(state);
            let event = match state {
                ShardState::WaitingOnParents => self.wait_on_parents().await,
                ShardState::Initializing => self.initialize(&mut running).await,
                ShardState::Processing => match &mut running {
                    Some(running) => self.process(running).await.unwrap_or_else(|error| {
                        fatal = Some(error);
                        Event::ShutDown(ShutdownReason::Requested)
                    }),
                    None => Event::ShutDown(ShutdownReason::Requested),
                },
                ShardState::ShuttingDown(reason) => self.shut_down(reason, &mut running).await,
                ShardState::Done => Event::Finished,
            };
            state = state.on(event);
        }
        self.status.enter(state);
        self.let_go(running);
        fatal.map_or(Ok(self.outcome.unwrap_or(LeaseOutcome::Lost)), Err)
    }

    /// Waits until the parent shards are done.
    async fn wait_on_parents(&mut self) -> Event {
        loop {
            match self.unless_given_up(self.tenure.parents_ended()).await {
                Err(reason) => return Event::ShutDown(reason),
                Ok(Ok(true)) => return Event::ParentsEnded,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(
                    shard_id = self.tenure.shard_id(), %error,
                    "the leases of the parent shards cannot be read; trying again"
                ),
            }
            if let Some(reason) = self.pause(self.worker.config.parent_poll_interval).await {
                return Event::ShutDown(reason);
            }
        }
    }

    /// Makes and initialises the processor, however often it takes.
    async fn initialize(&mut self, running: &mut Option<Running>) -> Event {
        let worker = Arc::clone(&self.worker);
        let context = ShardContext::new(
            &self.tenure,
            self.signals.for_call(),
            &worker.application,
            &worker.stream,
            &worker.worker_id,
        );
        let mut processor: Option<Box<dyn ErasedProcessor>> = None;
        let mut backoff = self.backoff();
        let given_up = loop {
            if !self.holds_lease() {
                break Some(ShutdownReason::LeaseLost);
            }
            let call = self.call(INITIALIZE, async {
                let processor = match &mut processor {
                    Some(processor) => processor,
                    None => processor.insert(worker.factory.create(&context)),
                };
                processor.initialize(&context).await
            });
            let Err(error) = call.await else { break None };
            let delay = backoff.next_delay();
            let failure = Failure::new(INITIALIZE, &error).tried_again_in(delay);
            if let Some(reason) = self.failed(&failure) {
                break Some(reason);
            }
            if let Some(reason) = self.pause(delay).await {
                break Some(reason);
            }
        };
        if let Some(reason) = given_up {
            self.let_go(processor);
            return Event::ShutDown(reason);
        }
        self.status.succeeded();
        let checkpointer = Checkpointer::new(self.tenure.clone(), context.checkpoint().clone());
        *running = processor.map(|processor| Running { processor, checkpointer });
        Event::Initialized
    }

    /// A call of the processor, guarded and measured.
    async fn call<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, ProcessorError>>,
    ) -> Result<T, ProcessorError> {
        let timer = self.status.meter().timer(&*self.worker.clock);
        let result = {
            let _under_way = self.status.call(call.name);
            guarded(work).await
        };
        let shard = Some(self.tenure.shard_id());
        if result.is_err() && self.was_told_to_stop(call).is_some() {
            timer.took(call.metrics.1, shard);
        } else {
            timer.done(call.metrics, shard, result.is_ok());
        }
        result
    }

    /// Why an error of this call is no failure: its tokens told it to stop.
    fn was_told_to_stop(&self, call: Call) -> Option<ShutdownReason> {
        self.signals.now().filter(|_| !call.is_last())
    }

    /// Drops the processor. Its panic ends nothing: the shard is done with.
    fn let_go<T>(&self, processor: T) {
        if let Err(error) = drop_guarded(processor) {
            let shard_id = self.tenure.shard_id();
            tracing::warn!(shard_id, %error, "the processor failed while it was dropped");
        }
    }

    /// The lease is ours at this very moment.
    fn holds_lease(&self) -> bool {
        !self.signals.lost().is_cancelled() && self.tenure.is_held()
    }

    /// The result, unless the shard is to be given up first: then the work is dropped.
    async fn unless_given_up<T>(&self, work: impl Future<Output = T>) -> Result<T, ShutdownReason> {
        tokio::select! {
            biased;
            reason = self.signals.raised() => Err(reason),
            result = work => Ok(result),
        }
    }

    /// Waits, unless the shard is to be given up.
    async fn pause(&self, delay: Duration) -> Option<ShutdownReason> {
        self.unless_given_up(tokio::time::sleep(delay)).await.err()
    }

    fn backoff(&mut self) -> Backoff {
        let config = &self.worker.config;
        let random = self.random.fork();
        Backoff::new(config.retry_initial_delay, config.retry_max_delay, random)
    }

    /// Counts and logs an error of the processor. An error of a call that was told to stop is no failure:
    /// then it answers with the reason to stop.
    fn failed(&self, failure: &Failure<'_>) -> Option<ShutdownReason> {
        let shard_id = self.tenure.shard_id();
        let Failure { call, error, retry_in, records } = failure;
        let call_name = call.name;
        if let Some(reason) = self.was_told_to_stop(*call) {
            tracing::info!(shard_id, call = call_name, ?reason, %error, "the processor returned early, as it was told to stop");
            return Some(reason);
        }
        let Failed { failures, log } = self.status.failed(error.to_string());
        if !log {
            return None;
        }
        let retry_in = retry_in.map(tracing::field::debug);
        let first = records.as_ref().map(|(first, _)| tracing::field::display(first));
        let last = records.as_ref().map(|(_, last)| tracing::field::display(last));
        if failures > LOUD_AFTER {
            tracing::error!(
                shard_id, call = call_name, failures, first, last, retry_in, %error,
                "the processor keeps failing; the same call is made again"
            );
        } else {
            tracing::warn!(
                shard_id, call = call_name, failures, first, last, retry_in, %error,
                "the processor failed; the same call is made again"
            );
        }
        None
    }
}

/// An error of the processor, for the log.
struct Failure<'a> {
    call: Call,
    error: &'a ProcessorError,
    /// `None`: the call is not made again.
    retry_in: Option<Duration>,
    /// Positions of the first and the last record of the batch.
    records: Option<(ExtendedSequenceNumber, ExtendedSequenceNumber)>,
}

impl<'a> Failure<'a> {
    fn new(call: Call, error: &'a ProcessorError) -> Self {
        Self { call, error, retry_in: None, records: None }
    }

    fn tried_again_in(self, delay: Duration) -> Self {
        Self { retry_in: Some(delay), ..self }
    }
}

fn log_store_error(shard_id: &str, what: &'static str, error: &LeaseStoreError) {
    tracing::warn!(shard_id, %error, "{what} failed; trying again");
}

#[cfg(test)]
mod tests;
