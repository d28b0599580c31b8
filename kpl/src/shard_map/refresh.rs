//! Refresh of the shard map: on request and on a jittered timer. While it fails, the old map serves.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::logs::LogGate;
use crate::retry::Backoff;
use crate::sender::{CallError, Service};
use crate::shard_map::ShardMap;
use crate::shared::Shared;

/// Two refreshes are at least this far apart, however many are asked for.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// The longest backoff while somebody waits for a fresh map: a verdict that is held has only the record's time to live.
const MAX_WANTED_BACKOFF: Duration = Duration::from_secs(5);

pub(crate) struct Refresher {
    shared: Arc<Shared>,
    service: Arc<dyn Service>,
    rng: fastrand::Rng,
    failed: LogGate,
}

impl Refresher {
    pub(crate) fn new(shared: Arc<Shared>, service: Arc<dyn Service>, seed: u64) -> Self {
        Self {
            shared,
            service,
            rng: fastrand::Rng::with_seed(seed),
            failed: LogGate::default(),
        }
    }

    /// Reads the map once.
    pub(crate) async fn refresh(&self) -> Result<(), CallError> {
        let generation = self.shared.begin_refresh();
        let map = ShardMap::new(self.service.list_shards().await?);
        if map.open().is_empty() {
            return Err(CallError::unusable("ListShards returned no open shard"));
        }
        self.shared.install(generation, map);
        Ok(())
    }

    /// Keeps the map fresh until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let cancelled = cancel.clone();
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {}
            () = self.refresh_forever() => {}
        }
    }

    async fn refresh_forever(&mut self) {
        loop {
            let interval = self.shared.config.shard_map_refresh_interval;
            let jittered = interval
                .min(clock::NEVER)
                .mul_f64(0.8 + 0.4 * self.rng.f64());
            let is_wanted = tokio::select! {
                biased;
                () = self.shared.refresh.notified() => true,
                () = tokio::time::sleep(jittered) => false,
            };
            self.refresh_until_done(is_wanted).await;
            tokio::time::sleep(MIN_INTERVAL).await;
        }
    }

    async fn refresh_until_done(&mut self, mut is_wanted: bool) {
        let mut failures = 0;
        while let Err(error) = self.refresh().await {
            failures += 1;
            if failures == 1
                && let Some(left_out) = self.failed.pass(clock::now())
            {
                tracing::warn!(code = %error.code, message = %error.message, left_out, "the shard map could not be refreshed: the old one serves");
            }
            let delay = Backoff::SHARD_MAP.delay(failures, &mut self.rng);
            let failed = clock::now();
            if !is_wanted {
                is_wanted = tokio::select! {
                    biased;
                    () = self.shared.refresh.notified() => true,
                    () = tokio::time::sleep(delay.max(MIN_INTERVAL)) => false,
                };
            }
            if is_wanted {
                let delay = delay.clamp(MIN_INTERVAL, MAX_WANTED_BACKOFF);
                tokio::time::sleep_until(failed + delay).await;
            }
        }
        if failures > 0 {
            tracing::info!(failures, "the shard map is fresh again");
        }
    }
}
