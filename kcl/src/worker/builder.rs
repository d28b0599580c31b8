//! Builder of a worker.

mod handler;
mod streams;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_types::SdkConfig;
use fastrand::Rng;
use kinesis_common::client::behavior_version;
use kinesis_common::clock::random_seed;
use kinesis_common::protocol::WireProtocol;
use kinesis_common::stream_name::StreamName;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::handler::Factory;
use super::handle::WorkerHandle;
use super::reading::Reading;
use super::run;
use super::shards::View;
use super::shutdown::ShutdownReport;
use super::uploads::Uploads;
use crate::clock::{Clock, SystemClock};
use crate::config::{AfterRetries, ConfigError, ConsumerConfig, Wire, application_problem};
use crate::coordinator::start::{AdminParts, find_leases};
use crate::coordinator::{Coordinator, CoordinatorParts};
use crate::dead_letter::DeadLetterSink;
use crate::error::{BuildError, WorkerError};
use crate::health::ProblemLog;
use crate::lease_admin::LeaseAdmin;
#[cfg(feature = "cloudwatch")]
use crate::metrics::CloudWatchConfig;
#[cfg(feature = "cloudwatch")]
use crate::metrics::cloudwatch::CloudWatch;
#[cfg(feature = "metrics")]
use crate::metrics::facade::FacadeSink;
use crate::metrics::{Meter, Sink};
use crate::processor::ProcessorFactory;
use crate::processor::failure::{Sinks, SkippedRecords};
use crate::retrieval::{Bounds, ByteBudget, StreamCheck};
use crate::shard_consumer::Worker;
use crate::snapshot::Totals;
use crate::task::Task;
use crate::worker_state::{LastState, StateSender, StateWatch, WorkerState};

/// Application of a worker without one.
const STANDALONE: &str = "standalone";

/// Worker that is ready to run: the stream, the lease table and the leases exist. Named after the Java library's class.
///
/// [`spawn`](Self::spawn) starts it.
#[must_use = "a worker does nothing before spawn()"]
pub struct Scheduler {
    coordinator: Coordinator,
    worker: Worker,
    view: Arc<View>,
    seed: u64,
    /// `None`: no metrics are uploaded.
    uploads: Option<Uploads>,
}

impl Scheduler {
    /// Starts building a worker of `application` that reads `stream`, a name or an ARN.
    ///
    /// Workers with the same application name share the shards of the stream. The application also names the lease
    /// table, unless the settings do.
    pub fn builder(
        application: impl Into<String>,
        stream: impl Into<String>,
        sdk_config: &SdkConfig,
    ) -> SchedulerBuilder {
        let kinesis =
            aws_sdk_kinesis::config::Builder::from(sdk_config).behavior_version(behavior_version());
        SchedulerBuilder {
            application: application.into(),
            stream: stream.into(),
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis.build()),
            dynamodb: Some(dynamodb_client(sdk_config)),
            factory: None,
            sinks: Sinks::default(),
            config: ConsumerConfig::default(),
            coordination: None,
            clock: None,
            seed: None,
            #[cfg(feature = "cloudwatch")]
            cloudwatch: None,
            states: StateSender::default(),
        }
    }

    /// Starts building a worker without an application and without a lease table, for backfills and tests. It reads the
    /// whole `stream`, a name or an ARN, in one process.
    ///
    /// Leases and checkpoints are kept in memory. So each start begins at the
    /// [`initial_position`](ConsumerConfig::initial_position), and no other worker shares the shards. It makes no call to
    /// DynamoDB, and needs no permission for it. Set [`until`](ConsumerConfig::until) if it should end by itself.
    /// [`ShardContext::application`](crate::ShardContext::application) is `standalone`.
    pub fn standalone(stream: impl Into<String>, sdk_config: &SdkConfig) -> SchedulerBuilder {
        SchedulerBuilder { dynamodb: None, ..Self::builder(STANDALONE, stream, sdk_config) }
    }

    pub(crate) fn new(
        coordinator: Coordinator,
        worker: Worker,
        states: StateSender,
        meter: Meter,
        problems: Arc<ProblemLog>,
        seed: u64,
    ) -> Self {
        let totals = Totals::new(meter, problems).with_service_clock(coordinator.service_clock());
        let view = View::new(&worker, coordinator.fleet_view(), states, totals);
        Self { coordinator, view: Arc::new(view), worker, seed, uploads: None }
    }

    /// Id of this worker in the lease table.
    pub fn worker_id(&self) -> &str {
        &self.worker.worker_id
    }

    /// Starts the worker.
    ///
    /// Reads and processors run on the current runtime. The coordination runs on a thread of its own, or on the runtime
    /// of [`coordination_on`](SchedulerBuilder::coordination_on).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn(mut self) -> WorkerHandle {
        self.worker.executor = Arc::new(Handle::current());
        // Created outside of the task, so that a task which is aborted before it starts enters the last state too.
        let (states, aborted) = (self.view.states.clone(), Arc::new(AtomicBool::new(false)));
        let last_state = LastState { states, aborted: Arc::clone(&aborted) };
        let executor = self.coordinator.executor();
        let thread_ended = self.coordinator.thread_ended();
        let (stop, requested) = watch::channel(None);
        let view = Arc::clone(&self.view);
        let work = async move {
            let outcome = self.run(requested).await;
            let error = outcome.as_ref().err().cloned();
            last_state.states.enter(WorkerState::Stopped(error));
            outcome
        };
        let task = Task::spawn(&*executor, "the worker", work);
        WorkerHandle::new(view, stop, task, aborted, thread_ended)
    }

    /// Runs the worker itself where this is polled, until `stop` holds the deadline of a planned stop.
    pub(crate) async fn run(
        self,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Result<ShutdownReport, WorkerError> {
        let Self { coordinator, worker, view, seed, uploads } = self;
        run::run(coordinator, Arc::new(worker), view, uploads, seed, stop).await
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("application", &self.worker.application)
            .field("worker_id", &self.worker.worker_id)
            .finish_non_exhaustive()
    }
}

/// Builder of a [`Scheduler`].
#[must_use = "call build(), consume() or consume_records()"]
pub struct SchedulerBuilder {
    application: String,
    stream: String,
    kinesis: aws_sdk_kinesis::Client,
    /// `None`: the worker has no lease table.
    dynamodb: Option<aws_sdk_dynamodb::Client>,
    factory: Option<Factory>,
    sinks: Sinks,
    config: ConsumerConfig,
    coordination: Option<Handle>,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    #[cfg(feature = "cloudwatch")]
    cloudwatch: Option<(SdkConfig, CloudWatchConfig)>,
    states: StateSender,
}

impl SchedulerBuilder {
    /// Sets the factory of the processors: a closure `|shard: &ShardContext| MyProcessor::new(shard)`, or a
    /// [`ProcessorFactory`]. [`build`](Self::build) requires it, or a [`handler`](Self::handler). The last call of both
    /// counts.
    pub fn processor(mut self, factory: impl ProcessorFactory) -> Self {
        self.factory = Some(Factory::Processor(Arc::new(factory)));
        self
    }

    /// Sets a callback for records that are [skipped](crate::AfterRetries::Skip), for instance to store or count them.
    /// Default: none; skipped records are logged and counted.
    ///
    /// It runs on the runtime of the processors, and must not block. The records count as done when it returns. A panic in
    /// it is logged.
    pub fn on_skipped(
        mut self,
        callback: impl Fn(&SkippedRecords<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.sinks.on_skipped = Some(Arc::new(callback));
        self
    }

    /// Sets where [dead letters](crate::AfterRetries::DeadLetter) go. Default: none. [`build`](Self::build) requires it if
    /// the failure policy has dead letters.
    pub fn dead_letters(mut self, sink: impl DeadLetterSink) -> Self {
        self.sinks.dead_letters = Some(Arc::new(sink));
        self
    }

    /// Sets the settings. Default: [`ConsumerConfig::default`].
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the SDK configuration for DynamoDB, if its endpoint, account or region differs from that of the stream. It
    /// replaces a [client](Self::dynamodb_client) that was set before.
    pub fn dynamodb_config(mut self, sdk_config: &SdkConfig) -> Self {
        self.dynamodb = Some(dynamodb_client(sdk_config));
        self
    }

    /// Sets a Kinesis client, for instance for a stream in another account. The worker uses its configuration with its
    /// own time limits, retries and [encoding](ConsumerConfig::wire).
    ///
    /// If an HTTP client was set for it, or in the SDK configuration, the coordination and the reads share that client
    /// and its connections, and the thread that renews the leases drives some of the reads. When the worker ends, reads
    /// in flight of another worker with the same HTTP client fail and are retried.
    pub fn kinesis_client(mut self, client: aws_sdk_kinesis::Client) -> Self {
        self.kinesis = client;
        self
    }

    /// Sets a DynamoDB client. The worker uses its configuration with its own time limits, retries and credentials
    /// cache. It replaces a [configuration](Self::dynamodb_config) that was set before.
    ///
    /// If an HTTP client was set for it, or in the SDK configuration, the worker uses that client and its connections.
    /// Do not share it with code that blocks its runtime: a connection lives on the runtime that opened it, and
    /// renewals on a connection of a blocked runtime time out. Without one, the coordination has its own connections.
    pub fn dynamodb_client(mut self, client: aws_sdk_dynamodb::Client) -> Self {
        self.dynamodb = Some(client);
        self
    }

    /// Sets the runtime of the coordination: lease renewals, checkpoints, balancing, shard sync, planned stops, and
    /// their AWS calls. Default: a thread and runtime of the worker, so that processors which block the application's
    /// runtime lose no lease.
    ///
    /// Use `Handle::current()` in tests under paused time. Any other runtime must not be blocked and must outlive the
    /// worker: if it ends, the worker ends with an error. It must also be running: on a current-thread runtime outside
    /// of `block_on`, [`build`](Self::build) never returns.
    pub fn coordination_on(mut self, runtime: Handle) -> Self {
        self.coordination = Some(runtime);
        self
    }

    /// Sets the clock. Default: that of the machine.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets the seed of all random choices: backoff, jitter and the default worker id. Default: a random seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Publishes the worker's [metrics](crate::metrics) to Amazon CloudWatch. Default: no.
    ///
    /// Region, credentials and endpoint of CloudWatch are those of `sdk_config`. The role needs
    /// `cloudwatch:PutMetricData`. The calls run beside the coordination: if CloudWatch fails or does not answer,
    /// nothing waits for it. The data is kept for the next upload, at most 20,000 series of about 300 bytes each, and
    /// [`health`](crate::WorkerHandle::health) shows
    /// [`MetricsUploadFailing`](crate::ProblemKind::MetricsUploadFailing). A planned stop makes a last upload, which
    /// takes five seconds at most, within [`STOP_MARGIN`](crate::WorkerHandle::STOP_MARGIN).
    #[cfg(feature = "cloudwatch")]
    pub fn cloudwatch(mut self, sdk_config: &SdkConfig, config: CloudWatchConfig) -> Self {
        self.cloudwatch = Some((sdk_config.clone(), config));
        self
    }

    /// Returns a watch that follows the state of the worker from now on: during [`build`](Self::build), and after
    /// [`Scheduler::spawn`].
    pub fn watch_state(&self) -> StateWatch {
        self.states.watch()
    }

    /// Checks the settings, the stream and the lease table, and creates the table and the leases that are missing. Call
    /// it within a tokio runtime. The worker takes no lease before [`Scheduler::spawn`].
    ///
    /// With [`InitialPosition::Latest`](crate::InitialPosition::Latest), every record that is put after this call
    /// returned is read.
    ///
    /// # Errors
    /// All problems of the settings, a missing stream, region, credential or permission, and a table that cannot be
    /// used are returned at once. An unanswered or throttled call, and a stream or table that is being created, are
    /// retried until [`startup_timeout`](ConsumerConfig::startup_timeout). The text of an error names the call and its
    /// cause.
    ///
    /// # Cancel safety
    /// If the future is dropped, a table and leases that were created stay. Call `build` again.
    pub async fn build(self) -> Result<Scheduler, BuildError> {
        let states = self.states.clone();
        let built = Box::pin(self.prepare()).await;
        states.enter(match &built {
            Ok(_) => WorkerState::Ready,
            Err(error) => WorkerState::NotStarted(error.clone()),
        });
        built
    }

    /// Returns the administration of the application's leases. It needs no [`processor`](Self::processor), and creates
    /// neither table nor leases.
    ///
    /// # Errors
    /// As those of [`build`](Self::build). A lease table that does not exist is an error.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn lease_admin(self) -> Result<LeaseAdmin, BuildError> {
        let stream = self.check()?;
        let failover = self.config.failover_time;
        let dynamodb = self.dynamodb.ok_or_else(|| {
            let problem = "a standalone worker has no lease table: take Scheduler::builder to name its application";
            ConfigError::new(vec![problem.to_owned()])
        })?;
        let sync = find_leases(AdminParts {
            application: self.application,
            stream,
            kinesis: in_encoding(self.config.wire, &self.kinesis),
            dynamodb,
            config: self.config,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
            process: random_seed(),
            seed: self.seed.unwrap_or_else(random_seed),
        });
        Ok(LeaseAdmin::new(Box::pin(sync).await?, failover))
    }

    async fn prepare(self) -> Result<Scheduler, BuildError> {
        let stream = self.check()?;
        let mut config = self.config;
        let factory = self.factory.ok_or(BuildError::NoProcessor)?.create(&mut config);
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let began = clock.now();
        let seed = self.seed.unwrap_or_else(random_seed);
        let mut random = Rng::with_seed(seed);
        let config = Arc::new(config);
        let worker_id = config
            .worker_id
            .clone()
            .unwrap_or_else(|| format!("{}-{:016x}", self.application, random.u64(..)));
        let kinesis = in_encoding(config.wire, &self.kinesis);
        let problems = Arc::new(ProblemLog::new(Arc::clone(&clock)));
        #[cfg_attr(not(feature = "cloudwatch"), expect(unused_mut, reason = "one sink at most"))]
        let mut sinks: Vec<Arc<dyn Sink>> = vec![
            #[cfg(feature = "metrics")]
            Arc::new(FacadeSink::new(&self.application, &worker_id)),
        ];
        #[cfg(not(feature = "cloudwatch"))]
        let uploads = None;
        #[cfg(feature = "cloudwatch")]
        let uploads = self.cloudwatch.map(|(sdk_config, config)| {
            let cloudwatch = CloudWatch::new(&sdk_config, config, &self.application);
            let (sink, publisher) = cloudwatch.publish(&worker_id, random.u64(..));
            sinks.push(Arc::new(sink));
            Uploads::new(publisher, Arc::clone(&problems))
        });
        let meter = Meter::new(sinks);
        let application = self.application.clone();
        let coordinator = Coordinator::prepare(CoordinatorParts {
            application: self.application,
            stream: stream.clone(),
            worker_id: worker_id.clone(),
            // Independent of the seed, because it tells two processes with the same settings apart.
            process: random_seed(),
            kinesis: kinesis.clone(),
            dynamodb: self.dynamodb,
            config: Arc::clone(&config),
            clock: Arc::clone(&clock),
            seed: random.u64(..),
            states: self.states.clone(),
            meter: meter.clone(),
            problems: Arc::clone(&problems),
            runtime: self.coordination,
        })
        .await?;
        let check = StreamCheck::new(
            &kinesis,
            config.kinesis_request_timeout,
            stream,
            coordinator.stream(),
            Arc::clone(&clock),
            random.fork(),
        );
        let reading = Reading {
            application: &application,
            stream: &self.stream,
            client: &kinesis,
            check,
            config: &config,
            clock: &clock,
            meter: &meter,
            problems: &problems,
            limit: config.startup_timeout.saturating_sub(clock.now().saturating_sub(began)),
            random: random.fork(),
        };
        let retrieval = reading.choose().await?;
        // Last, so that records which were acknowledged during the start are within the bound, too.
        let service_time = coordinator.service_clock().now();
        let bounds = config.until.as_ref().map(|until| Bounds::new(until, service_time));
        let worker = Worker {
            retrieval,
            application,
            worker_id,
            stream: self.stream,
            budget: ByteBudget::new(config.max_buffered_bytes),
            config,
            clock,
            service_clock: coordinator.service_clock(),
            bounds,
            factory,
            sinks: self.sinks,
            executor: Arc::new(Handle::current()),
        };
        let seed = random.u64(..);
        let scheduler = Scheduler::new(coordinator, worker, self.states, meter, problems, seed);
        Ok(Scheduler { uploads, ..scheduler })
    }

    /// Checks the settings and the names.
    ///
    /// # Errors
    /// All problems at once.
    fn check(&self) -> Result<StreamName, ConfigError> {
        let mut problems = self.config.problems();
        let policy = &self.config.failure_policy;
        if policy.then == AfterRetries::DeadLetter && self.sinks.dead_letters.is_none() {
            let problem = "failure_policy.then is dead_letter, and there is no sink: call dead_letters() on the builder";
            problems.push(problem.into());
        }
        let region = self.kinesis.config().region();
        let names_the_table = self.config.table.name.is_none();
        problems.extend(application_problem(&self.application, names_the_table));
        #[cfg(feature = "cloudwatch")]
        if let Some((_, config)) = &self.cloudwatch {
            problems.extend(config.problems(&self.application));
        }
        match StreamName::parse(&self.stream, region.map(AsRef::as_ref)) {
            Ok(stream) => ConfigError::check(problems).map(|()| stream),
            Err(problem) => {
                problems.push(format!("stream {problem}"));
                Err(ConfigError::new(problems))
            }
        }
    }
}

fn in_encoding(wire: Wire, client: &aws_sdk_kinesis::Client) -> aws_sdk_kinesis::Client {
    let config = WireProtocol::new(wire).install(client.config().to_builder());
    aws_sdk_kinesis::Client::from_conf(config.build())
}

fn dynamodb_client(sdk_config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(sdk_config);
    aws_sdk_dynamodb::Client::from_conf(config.behavior_version(behavior_version()).build())
}

impl fmt::Debug for SchedulerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerBuilder")
            .field("application", &self.application)
            .field("stream", &self.stream)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
