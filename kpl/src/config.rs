//! Settings of a producer: plain data with the KPL's defaults.

#[cfg(feature = "cloudwatch")]
pub(crate) mod cloudwatch;
#[cfg(test)]
mod extremes;
pub(crate) mod metrics;
mod properties;

use std::fmt;
use std::time::Duration;

#[cfg(feature = "cloudwatch")]
pub use self::cloudwatch::{CloudWatchConfig, MetricsDimension};
pub use self::metrics::{MetricsGranularity, MetricsLevel};
pub use self::properties::{KplProperties, PropertyNote};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The most bytes of one PutRecords request, and of one record on a stream that allows the largest.
const SERVICE_MAX_REQUEST: usize = 10 * MIB;
const SERVICE_MAX_REQUEST_RECORDS: usize = 500;

/// The longest timeout or interval: with it, no sum of durations overflows, the SDK's own included.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The largest record of a stream that does not say otherwise.
pub(crate) const DEFAULT_MAX_RECORD_SIZE: usize = MIB;

/// The slowest link that a request must get over in time, in bytes of base64 a second: 2 Mbit/s.
const SLOWEST_LINK: f64 = 250_000.0;

/// The smallest buffer that is of use, in bytes.
pub(crate) const MIN_BUFFER: usize = 64 * KIB;

/// Settings of a [`Producer`](crate::Producer).
///
/// Start from the default and change what you need: fields may be added in any release.
///
/// ```
/// use std::time::Duration;
/// use kpl::ProducerConfig;
///
/// let config = ProducerConfig { record_max_buffered_time: Duration::from_millis(10), ..Default::default() };
/// config.validate().unwrap();
/// ```
///
/// # Memory
///
/// ```text
/// peak of the producer <= max_buffered_bytes                 records from `send` to settlement
///                       + 2.3 x max_in_flight_bytes          requests: base64 and JSON of what is in flight
///                       + 1.4 x shards x aggregation_max_size   one open aggregate each; 1 MiB if `aggregation_adaptive`
///                       + a few MiB                          connections and TLS
/// ```
/// What is in flight is also buffered, so the first two terms are an upper bound. Producers that share a
/// [`MemoryBudget`](crate::MemoryBudget) share the first term. Records that wait in `send` belong to
/// the caller and hold none of the budget, and the payload of a failed record lives until its `Delivery` is dropped.
///
/// # Members of an aggregate
///
/// ```text
/// rate    = records/s of the stream / producers / shards     what one producer sends to one shard
/// members = 1 + rate x record_max_buffered_time              at most what aggregation_max_size has room for
/// entries = rate / members x producers                       Kinesis records/s of a shard, which takes 1,000 and 1 MiB
/// ```
/// For example, 20,000 records/s from 10 producers to 20 shards are a rate of 100: with the default of 100 ms, 11 members
/// and 91 Kinesis records/s for a shard. From 200 producers the rate is 5: 1.5 members and 667 Kinesis records/s.
///
/// Where a shard takes fewer Kinesis records than `entries`, its aggregates stay open and grow. If it takes `k` Kinesis
/// records/s from one producer, `members` is `rate / k` there.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ProducerConfig {
    /// Whether records are packed into aggregates. Default `true`. KPL: `AggregationEnabled`.
    pub aggregation_enabled: bool,

    /// The most bytes of an aggregate. Default 50 KiB; 64 bytes to 1 MiB. KPL: `AggregationMaxSize`.
    ///
    /// Memory: one open aggregate per shard. A larger record travels alone.
    pub aggregation_max_size: usize,

    /// Whether aggregates grow towards 1 MiB while their shard is busy: each time one is full and others of the shard wait or
    /// are under way, the next may be twice as large, until the shard has nothing left. Default `false`.
    ///
    /// Fewer and larger Kinesis records where a shard is the bottleneck, and in ordered mode, where one at a time is in
    /// flight. Consumers must take records of that size.
    pub aggregation_adaptive: bool,

    /// The most records of an aggregate. Default 4,294,967,295: the size decides. KPL: `AggregationMaxCount`.
    pub aggregation_max_count: u32,

    /// How long an aggregate waits for more records before it is sent. Default 100 ms. KPL: `RecordMaxBufferedTime`.
    ///
    /// A longer time makes fewer and larger Kinesis records ([formula](Self#members-of-an-aggregate)), and adds as much
    /// latency. While the shard takes nothing (its rate limit is reached, it throttles, or earlier records wait for it), the
    /// aggregate stays open for longer: it could not leave, and takes what comes meanwhile.
    ///
    /// `0` sends as soon as nothing of the same shard is under way: the least latency, and aggregates that grow with the
    /// load. A PutRecords request that is not full waits for a fifth of this time, at most 50 ms, while another is in flight.
    #[cfg_attr(feature = "serde", serde(with = "duration"))]
    pub record_max_buffered_time: Duration,

    /// How long after acceptance a record is tried before it fails as expired. Default 30 s. KPL: `RecordTtl`.
    ///
    /// A record may have [its own](crate::UserRecord::with_time_to_live). A record fails within milliseconds of that time;
    /// later where tens of thousands expire at once. One in an aggregate may expire early, by up to
    /// [`record_max_buffered_time`](Self::record_max_buffered_time) and a sixteenth of its time; earlier where the runtime
    /// does not run the producer's task for a while. A request in flight at that time is awaited.
    #[cfg_attr(feature = "serde", serde(with = "duration"))]
    pub record_ttl: Duration,

    /// What order records keep. Default [`RecordOrdering::BestEffort`].
    pub ordering: RecordOrdering,

    /// What happens in ordered mode to the records behind one that failed. Default [`OnGap::FailSuccessors`].
    pub on_gap: OnGap,

    /// Compression of aggregates. Default [`Compression::Off`]: Java consumers cannot read compressed ones.
    pub compression: Compression,

    /// The most one shard is sent, in percent of its limit of 1,000 records and 1 MiB a second. Default 150. KPL: `RateLimit`.
    ///
    /// The rate begins here, is cut when the shard refuses a record because it is full, by 30 % or, of a small rate, less,
    /// and rises while the shard accepts what it is sent, so that producers share a shard without knowing of each other.
    /// However small the rate, a producer makes an attempt after each quarter of [`record_ttl`](Self::record_ttl), or 75 s if
    /// that is less, and the time that the shard takes for the last attempt at this limit: one second for a MiB at 100 and
    /// more. So there are about four attempts within `record_ttl` for small records, and fewer for large ones. If more than
    /// fifty producers send a shard aggregates of 50 KiB or more than it takes, set `record_ttl` to five minutes. While the
    /// shard accepts nothing at all, the pauses between attempts grow up to 5 s, and never beyond that quarter. A producer of
    /// much larger Kinesis records than the others is refused more often by a full shard, and gets less. With 100 or less a
    /// producer alone is never throttled; more finds out what the shard accepts.
    pub rate_limit: u32,

    /// Whether a record fails at once when it is throttled, instead of being tried again. Default `false`. KPL:
    /// `FailIfThrottled`.
    pub fail_if_throttled: bool,

    /// The most records of a PutRecords request. Default 500; 1 to 500. KPL: `CollectionMaxCount`.
    pub collection_max_count: usize,

    /// The most bytes of a PutRecords request, partition keys counted. Default 5 MiB; at most 10 MiB. KPL: `CollectionMaxSize`.
    /// A request of several records also has a sixteenth of the bytes that may be in flight at most: see
    /// [`max_in_flight_bytes`](Self::max_in_flight_bytes).
    pub collection_max_size: usize,

    /// The most bytes of records held from `send` to settlement. Default 64 MiB; at least 64 KiB (65,536 bytes).
    ///
    /// Each record counts its data, its key, and 64 bytes; each Kinesis record 1,024 bytes more. One shard may hold
    /// at most as much as is still free, so a single hot shard gets half and the others go on, but for
    /// [one case](crate::MemoryBudget). A record larger than this is refused.
    ///
    /// Where a change of the stream parts the members of aggregates, the Kinesis records that this makes are not counted. At
    /// a reshard those are one more for each new shard of an aggregate. Where the stream begins to place records itself, or
    /// its shards leave a gap, each record will travel alone: aggregates are taken apart as they are sent, and no more than
    /// 5,500 records at a time, about 6 MiB. What goes one by one because a reshard came while shards could not be listed is
    /// not counted either, however much it is. Nor are the Kinesis records, of about 1 KiB of overhead each, that are made
    /// when an aggregate is divided because its requests fail as a whole.
    pub max_buffered_bytes: usize,

    /// How full the buffer may be, and how full its shard's share of it, in percent, for a
    /// [`Droppable`](crate::Priority::Droppable) record to be taken; above that it is dropped. Default 50; 0 to 100. The rest
    /// is for the others: of a single hot shard, which may fill half of the buffer, droppable records fill a quarter.
    pub droppable_limit: u32,

    /// The largest record that the stream takes, key and data in bytes, where the stream's own limit is not known. Default
    /// `None`, which is 1 MiB. At least 1 MiB, at most 10 MiB.
    ///
    /// The stream's own limit counts where the role may call `kinesis:DescribeStreamSummary`. Set this where the role may
    /// not, and `UpdateMaxRecordSize` has raised the stream's limit. Where it is more than the stream takes, the service
    /// refuses the larger records, which fail as [`Rejected`](crate::FailureCause::Rejected).
    pub max_record_size: Option<usize>,

    /// The most bytes of payload in flight. Default 32 MiB; at least 64 KiB. Memory: 2.3 times as much (base64 and JSON).
    ///
    /// The producer begins with 1 MiB. While half of that is in flight and the link keeps up, it doubles with each round trip.
    /// When requests time out, it falls to what the link carried in a third of the timeout, at least 128 KiB. A request of
    /// several records has at most a sixteenth of the bytes that may be in flight (with fewer `max_requests_in_flight`, that
    /// part), at least 512 KiB, or 64 KiB while less than 1 MiB may be in flight.
    pub max_in_flight_bytes: usize,

    /// The most PutRecords requests in flight. Default 24. KPL: `MaxConnections`.
    pub max_requests_in_flight: usize,

    /// How many HTTP connections PutRecords requests are spread over, where the endpoint speaks HTTP/2. Default 4; 1 to 64.
    ///
    /// Each request takes the connection with the fewest requests, so that a connection that stalls holds up its own requests
    /// alone. Connections are opened as they are needed; after a timeout, a new one is opened. With 1, all requests share one
    /// connection, as in the AWS SDK. Over HTTP/1.1, each request in flight has a connection of its own in any case.
    pub connections: usize,

    /// How long one PutRecords attempt may take. Default 6 s; at most 365 days. KPL: `RequestTimeout`.
    ///
    /// The time in which a link of 2 Mbit/s carries the largest record of the request is added: 0.3 s for 50 KiB, 5.6 s for
    /// 1 MiB. The sum is at most half of what is left of the record's time to live, so that a second attempt has time, but
    /// never less than `request_timeout`. Raise it where the service itself answers late. For records of several MiB over a
    /// slow link, raise `record_ttl`.
    #[cfg_attr(feature = "serde", serde(with = "duration"))]
    pub request_timeout: Duration,

    /// How long a connection may take to open. Default 3 s; at most 365 days. KPL: `ConnectTimeout`.
    #[cfg_attr(feature = "serde", serde(with = "duration"))]
    pub connect_timeout: Duration,

    /// How long [`build`](crate::ProducerBuilder::build) may take in all. Until then, everything that may pass is tried
    /// again: throttled or failed calls, an endpoint that is not up yet, a stream that is being created. What cannot pass
    /// (no such stream, refused credentials) fails at once. Default 60 s, at most 365 days: AWS creates a stream in up to half a minute, and
    /// services that are deployed together start in any order. Cost: a wrong endpoint is told that much later.
    #[cfg_attr(feature = "serde", serde(with = "duration"))]
    pub startup_timeout: Duration,

    /// How many partition keys [`Producer::hot_spots`](crate::Producer::hot_spots) watches. Default 0: none; at most 10,000.
    ///
    /// Every key with more than one part in so many of the bytes is found, from a sample of one record in sixteen. Memory:
    /// this many keys and 150 bytes for each. Off, it costs nothing.
    pub hot_keys: usize,

    /// How often the shard map is read again without a reason, jittered by a fifth. Default 60 s; at most 365 days.
    #[cfg_attr(feature = "serde", serde(with = "duration"))]
    pub shard_map_refresh_interval: Duration,
}

/// What order the records of a producer keep.
///
/// What each promises in full stands at [`Producer::send`](crate::Producer::send).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RecordOrdering {
    /// Records of a shard leave in the order of `send`; retries, concurrent requests and resharding may change it. As the KPL.
    #[default]
    BestEffort,
    /// Records of a key are never overtaken: not across throttles, lost responses, timeouts, resharding, nor failures.
    ///
    /// A shard has one aggregate in flight at a time, so that its throughput is the size of an aggregate per round trip:
    /// see [`aggregation_adaptive`](ProducerConfig::aggregation_adaptive). Each record takes 16 bytes of the overhead that
    /// is counted for it.
    /// Needs the shard map: without `kinesis:DescribeStreamSummary` and `kinesis:ListShards`, and on a stream that
    /// places records itself, [`build`](crate::ProducerBuilder::build) fails with
    /// [`BuildError::OrderingUnavailable`](crate::BuildError::OrderingUnavailable).
    PerPartitionKey,
}

/// What happens, in ordered mode, to the records of a key that were accepted before an earlier one was seen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnGap {
    /// They fail too, with [`FailureCause::PredecessorFailed`](crate::FailureCause::PredecessorFailed): whoever wants the
    /// failed record in its place sends it again, and them behind it.
    #[default]
    FailSuccessors,
    /// They go on.
    Continue,
}

/// Compression of aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Compression {
    /// None: every KCL reads the records.
    #[default]
    Off,
    /// zstd over each aggregate, kept where it is smaller. Only consumers of this project read it.
    ///
    /// Larger aggregates are compressed on threads of tokio for blocking work, at most four at a time: those of more than
    /// 50 KiB at level 3, of more than 25 KiB from level 5 on, nearly all from level 17 on. The same holds for aggregates of
    /// any size where very many are sealed at once. Later records of the shard wait for them. If no thread is free, an
    /// aggregate goes out uncompressed after 5 s, or half of its time to live.
    ///
    /// Memory: up to five contexts of zstd, which are kept; from level 9 on, each takes megabytes.
    Zstd {
        /// The level of zstd: 1 to 22, 3 being usual.
        level: i32,
    },
}

macro_rules! setters {
    ($($with:ident, $field:ident: $type:ty;)*) => {
        /// The names of all fields: one that is not listed does not compile.
        #[cfg(test)]
        fn field_names(config: &Self) -> Vec<&'static str> {
            let Self { $($field: _),* } = config;
            vec![$(stringify!($field)),*]
        }

        /// The extreme values of every field.
        #[cfg(test)]
        fn extremes_of_fields() -> Vec<(&'static str, Vec<extremes::Change>)> {
            vec![$((
                stringify!($field),
                extremes::changes(|config: &mut Self, value: $type| config.$field = value),
            )),*]
        }

        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $with(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
}

impl ProducerConfig {
    setters! {
        with_aggregation_enabled, aggregation_enabled: bool;
        with_aggregation_max_size, aggregation_max_size: usize;
        with_aggregation_adaptive, aggregation_adaptive: bool;
        with_aggregation_max_count, aggregation_max_count: u32;
        with_record_max_buffered_time, record_max_buffered_time: Duration;
        with_record_ttl, record_ttl: Duration;
        with_ordering, ordering: RecordOrdering;
        with_on_gap, on_gap: OnGap;
        with_compression, compression: Compression;
        with_rate_limit, rate_limit: u32;
        with_fail_if_throttled, fail_if_throttled: bool;
        with_collection_max_count, collection_max_count: usize;
        with_collection_max_size, collection_max_size: usize;
        with_max_buffered_bytes, max_buffered_bytes: usize;
        with_droppable_limit, droppable_limit: u32;
        with_max_record_size, max_record_size: Option<usize>;
        with_max_in_flight_bytes, max_in_flight_bytes: usize;
        with_max_requests_in_flight, max_requests_in_flight: usize;
        with_connections, connections: usize;
        with_request_timeout, request_timeout: Duration;
        with_connect_timeout, connect_timeout: Duration;
        with_startup_timeout, startup_timeout: Duration;
        with_hot_keys, hot_keys: usize;
        with_shard_map_refresh_interval, shard_map_refresh_interval: Duration;
    }
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            aggregation_enabled: true,
            aggregation_max_size: 50 * KIB,
            aggregation_adaptive: false,
            aggregation_max_count: u32::MAX,
            record_max_buffered_time: Duration::from_millis(100),
            record_ttl: Duration::from_secs(30),
            ordering: RecordOrdering::BestEffort,
            on_gap: OnGap::FailSuccessors,
            compression: Compression::Off,
            rate_limit: 150,
            fail_if_throttled: false,
            collection_max_count: SERVICE_MAX_REQUEST_RECORDS,
            collection_max_size: 5 * MIB,
            max_buffered_bytes: 64 * MIB,
            droppable_limit: 50,
            max_record_size: None,
            max_in_flight_bytes: 32 * MIB,
            max_requests_in_flight: 24,
            connections: 4,
            request_timeout: Duration::from_secs(6),
            connect_timeout: Duration::from_secs(3),
            startup_timeout: Duration::from_secs(60),
            hot_keys: 0,
            shard_map_refresh_interval: Duration::from_secs(60),
        }
    }
}

impl ProducerConfig {
    /// Settings for tests on an emulator or an embedded AWS: records leave within 10 ms, and a failure shows within seconds.
    /// All else is as by default.
    ///
    /// Not for production: records expire after 10 s, which a reshard or a short outage of the service may outlast.
    #[must_use]
    pub fn for_tests() -> Self {
        Self {
            record_max_buffered_time: Duration::from_millis(10),
            record_ttl: Duration::from_secs(10),
            request_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            startup_timeout: Duration::from_secs(10),
            shard_map_refresh_interval: Duration::from_secs(5),
            ..Self::default()
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`InvalidConfig`], with all problems at once.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let mut problems = Problems::default();
        problems.within("aggregation_max_size", self.aggregation_max_size, 64, MIB);
        problems.within(
            "aggregation_max_count",
            self.aggregation_max_count as usize,
            1,
            u32::MAX as usize,
        );
        problems.within("rate_limit", self.rate_limit as usize, 1, 1_000_000);
        problems.within(
            "collection_max_count",
            self.collection_max_count,
            1,
            SERVICE_MAX_REQUEST_RECORDS,
        );
        problems.within(
            "collection_max_size",
            self.collection_max_size,
            64 * KIB,
            SERVICE_MAX_REQUEST,
        );
        problems.within("max_buffered_bytes", self.max_buffered_bytes, MIN_BUFFER, usize::MAX);
        problems.within("droppable_limit", self.droppable_limit as usize, 0, 100);
        if let Some(bytes) = self.max_record_size {
            let (least, most) = (DEFAULT_MAX_RECORD_SIZE, SERVICE_MAX_REQUEST);
            problems.within("max_record_size", bytes, least, most);
        }
        problems.within("max_in_flight_bytes", self.max_in_flight_bytes, 64 * KIB, usize::MAX);
        problems.within("max_requests_in_flight", self.max_requests_in_flight, 1, 10_000);
        problems.within("connections", self.connections, 1, 64);
        problems.within("hot_keys", self.hot_keys, 0, 10_000);
        if let Compression::Zstd { level } = self.compression
            && !(1..=22).contains(&level)
        {
            problems.add("compression", format!("the zstd level must be 1 to 22, got {level}"));
        }
        if self.record_ttl.is_zero() {
            problems.add("record_ttl", "must be longer than zero".to_owned());
        }
        for (field, value) in [
            ("request_timeout", self.request_timeout),
            ("connect_timeout", self.connect_timeout),
            ("startup_timeout", self.startup_timeout),
            ("shard_map_refresh_interval", self.shard_map_refresh_interval),
        ] {
            if value.is_zero() || value > LONGEST {
                let rule = "must be longer than zero and at most 365 days";
                problems.add(field, format!("{rule}, got {value:?}"));
            }
        }
        if self.record_max_buffered_time >= self.record_ttl {
            problems.add(
                "record_max_buffered_time",
                format!(
                    "must be shorter than record_ttl ({:?}), got {:?}",
                    self.record_ttl, self.record_max_buffered_time
                ),
            );
        }
        problems.into_result()
    }

    /// The time limit of a request whose largest record has `bytes`, and `left` of its time to live.
    pub(crate) fn request_limit(&self, bytes: usize, left: Duration) -> Duration {
        let carried = Duration::from_secs_f64(bytes as f64 * 4.0 / 3.0 / SLOWEST_LINK);
        let whole = self.request_timeout.saturating_add(carried);
        // A request that hangs must leave time for another attempt.
        whole.min(left / 2).max(self.request_timeout)
    }

    /// How long a request that is not full waits for more, while another is in flight.
    pub(crate) fn collection_linger(&self) -> Duration {
        (self.record_max_buffered_time / 5).min(Duration::from_millis(50))
    }
}

/// A configuration with one or more problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidConfig {
    problems: Vec<(&'static str, String)>,
}

impl InvalidConfig {
    pub(crate) fn one(field: &'static str, problem: String) -> Self {
        Self { problems: vec![(field, problem)] }
    }

    /// Field and problem, for each problem.
    pub fn problems(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.problems.iter().map(|(field, problem)| (*field, problem.as_str()))
    }

    /// The problems of all checks.
    pub(crate) fn all(checks: impl IntoIterator<Item = Result<(), Self>>) -> Result<(), Self> {
        let problems = checks.into_iter().filter_map(Result::err);
        let problems: Vec<_> = problems.flat_map(|error| error.problems).collect();
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid configuration: ")?;
        for (position, (field, problem)) in self.problems.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidConfig {}

#[derive(Default)]
struct Problems(Vec<(&'static str, String)>);

impl Problems {
    fn add(&mut self, field: &'static str, problem: String) {
        self.0.push((field, problem));
    }

    fn within(&mut self, field: &'static str, value: usize, least: usize, most: usize) {
        if value < least || value > most {
            self.add(field, format!("must be {least} to {most}, got {value}"));
        }
    }

    fn into_result(self) -> Result<(), InvalidConfig> {
        if self.0.is_empty() { Ok(()) } else { Err(InvalidConfig { problems: self.0 }) }
    }
}

#[cfg(feature = "serde")]
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(ProducerConfig::default().validate(), Ok(()));
        assert_eq!(ProducerConfig::for_tests().validate(), Ok(()));
    }

    #[test]
    fn a_request_leaves_time_for_another_attempt() {
        let config = ProducerConfig::default();
        for (mib, left, limit) in [(0, 30, 6), (1, 30, 11), (10, 30, 15), (10, 300, 61), (10, 1, 6)]
        {
            let actual = config.request_limit(mib * MIB, Duration::from_secs(left));
            assert_eq!(actual.as_secs(), limit, "{mib} MiB, {left} s");
        }
        let longest = ProducerConfig { request_timeout: Duration::MAX, ..Default::default() };
        assert_eq!(longest.request_limit(MIB, Duration::MAX), Duration::MAX);
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let config = ProducerConfig {
            collection_max_count: 501,
            rate_limit: 0,
            record_ttl: Duration::ZERO,
            compression: Compression::Zstd { level: 99 },
            ..Default::default()
        };
        let error = config.validate().unwrap_err();
        let fields: Vec<_> = error.problems().map(|(field, _)| field).collect();
        assert_eq!(
            fields,
            [
                "rate_limit",
                "collection_max_count",
                "compression",
                "record_ttl",
                "record_max_buffered_time"
            ]
        );
        assert!(
            error.to_string().contains("collection_max_count: must be 1 to 500, got 501"),
            "{error}"
        );
    }

    #[cfg(feature = "serde")]
    #[test]
    fn durations_are_text_and_unknown_fields_are_refused() {
        let text = r#"{"record_max_buffered_time":"10ms","compression":{"zstd":{"level":3}}}"#;
        let config: ProducerConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.record_max_buffered_time, Duration::from_millis(10));
        let back: ProducerConfig =
            serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(back, config);
        assert!(
            serde_json::from_str::<ProducerConfig>(r#"{"record_max_buffer_time":"10ms"}"#).is_err()
        );
    }
}
