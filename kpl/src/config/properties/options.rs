//! The options of the KPL: their ranges, and the settings that they stand for.

use std::time::Duration;

use super::super::{MIB, SERVICE_MAX_REQUEST, SERVICE_MAX_REQUEST_RECORDS};
use super::syntax::Property;
use super::{KplProperties, PropertyNote};
use crate::config::{InvalidConfig, LONGEST, MIN_BUFFER, ProducerConfig};
use crate::config::{MetricsGranularity, MetricsLevel};
use kinesis_common::metrics::{NAMESPACE_RULE, is_namespace};

/// The KPL's "no limit".
const MAX: u64 = i64::MAX as u64;

/// Options that have no meaning here, and why.
pub(super) const NO_MEANING: [(&[&str], &str); 15] = [
    (&["CaCertFile", "CaCertPath"], "build the SDK's HTTP client with your certificates"),
    (&["CredentialsProvider"], "it is the `SdkConfig`'s"),
    (&["CredentialsRefreshDelay"], "the SDK refreshes credentials before they expire"),
    (
        &[
            "DaemonHealthCheckTimeoutMs",
            "EnableCoreDumps",
            "EnableDaemonHealthCheck",
            "NativeExecutable",
            "TempDirectory",
        ],
        "there is no child process",
    ),
    (&["EnableOldestFutureTracker"], "it is always on: `Producer::oldest_pending`"),
    (
        &[
            "GlueSchemaRegistryConfiguration",
            "GlueSchemaRegistryCredentialsProvider",
            "GlueSchemaRegistryPropertiesFilePath",
        ],
        "there is no Glue Schema Registry: bytes framed by its serializers pass unchanged",
    ),
    (&["LogLevel"], "filter the target `kpl` in your `tracing` subscriber"),
    (
        &["MaxUserRecordSize"],
        "the stream's own maximum record size is read, key and data are checked against it",
    ),
    (
        &["MetricsCredentialsProvider"],
        "it is that of the `SdkConfig` given to `ProducerBuilder::cloudwatch`",
    ),
    (&["MinConnections", "StsEndpoint", "StsPort"], "it has no effect in the KPL either"),
    (
        &["ProxyHost", "ProxyPassword", "ProxyPort", "ProxyUserName"],
        "build the SDK's HTTP client with the proxy",
    ),
    (
        &["RecordDistributionStrategyDefault"],
        "the stream's strategy is read; without the permission, the shards that records land in tell it",
    ),
    (&["ReturnUserRecordOnFailure"], "a failure always returns its record"),
    (&["ThreadPoolSize", "ThreadingModel"], "requests are tasks of the runtime"),
    (
        &["UserRecordTimeoutInMillis"],
        "use `RecordTtl`, or a time to live of the record: after it nothing more is written",
    ),
];

pub(super) fn read(properties: &[Property]) -> Result<KplProperties, InvalidConfig> {
    let mut reader = Reader::default();
    // The only default that differs from the KPL's.
    reader.config.connect_timeout = Duration::from_secs(6);
    for (position, property) in properties.iter().enumerate() {
        match property {
            Err(line) => reader.problems.push((
                "properties".to_owned(),
                format!("line {line} has a `\\u` without four hexadecimal digits of a character"),
            )),
            // The last one counts.
            Ok((key, _))
                if properties[position + 1..].iter().flatten().any(|(later, _)| later == key) => {}
            Ok((key, value)) => {
                if let Err(problem) = reader.take(key, value.trim()) {
                    reader.problems.push((key.clone(), problem));
                }
            }
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
    /// Option and problem, for each.
    problems: Vec<(String, String)>,
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
    /// Takes the value of an option. The error says what the value must be.
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        if let Some((_, why)) = NO_MEANING.iter().find(|(keys, _)| keys.contains(&key)) {
            self.note(key, format!("no meaning here: {why}"));
            return Ok(());
        }
        let config = &mut self.config;
        match key {
            "AggregationEnabled" => config.aggregation_enabled = flag(value)?,
            "AggregationMaxCount" => {
                let count = number(value, 1, MAX)?;
                config.aggregation_max_count = u32::try_from(count).unwrap_or(u32::MAX);
            }
            "AggregationMaxSize" => {
                let size = number(value, 64, 10 * MIB as u64)?;
                self.config.aggregation_max_size = self.at_most(key, size, MIB);
            }
            "CollectionMaxCount" => {
                let most = SERVICE_MAX_REQUEST_RECORDS as u64;
                config.collection_max_count = number(value, 1, most)? as usize;
            }
            "CollectionMaxSize" => {
                let size = self.at_most(key, number(value, 52_224, MAX)?, SERVICE_MAX_REQUEST);
                self.config.collection_max_size = self.at_least(key, size, MIN_BUFFER);
            }
            "ConnectTimeout" => config.connect_timeout = millis(value, 100, 300_000)?,
            "DescribeStreamSummaryIntervalMs" => {
                let longest = LONGEST.as_millis() as usize;
                let millis = self.at_most(key, number(value, 1, MAX)?, longest);
                // The shard map is read with it, and not more often than once a second.
                let millis = self.at_least(key, millis, 1000);
                self.config.shard_map_refresh_interval = Duration::from_millis(millis as u64);
            }
            "FailIfThrottled" => config.fail_if_throttled = flag(value)?,
            "MaxConnections" => config.max_requests_in_flight = number(value, 1, 256)? as usize,
            "RateLimit" => {
                let percent = number(value, 1, MAX)?;
                self.config.rate_limit = self.at_most(key, percent, 1_000_000) as u32;
            }
            "RecordMaxBufferedTime" => config.record_max_buffered_time = millis(value, 0, MAX)?,
            "RecordTtl" => config.record_ttl = millis(value, 100, MAX)?,
            "RequestTimeout" => config.request_timeout = millis(value, 100, 600_000)?,
            "Region" => self.region = region(value)?,
            "KinesisEndpoint" => self.kinesis.host = host(value)?,
            "KinesisPort" => self.kinesis.port = Some(port(value)?),
            "CloudwatchEndpoint" => self.cloudwatch.host = host(value)?,
            "CloudwatchPort" => self.cloudwatch.port = Some(port(value)?),
            "VerifyCertificate" => {
                if !flag(value)? {
                    let note = "certificates are verified: for a test endpoint take `http://`, or an HTTP client of your own";
                    self.note(key, note.to_owned());
                }
            }
            "MetricsNamespace" if is_namespace(value) => {
                self.metrics.namespace = Some(value.to_owned());
            }
            "MetricsNamespace" => return Err(NAMESPACE_RULE.to_owned()),
            "MetricsLevel" => {
                let levels = [
                    ("none", MetricsLevel::None),
                    ("summary", MetricsLevel::Summary),
                    ("detailed", MetricsLevel::Detailed),
                ];
                self.metrics.level = Some(one_of(value, levels)?);
            }
            "MetricsGranularity" => {
                let granularities = [
                    ("global", MetricsGranularity::Global),
                    ("stream", MetricsGranularity::Stream),
                    ("shard", MetricsGranularity::Shard),
                ];
                self.metrics.granularity = Some(one_of(value, granularities)?);
            }
            "MetricsUploadDelay" => self.metrics.upload_delay = Some(millis(value, 1, 60_000)?),
            _ => self.note(key, "unknown: no option of the KPL has this name".to_owned()),
        }
        if key.starts_with("Metrics") && cfg!(not(feature = "cloudwatch")) {
            self.note(key, "has no effect without the feature `cloudwatch`".to_owned());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<KplProperties, InvalidConfig> {
        let is_alone = |endpoint: &Endpoint| endpoint.port.is_some() && endpoint.host.is_none();
        let ports = [
            (is_alone(&self.kinesis), "KinesisPort"),
            (is_alone(&self.cloudwatch), "CloudwatchPort"),
        ];
        for (is_alone, key) in ports {
            if is_alone {
                self.note(key, "no effect without an endpoint".to_owned());
            }
        }
        let ours = self.config.validate();
        InvalidConfig::all([InvalidConfig::check(self.problems), ours])?;
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

    /// Cuts a value that is larger than possible here, and notes that.
    fn at_most(&mut self, key: &str, value: u64, most: usize) -> usize {
        match usize::try_from(value) {
            Ok(value) if value <= most => value,
            _ => {
                self.note(key, format!("taken as {most}, the most that is possible here"));
                most
            }
        }
    }

    /// Raises a value that is smaller than possible here, and notes that.
    fn at_least(&mut self, key: &str, value: usize, least: usize) -> usize {
        if value < least {
            self.note(key, format!("taken as {least}, the least that is possible here"));
        }
        value.max(least)
    }
}

fn flag(value: &str) -> Result<bool, String> {
    one_of(value, [("true", true), ("false", false)])
}

fn one_of<T, const N: usize>(value: &str, known: [(&str, T); N]) -> Result<T, String> {
    let names = known.each_ref().map(|(name, _)| *name).join(", ");
    let found = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, value)| value).ok_or_else(|| format!("must be one of {names}"))
}

fn number(value: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| format!("must be a number from {least} to {most}"))
}

fn millis(value: &str, least: u64, most: u64) -> Result<Duration, String> {
    number(value, least, most).map(Duration::from_millis)
}

fn port(value: &str) -> Result<u16, String> {
    number(value, 1, 65_535).map(|port| port as u16)
}

/// An empty value is none.
fn host(value: &str) -> Result<Option<String>, String> {
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !value.chars().all(is_host) {
        return Err("must be a host, without scheme, port and path".to_owned());
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// Two or three words and a digit, as in `us-gov-west-1`. An empty value is none.
fn region(value: &str) -> Result<Option<String>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let parts: Vec<_> = value.split('-').collect();
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let is_region = matches!(parts.as_slice(), [words @ .., digit]
        if (2..=3).contains(&words.len()) && words.iter().all(is_word)
            && digit.len() == 1 && digit.bytes().all(|b| b.is_ascii_digit()));
    match is_region {
        true => Ok(Some(value.to_owned())),
        false => Err("must be the name of a region, such as eu-central-1".to_owned()),
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
