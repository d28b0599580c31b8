//! Calls of the user's processor.
//!
//! [`Invoker::call`] makes one call. A panic in it becomes an error, and its result and time are measured. A call
//! that fails is repeated until it succeeds or the shard is given up. For `process_records`, the failure policy decides
//! what follows: see [`records`].

mod records;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kinesis_common::backoff::Backoff;
use kinesis_common::panic_message::panic_message;

pub(crate) use self::records::Delivered;
use crate::clock::Clock;
use crate::config::{CheckpointPolicy, ConsumerConfig};
use crate::error::ProcessorError;
use crate::health::Failed;
use crate::lease::HeldLease;
use crate::metrics::Metric;
use crate::processor::failure::GivenUp;
use crate::processor::{
    Call, Checkpointer, ErasedFactory, ErasedProcessor, Services, ShardContext, ShardEnd, Shutdown,
    StopSignals, guarded,
};
use crate::sequence::Span;
use crate::shard_state::ShutdownReason;
use crate::snapshot::ShardStatus;

/// Failures in a row of a processor's call that are logged as warnings. Further ones are logged as errors.
const WARNINGS: u32 = 3;

/// A method of the processor, with the metrics of its result and its time.
#[derive(Debug, Clone, Copy)]
struct Method {
    name: &'static str,
    metrics: (Metric, Metric),
    /// True if the method tells the processor that the shard is given up. Its error is a failure at any time.
    is_last: bool,
}

const fn method(name: &'static str, success: Metric, time: Metric, is_last: bool) -> Method {
    Method { name, metrics: (success, time), is_last }
}

const INITIALIZE: Method =
    method("initialize", Metric::InitializeTaskSuccess, Metric::InitializeTime, false);
const PROCESS_RECORDS: Method =
    method("process_records", Metric::ProcessTaskSuccess, Metric::ProcessRecordsTime, false);
const SHARD_ENDED: Method =
    method("shard_ended", Metric::ShutdownTaskSuccess, Metric::ShutdownTime, false);
const LEASE_LOST: Method =
    method("lease_lost", Metric::ShutdownTaskSuccess, Metric::ShutdownTime, true);
const SHUTDOWN_REQUESTED: Method = method(
    "shutdown_requested",
    Metric::ShutdownNotificationTaskSuccess,
    Metric::ShutdownNotificationTaskTime,
    true,
);

/// Calls the processor of one shard.
pub(crate) struct Invoker {
    held_lease: HeldLease,
    /// The signals to give the shard up.
    pub(crate) stop: StopSignals,
    status: Arc<ShardStatus>,
    config: Arc<ConsumerConfig>,
    clock: Arc<dyn Clock>,
    random: Rng,
    pub(crate) given_up: GivenUp,
}

impl Invoker {
    /// `random`: for the pauses between attempts.
    pub(crate) fn new(
        held_lease: HeldLease,
        status: Arc<ShardStatus>,
        config: Arc<ConsumerConfig>,
        clock: Arc<dyn Clock>,
        random: Rng,
        given_up: GivenUp,
    ) -> Self {
        let stop = StopSignals::new(&held_lease);
        Self { stop, held_lease, status, config, clock, random, given_up }
    }

    /// Creates and initialises the processor.
    ///
    /// # Errors
    /// The shard is to be given up. The processor, if there is one, was dropped.
    pub(crate) async fn initialize(
        &mut self,
        factory: &dyn ErasedFactory,
        context: &ShardContext,
        services: &Services,
    ) -> Result<Box<dyn ErasedProcessor>, ShutdownReason> {
        let mut created = None;
        match self.try_initialize(factory, context, services, &mut created).await {
            Ok(()) => Ok(created.expect("an initialised processor was created")),
            Err(reason) => {
                self.drop_processor(created);
                Err(reason)
            }
        }
    }

    async fn try_initialize(
        &mut self,
        factory: &dyn ErasedFactory,
        context: &ShardContext,
        services: &Services,
        created: &mut Option<Box<dyn ErasedProcessor>>,
    ) -> Result<(), ShutdownReason> {
        let mut backoff = self.backoff();
        loop {
            self.check_lease()?;
            let call = self.call(INITIALIZE, async {
                // A factory that panicked is called again.
                let processor = match created {
                    Some(processor) => processor,
                    None => created.insert(factory.create(context, services)),
                };
                processor.call(Call::Initialize(context)).await
            });
            let Err(error) = call.await else { break };
            let failure = Failure { error: &error, records: None, is_repeated: true };
            let pause = self.on_failure(INITIALIZE, &mut backoff, &failure)?;
            self.pause(pause).await?;
        }
        self.status.succeeded();
        Ok(())
    }

    /// Calls `shard_ended` until the shard's end is checkpointed.
    ///
    /// # Errors
    /// The shard is to be given up.
    pub(crate) async fn end_shard(
        &mut self,
        processor: &mut dyn ErasedProcessor,
        checkpointer: &Checkpointer,
    ) -> Result<(), ShutdownReason> {
        let has_ended = || checkpointer.progress().has_ended();
        let mut backoff = self.backoff();
        loop {
            self.check_lease()?;
            let tokens = self.stop.for_call();
            let end = ShardEnd::new(checkpointer, &tokens);
            let call =
                self.call(SHARD_ENDED, async { processor.call(Call::ShardEnded(end)).await });
            let mut result = call.await;
            if result.is_ok() && self.config.checkpoint != CheckpointPolicy::Manual {
                // If the worker is told to stop meanwhile, the next owner of the shard writes the end.
                let written = self.unless_given_up(checkpointer.end_shard()).await;
                result = written.unwrap_or(Ok(())).map_err(Into::into);
            }
            if result.is_ok() && !has_ended() {
                result = Err(
                    "it returned Ok and did not checkpoint the end: the child shards wait for that"
                        .into(),
                );
            }
            let Err(error) = result else { return Ok(()) };
            let failure = Failure { error: &error, records: None, is_repeated: !has_ended() };
            let decision = self.on_failure(SHARD_ENDED, &mut backoff, &failure);
            // The processor checkpointed the end before it failed.
            if has_ended() {
                return Ok(());
            }
            self.pause(decision?).await?;
        }
    }

    /// Tells the processor, once, that the lease is lost.
    pub(crate) async fn lease_lost(&self, processor: &mut dyn ErasedProcessor) {
        let call = self.call(LEASE_LOST, async { processor.call(Call::LeaseLost).await });
        if let Err(error) = call.await {
            let shard_id = self.held_lease.shard_id();
            tracing::warn!(shard_id, %error, "the processor failed in lease_lost");
        }
    }

    /// Asks the processor, once, for its last checkpoint. Returns whether it succeeded.
    pub(crate) async fn shutdown_requested(
        &self,
        processor: &mut dyn ErasedProcessor,
        checkpointer: &Checkpointer,
    ) -> bool {
        let result = self.last_call(processor, checkpointer, ShutdownReason::Requested).await;
        if let Err(error) = &result {
            let shard_id = self.held_lease.shard_id();
            tracing::error!(shard_id, %error, "the processor failed in shutdown_requested, and the stop goes on");
        }
        result.is_ok()
    }

    /// Asks the processor for its checkpoint at the end of a bounded replay, until it succeeds.
    ///
    /// # Errors
    /// The shard is to be given up.
    pub(crate) async fn finish(
        &mut self,
        processor: &mut dyn ErasedProcessor,
        checkpointer: &Checkpointer,
    ) -> Result<(), ShutdownReason> {
        let mut backoff = self.backoff();
        loop {
            self.check_lease()?;
            let result = self.last_call(processor, checkpointer, ShutdownReason::Finished).await;
            let Err(error) = result else { break };
            let failure = Failure { error: &error, records: None, is_repeated: true };
            let pause = self.on_failure(SHUTDOWN_REQUESTED, &mut backoff, &failure)?;
            self.pause(pause).await?;
        }
        self.status.succeeded();
        Ok(())
    }

    /// Calls `shutdown_requested`.
    async fn last_call(
        &self,
        processor: &mut dyn ErasedProcessor,
        checkpointer: &Checkpointer,
        reason: ShutdownReason,
    ) -> Result<(), ProcessorError> {
        let tokens = self.stop.for_call();
        let shutdown = Shutdown::new(checkpointer, &tokens, reason);
        let call = self.call(SHUTDOWN_REQUESTED, async {
            processor.call(Call::ShutdownRequested(shutdown)).await
        });
        call.await
    }

    /// Drops the processor. A panic in its `drop` is only logged, because nothing is left to do for the shard.
    pub(crate) fn drop_processor<T>(&self, processor: T) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(processor))) {
            let error = ProcessorError::panicked(&panic_message(panic.as_ref()));
            let shard_id = self.held_lease.shard_id();
            tracing::warn!(shard_id, %error, "the processor failed while it was dropped");
        }
    }

    /// Makes one call of the processor. A panic in it becomes an error.
    ///
    /// `work` is an `async` block around the call, so that code before its first await is guarded, too.
    async fn call<T>(
        &self,
        method: Method,
        work: impl Future<Output = Result<T, ProcessorError>>,
    ) -> Result<T, ProcessorError> {
        let timer = self.status.meter().timer(&*self.clock);
        let result = {
            let _under_way = self.status.call(method.name);
            guarded(work).await
        };
        let shard = Some(self.held_lease.shard_id());
        if result.is_err() && self.was_told_to_stop(method).is_some() {
            timer.took(method.metrics.1, shard);
        } else {
            timer.done(method.metrics, shard, result.is_ok());
        }
        result
    }

    /// Decides what follows a failed call, and logs the failure. Returns the pause before the call is repeated.
    ///
    /// # Errors
    /// The shard is to be given up. The call was told to stop, so its error is not a failure.
    fn on_failure(
        &self,
        method: Method,
        backoff: &mut Backoff,
        failure: &Failure<'_>,
    ) -> Result<Duration, ShutdownReason> {
        let pause = backoff.next_delay();
        let (shard_id, call) = (self.held_lease.shard_id(), method.name);
        let Failure { error, records, is_repeated } = failure;
        if let Some(reason) = self.was_told_to_stop(method) {
            if error.is_panic() {
                tracing::warn!(shard_id, call, ?reason, %error, "the processor panicked after it was told to stop");
            } else {
                tracing::info!(shard_id, call, ?reason, %error, "the processor returned early, as it was told to stop");
            }
            return Err(reason);
        }
        let Failed { failures, log } = self.status.failed(error);
        if log {
            let retry_in = is_repeated.then_some(pause).map(tracing::field::debug);
            let first = records.as_ref().map(|(first, _)| tracing::field::display(first));
            let last = records.as_ref().map(|(_, last)| tracing::field::display(last));
            if failures > WARNINGS {
                tracing::error!(
                    shard_id, call, failures, first, last, retry_in, %error,
                    "the processor keeps failing"
                );
            } else {
                tracing::warn!(
                    shard_id, call, failures, first, last, retry_in, %error,
                    "the processor failed"
                );
            }
        }
        Ok(pause)
    }

    /// Returns why the call was told to stop. Then its error is not a failure.
    fn was_told_to_stop(&self, method: Method) -> Option<ShutdownReason> {
        self.stop.now().filter(|_| !method.is_last)
    }

    /// The pauses between attempts, as the settings say.
    pub(crate) fn backoff(&mut self) -> Backoff {
        let config = &self.config;
        Backoff::new(config.retry_initial_delay, config.retry_max_delay, self.random.fork())
    }

    /// Checks that this worker holds the lease.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn check_lease(&self) -> Result<(), ShutdownReason> {
        if self.held_lease.is_held() { Ok(()) } else { Err(ShutdownReason::LeaseLost) }
    }

    /// Waits for the work. Drops it if the shard is to be given up first.
    pub(crate) async fn unless_given_up<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, ShutdownReason> {
        tokio::select! {
            biased;
            reason = self.stop.raised() => Err(reason),
            result = work => Ok(result),
        }
    }

    /// Waits for `delay`. Returns true, without waiting longer, if the application pauses or moves the shard.
    async fn pause_unless_asked(&self, delay: Duration) -> Result<bool, ShutdownReason> {
        let asked = tokio::time::timeout(delay, self.status.control().until_not(false));
        Ok(self.unless_given_up(asked).await?.is_ok())
    }

    /// Waits for `delay`, or until the shard is to be given up.
    pub(crate) async fn pause(&self, delay: Duration) -> Result<(), ShutdownReason> {
        self.unless_given_up(tokio::time::sleep(delay)).await
    }
}

/// A failed call.
struct Failure<'a> {
    error: &'a ProcessorError,
    /// Positions of the first and the last record of the batch.
    records: Option<Span>,
    /// True if the call will be repeated.
    is_repeated: bool,
}
