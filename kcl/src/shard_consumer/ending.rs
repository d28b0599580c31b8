//! How a shard is given up: at its end, on request, or because its lease is lost.

use super::state::{Event, ShutdownReason};
use super::{Running, ShardConsumer, log_store_error};
use crate::config::CheckpointPolicy;
use crate::lease::TenureEnd;
use crate::metrics::Metric;
use crate::processor::{ShardEnd, Shutdown};

const ENDED: (Metric, Metric) = (Metric::ShutdownTaskSuccess, Metric::ShutdownTime);
const ASKED: (Metric, Metric) = (
    Metric::ShutdownNotificationTaskSuccess,
    Metric::ShutdownNotificationTaskTime,
);

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
    async fn lease_lost(&self, running: &mut Option<Running>) -> Event {
        self.status.meter().put(Metric::LostLeases, None, 1.0);
        if let Some(running) = running {
            let told = self.call(ENDED, async {
                running.processor.lease_lost().await;
                Ok(())
            });
            if let Err(error) = told.await {
                let shard_id = self.tenure.shard_id();
                tracing::warn!(shard_id, %error, "the processor failed in lease_lost");
            }
        }
        self.tenure.end(TenureEnd::Lost).await;
        Event::Finished
    }

    /// Children first, then the processor's last word, then `SHARD_END`: whoever comes after a crash
    /// in between finds all that it needs.
    async fn shard_ended(&mut self, running: &mut Option<Running>) -> Event {
        let mut backoff = self.backoff();
        while let Err(error) = self.tenure.record_children(self.children.clone()).await {
            log_store_error(self.tenure.shard_id(), "recording the child shards", &error);
            if let Some(reason) = self.pause(backoff.next_delay()).await {
                return self.interrupted(reason, running).await;
            }
        }
        let mut backoff = self.backoff();
        // None: another worker has checkpointed the end already.
        while let Some(live) = running.as_mut() {
            if !self.holds_lease() {
                return Event::ShutDown(ShutdownReason::LeaseLost);
            }
            self.end_shard(live).await;
            if live.checkpointer.has_ended() {
                break;
            }
            if let Some(reason) = self.pause(backoff.next_delay()).await {
                return self.interrupted(reason, running).await;
            }
        }
        self.status.succeeded();
        self.tenure.end(TenureEnd::ShardEnded).await;
        Event::Finished
    }

    /// One attempt to have the processor checkpoint the shard's end.
    async fn end_shard(&self, running: &mut Running) {
        let Running {
            processor,
            checkpointer,
        } = running;
        let end = ShardEnd::new(checkpointer, self.signals.lost());
        let mut result = self
            .call(ENDED, async { processor.shard_ended(end).await })
            .await;
        if result.is_ok() && self.worker.config.checkpoint != CheckpointPolicy::Manual {
            result = checkpointer.end_shard().await.map_err(Into::into);
        }
        match result {
            Err(error) => self.complain("shard_ended", &error),
            Ok(()) if !checkpointer.has_ended() => self.complain(
                "shard_ended",
                &"it returned Ok and did not checkpoint the end: the child shards wait for that"
                    .into(),
            ),
            Ok(()) => {}
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
        if let Some(running) = running {
            if !self.holds_lease() {
                return Event::ShutDown(ShutdownReason::LeaseLost);
            }
            let Running {
                processor,
                checkpointer,
            } = running;
            let shutdown = Shutdown::new(checkpointer, self.signals.lost());
            let call = self.call(ASKED, async {
                processor.shutdown_requested(shutdown).await
            });
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
            if !self.holds_lease() {
                return Event::ShutDown(ShutdownReason::LeaseLost);
            }
        }
        self.tenure.end(self.signals.requested_end()).await;
        Event::Finished
    }
}
