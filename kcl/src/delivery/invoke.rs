//! Calls of the user's processor.
//!
//! [`Invoker::call`] makes one call: a panic in it becomes an error, and its result and time are measured.
//! A call that fails is made again until it succeeds or the shard is given up. [`Invoker::on_failure`]
//! alone decides what follows a failure: another failure policy (a limit of attempts, skipping a batch, a
//! dead letter) replaces that method.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::FutureExt as _;
use kinesis_common::backoff::Backoff;
use kinesis_common::panic_message::panic_message;

use crate::clock::Clock;
use crate::config::{CheckpointPolicy, ConsumerConfig};
use crate::error::ProcessorError;
use crate::health::Failed;
use crate::lease::HeldLease;
use crate::metrics::Metric;
use crate::processor::{
    Batch, Checkpointer, ErasedFactory, ErasedProcessor, ShardContext, ShardEnd, Shutdown,
    StopSignals,
};
use crate::sequence::ExtendedSequenceNumber;
use crate::shard_state::ShutdownReason;
use crate::snapshot::ShardStatus;

/// Failures of a processor's call up to this many in a row are warnings, more are errors.
const LOUD_AFTER: u32 = 3;

/// A method of the processor, with the metrics of its result and its time.
#[derive(Debug, Clone, Copy)]
struct Method {
    name: &'static str,
    metrics: (Metric, Metric),
    /// The call ends the shard. It is not told to stop, so its error is a failure at any time.
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
    stop: StopSignals,
    status: Arc<ShardStatus>,
    config: Arc<ConsumerConfig>,
    clock: Arc<dyn Clock>,
    random: Rng,
}

impl Invoker {
    /// `random`: of the pauses between attempts.
    pub(crate) fn new(
        held_lease: HeldLease,
        status: Arc<ShardStatus>,
        config: Arc<ConsumerConfig>,
        clock: Arc<dyn Clock>,
        random: Rng,
    ) -> Self {
        Self { stop: StopSignals::new(&held_lease), held_lease, status, config, clock, random }
    }

    /// What tells this worker to give the shard up.
    pub(crate) fn stop(&self) -> &StopSignals {
        &self.stop
    }

    /// Creates and initialises the processor.
    ///
    /// # Errors
    /// The shard is to be given up. The processor, if there is one, was dropped.
    pub(crate) async fn initialize(
        &mut self,
        factory: &dyn ErasedFactory,
        context: &ShardContext,
    ) -> Result<Box<dyn ErasedProcessor>, ShutdownReason> {
        let mut created = None;
        match self.try_initialize(factory, context, &mut created).await {
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
        created: &mut Option<Box<dyn ErasedProcessor>>,
    ) -> Result<(), ShutdownReason> {
        let mut attempts = self.attempts(INITIALIZE);
        loop {
            self.check_lease()?;
            let call = self.call(INITIALIZE, async {
                // A factory that panicked is called again.
                let processor = match created {
                    Some(processor) => processor,
                    None => created.insert(factory.create(context)),
                };
                processor.initialize(context).await
            });
            let Err(error) = call.await else { break };
            let failure = Failure { error: &error, records: None, is_repeated: true };
            let pause = self.on_failure(&mut attempts, &failure)?;
            self.pause(pause).await?;
        }
        self.status.succeeded();
        Ok(())
    }

    /// Gives one batch to the processor, until the processor has taken it or checkpointed all of it.
    ///
    /// # Errors
    /// The shard is to be given up.
    pub(crate) async fn process_records(
        &mut self,
        processor: &mut dyn ErasedProcessor,
        checkpointer: &Checkpointer,
        mut batch: Batch,
    ) -> Result<(), ShutdownReason> {
        let (records, bytes) = (batch.len(), batch.payload_bytes());
        // An aggregate may have no record to deliver.
        if records == 0 {
            return Ok(());
        }
        let tokens = self.stop.for_call();
        let mut attempts = self.attempts(PROCESS_RECORDS);
        let whole = self.status.meter().timer(&*self.clock);
        while let Some((first, last)) = batch.range() {
            self.check_lease()?;
            self.status.took_batch(&first, &last);
            let view = batch.attempt(checkpointer, &tokens);
            let call = self.call(PROCESS_RECORDS, async { processor.process_records(view).await });
            let Err(error) = call.await else { break };
            batch.failed(checkpointer);
            // Without records left, the processor has checkpointed the whole batch: it is done.
            let is_repeated = batch.range().is_some();
            let failure = Failure { error: &error, records: Some((first, last)), is_repeated };
            let pause = self.on_failure(&mut attempts, &failure)?;
            self.status.measure(Metric::FailedBatches, 1.0);
            if is_repeated {
                self.pause(pause).await?;
            }
        }
        whole.took(Metric::ProcessTaskTime, Some(self.held_lease.shard_id()));
        self.status.succeeded();
        self.status.delivered(records, bytes);
        self.held_lease.record_bytes(bytes as u64);
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
        let mut attempts = self.attempts(SHARD_ENDED);
        loop {
            self.check_lease()?;
            let tokens = self.stop.for_call();
            let end = ShardEnd::new(checkpointer, &tokens);
            let call = self.call(SHARD_ENDED, async { processor.shard_ended(end).await });
            let mut result = call.await;
            if result.is_ok() && self.config.checkpoint != CheckpointPolicy::Manual {
                // Asked to stop meanwhile: the next owner of the shard writes the end.
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
            let decision = self.on_failure(&mut attempts, &failure);
            // The processor checkpointed the end before it failed.
            if has_ended() {
                return Ok(());
            }
            self.pause(decision?).await?;
        }
    }

    /// Tells the processor, once, that the lease is lost.
    pub(crate) async fn lease_lost(&self, processor: &mut dyn ErasedProcessor) {
        let call = self.call(LEASE_LOST, async {
            processor.lease_lost().await;
            Ok(())
        });
        if let Err(error) = call.await {
            let shard_id = self.held_lease.shard_id();
            tracing::warn!(shard_id, %error, "the processor failed in lease_lost");
        }
    }

    /// Asks the processor, once, for its last checkpoint. Answers whether it returned `Ok`.
    pub(crate) async fn shutdown_requested(
        &self,
        processor: &mut dyn ErasedProcessor,
        checkpointer: &Checkpointer,
    ) -> bool {
        let tokens = self.stop.for_call();
        let shutdown = Shutdown::new(checkpointer, &tokens);
        let call =
            self.call(SHUTDOWN_REQUESTED, async { processor.shutdown_requested(shutdown).await });
        let result = call.await;
        if let Err(error) = &result {
            let shard_id = self.held_lease.shard_id();
            tracing::error!(shard_id, %error, "the processor failed in shutdown_requested; the stop goes on");
        }
        result.is_ok()
    }

    /// Drops the processor. A panic in its `drop` is logged: the shard is done with.
    pub(crate) fn drop_processor<T>(&self, processor: T) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(processor))) {
            let error = ProcessorError::panicked(&panic_message(panic.as_ref()));
            let shard_id = self.held_lease.shard_id();
            tracing::warn!(shard_id, %error, "the processor failed while it was dropped");
        }
    }

    /// One call of the processor. A panic in it is an error like any other.
    ///
    /// Pass an `async` block around the call: what runs before its first await is then guarded, too.
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

    /// Decides what follows a failed call, and logs the failure. `Ok`: the same call is made again after
    /// this pause.
    ///
    /// # Errors
    /// The shard is to be given up: the call was told to stop and returned an error, which is no failure.
    fn on_failure(
        &self,
        attempts: &mut Attempts,
        failure: &Failure<'_>,
    ) -> Result<Duration, ShutdownReason> {
        let pause = attempts.backoff.next_delay();
        let (shard_id, call) = (self.held_lease.shard_id(), attempts.method.name);
        let Failure { error, records, is_repeated } = failure;
        if let Some(reason) = self.was_told_to_stop(attempts.method) {
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
            if failures > LOUD_AFTER {
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

    /// Why an error of this call is no failure: its tokens told it to stop.
    fn was_told_to_stop(&self, method: Method) -> Option<ShutdownReason> {
        self.stop.now().filter(|_| !method.is_last)
    }

    fn attempts(&mut self, method: Method) -> Attempts {
        Attempts { method, backoff: self.backoff() }
    }

    /// The pauses of a series of attempts, by the settings.
    pub(crate) fn backoff(&mut self) -> Backoff {
        let config = &self.config;
        Backoff::new(config.retry_initial_delay, config.retry_max_delay, self.random.fork())
    }

    /// # Errors
    /// This worker does not hold the lease at this moment.
    pub(crate) fn check_lease(&self) -> Result<(), ShutdownReason> {
        if self.held_lease.is_held() { Ok(()) } else { Err(ShutdownReason::LeaseLost) }
    }

    /// The result of the work. If the shard is to be given up first, the work is dropped.
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

    /// Waits, unless the shard is to be given up.
    pub(crate) async fn pause(&self, delay: Duration) -> Result<(), ShutdownReason> {
        self.unless_given_up(tokio::time::sleep(delay)).await
    }
}

/// The attempts of one call.
struct Attempts {
    method: Method,
    backoff: Backoff,
}

/// A failed call.
struct Failure<'a> {
    error: &'a ProcessorError,
    /// Positions of the first and the last record of the batch.
    records: Option<(ExtendedSequenceNumber, ExtendedSequenceNumber)>,
    /// Something is left to call the processor for.
    is_repeated: bool,
}

async fn guarded<T>(
    call: impl Future<Output = Result<T, ProcessorError>>,
) -> Result<T, ProcessorError> {
    AssertUnwindSafe(call)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(ProcessorError::panicked(&panic_message(panic.as_ref()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_message() {
        let error = guarded::<()>(async { panic!("no {}", "luck") }).await.unwrap_err();
        assert!(error.is_panic());
        assert_eq!(error.to_string(), "the processor panicked: no luck");
    }

    #[tokio::test]
    async fn results_pass() {
        assert_eq!(guarded(async { Ok(7) }).await.unwrap(), 7);
        let error = guarded::<()>(async { Err("x".into()) }).await.unwrap_err();
        assert!(!error.is_panic());
    }
}
