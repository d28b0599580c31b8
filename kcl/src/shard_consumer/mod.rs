//! The life of one owned shard: parents first, then its records, then its end or its next owner.

mod ending;
mod processing;
mod signals;
mod state;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use self::signals::Signals;
use self::state::Event;
pub use self::state::{ShardState, ShutdownReason};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::ConsumerConfig;
use crate::delivery::{Checkpointer, drop_guarded, guarded};
use crate::error::{ProcessorError, WorkerError};
use crate::executor::Executor;
use crate::lease::{ChildShard, LeaseStoreError, Tenure};
use crate::metrics::Metric;
use crate::processor::{ErasedFactory, ErasedProcessor, ShardContext};
use crate::retrieval::{ByteBudget, Retrieval};
use crate::snapshot::ShardStatus;

/// Failures of a processor's call up to this many in a row are warnings, more are errors.
const LOUD_AFTER: u32 = 3;

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
        stop: CancellationToken,
        seed: u64,
    ) -> Self {
        Self {
            signals: Signals::new(&tenure, stop),
            worker,
            tenure,
            status,
            random: Rng::with_seed(seed),
            children: Vec::new(),
        }
    }

    /// Runs to the end of the tenure.
    ///
    /// # Errors
    /// What ends the whole worker.
    pub(crate) async fn run(mut self) -> Result<(), WorkerError> {
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
        fatal.map_or(Ok(()), Err)
    }

    /// Waits until the parent shards are done.
    async fn wait_on_parents(&mut self) -> Event {
        loop {
            let ended = tokio::select! {
                biased;
                reason = self.signals.raised() => return Event::ShutDown(reason),
                ended = self.tenure.parents_ended() => ended,
            };
            match ended {
                Ok(true) => return Event::ParentsEnded,
                Ok(false) => {}
                Err(error) => tracing::warn!(
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
            let metrics = (Metric::InitializeTaskSuccess, Metric::InitializeTime);
            let call = self.call(metrics, async {
                let processor = match &mut processor {
                    Some(processor) => processor,
                    None => processor.insert(worker.factory.create(&context)),
                };
                processor.initialize(&context).await
            });
            match call.await {
                Ok(()) => break None,
                Err(error) => self.complain("initialize", &error),
            }
            if let Some(reason) = self.pause(backoff.next_delay()).await {
                break Some(reason);
            }
        };
        if let Some(reason) = given_up {
            self.let_go(processor);
            return Event::ShutDown(reason);
        }
        self.status.succeeded();
        let checkpointer = Checkpointer::new(self.tenure.clone(), context.checkpoint().clone());
        *running = processor.map(|processor| Running {
            processor,
            checkpointer,
        });
        Event::Initialized
    }

    /// A call of the processor, guarded and measured.
    async fn call<T>(
        &self,
        metrics: (Metric, Metric),
        call: impl Future<Output = Result<T, ProcessorError>>,
    ) -> Result<T, ProcessorError> {
        let timer = self.status.meter().timer(&*self.worker.clock);
        let result = guarded(call).await;
        timer.done(metrics, Some(self.tenure.shard_id()), result.is_ok());
        result
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

    /// Waits, unless the shard is to be given up.
    async fn pause(&self, delay: Duration) -> Option<ShutdownReason> {
        tokio::select! {
            biased;
            reason = self.signals.raised() => Some(reason),
            () = tokio::time::sleep(delay) => None,
        }
    }

    fn backoff(&mut self) -> Backoff {
        let config = &self.worker.config;
        let random = self.random.fork();
        Backoff::new(config.retry_initial_delay, config.retry_max_delay, random)
    }

    fn complain(&self, call: &'static str, error: &ProcessorError) {
        let shard_id = self.tenure.shard_id();
        let failures = self.status.failed(error.to_string());
        if failures > LOUD_AFTER {
            tracing::error!(shard_id, call, failures, %error, "the processor keeps failing; the same call is made again");
        } else {
            tracing::warn!(shard_id, call, failures, %error, "the processor failed; the same call is made again");
        }
    }
}

fn log_store_error(shard_id: &str, what: &'static str, error: &LeaseStoreError) {
    tracing::warn!(shard_id, %error, "{what} failed; trying again");
}
