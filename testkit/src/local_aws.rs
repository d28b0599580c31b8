//! The embedded AWS: both services on a thread of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kinesis::config::BehaviorVersion;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::SdkConfig;
use aws_types::region::Region;
use bytes::Bytes;

use crate::access::{Access, AccessKey};
use crate::clock::{Clock, SystemClock};
use crate::connector::InProcess;
use crate::data::{DataFile, Saver};
use crate::dynamodb::{DynamoDb, Engine};
use crate::encoding::CborSupport;
use crate::error::{CallError, StartError};
use crate::faults::{Faults, Service};
use crate::front::Front;
use crate::kinesis::{Kinesis, KinesisService, REGION, Record, Settings, Shard};
use crate::server::{Listener, Server};
use crate::tls::Tls;

/// An embedded Kinesis and DynamoDB, empty at first, in this process.
///
/// They listen on two ports of the loopback address, free ones if none are set, each of which answers
/// both services by HTTP/1.1 and HTTP/2, and run on threads of their own: a test whose runtime is
/// paused or blocked does not starve them.
/// Everything stops and is forgotten when the value is dropped.
#[derive(Debug)]
pub struct LocalAws {
    front: Arc<Front>,
    kinesis_url: String,
    dynamodb_url: String,
    secured: Option<Secured>,
    config: SdkConfig,
    /// Serves for as long as it is held.
    server: Server,
    /// Dropped after the server: the last state is whole.
    saver: Option<Saver>,
}

/// Where the services are reached over TLS.
#[derive(Debug)]
struct Secured {
    url: String,
    certificate_pem: String,
}

/// Settings of a [`LocalAws`].
#[derive(Clone)]
#[must_use = "nothing is started before `build`"]
pub struct LocalAwsBuilder {
    settings: Settings,
    clock: Arc<dyn Clock>,
    access: Access,
    cbor: CborSupport,
    seed: u64,
    kinesis_port: u16,
    dynamodb_port: u16,
    tls_port: Option<u16>,
    max_concurrent_streams: u32,
    data: Option<PathBuf>,
}

impl std::fmt::Debug for LocalAwsBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            settings,
            access,
            cbor,
            seed,
            kinesis_port,
            dynamodb_port,
            tls_port,
            max_concurrent_streams,
            data,
            clock: _,
        } = self;
        f.debug_struct("LocalAwsBuilder")
            .field("settings", settings)
            .field("access", access)
            .field("cbor", cbor)
            .field("seed", seed)
            .field("kinesis_port", kinesis_port)
            .field("dynamodb_port", dynamodb_port)
            .field("tls_port", tls_port)
            .field("max_concurrent_streams", max_concurrent_streams)
            .field("data", data)
            .finish_non_exhaustive()
    }
}

impl LocalAwsBuilder {
    /// Whether shards limit what goes in (1 MiB and 1,000 records a second) and out (2 MiB and five
    /// reads a second), as those of AWS do, and whether the calls of consumers with fan-out are limited: five
    /// registrations a second, five consumers that are `CREATING`, and one SubscribeToShard a second for each consumer
    /// and shard. Default: no.
    pub fn shard_limits(mut self, on: bool) -> Self {
        self.settings.shard_limits = on;
        self
    }

    /// How long a shard iterator can be used. Default: five minutes.
    pub fn iterator_ttl(mut self, ttl: Duration) -> Self {
        self.settings.iterator_ttl = ttl;
        self
    }

    /// How long a subscription to a shard lasts before the consumer must subscribe again. Default: five
    /// minutes.
    pub fn subscription_time(mut self, time: Duration) -> Self {
        self.settings.subscription_time = time;
        self
    }

    /// How long a stream is `CREATING`, `DELETING`, or `UPDATING` while it splits, merges or changes
    /// its shard count. The change takes effect at the end of it. Default: zero, at once.
    pub fn transition_time(mut self, time: Duration) -> Self {
        self.settings.transition = time;
        self
    }

    /// Whether records past retention stay in memory for [`LocalAws::records`]; readers do not see
    /// them either way. Default: no, they are freed as the shard is written and read.
    pub fn keep_expired_records(mut self, keep: bool) -> Self {
        self.settings.keep_expired = keep;
        self
    }

    /// Most bytes (data and partition keys) a shard holds: beyond it the oldest records are freed, as if
    /// they were past retention, read or not. It is for long runs that need not be checked record by
    /// record. Default: no bound but retention.
    pub fn shard_capacity(mut self, bytes: usize) -> Self {
        self.settings.shard_capacity = Some(bytes);
        self
    }

    /// The time of day both services see. Default: the system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Accepts only requests that are signed with this access key and secret; the clients and settings
    /// of [`LocalAws`] have them. Default: anyone's requests are accepted, signed or not.
    ///
    /// A request without a signature is refused with `MissingAuthenticationTokenException`, one of
    /// another key with `UnrecognizedClientException`, and one whose signature is wrong with
    /// `InvalidSignatureException`. How old a signature is does not matter unless it is
    /// [checked](Self::check_time).
    pub fn credentials(
        mut self,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
    ) -> Self {
        self.access.key =
            Some(AccessKey { id: access_key_id.into(), secret: secret_access_key.into() });
        self
    }

    /// Denies an operation, such as `PutRecords`, to everyone, as a policy of IAM does: it is refused
    /// with `AccessDeniedException`. May be given for several. Default: everything is allowed.
    pub fn deny(mut self, service: Service, operation: impl Into<String>) -> Self {
        self.access.denied.insert((service, operation.into()));
        self
    }

    /// Whether a request that is signed for another region than `us-east-1` is refused, with
    /// `InvalidSignatureException`, as an endpoint of AWS does. Default: no; only an ARN of another
    /// region than the request is signed for is refused.
    pub fn check_region(mut self, on: bool) -> Self {
        self.access.check_region = on;
        self
    }

    /// Whether a request that is signed more than five minutes before or after the time of the services is
    /// refused, with `InvalidSignatureException`, as AWS does. Default: no.
    pub fn check_time(mut self, on: bool) -> Self {
        self.access.check_time = on;
        self
    }

    /// How Kinesis treats requests in CBOR. Default: as AWS. The other values are those of servers that speak JSON
    /// only.
    pub fn cbor(mut self, support: CborSupport) -> Self {
        self.cbor = support;
        self
    }

    /// The seed of the probabilities of [faults](LocalAws::faults). Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The port of [`LocalAws::kinesis_url`]. Default: 0, a free one.
    pub fn kinesis_port(mut self, port: u16) -> Self {
        self.kinesis_port = port;
        self
    }

    /// The port of [`LocalAws::dynamodb_url`]. Default: 0, a free one.
    pub fn dynamodb_port(mut self, port: u16) -> Self {
        self.dynamodb_port = port;
        self
    }

    /// Serves both over TLS too, on this port (0: a free one), with a certificate made at the start
    /// for `localhost`, `127.0.0.1` and `::1`: see [`LocalAws::tls_url`] and
    /// [`LocalAws::certificate_pem`]. Default: no TLS.
    pub fn tls_port(mut self, port: u16) -> Self {
        self.tls_port = Some(port);
        self
    }

    /// Most requests that a client may have open on one connection of HTTP/2, subscriptions among them; clients
    /// are told (`SETTINGS_MAX_CONCURRENT_STREAMS`). At least 1. Default: 200.
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.max_concurrent_streams = streams.max(1);
        self
    }

    /// Keeps streams, records, consumers, tables and items in this file, and begins with what it holds:
    /// sequence numbers, iterators, pagination tokens, checkpoints and leases go on. Faults,
    /// subscriptions and counts of calls are not kept. Default: none.
    ///
    /// The file is written each second in which something has changed, and at the end
    /// ([`LocalAws::stop`], or when the value is dropped). A process that is killed loses what was done
    /// since the last time: a second, and the time that writing takes. Readers that were further then
    /// miss nothing that is put later. Each time the whole state is written: it is for megabytes.
    pub fn data(mut self, file: impl Into<PathBuf>) -> Self {
        self.data = Some(file.into());
        self
    }

    /// Starts both services; they serve when this returns, which takes milliseconds.
    ///
    /// # Errors
    ///
    /// If a port is taken or none is free, the system gives no thread, or the
    /// [data file](Self::data) cannot be read or written or is in use.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, it starts nothing that stays.
    pub async fn build(self) -> Result<LocalAws, StartError> {
        let credentials = credentials(self.access.key.as_ref());
        let (file, kept) = match self.data.map(DataFile::open).transpose()? {
            None => (None, None),
            Some((file, kept)) => (Some(file), kept),
        };
        let (kinesis, dynamodb) = match kept {
            None => (Kinesis::new(self.settings), Engine::default()),
            Some(kept) => (kept.kinesis.restored(self.settings, kept.complete), kept.dynamodb),
        };
        let kinesis = KinesisService::new(kinesis, Arc::clone(&self.clock));
        let dynamodb = DynamoDb::new(dynamodb, Arc::clone(&self.clock));
        let front = Arc::new(Front::new(
            kinesis,
            dynamodb,
            Arc::new(Faults::new(self.seed, self.clock)),
            self.access,
            self.cbor,
        ));
        let mut listeners = vec![
            Listener::bind(self.kinesis_port, None)?,
            Listener::bind(self.dynamodb_port, None)?,
        ];
        let [kinesis_url, dynamodb_url] = [listeners[0].url(), listeners[1].url()];
        let secured = match self.tls_port {
            None => None,
            Some(port) => {
                let tls = Tls::generate()?;
                let listener = Listener::bind(port, Some(tls.acceptor))?;
                let url = listener.url();
                listeners.push(listener);
                Some(Secured { url, certificate_pem: tls.authority_pem })
            }
        };
        let saver = file.map(|file| Saver::start(file, &front)).transpose()?;
        Ok(LocalAws {
            server: Server::start(listeners, &front, self.max_concurrent_streams)?,
            saver,
            config: sdk_config(&kinesis_url, credentials),
            front,
            kinesis_url,
            dynamodb_url,
            secured,
        })
    }
}

/// The only ones that are accepted, or any.
fn credentials(key: Option<&AccessKey>) -> Credentials {
    let (id, secret) = key.map_or(("testkit", "testkit"), |key| (&*key.id, &*key.secret));
    Credentials::new(id, secret, None, None, "kinesis-testkit")
}

fn sdk_config(url: &str, credentials: Credentials) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        .build()
}

impl LocalAws {
    /// Starts both services with default settings.
    ///
    /// # Errors
    ///
    /// As [`LocalAwsBuilder::build`].
    ///
    /// # Cancel safety
    ///
    /// As [`LocalAwsBuilder::build`].
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().build().await
    }

    /// Settings to change before the start.
    pub fn builder() -> LocalAwsBuilder {
        LocalAwsBuilder {
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            access: Access::default(),
            cbor: CborSupport::default(),
            seed: 0,
            kinesis_port: 0,
            dynamodb_port: 0,
            tls_port: None,
            max_concurrent_streams: 200,
            data: None,
        }
    }

    /// Stops both services, and writes the [data file](LocalAwsBuilder::data), if there is one, for
    /// the last time. Dropping the value does the same, and can only log that the file was not written.
    ///
    /// # Errors
    ///
    /// If the file could not be written: it holds the state of a moment before.
    pub fn stop(self) -> std::io::Result<()> {
        let Self { server, saver, .. } = self;
        drop(server);
        saver.map_or(Ok(()), Saver::finish)
    }

    /// Writes the [data file](LocalAwsBuilder::data) now, if there is one.
    ///
    /// # Errors
    ///
    /// If the file could not be written.
    pub fn save(&self) -> std::io::Result<()> {
        self.saver.as_ref().map_or(Ok(()), Saver::save)
    }

    /// Points clients of both services here: region `us-east-1`, made-up credentials, the SDK's own
    /// retries and timeouts.
    pub fn sdk_config(&self) -> SdkConfig {
        self.config.clone()
    }

    /// As [`sdk_config`](Self::sdk_config), but clients answer their calls themselves, on the task that
    /// makes them, without a socket.
    ///
    /// It is for paused tokio time, which would jump ahead while a socket is awaited and fire the
    /// SDK's timeouts. A call takes no time here, unless a fault delays it: by the time of the
    /// caller's runtime. Faults strike and calls are counted as over a socket; a closed connection is
    /// an I/O error of the SDK. Once this value is dropped, every call is one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use aws_sdk_kinesis::primitives::Blob;
    /// # use std::time::Duration;
    /// use kinesis_testkit::{LocalAws, TokioClock};
    ///
    /// let aws = LocalAws::builder().clock(TokioClock::current()).build().await?;
    /// aws.create_stream("orders", 1).await?;
    /// let client = aws_sdk_kinesis::Client::new(&aws.in_process_config());
    /// # let put = || client.put_record().stream_name("orders").partition_key("key").data(Blob::new("one"));
    /// let before = put().send().await?.sequence_number;
    /// tokio::time::sleep(Duration::from_secs(25 * 3600)).await; // retention is a day
    /// let after = put().send().await?.sequence_number;
    ///
    /// let left = &aws.records("orders")[0].records;
    /// assert_eq!(left.len(), 1);
    /// assert_eq!(left[0].sequence_number, after);
    /// # assert_ne!(before, after);
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_process_config(&self) -> SdkConfig {
        let client = SharedHttpClient::new(InProcess::new(&self.front));
        self.config.to_builder().http_client(client).build()
    }

    /// Where Kinesis is served, such as `http://127.0.0.1:40123`. DynamoDB is served there too.
    pub fn kinesis_url(&self) -> &str {
        &self.kinesis_url
    }

    /// Where DynamoDB is served. Kinesis is served there too.
    pub fn dynamodb_url(&self) -> &str {
        &self.dynamodb_url
    }

    /// Where both are served over TLS, if a [port](LocalAwsBuilder::tls_port) was set for it.
    pub fn tls_url(&self) -> Option<&str> {
        self.secured.as_ref().map(|secured| &*secured.url)
    }

    /// The certificate that clients of [`tls_url`](Self::tls_url) are to trust, as PEM. It is another
    /// one at every start.
    pub fn certificate_pem(&self) -> Option<&str> {
        self.secured.as_ref().map(|secured| &*secured.certificate_pem)
    }

    /// A Kinesis client with the settings of [`sdk_config`](Self::sdk_config).
    pub fn kinesis(&self) -> aws_sdk_kinesis::Client {
        aws_sdk_kinesis::Client::new(&self.config)
    }

    /// A DynamoDB client with the settings of [`sdk_config`](Self::sdk_config).
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.config)
    }

    /// Creates a provisioned stream without going through HTTP. It is `ACTIVE` at once, unless a
    /// [transition time](LocalAwsBuilder::transition_time) is set.
    ///
    /// # Errors
    ///
    /// As CreateStream of AWS: the stream exists, its name is malformed, there are too few or too
    /// many shards.
    ///
    /// # Cancel safety
    ///
    /// It does not wait: polled once, it is done.
    pub async fn create_stream(&self, name: &str, shards: u32) -> Result<(), CallError> {
        let created = self
            .front
            .kinesis
            .with_state(|kinesis, now| kinesis.create_provisioned(now, name, shards));
        self.front.note_change();
        created.map_err(CallError::from)
    }

    /// All records of a stream, shard by shard, in order: the oracle of a test.
    ///
    /// Every shard the stream ever had is there, in the order of creation, with every record it
    /// holds. Records past retention are among them until they are freed; with
    /// [`keep_expired_records`](LocalAwsBuilder::keep_expired_records) they always are.
    ///
    /// A stream that does not exist has no shards.
    pub fn records(&self, stream: &str) -> Vec<ShardRecords> {
        self.front.kinesis.with_state(|kinesis, now| {
            let shards = kinesis.shards_of(now, stream).unwrap_or_default();
            shards.iter().map(ShardRecords::from).collect()
        })
    }

    /// How many subscriptions to shards are being served: those whose client is still there and which
    /// have not come to their end.
    pub fn subscriptions(&self) -> usize {
        self.front.kinesis.with_state(|kinesis, _| kinesis.subscriptions())
    }

    /// How many connections of clients are open, at all ports.
    pub fn connections(&self) -> usize {
        self.front.connections()
    }

    /// Cuts the connection of every subscription that is being served, in the middle of its event stream, and says how
    /// many subscriptions that were. Over HTTP/2 whatever else the connection carries is cut too.
    ///
    /// Single events are struck by [`faults`](Self::faults) of the operation `SubscribeToShardEvent`: a
    /// [cut](crate::Fault::cut_connection) after so many events ([`skip`](crate::Fault::skip)), a subscription that falls silent
    /// while its connection stays (a long [`delay`](crate::Fault::delay)), an exception ([`refuse`](crate::Fault::refuse)).
    pub fn cut_subscriptions(&self) -> usize {
        self.front.kinesis.with_state(|kinesis, _| kinesis.cut_subscriptions())
    }

    /// The faults in front of both services.
    pub fn faults(&self) -> &Faults {
        &self.front.faults
    }

    /// How often clients called an operation such as `PutRecords`, in either service, refused and
    /// faulted calls counted.
    pub fn calls(&self, operation: &str) -> u64 {
        self.front.calls(operation)
    }

    /// How many of the [calls](Self::calls) of an operation of Kinesis were in CBOR. The others were in JSON.
    pub fn calls_in_cbor(&self, operation: &str) -> u64 {
        self.front.calls_in_cbor(operation)
    }
}

/// A shard and the records it holds, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardRecords {
    /// The shard's id.
    pub shard_id: String,
    /// The ids of its parents: none, one (a split) or two (a merge).
    pub parent_shard_ids: Vec<String>,
    /// Its first hash key.
    pub starting_hash_key: u128,
    /// Its last hash key.
    pub ending_hash_key: u128,
    /// Whether it still takes records.
    pub is_open: bool,
    /// Its records, in order.
    pub records: Vec<StoredRecord>,
}

/// A record, as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRecord {
    /// The sequence number it was given.
    pub sequence_number: String,
    /// Its partition key.
    pub partition_key: String,
    /// Its explicit hash key, if it had one.
    pub explicit_hash_key: Option<u128>,
    /// When it arrived.
    pub arrival: SystemTime,
    /// Its data, shared with the stream.
    pub data: Bytes,
}

impl From<&Shard> for ShardRecords {
    fn from(shard: &Shard) -> Self {
        Self {
            shard_id: shard.id.to_string(),
            parent_shard_ids: shard.parents.iter().map(ToString::to_string).collect(),
            starting_hash_key: shard.range.0,
            ending_hash_key: shard.range.1,
            is_open: shard.closed.is_none(),
            records: shard.records().map(StoredRecord::from).collect(),
        }
    }
}

impl From<&Record> for StoredRecord {
    fn from(record: &Record) -> Self {
        Self {
            sequence_number: record.sequence_number.to_string(),
            partition_key: record.partition_key.as_ref().to_owned(),
            explicit_hash_key: record.explicit_hash_key,
            arrival: record.arrival.into(),
            data: record.data.clone(),
        }
    }
}
