//! Workers in tokio's paused time: calls take no time, and an hour passes as soon as every task waits.

use std::sync::Arc;
use std::time::Duration;

use kcl::{Clock, ConsumerConfig, InitialPosition, SchedulerBuilder};
use kinesis_testkit::LocalAws;
use tokio::runtime::Handle;

use crate::clock::TokioClock;
use crate::probe::Probe;
use crate::setup::{STREAM, builder_on};

/// An embedded AWS, and the clock of its workers' hosts, in the time of this runtime.
pub(crate) struct Paused {
    pub(crate) aws: LocalAws,
    pub(crate) clock: TokioClock,
}

impl Paused {
    pub(crate) async fn start(shards: u32) -> Self {
        let clock = TokioClock::new();
        let services = kinesis_testkit::TokioClock::starting_at(clock.wall());
        let aws = LocalAws::builder().clock(services).build().await.unwrap();
        aws.create_stream(STREAM, shards).await.unwrap();
        Self { aws, clock }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(crate) fn builder(&self, probe: &Probe, config: ConsumerConfig) -> SchedulerBuilder {
        builder_on(&self.aws.in_process_config(), probe, config)
            .coordination_on(Handle::current())
            .clock(Arc::new(self.clock))
    }
}

/// The default settings, failover time 10 s among them; but short pauses between reads, so that records
/// arrive when they are put.
pub(crate) fn config(worker: &str) -> ConsumerConfig {
    ConsumerConfig::default()
        .with_idle_time_between_reads(Duration::from_millis(200))
        .with_worker_id(worker)
        .with_initial_position(InitialPosition::TrimHorizon)
}
