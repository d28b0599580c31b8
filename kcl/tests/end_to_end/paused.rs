//! Workers in tokio's paused time: calls take no time, and an hour passes as soon as everyone waits.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kcl::{Clock, ConsumerConfig, InitialPosition, SchedulerBuilder};
use kinesis_testkit::{LocalAws, TokioClock};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::probe::Probe;
use crate::setup::{STREAM, builder_on};

/// The first second of 2026, UTC.
const START: Duration = Duration::from_secs(1_767_225_600);

/// An embedded AWS, and the clock of its workers, in the time of this runtime.
pub(crate) struct Paused {
    pub(crate) aws: LocalAws,
    clock: Arc<PausedClock>,
}

#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + START + self.now()
    }
}

impl Paused {
    #[allow(
        clippy::disallowed_methods,
        reason = "the clock of these tests: it reads tokio's paused time"
    )]
    pub(crate) async fn start(shards: u32) -> Self {
        let clock = Arc::new(PausedClock(Instant::now()));
        let services = TokioClock::starting_at(SystemTime::UNIX_EPOCH + START);
        let aws = LocalAws::builder().clock(services).build().await.unwrap();
        aws.create_stream(STREAM, shards).await.unwrap();
        Self { aws, clock }
    }

    /// The clock of the hosts.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(crate) fn builder(&self, probe: &Probe, config: ConsumerConfig) -> SchedulerBuilder {
        builder_on(&self.aws.in_process_config(), probe, config)
            .coordination_on(Handle::current())
            .clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
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
