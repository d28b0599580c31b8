//! How a shard is given up: at its end, on request, or because its lease is lost.

use std::time::Duration;

use super::{
    Failure, LEASE_LOST, Running, SHARD_ENDED, SHUTDOWN_REQUESTED, ShardConsumer, log_store_error,
};
use crate::config::CheckpointPolicy;
use crate::lease::TenureEnd;
use crate::metrics::Metric;
use crate::processor::{ShardEnd, Shutdown};
use crate::shard_state::{Event, ShutdownReason};

impl ShardConsumer {
    pub(super) async fn shut_down(
        &mut self,
        reason: ShutdownReason,
        running: &mut Option<Running>,
    ) -> Event {
        match reason {
            ShutdownReason::LeaseLost => self.lease_lost(running).await,
            ShutdownReason::ShardEnd => self.shard_ended(running).await,
            ShutdownReason::Requested => self.requested(running).await,
        }
    }

    /// Tells the processor, if there is one.
    async fn lease_lost(&mut self, running: &mut Option<Running>) -> Event {
        self.status.meter().put(Metric::LostLeases, None, 1.0);
        if let Some(running) = running {
            let told = self.call(LEASE_LOST, async {
                running.processor.lease_lost().await;
                Ok(())
            });
            if let Err(error) = told.await {
                let shard_id = self.tenure.shard_id();
                tracing::warn!(shard_id, %error, "the processor failed in lease_lost");
            }
        }
        self.outcome = Some(self.tenure.end(TenureEnd::Lost).await);
        Event::Finished
    }

    /// Children first, then the processor's last call, then `SHARD_END`: after a crash in between, the
    /// next owner finds all that it needs.
    async fn shard_ended(&mut self, running: &mut Option<Running>) -> Event {
        let mut backoff = self.backoff();
        loop {
            let record = self.tenure.record_children(self.children.clone());
            let given_up = match self.unless_given_up(record).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    log_store_error(self.tenure.shard_id(), "recording the child shards", &error);
                    self.pause(backoff.next_delay()).await
                }
                Err(reason) => Some(reason),
            };
            if let Some(reason) = given_up {
                return self.interrupted(reason, running).await;
            }
        }
        let mut backoff = self.backoff();
        // None: another worker has checkpointed the end already.
        while let Some(live) = running.as_mut() {
            if !self.holds_lease() {
                return Event::ShutDown(ShutdownReason::LeaseLost);
            }
            let delay = backoff.next_delay();
            self.end_shard(live, delay).await;
            if live.checkpointer.has_ended() {
                break;
            }
            if let Some(reason) = self.pause(delay).await {
                return self.interrupted(reason, running).await;
            }
        }
        self.status.succeeded();
        self.outcome = Some(self.tenure.end(TenureEnd::ShardEnded).await);
        Event::Finished
    }

    /// One attempt to have the processor checkpoint the shard's end; the next one comes after `delay`.
    async fn end_shard(&self, running: &mut Running, delay: Duration) {
        let Running { processor, checkpointer } = running;
        let tokens = self.signals.for_call();
        let end = ShardEnd::new(checkpointer, &tokens);
        let mut result = self.call(SHARD_ENDED, async { processor.shard_ended(end).await }).await;
        if result.is_ok() && self.worker.config.checkpoint != CheckpointPolicy::Manual {
            // Asked to stop meanwhile: the next owner of the shard writes it.
            let written = self.unless_given_up(checkpointer.end_shard()).await;
            result = written.unwrap_or(Ok(())).map_err(Into::into);
        }
        if result.is_ok() && !checkpointer.has_ended() {
            result = Err(
                "it returned Ok and did not checkpoint the end: the child shards wait for that"
                    .into(),
            );
        }
        if let Err(error) = result {
            self.failed(&Failure::new(SHARD_ENDED, &error).tried_again_in(delay));
        }
    }

    /// An ended shard could not be finished in time. On a stop or handoff the processor gets its last
    /// chance to checkpoint what it was given; its next owner will ask for the end again.
    async fn interrupted(
        &mut self,
        reason: ShutdownReason,
        running: &mut Option<Running>,
    ) -> Event {
        match reason {
            ShutdownReason::LeaseLost => Event::ShutDown(reason),
            _ => self.requested(running).await,
        }
    }

    /// A planned stop, or a handoff: the last chance to checkpoint, then the lease goes on.
    async fn requested(&mut self, running: &mut Option<Running>) -> Event {
        if let Some(live) = running {
            if !self.holds_lease() {
                return Event::ShutDown(ShutdownReason::LeaseLost);
            }
            let Running { processor, checkpointer } = live;
            let tokens = self.signals.for_call();
            let shutdown = Shutdown::new(checkpointer, &tokens);
            let call = self
                .call(SHUTDOWN_REQUESTED, async { processor.shutdown_requested(shutdown).await });
            match call.await {
                Ok(()) if self.worker.config.checkpoint != CheckpointPolicy::Manual => {
                    self.last_checkpoint(checkpointer).await;
                }
                Ok(()) => {}
                Err(error) => {
                    let shard_id = self.tenure.shard_id();
                    tracing::error!(shard_id, %error, "the processor failed in shutdown_requested; the stop goes on");
                }
            }
        }
        self.signals.may_give_away().await;
        if !self.holds_lease() {
            return Event::ShutDown(ShutdownReason::LeaseLost);
        }
        // Dropped first: what the processor does then is its last work.
        self.let_go(running.take());
        self.status.processor_stopped();
        self.outcome = Some(self.tenure.end(self.signals.requested_end()).await);
        Event::Finished
    }
}
