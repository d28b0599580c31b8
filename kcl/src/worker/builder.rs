//! What a worker is made of.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use aws_sdk_kinesis::config::BehaviorVersion;
use aws_types::SdkConfig;
use fastrand::Rng;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::handle::WorkerHandle;
use super::run;
use super::shards::{View, ViewParts};
use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigError, ConsumerConfig, application_problem};
use crate::coordinator::{Coordinator, CoordinatorParts};
use crate::error::BuildError;
use crate::executor::CurrentRuntime;
use crate::health::ProblemLog;
use crate::metrics::Meter;
#[cfg(feature = "metrics")]
use crate::metrics::facade::FacadeSink;
use crate::processor::{ErasedFactory, ProcessorFactory};
use crate::retrieval::{ByteBudget, PollingRetrieval};
use crate::shard_consumer::Worker;
use crate::stream_name::StreamName;
use crate::task::Task;
use crate::worker_state::{LastState, StateSender, StateWatch, WorkerState};

/// A worker, ready to run: the stream exists, the lease table is there, and so are its leases.
///
/// Named after the Java library's class. [`spawn`](Self::spawn) starts it.
#[must_use = "a worker does nothing before spawn()"]
pub struct Scheduler {
    coordinator: Coordinator,
    worker: Worker,
    view: Arc<View>,
    seed: u64,
}

impl Scheduler {
    /// Starts to build a worker of `application` (which names the lease table, unless the settings
    /// do) on `stream`, a name or an ARN.
    ///
    /// Workers with the same application name share the stream's shards.
    pub fn builder(
        application: impl Into<String>,
        stream: impl Into<String>,
        sdk_config: &SdkConfig,
    ) -> SchedulerBuilder {
        SchedulerBuilder {
            application: application.into(),
            stream: stream.into(),
            kinesis_config: sdk_config.clone(),
            dynamodb_config: sdk_config.clone(),
            kinesis: None,
            dynamodb: None,
            factory: None,
            config: ConsumerConfig::default(),
            coordination: None,
            clock: None,
            seed: None,
            states: StateSender::default(),
        }
    }

    /// This worker's id, as the lease table shows it.
    pub fn worker_id(&self) -> &str {
        &self.worker.worker_id
    }

    /// Starts the worker. Fetching and the processors run on the current runtime; coordination and the
    /// worker itself on a thread of their own, unless [another runtime](SchedulerBuilder::coordination_on)
    /// was given for them.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn(self) -> WorkerHandle {
        let Self { coordinator, mut worker, view, seed } = self;
        worker.executor = Arc::new(Handle::current());
        // Outside of the task: one that is aborted before it begins has stopped too.
        let aborted = Arc::new(AtomicBool::new(false));
        let last_state = LastState::new(view.states().clone(), Arc::clone(&aborted));
        let (executor, thread_ended) = (coordinator.executor(), coordinator.thread_ended());
        let (stop, requested) = watch::channel(None);
        let seen = Arc::clone(&view);
        let work = async move {
            let outcome = run::run(coordinator, Arc::new(worker), view, seed, requested).await;
            let error = outcome.as_ref().err().cloned();
            last_state.enter(WorkerState::Stopped(error));
            outcome
        };
        let task = Task::spawn(&*executor, "the worker", work);
        WorkerHandle::new(seen, stop, task, aborted, thread_ended)
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

/// Builds a [`Scheduler`].
#[must_use = "call build()"]
pub struct SchedulerBuilder {
    application: String,
    stream: String,
    kinesis_config: SdkConfig,
    dynamodb_config: SdkConfig,
    kinesis: Option<aws_sdk_kinesis::Client>,
    dynamodb: Option<aws_sdk_dynamodb::Client>,
    factory: Option<Arc<dyn ErasedFactory>>,
    config: ConsumerConfig,
    coordination: Option<Handle>,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    states: StateSender,
}

impl SchedulerBuilder {
    /// Makes the processors: a closure `|shard: &ShardContext| MyProcessor::new(shard)`, or a
    /// [`ProcessorFactory`]. Required.
    pub fn processor(mut self, factory: impl ProcessorFactory) -> Self {
        self.factory = Some(Arc::new(factory));
        self
    }

    /// The settings. Default: [`ConsumerConfig::default`].
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// A configuration of its own for DynamoDB: another endpoint, account or region than the stream's.
    pub fn dynamodb_config(mut self, sdk_config: &SdkConfig) -> Self {
        self.dynamodb_config = sdk_config.clone();
        self
    }

    /// A Kinesis client to take in place of one made from the SDK configuration, for instance for a
    /// stream in another account. Its time limits and retries are replaced by the worker's.
    ///
    /// An HTTP client that was set for it, or in an SDK configuration, is kept, with its pool of
    /// connections: coordination and reads then share it, and some reads are driven by the thread that
    /// renews the leases. When that worker ends, reads under way of another with the same client fail,
    /// and are made again.
    pub fn kinesis_client(mut self, client: aws_sdk_kinesis::Client) -> Self {
        self.kinesis = Some(client);
        self
    }

    /// A DynamoDB client to take in place of one made from the SDK configuration. Its time limits,
    /// retries and credentials cache are replaced by the worker's.
    ///
    /// An HTTP client that was set for it, or in an SDK configuration, is kept, with its pool of
    /// connections: share none with code that blocks its runtime. A connection lives on the runtime
    /// that first used it, and renewals on one that stands still time out until it is given up.
    /// Without one, coordination has connections of its own.
    pub fn dynamodb_client(mut self, client: aws_sdk_dynamodb::Client) -> Self {
        self.dynamodb = Some(client);
        self
    }

    /// Where coordination runs: lease renewals and checkpoints, balance, shard sync, planned stops, and
    /// the calls to AWS that they make. Default: on a thread and runtime of the worker's own, from
    /// [`build`](Self::build) to its end, so that processors which block every thread of the
    /// application's runtime lose no lease.
    ///
    /// Give `Handle::current()` for tests under paused time, or a runtime that nothing blocks and that
    /// outlives the worker: when it ends, so does the worker, with an error. It must be driven: on a
    /// current-thread runtime that is in no `block_on`, [`build`](Self::build) waits without limit.
    pub fn coordination_on(mut self, runtime: Handle) -> Self {
        self.coordination = Some(runtime);
        self
    }

    /// The clock to take in place of the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Where all random choices start (backoff, the default worker id): with the same seed, the same
    /// choices. Default: from the time and the process.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Follows the worker from here on: through [`build`](Self::build), and after
    /// [`Scheduler::spawn`].
    pub fn watch_state(&self) -> StateWatch {
        self.states.watch()
    }

    /// Checks the settings, the stream and the lease table; creates the table and its leases where
    /// they are missing. No lease is taken before [`Scheduler::spawn`]. Within a tokio runtime.
    ///
    /// A stream read from [`InitialPosition::Latest`](crate::InitialPosition::Latest) is read from
    /// here on: nothing put after this call returned is missed.
    ///
    /// # Errors
    /// Each problem of the settings; a stream that does not exist; no region, credentials or permission; a
    /// table that cannot be used: at once. What may pass is tried again until
    /// [`startup_timeout`](ConsumerConfig::startup_timeout): no answer, throttled calls, a stream or table
    /// that is being created. The text of an error names the call and its cause.
    ///
    /// # Cancel safety
    /// Call it again: a table or leases that were made stay.
    pub async fn build(self) -> Result<Scheduler, BuildError> {
        let states = self.states.clone();
        let built = Box::pin(self.prepare()).await;
        states.enter(match &built {
            Ok(_) => WorkerState::Ready,
            Err(error) => WorkerState::NotStarted(error.clone()),
        });
        built
    }

    async fn prepare(self) -> Result<Scheduler, BuildError> {
        ConfigError::check(self.problems())?;
        let factory = self.factory.ok_or(BuildError::NoProcessor)?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let seed = self.seed.unwrap_or_else(|| entropy(clock.as_ref()));
        let mut random = Rng::with_seed(seed);
        let config = Arc::new(self.config);
        let worker_id = config
            .worker_id
            .clone()
            .unwrap_or_else(|| format!("{}-{:016x}", self.application, random.u64(..)));
        let kinesis = self.kinesis.unwrap_or_else(|| {
            let config = aws_sdk_kinesis::config::Builder::from(&self.kinesis_config)
                .behavior_version(BehaviorVersion::v2026_01_12());
            aws_sdk_kinesis::Client::from_conf(config.build())
        });
        let dynamodb = self.dynamodb.unwrap_or_else(|| {
            let config = aws_sdk_dynamodb::config::Builder::from(&self.dynamodb_config)
                .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::v2026_01_12());
            aws_sdk_dynamodb::Client::from_conf(config.build())
        });
        #[cfg(feature = "metrics")]
        let meter = Meter::new(FacadeSink::new(&self.application, &worker_id));
        #[cfg(not(feature = "metrics"))]
        let meter = Meter::default();
        let problems = Arc::new(ProblemLog::new(Arc::clone(&clock)));
        let (application, stream) = (self.application.clone(), self.stream.clone());
        let coordinator = Coordinator::prepare(CoordinatorParts {
            application: self.application,
            stream: self.stream,
            worker_id: worker_id.clone(),
            // Whatever the seed: two processes with the same settings are two.
            process: entropy(clock.as_ref()),
            kinesis: kinesis.clone(),
            dynamodb,
            config: Arc::clone(&config),
            clock: Arc::clone(&clock),
            seed: random.u64(..),
            states: self.states.clone(),
            meter: meter.clone(),
            problems: Arc::clone(&problems),
            runtime: self.coordination,
        })
        .await?;
        let worker = Worker {
            retrieval: Arc::new(PollingRetrieval::new(
                &kinesis,
                &stream,
                coordinator.stream(),
                Arc::clone(&config),
                Arc::clone(&clock),
                random.u64(..),
            )),
            application,
            worker_id: worker_id.clone(),
            stream,
            budget: ByteBudget::new(config.max_buffered_bytes),
            config: Arc::clone(&config),
            clock: Arc::clone(&clock),
            factory,
            executor: Arc::new(CurrentRuntime),
        };
        let view = View::new(ViewParts {
            worker_id,
            budget: Arc::clone(&worker.budget),
            last_look: coordinator.last_look(),
            states: self.states,
            clock,
            config,
            meter,
            problems,
        });
        Ok(Scheduler { coordinator, view: Arc::new(view), worker, seed: random.u64(..) })
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.config.problems();
        let region = match &self.kinesis {
            Some(client) => client.config().region(),
            None => self.kinesis_config.region(),
        };
        let stream = StreamName::problem(&self.stream, region.map(AsRef::as_ref));
        problems.extend(stream.map(|problem| format!("stream {problem}")));
        let names_the_table = self.config.table.name.is_none();
        problems.extend(application_problem(&self.application, names_the_table));
        problems
    }
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

/// A number that differs from process to process and from call to call.
fn entropy(clock: &dyn Clock) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let wall = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    RandomState::new().hash_one((wall, std::process::id()))
}
