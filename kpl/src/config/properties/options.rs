//! The options of the KPL: their ranges, and what each is here.

use std::time::Duration;

use super::super::{MIB, Problems, SERVICE_MAX_REQUEST, SERVICE_MAX_REQUEST_RECORDS};
use super::syntax::Property;
use super::{KplProperties, PropertyNote};
use crate::config::metrics::{NAMESPACE_RULE, is_namespace};
use crate::config::{InvalidConfig, LONGEST, MIN_BUFFER, ProducerConfig};
use crate::config::{MetricsGranularity, MetricsLevel};

/// What the KPL takes for "no limit".
const MAX: u64 = i64::MAX as u64;

/// Options that have no meaning here, and why.
pub(super) const NO_MEANING: [(&str, &str); 28] = [
    ("CaCertFile", "build the SDK's HTTP client with your certificates"),
    ("CaCertPath", "build the SDK's HTTP client with your certificates"),
    ("CredentialsRefreshDelay", "the SDK refreshes credentials before they expire"),
    ("DaemonHealthCheckTimeoutMs", "there is no child process"),
    ("EnableCoreDumps", "there is no child process"),
    ("EnableDaemonHealthCheck", "there is no child process"),
    ("EnableOldestFutureTracker", "it is always on: `Producer::oldest_pending`"),
    (
        "GlueSchemaRegistryConfiguration",
        "there is no Glue Schema Registry: bytes framed by its serializers pass unchanged",
    ),
    (
        "GlueSchemaRegistryCredentialsProvider",
        "there is no Glue Schema Registry: bytes framed by its serializers pass unchanged",
    ),
    (
        "GlueSchemaRegistryPropertiesFilePath",
        "there is no Glue Schema Registry: bytes framed by its serializers pass unchanged",
    ),
    ("LogLevel", "filter the target `kpl` in your `tracing` subscriber"),
    (
        "MaxUserRecordSize",
        "the stream's own maximum record size is read, key and data are checked against it",
    ),
    ("MinConnections", "it has no effect in the KPL either"),
    ("NativeExecutable", "there is no child process"),
    ("ProxyHost", "build the SDK's HTTP client with the proxy"),
    ("ProxyPassword", "build the SDK's HTTP client with the proxy"),
    ("ProxyPort", "build the SDK's HTTP client with the proxy"),
    ("ProxyUserName", "build the SDK's HTTP client with the proxy"),
    (
        "RecordDistributionStrategyDefault",
        "the stream's strategy is read; without the permission, the shards that records land in tell it",
    ),
    ("ReturnUserRecordOnFailure", "a failure always returns its record"),
    ("StsEndpoint", "it has no effect in the KPL either"),
    ("StsPort", "it has no effect in the KPL either"),
    ("TempDirectory", "there is no child process"),
    ("ThreadPoolSize", "requests are tasks of the runtime"),
    ("ThreadingModel", "requests are tasks of the runtime"),
    (
        "UserRecordTimeoutInMillis",
        "use `RecordTtl`, or a time to live of the record: after it nothing more is written",
    ),
    ("CredentialsProvider", "it is the `SdkConfig`'s"),
    (
        "MetricsCredentialsProvider",
        "it is that of the `SdkConfig` given to `ProducerBuilder::cloudwatch`",
    ),
];

pub(super) fn read(properties: &[Property]) -> Result<KplProperties, InvalidConfig> {
    let mut reader = Reader::default();
    // The one default that is not the KPL's.
    reader.config.connect_timeout = Duration::from_secs(6);
    for (position, property) in properties.iter().enumerate() {
        match property {
            Err(line) => reader.problems.add(
                "properties",
                format!("line {line} has a `\\u` without four hexadecimal digits of a character"),
            ),
            // The last one counts.
            Ok((key, _))
                if properties[position + 1..].iter().flatten().any(|(later, _)| later == key) => {}
            Ok((key, value)) => reader.take(key, value.trim()),
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    config: ProducerConfig,
    region: Option<String>,
    kinesis: Endpoint,
    cloudwatch: Endpoint,
    metrics: Metrics,
    notes: Vec<PropertyNote>,
    problems: Problems,
}

#[derive(Default)]
struct Endpoint {
    host: Option<String>,
    port: Option<u16>,
}

#[derive(Default)]
#[cfg_attr(not(feature = "cloudwatch"), allow(dead_code, reason = "checked all the same"))]
struct Metrics {
    namespace: Option<String>,
    level: Option<MetricsLevel>,
    granularity: Option<MetricsGranularity>,
    upload_delay: Option<Duration>,
}

impl Reader {
    fn take(&mut self, key: &str, value: &str) {
        if let Some((key, why)) = NO_MEANING.iter().find(|(name, _)| *name == key) {
            return self.note(key, format!("no meaning here: {why}"));
        }
        match key {
            "AggregationEnabled" => {
                if let Some(value) = self.flag("AggregationEnabled", value) {
                    self.config.aggregation_enabled = value;
                }
            }
            "AggregationMaxCount" => {
                if let Some(count) = self.number("AggregationMaxCount", value, 1, MAX) {
                    self.config.aggregation_max_count = u32::try_from(count).unwrap_or(u32::MAX);
                }
            }
            "AggregationMaxSize" => {
                if let Some(size) = self.number("AggregationMaxSize", value, 64, 10 * MIB as u64) {
                    let size = self.at_most("AggregationMaxSize", size, MIB);
                    self.config.aggregation_max_size = size;
                }
            }
            "CollectionMaxCount" => {
                let most = SERVICE_MAX_REQUEST_RECORDS as u64;
                if let Some(count) = self.number("CollectionMaxCount", value, 1, most) {
                    self.config.collection_max_count = count as usize;
                }
            }
            "CollectionMaxSize" => {
                if let Some(size) = self.number("CollectionMaxSize", value, 52_224, MAX) {
                    let size = self.at_most("CollectionMaxSize", size, SERVICE_MAX_REQUEST);
                    let size = self.at_least("CollectionMaxSize", size, MIN_BUFFER);
                    self.config.collection_max_size = size;
                }
            }
            "ConnectTimeout" => {
                if let Some(time) = self.millis("ConnectTimeout", value, 100, 300_000) {
                    self.config.connect_timeout = time;
                }
            }
            "DescribeStreamSummaryIntervalMs" => {
                let key = "DescribeStreamSummaryIntervalMs";
                if let Some(millis) = self.number(key, value, 1, MAX) {
                    let millis = self.at_most(key, millis, LONGEST.as_millis() as usize);
                    // The shard map is read with it, and not more often than once a second.
                    let millis = self.at_least(key, millis, 1000);
                    let time = Duration::from_millis(millis as u64);
                    self.config.shard_map_refresh_interval = time;
                }
            }
            "FailIfThrottled" => {
                if let Some(value) = self.flag("FailIfThrottled", value) {
                    self.config.fail_if_throttled = value;
                }
            }
            "MaxConnections" => {
                if let Some(count) = self.number("MaxConnections", value, 1, 256) {
                    self.config.max_requests_in_flight = count as usize;
                }
            }
            "RateLimit" => {
                if let Some(percent) = self.number("RateLimit", value, 1, MAX) {
                    let percent = self.at_most("RateLimit", percent, 1_000_000);
                    self.config.rate_limit = percent as u32;
                }
            }
            "RecordMaxBufferedTime" => {
                if let Some(time) = self.millis("RecordMaxBufferedTime", value, 0, MAX) {
                    self.config.record_max_buffered_time = time;
                }
            }
            "RecordTtl" => {
                if let Some(time) = self.millis("RecordTtl", value, 100, MAX) {
                    self.config.record_ttl = time;
                }
            }
            "RequestTimeout" => {
                if let Some(time) = self.millis("RequestTimeout", value, 100, 600_000) {
                    self.config.request_timeout = time;
                }
            }
            "Region" => self.region = self.region("Region", value),
            "KinesisEndpoint" => self.kinesis.host = self.host("KinesisEndpoint", value),
            "KinesisPort" => self.kinesis.port = self.port("KinesisPort", value),
            "CloudwatchEndpoint" => self.cloudwatch.host = self.host("CloudwatchEndpoint", value),
            "CloudwatchPort" => self.cloudwatch.port = self.port("CloudwatchPort", value),
            "VerifyCertificate" => {
                if self.flag("VerifyCertificate", value) == Some(false) {
                    let note = "certificates are verified: for a test endpoint take `http://`, or an HTTP client of your own";
                    self.note("VerifyCertificate", note.to_owned());
                }
            }
            "MetricsNamespace" => self.namespace(value),
            "MetricsLevel" => {
                let levels = [
                    ("none", MetricsLevel::None),
                    ("summary", MetricsLevel::Summary),
                    ("detailed", MetricsLevel::Detailed),
                ];
                self.metrics.level = self.one_of("MetricsLevel", value, levels);
            }
            "MetricsGranularity" => {
                let granularities = [
                    ("global", MetricsGranularity::Global),
                    ("stream", MetricsGranularity::Stream),
                    ("shard", MetricsGranularity::Shard),
                ];
                self.metrics.granularity = self.one_of("MetricsGranularity", value, granularities);
            }
            "MetricsUploadDelay" => {
                self.metrics.upload_delay = self.millis("MetricsUploadDelay", value, 1, 60_000);
            }
            unknown => self.note(unknown, "unknown: no option of the KPL has this name".to_owned()),
        }
        if key.starts_with("Metrics") && cfg!(not(feature = "cloudwatch")) {
            self.note(key, "has no effect without the feature `cloudwatch`".to_owned());
        }
    }

    fn finish(mut self) -> Result<KplProperties, InvalidConfig> {
        for (endpoint, key) in
            [(&self.kinesis, "KinesisPort"), (&self.cloudwatch, "CloudwatchPort")]
        {
            if endpoint.port.is_some() && endpoint.host.is_none() {
                self.notes.push(PropertyNote {
                    key: key.to_owned(),
                    note: "no effect without an endpoint".to_owned(),
                });
            }
        }
        let ours = self.config.validate();
        InvalidConfig::all([self.problems.into_result(), ours])?;
        Ok(KplProperties {
            config: self.config,
            region: self.region,
            kinesis_endpoint_url: self.kinesis.url(),
            cloudwatch_endpoint_url: self.cloudwatch.url(),
            #[cfg(feature = "cloudwatch")]
            cloudwatch: self.metrics.into_config(),
            notes: self.notes,
        })
    }

    fn note(&mut self, key: &str, note: String) {
        let key = key.to_owned();
        self.notes.push(PropertyNote { key, note });
    }

    fn flag(&mut self, key: &'static str, value: &str) -> Option<bool> {
        self.one_of(key, value, [("true", true), ("false", false)])
    }

    fn one_of<T, const N: usize>(
        &mut self,
        key: &'static str,
        value: &str,
        known: [(&str, T); N],
    ) -> Option<T> {
        let names = known.each_ref().map(|(name, _)| *name).join(", ");
        let found = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
        if found.is_none() {
            self.problems.add(key, format!("must be one of {names}"));
        }
        found.map(|(_, value)| value)
    }

    fn number(&mut self, key: &'static str, value: &str, least: u64, most: u64) -> Option<u64> {
        let number = value.parse().ok().filter(|n| (least..=most).contains(n));
        if number.is_none() {
            let problem = format!("must be a number from {least} to {most}");
            self.problems.add(key, problem);
        }
        number
    }

    fn millis(
        &mut self,
        key: &'static str,
        value: &str,
        least: u64,
        most: u64,
    ) -> Option<Duration> {
        self.number(key, value, least, most).map(Duration::from_millis)
    }

    /// What is more than makes sense here is cut, and told.
    fn at_most(&mut self, key: &'static str, value: u64, most: usize) -> usize {
        match usize::try_from(value) {
            Ok(value) if value <= most => value,
            _ => {
                self.note(key, format!("taken as {most}, the most that is possible here"));
                most
            }
        }
    }

    /// What is less than is possible here is raised, and told.
    fn at_least(&mut self, key: &'static str, value: usize, least: usize) -> usize {
        if value < least {
            self.note(key, format!("taken as {least}, the least that is possible here"));
        }
        value.max(least)
    }

    fn port(&mut self, key: &'static str, value: &str) -> Option<u16> {
        self.number(key, value, 1, 65_535).map(|port| port as u16)
    }

    fn host(&mut self, key: &'static str, value: &str) -> Option<String> {
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if !value.chars().all(is_host) {
            let problem = "must be a host, without scheme, port and path";
            self.problems.add(key, problem.to_owned());
            return None;
        }
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// Two or three words and a digit, as in `us-gov-west-1`.
    fn region(&mut self, key: &'static str, value: &str) -> Option<String> {
        if value.is_empty() {
            return None;
        }
        let parts: Vec<_> = value.split('-').collect();
        let is_word =
            |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
        let is_region = matches!(parts.as_slice(), [words @ .., digit]
            if (2..=3).contains(&words.len()) && words.iter().all(is_word)
                && digit.len() == 1 && digit.bytes().all(|b| b.is_ascii_digit()));
        if !is_region {
            let problem = "must be the name of a region, such as eu-central-1";
            self.problems.add(key, problem.to_owned());
            return None;
        }
        Some(value.to_owned())
    }

    fn namespace(&mut self, value: &str) {
        if !is_namespace(value) {
            self.problems.add("MetricsNamespace", NAMESPACE_RULE.to_owned());
        } else {
            self.metrics.namespace = Some(value.to_owned());
        }
    }
}

impl Endpoint {
    /// The KPL speaks TLS only.
    fn url(&self) -> Option<String> {
        let host = self.host.as_ref()?;
        Some(match self.port {
            None | Some(443) => format!("https://{host}"),
            Some(port) => format!("https://{host}:{port}"),
        })
    }
}

#[cfg(feature = "cloudwatch")]
impl Metrics {
    fn into_config(self) -> crate::config::CloudWatchConfig {
        let default = crate::config::CloudWatchConfig::default();
        crate::config::CloudWatchConfig {
            namespace: self.namespace.unwrap_or(default.namespace),
            level: self.level.unwrap_or(default.level),
            granularity: self.granularity.unwrap_or(default.granularity),
            upload_interval: self.upload_delay.unwrap_or(default.upload_interval),
            dimensions: default.dimensions,
        }
    }
}
