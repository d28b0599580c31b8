//! A worker with injected parts, which a real worker creates from its AWS clients and its settings.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use fastrand::Rng;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{ConsumerConfig, FanOutConfig};
use crate::coordinator::Coordinator;
use crate::coordinator::context::PreparedWorker;
use crate::coordinator::start::first_scan_delay;
use crate::current_stream::CurrentStream;
use crate::error::WorkerError;
use crate::executor::Executor;
use crate::health::ProblemLog;
use crate::lease::{LeaseStore, StreamIdentity};
use crate::metrics::Meter;
use crate::processor::ProcessorFactory;
use crate::processor::failure::Sinks;
use crate::retrieval::fan_out::FanOutRetrieval;
use crate::retrieval::fan_out::consumer::StreamConsumer;
use crate::retrieval::fan_out::http::client_for_subscriptions;
use crate::retrieval::{ByteBudget, Retrieval, StreamCheck};
use crate::service_time::ServiceClock;
use crate::shard_consumer::Worker;
use crate::stream::list::ShardLister;
use crate::stream::{ShardSync, Starter};
use crate::worker::{Scheduler, ShutdownReport};
use crate::worker_state::StateSender;

/// Name of the application and of the stream.
const NAME: &str = "injected";

/// Parts of an [`InjectedWorker`].
#[allow(missing_debug_implementations, reason = "how shards are read has none")]
pub struct WorkerParts {
    /// Id of the worker in the lease table.
    pub worker_id: String,
    /// Number that tells this process from others of the same worker id. The store has the same.
    pub process: u64,
    /// The settings. Those of the AWS clients have no effect.
    pub config: ConsumerConfig,
    /// Read units a second for scans of the lease table at rest, in place of `max_lease_table_reads`. It may be less
    /// than 1.
    pub table_reads: f64,
    /// The lease table.
    pub store: Arc<dyn LeaseStore>,
    /// The shards of the stream.
    pub lister: Arc<dyn ShardLister>,
    /// The way to read shards.
    pub reading: InjectedReading,
    /// The clock of the worker's process.
    pub clock: Arc<dyn Clock>,
    /// Where coordination runs.
    pub coordination: Arc<dyn Executor>,
    /// Where processors and reads run.
    pub processors: Arc<dyn Executor>,
}

/// How an [`InjectedWorker`] reads shards.
#[allow(missing_debug_implementations, reason = "how shards are read has none")]
pub enum InjectedReading {
    /// By sources of the caller.
    By(Arc<dyn Retrieval>),
    /// By the library's own enhanced fan-out.
    FanOut {
        /// A client with an HTTP client of the caller, which answers the calls about stream `injected`.
        client: Client,
        /// Seed of the times of subscriptions.
        seed: u64,
    },
}

impl InjectedReading {
    fn retrieval(
        self,
        stream: &Arc<CurrentStream>,
        config: &Arc<ConsumerConfig>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<dyn Retrieval> {
        let (client, seed) = match self {
            Self::By(retrieval) => return retrieval,
            Self::FanOut { client, seed } => (client, seed),
        };
        let mut random = Rng::with_seed(seed);
        let (name, timeout) = (NAME.parse().expect("a valid name"), config.kinesis_request_timeout);
        let (stream, time) = (Arc::clone(stream), Arc::clone(clock));
        let check = StreamCheck::new(&client, timeout, name, stream, time, random.fork());
        let settings = FanOutConfig::default();
        let (time, for_consumer) = (Arc::clone(clock), random.fork());
        let consumer = StreamConsumer::new(&check, NAME, &settings.consumer, time, for_consumer);
        Arc::new(FanOutRetrieval::new(
            &client_for_subscriptions(&client, timeout),
            check,
            consumer,
            &settings,
            Arc::clone(config),
            Arc::clone(clock),
            random,
        ))
    }
}

/// A worker with injected services, clock, executors and random choices.
#[allow(missing_debug_implementations, reason = "how shards are read has none")]
pub struct InjectedWorker {
    parts: WorkerParts,
    sync: ShardSync,
    first_scan_delay: Duration,
}

impl InjectedWorker {
    /// Creates a worker. It makes no call.
    pub fn new(parts: WorkerParts) -> Self {
        let stream = StreamIdentity { arn: format!("arn:{NAME}"), created: 1 };
        let sync = ShardSync {
            lister: Arc::clone(&parts.lister),
            store: Arc::clone(&parts.store),
            position: parts.config.initial_position.clone(),
            stream: Arc::new(CurrentStream::new(
                stream,
                parts.config.on_recreated_stream,
                Arc::clone(&parts.clock),
            )),
            has_entity_type: true,
            clock: Arc::clone(&parts.clock),
            finished: Arc::default(),
        };
        Self { parts, sync, first_scan_delay: Duration::ZERO }
    }

    /// Creates the missing leases of the stream, without regard to other workers that start.
    ///
    /// # Errors
    /// A call failed. Leases that were created stay. May be called again.
    pub async fn create_leases(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.sync.run().await?;
        Ok(())
    }

    /// Waits until one of the workers that start has created the leases of the stream, as a real worker does. Tries
    /// again after `pause` if a call fails.
    pub async fn start_with_fleet(&mut self, pause: Duration, seed: u64) {
        let starter = Starter::new(&self.sync, &self.parts.worker_id, seed);
        let was_cold = loop {
            match starter.run().await {
                Ok(was_cold) => break was_cold,
                Err(_) => tokio::time::sleep(pause).await,
            }
        };
        self.first_scan_delay = first_scan_delay(was_cold);
    }

    /// Runs until `stop` holds the deadline of a planned stop. `seeds`: for the random choices of
    /// coordination and of the shard consumers.
    ///
    /// # Errors
    /// Those of a real worker.
    pub async fn run(
        self,
        factory: impl ProcessorFactory,
        seeds: (u64, u64),
        stop: watch::Receiver<Option<Duration>>,
    ) -> Result<ShutdownReport, WorkerError> {
        let Self { parts, sync, first_scan_delay } = self;
        let (for_coordination, for_consumers) = seeds;
        let (clock, meter) = (parts.clock, Meter::default());
        let problems = Arc::new(ProblemLog::new(Arc::clone(&clock)));
        let config = Arc::new(parts.config);
        let service_clock = ServiceClock::new(Arc::clone(&clock));
        let retrieval = parts.reading.retrieval(&sync.stream, &config, &clock);
        let coordinator = Coordinator::new(PreparedWorker {
            id: parts.worker_id.clone(),
            stream: NAME.to_owned(),
            process: parts.process,
            store: parts.store,
            sync,
            clock: Arc::clone(&clock),
            service_clock: service_clock.clone(),
            failover: config.failover_time,
            max_leases: config.max_leases,
            table_reads: parts.table_reads,
            on_stop: config.on_stop,
            sync_interval: config.shard_sync_interval,
            first_scan_delay,
            seed: for_coordination,
            meter: meter.clone(),
            problems: Arc::clone(&problems),
            fleet_mode: None,
            executor: parts.coordination,
        });
        let worker = Worker {
            application: NAME.to_owned(),
            worker_id: parts.worker_id,
            stream: NAME.to_owned(),
            budget: ByteBudget::new(config.max_buffered_bytes),
            config,
            clock,
            service_clock,
            bounds: None,
            retrieval,
            factory: Arc::new(factory),
            sinks: Sinks::default(),
            executor: parts.processors,
        };
        let states = StateSender::default();
        let worker = Scheduler::new(coordinator, worker, states, meter, problems, for_consumers);
        worker.run(stop).await
    }
}
