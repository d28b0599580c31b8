//! Refresh of the shard map: on request and on a jittered timer. While it fails, the old map serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::config::RecordOrdering;
use crate::context::Context;
use crate::error::StopReason;
use crate::retry::SHARD_MAP_BACKOFF;
use crate::service::{CallError, Listing, Service, StreamDescription};
use crate::shard::map::ShardMap;
use crate::shard::map::known::KnownShards;
use crate::shard::router::ShardRouter;
use kinesis_common::log_gate::LogGate;

/// Shortest pause before a requested refresh; see [`pause`].
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Shortest pause if records live for less than two seconds.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// Longest backoff while a record waits for a fresh map, which must come within the time to live of the record.
const MAX_WANTED_BACKOFF: Duration = Duration::from_secs(5);

/// The task that keeps the shard map fresh.
pub(crate) struct Refresher {
    context: Arc<Context>,
    shards: Arc<ShardRouter>,
    service: Arc<dyn Service>,
    rng: fastrand::Rng,
    failed: LogGate,
    /// Description from the start of the producer, until the first refresh.
    first: Option<StreamDescription>,
    may_describe: bool,
    may_list: bool,
    is_service_placed: bool,
    incarnation: String,
    known: KnownShards,
    /// Generation of the last refresh that listed the shards.
    known_generation: u64,
    /// No description without a reason before this. An account may make 20 DescribeStreamSummary calls a second.
    strategy_due: Instant,
    /// No description before this, after several that failed in a row.
    describe_after: Instant,
    describe_failures: u32,
}

impl Refresher {
    /// `first` is the description of the stream. `None`: the role may not describe it.
    pub(crate) fn new(
        context: Arc<Context>,
        shards: Arc<ShardRouter>,
        service: Arc<dyn Service>,
        seed: u64,
        first: Option<StreamDescription>,
    ) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            failed: LogGate::default(),
            may_describe: first.is_some(),
            may_list: true,
            is_service_placed: shards.is_service_placed(),
            strategy_due: clock::now(),
            describe_after: clock::now(),
            describe_failures: 0,
            incarnation: first.as_ref().map(|first| first.incarnation.clone()).unwrap_or_default(),
            first,
            known: KnownShards::new(context.config.record_ttl),
            known_generation: 0,
            context,
            shards,
            service,
        }
    }

    /// Lists no shards from now on, because the role may not. Only the strategy is read.
    pub(crate) fn go_without_shards(&mut self) {
        self.may_list = false;
    }

    /// Whether the role may read the strategy or the shards.
    pub(crate) fn has_use(&self) -> bool {
        self.may_describe || self.may_list
    }

    /// Reads once the record distribution strategy, the largest record, and the shards of the stream.
    pub(crate) async fn refresh(&mut self) -> Result<(), CallError> {
        let generation = self.shards.refreshes.begin();
        self.read_stream(generation).await;
        if self.is_service_placed && self.context.config.ordering == RecordOrdering::PerPartitionKey
        {
            tracing::error!(
                "the stream's record distribution strategy is AUTO now: the ordered producer stops"
            );
            self.shards.stop(StopReason::OrderLost);
            return Ok(());
        }
        if self.may_list {
            self.list(generation).await?;
        }
        let map = ShardMap::new(self.known.shards());
        let map = match self.is_service_placed {
            true => map.without_prediction(),
            false if self.may_list && map.open.is_empty() => {
                return Err(CallError::unusable("ListShards returned no open shard"));
            }
            false => map,
        };
        self.shards.install(generation, map);
        Ok(())
    }

    /// Lists the open shards. All shards are listed only to find one that opened and closed between two listings.
    async fn list(&mut self, generation: u64) -> Result<(), CallError> {
        if self.known_generation < self.shards.refreshes.trusted_from() {
            self.known.forget_all();
        }
        let unknown = self.shards.refreshes.take_unknown();
        let listed = self.list_for(&unknown).await;
        match &listed {
            Ok(()) => self.known_generation = generation,
            Err(error) => {
                unknown.iter().for_each(|id| self.shards.refreshes.note_unknown(id));
                if error.is_stream_missing() {
                    self.shards.refreshes.trust_from(generation + 1);
                }
            }
        }
        listed
    }

    async fn list_for(&mut self, unknown: &BTreeSet<Arc<str>>) -> Result<(), CallError> {
        let open = self.service.list_shards(Listing::Open).await?;
        if !self.known.note_open(open, clock::now()) {
            tracing::warn!(
                "the listed shards contradict earlier ones, as after the stream was deleted and created again: the earlier ones are forgotten"
            );
        }
        if self.known.has_missed(unknown) {
            let all = self.service.list_shards(Listing::All).await?;
            self.known.note_all(all, clock::now());
        }
        Ok(())
    }

    /// Reads the record distribution strategy and the largest record. If that fails, the known values stay. If the role
    /// may not describe the stream, the shards that took records show the strategy.
    async fn read_stream(&mut self, generation: u64) {
        let began = clock::now();
        let is_service_placed = if let Some(first) = self.first.take() {
            first.service_places_records
        } else if !self.may_describe {
            self.shards.refreshes.seen_placed.load(Ordering::Relaxed)
        } else if began < self.describe_after
            || began < self.strategy_due
                && !self.shards.refreshes.seen_placed.load(Ordering::Relaxed)
        {
            self.is_service_placed
        } else {
            // A record that is seen in another shard from here on is news.
            let was_seen = self.shards.refreshes.seen_placed.swap(false, Ordering::Relaxed);
            match self.service.describe().await {
                Ok(now) => {
                    let interval = self.context.config.shard_map_refresh_interval;
                    // Before the next refresh by the timer, whatever its jitter.
                    self.strategy_due = clock::after(began, interval / 2);
                    self.describe_failures = 0;
                    if now.incarnation != self.incarnation {
                        tracing::warn!(
                            "the stream was deleted and created again: its old shards are forgotten"
                        );
                        self.incarnation = now.incarnation;
                        self.shards.refreshes.trust_from(generation);
                    }
                    if let Some(bytes) = now.max_record_size {
                        self.shards.set_max_record_size(bytes);
                    }
                    now.service_places_records
                }
                Err(error) => {
                    tracing::debug!(code = %error.code, message = %error.message, "the stream could not be described");
                    if error.is_stream_missing() {
                        // A listing that succeeds from here on is of a stream that was created since.
                        self.shards.refreshes.trust_from(generation);
                    } else {
                        // Refreshes may be frequent, and a throttled account must not be called with each of them.
                        self.describe_failures += 1;
                        let pause = SHARD_MAP_BACKOFF.delay(self.describe_failures, &mut self.rng);
                        self.describe_after = clock::now() + pause;
                    }
                    self.shards.refreshes.seen_placed.fetch_or(was_seen, Ordering::Relaxed);
                    self.is_service_placed
                }
            }
        };
        if is_service_placed != self.is_service_placed {
            tracing::warn!(
                is_service_placed,
                "the stream's record distribution strategy changed: aggregation follows it"
            );
            self.is_service_placed = is_service_placed;
        }
    }

    /// Keeps the map fresh until cancelled.
    pub(crate) async fn run(mut self) {
        let context = Arc::clone(&self.context);
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => {}
            () = self.refresh_forever() => {}
        }
    }

    async fn refresh_forever(&mut self) {
        loop {
            let interval = self.context.config.shard_map_refresh_interval;
            let jittered = interval.min(clock::NEVER).mul_f64(0.8 + 0.4 * self.rng.f64());
            let is_wanted = tokio::select! {
                biased;
                () = self.shards.refreshes.wanted() => true,
                () = tokio::time::sleep(jittered) => false,
            };
            self.refresh_until_done(is_wanted).await;
            let pause = self.pause();
            tokio::time::sleep(pause).await;
        }
    }

    async fn refresh_until_done(&mut self, mut is_wanted: bool) {
        let (mut failures, mut is_told) = (0, false);
        while let Err(error) = self.refresh().await {
            failures += 1;
            if failures == 1
                && let Some(left_out) = self.failed.pass(clock::now())
            {
                is_told = true;
                tracing::warn!(code = %error.code, message = %error.message, left_out, "the shard map could not be refreshed: the old one serves");
            }
            let delay = SHARD_MAP_BACKOFF.delay(failures, &mut self.rng);
            let failed = clock::now();
            if !is_wanted {
                is_wanted = tokio::select! {
                    biased;
                    () = self.shards.refreshes.wanted() => true,
                    () = tokio::time::sleep(delay.max(MIN_INTERVAL)) => false,
                };
            }
            if is_wanted {
                let delay = delay.clamp(self.pause(), MAX_WANTED_BACKOFF);
                tokio::time::sleep_until(failed + delay).await;
            }
        }
        // Only if the failure was logged.
        if is_told {
            tracing::info!(failures, "the shard map is fresh again");
        }
    }

    fn pause(&mut self) -> Duration {
        pause(self.context.config.record_ttl, &mut self.rng)
    }
}

/// Pause after a refresh before the next requested one: [`MIN_INTERVAL`], and up to twice that more at random.
///
/// A stream allows 1,000 ListShards calls a second. During a reshard, all producers request maps from the same moment
/// on: 200 producers make 400 calls a second. If records live for less than two seconds, the pause is shorter, because
/// an aggregate whose shard is not known is sent again in parts after half of its time to live.
fn pause(time_to_live: Duration, rng: &mut fastrand::Rng) -> Duration {
    let least = (time_to_live / 8).clamp(LEAST_INTERVAL, MIN_INTERVAL);
    least + least.mul_f64(2.0 * rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_at_a_reshard_stays_well_below_the_limit_of_list_shards() {
        let mut calls = Vec::new();
        for host in 0..200 {
            let mut rng = fastrand::Rng::with_seed(host);
            // All hosts are told of the reshard at once, and ask until the new shards are open.
            let mut at = Duration::ZERO;
            while at < Duration::from_secs(60) {
                calls.push(at);
                at += pause(Duration::from_secs(30), &mut rng);
            }
        }
        calls.sort();
        let second = Duration::from_secs(1);
        let most = (0..calls.len()).map(|first| {
            let after = calls.partition_point(|at| *at < calls[first] + second);
            after - first
        });
        let most = most.max().unwrap();
        assert!(most < 700, "{most} calls in a second");
    }

    #[test]
    fn a_refresh_comes_within_half_of_a_short_time_to_live() {
        let mut rng = fastrand::Rng::with_seed(1);
        let second = Duration::from_secs(1);
        assert!((0..1000).all(|_| pause(second, &mut rng) < second / 2));
    }
}
