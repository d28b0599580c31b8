//! Where the example runs: the embedded AWS, an endpoint, or the real one.

use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client as DynamoDb;
use aws_sdk_kinesis::Client as Kinesis;
use aws_sdk_kinesis::types::{StreamDescriptionSummary, StreamStatus};
use aws_types::SdkConfig;
use kcl::InitialPosition;
use kinesis_testkit::LocalAws;

use crate::args::Args;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// An error with its causes, in one line. Errors of the SDK say only in their causes what happened.
pub(crate) fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The AWS of this run, and the stream in it.
pub(crate) struct Target {
    /// Held for its life: the embedded AWS stops when it is dropped.
    _local: Option<LocalAws>,
    pub(crate) description: String,
    pub(crate) kinesis_config: SdkConfig,
    pub(crate) dynamodb_config: SdkConfig,
    pub(crate) stream: String,
    /// The example created the stream, so it may split it, and deletes it.
    pub(crate) owned: bool,
    /// When this run began.
    opened: SystemTime,
}

impl Target {
    /// Connects to the AWS of this run. Creates the stream if it does not exist.
    pub(crate) async fn open(args: &Args, run: &str, opened: SystemTime) -> Result<Self, Error> {
        let stream = args.stream.clone().unwrap_or_else(|| format!("quickstart-{run}"));
        let mut target = if args.aws {
            let config = aws_config::load_defaults(version()).await;
            let region = config.region().map(ToString::to_string).ok_or(
                "no AWS region: set AWS_REGION, or `region` in the profile that AWS_PROFILE names",
            )?;
            Self::new(None, format!("AWS, {region}"), config.clone(), config, stream, opened)
        } else if let Some(url) = &args.endpoint_url {
            let base = emulator_config().await;
            let at = |url: &str| base.clone().into_builder().endpoint_url(url).build();
            let dynamodb_url = args.dynamodb_endpoint_url.as_ref().unwrap_or(url);
            Self::new(None, url.clone(), at(url), at(dynamodb_url), stream, opened)
        } else {
            let local = LocalAws::start().await?;
            let config = local.sdk_config();
            Self::new(
                Some(local),
                "the embedded AWS".into(),
                config.clone(),
                config,
                stream,
                opened,
            )
        };
        target.owned = target.create_stream(args.shards).await?;
        Ok(target)
    }

    fn new(
        local: Option<LocalAws>,
        description: String,
        kinesis_config: SdkConfig,
        dynamodb_config: SdkConfig,
        stream: String,
        opened: SystemTime,
    ) -> Self {
        Self {
            _local: local,
            description,
            kinesis_config,
            dynamodb_config,
            stream,
            owned: false,
            opened,
        }
    }

    /// A stream that the example created is read from its beginning. In any other stream, older records are not
    /// read.
    pub(crate) fn initial_position(&self) -> InitialPosition {
        if self.owned {
            InitialPosition::TrimHorizon
        } else {
            InitialPosition::AtTimestamp(self.opened)
        }
    }

    pub(crate) fn kinesis(&self) -> Kinesis {
        Kinesis::new(&self.kinesis_config)
    }

    async fn describe(&self) -> Result<Option<StreamDescriptionSummary>, Error> {
        let answer =
            self.kinesis().describe_stream_summary().stream_name(&self.stream).send().await;
        match answer {
            Ok(answer) => Ok(answer.stream_description_summary),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => {
                Ok(None)
            }
            Err(e) => Err(format!("cannot reach {}: {}", self.description, in_full(&e)).into()),
        }
    }

    /// Returns true if the stream had to be created.
    async fn create_stream(&self, shards: i32) -> Result<bool, Error> {
        if self.describe().await?.is_some() {
            return Ok(false);
        }
        let create = self.kinesis().create_stream().stream_name(&self.stream).shard_count(shards);
        create
            .send()
            .await
            .map_err(|e| format!("cannot create stream {}: {}", self.stream, in_full(&e)))?;
        self.wait_until_active().await?;
        Ok(true)
    }

    async fn wait_until_active(&self) -> Result<(), Error> {
        let mut pause = Duration::from_millis(5);
        loop {
            let summary = self.describe().await?;
            if summary.is_some_and(|s| *s.stream_status() == StreamStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Splits the first open shard in the middle. Returns its name.
    pub(crate) async fn split(&self, shard_id: &str) -> Result<(), Error> {
        let kinesis = self.kinesis();
        let answer = kinesis.list_shards().stream_name(&self.stream).send().await?;
        let shard = answer.shards().iter().find(|s| s.shard_id() == shard_id);
        let range = shard.and_then(|s| s.hash_key_range()).ok_or("the shard has gone")?;
        let start: u128 = range.starting_hash_key().parse()?;
        let end: u128 = range.ending_hash_key().parse()?;
        let middle = start + (end - start) / 2 + 1;
        kinesis
            .split_shard()
            .stream_name(&self.stream)
            .shard_to_split(shard_id)
            .new_starting_hash_key(middle.to_string())
            .send()
            .await?;
        Ok(())
    }

    /// Deletes the lease table, and the stream if the example created it.
    pub(crate) async fn clean_up(&self, lease_table: &str) {
        let dynamodb = DynamoDb::new(&self.dynamodb_config);
        if let Err(e) = dynamodb.delete_table().table_name(lease_table).send().await {
            eprintln!("table {lease_table} is left: {}", in_full(&e));
        }
        if self.owned
            && let Err(e) = self.kinesis().delete_stream().stream_name(&self.stream).send().await
        {
            eprintln!("stream {} is left: {}", self.stream, in_full(&e));
        }
    }
}

fn version() -> aws_config::BehaviorVersion {
    aws_config::BehaviorVersion::v2026_01_12()
}

/// An emulator takes any region and any key, so the example sets those that the environment lacks.
async fn emulator_config() -> SdkConfig {
    let mut loader = aws_config::defaults(version());
    if std::env::var_os("AWS_REGION").is_none() && std::env::var_os("AWS_DEFAULT_REGION").is_none()
    {
        loader = loader.region(aws_config::Region::new("us-east-1"));
    }
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
        loader = loader.test_credentials();
    }
    loader.load().await
}
