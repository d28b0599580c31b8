//! Settings of a producer: plain data with the KPL's defaults.

#[cfg(feature = "cloudwatch")]
pub(crate) mod cloudwatch;
#[cfg(test)]
mod extremes;
mod invalid;
pub(crate) mod metrics;
mod properties;

use std::time::Duration;

#[cfg(feature = "cloudwatch")]
pub use self::cloudwatch::{CloudWatchConfig, MetricsDimension};
pub use self::invalid::InvalidConfig;
pub use self::metrics::MetricsGranularity;
pub use self::properties::{KplProperties, PropertyNote};
#[doc(inline)]
pub use kinesis_common::metrics::MetricsLevel;
pub use kinesis_common::protocol::Wire;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The most bytes of one PutRecords request, and of one record on a stream that allows the largest.
const SERVICE_MAX_REQUEST: usize = 10 * MIB;
const SERVICE_MAX_REQUEST_RECORDS: usize = 500;

/// The longest timeout or interval: with it, no sum of durations overflows, the SDK's own included.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The largest record of a stream that does not say otherwise.
pub(crate) const DEFAULT_MAX_RECORD_SIZE: usize = MIB;

/// Slowest link for which time limits allow, in bytes of a request a second: 2 Mbit/s.
const SLOWEST_LINK: f64 = 250_000.0;

/// Bytes of a request for each byte of data, at most: base64 in JSON. In CBOR it is 1, but with [`Wire::Auto`] a request
/// may be sent in either.
const REQUEST_BYTES: f64 = 4.0 / 3.0;

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
/// peak of the producer <= max_buffered_bytes                 records from `send` to completion
///                       + 1.3 x max_in_flight_bytes          requests in CBOR; 2 x in JSON, where data is base64
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
/// For example, 20,000 records/s from 10 producers to 20 shards are a rate of 100: with the default of 100 ms, 11
/// members and 91 Kinesis records/s for a shard. From 200 producers the rate is 5: 1.5 members and 667 Kinesis
/// records/s.
///
/// Where a shard takes fewer Kinesis records than `entries`, its aggregates stay open and grow. If it takes `k` Kinesis
/// records/s from one producer, `members` is `rate / k` there.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ProducerConfig {
    /// Whether records are packed into aggregates. Default `true`. KPL: `AggregationEnabled`.
    pub aggregation_enabled: bool,

    /// Largest aggregate, in bytes. Default 50 KiB; 64 bytes to 1 MiB. KPL: `AggregationMaxSize`.
    ///
    /// A record that is larger travels alone. Memory: one open aggregate of this size per shard.
    pub aggregation_max_size: usize,

    /// Whether aggregates grow towards 1 MiB while their shard is busy. Default `false`.
    ///
    /// If an aggregate is full while others of its shard wait or are in flight, the next one may be twice as large. The
    /// size falls back when the shard has nothing left. Set it where a shard is the bottleneck, and in ordered mode,
    /// where a shard has one aggregate in flight. Consumers must accept records of that size.
    pub aggregation_adaptive: bool,

    /// Most records in an aggregate, at least 1. Default 4,294,967,295: the size decides. KPL: `AggregationMaxCount`.
    pub aggregation_max_count: u32,

    /// Time that an aggregate waits for more records before it is sent. Default 100 ms; less than
    /// [`record_ttl`](Self::record_ttl). KPL: `RecordMaxBufferedTime`.
    ///
    /// A longer time makes fewer and larger Kinesis records ([formula](Self#members-of-an-aggregate)) and adds as much
    /// latency. While the shard accepts nothing, the aggregate stays open for longer and takes later records. With `0`,
    /// an aggregate is sent as soon as no other of its shard is in flight: this gives the lowest latency, and
    /// aggregates grow with the load.
    ///
    /// A PutRecords request that is not full waits for a fifth of this time, at most 50 ms, while another request is in
    /// flight.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub record_max_buffered_time: Duration,

    /// Time after acceptance until a record that is not delivered fails as expired. Default 30 s. KPL: `RecordTtl`.
    ///
    /// A record may have [its own](crate::UserRecord::with_time_to_live). A request that is in flight at that time is
    /// awaited. A record in an aggregate may expire early, by
    /// [`record_max_buffered_time`](Self::record_max_buffered_time) and a sixteenth of its time to live. Where tens of
    /// thousands of records expire at once, the last of them fail some milliseconds late.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub record_ttl: Duration,

    /// Order that records keep. Default [`RecordOrdering::BestEffort`].
    pub ordering: RecordOrdering,

    /// What happens in ordered mode to the records of a key after one that failed. Default [`OnGap::FailSuccessors`].
    pub on_gap: OnGap,

    /// Compression of aggregates. Default [`Compression::Off`]: Java consumers cannot read compressed aggregates.
    pub compression: Compression,

    /// Highest rate to a shard, in percent of its limit of 1,000 records/s and 1 MiB/s. Default 150; 1 to 1,000,000. KPL:
    /// `RateLimit`.
    ///
    /// The producer starts at this rate, lowers it when the shard throttles, and raises it while the shard accepts
    /// records. With 100 or less, a producer that has the shard for itself is never throttled. With more, it finds out
    /// what the shard accepts.
    ///
    /// If more than fifty producers send a shard more than it accepts, in aggregates of 50 KiB or larger, set
    /// [`record_ttl`](Self::record_ttl) to five minutes. The book, `docs/src/producer.md`, has the rules.
    pub rate_limit: u32,

    /// Whether a throttled record fails at once instead of being retried. Default `false`. KPL: `FailIfThrottled`.
    pub fail_if_throttled: bool,

    /// Most Kinesis records in a PutRecords request. Default 500; 1 to 500. KPL: `CollectionMaxCount`.
    pub collection_max_count: usize,

    /// Most bytes in a PutRecords request, partition keys counted. Default 5 MiB; 64 KiB to 10 MiB. KPL:
    /// `CollectionMaxSize`.
    ///
    /// A request of several records is also limited to about a sixteenth of the bytes that may be in flight: see
    /// [`max_in_flight_bytes`](Self::max_in_flight_bytes).
    pub collection_max_size: usize,

    /// Most bytes of records held from `send` to their outcome. Default 64 MiB; at least 64 KiB (65,536 bytes).
    ///
    /// A record counts its data, its key and 64 bytes. A Kinesis record counts 1,024 bytes more. A shard may hold at
    /// most as many bytes as are still free, so a single hot shard gets half of the buffer
    /// ([exception](crate::MemoryBudget)). A record larger than the buffer is refused.
    ///
    /// Kinesis records that the producer makes when it splits an aggregate are not counted. The book,
    /// `docs/src/producer.md`, says when it does and how many there are.
    pub max_buffered_bytes: usize,

    /// Buffer use, in percent, above which [`Droppable`](crate::Priority::Droppable) records are dropped. Default 50; 0
    /// to 100.
    ///
    /// The limit applies to the whole buffer and to the share of each shard. A single hot shard may fill half of the
    /// buffer, so droppable records fill a quarter of it.
    pub droppable_limit: u32,

    /// Largest record of the stream, key and data in bytes, where the stream's own limit is unknown. Default `None`: 1
    /// MiB. 1 to 10 MiB.
    ///
    /// The stream's own limit is used where the role may call `kinesis:DescribeStreamSummary`. Set this where the role
    /// may not, and `UpdateMaxRecordSize` has raised the limit. If it exceeds the stream's limit, the service refuses
    /// the larger records, and they fail as [`Rejected`](crate::FailureCause::Rejected).
    pub max_record_size: Option<usize>,

    /// Most bytes of payload in flight. Default 32 MiB; at least 64 KiB. Memory: 1.3 times as much in CBOR, twice as
    /// much in JSON.
    ///
    /// The producer starts with 1 MiB. It doubles the limit with each round trip while the link keeps up, and lowers it
    /// when requests time out. Lower it to save memory. The book, `docs/src/producer.md`, has the rules.
    pub max_in_flight_bytes: usize,

    /// Most PutRecords requests in flight. Default 24; 1 to 10,000. KPL: `MaxConnections`.
    pub max_requests_in_flight: usize,

    /// HTTP/2 connections that PutRecords requests are spread over. Default 4; 1 to 64.
    ///
    /// A request takes the connection with the fewest requests, so a connection that stalls delays only its own
    /// requests. Connections are opened when they are needed, and after a timeout a new one is opened. With 1, all
    /// requests share one connection, as in the AWS SDK. Over HTTP/1.1, each request in flight has its own connection
    /// in any case.
    pub connections: usize,

    /// Encoding of requests and answers. Default [`Wire::Auto`]: CBOR, or JSON where the endpoint does not accept CBOR.
    ///
    /// CBOR carries data as bytes, JSON as base64, which is a third larger and takes more CPU time. Set [`Wire::Json`]
    /// if a proxy in between has to read requests. A client or configuration that names a protocol of its own keeps it.
    pub wire: Wire,

    /// Time limit of one PutRecords attempt. Default 6 s; at most 365 days. KPL: `RequestTimeout`.
    ///
    /// The time in which a link of 2 Mbit/s carries the largest record of the request is added: 5.6 s for 1 MiB. The
    /// sum is at most half of the record's remaining time to live, but never less than this setting. Raise it where the
    /// service answers late. For records of several MiB over a slow link, raise [`record_ttl`](Self::record_ttl).
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub request_timeout: Duration,

    /// Time limit for opening a connection. Default 3 s; at most 365 days. KPL: `ConnectTimeout`.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub connect_timeout: Duration,

    /// Time limit of [`build`](crate::ProducerBuilder::build). Default 60 s; at most 365 days.
    ///
    /// Until then, `build` retries what may pass: throttled or failed calls, an endpoint that is not up yet, a stream
    /// that is being created. A missing stream and refused credentials fail at once. Lower it to learn of a wrong
    /// endpoint sooner; raise it where services that are deployed together take long to start.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub startup_timeout: Duration,

    /// Number of partition keys that [`Producer::hot_spots`](crate::Producer::hot_spots) watches. Default 0: off; at
    /// most 10,000.
    ///
    /// With `n`, every key that has more than 1/n of the bytes is found, from a sample of one record in sixteen.
    /// Memory: `n` keys and 150 bytes for each.
    pub hot_keys: usize,

    /// Interval between refreshes of the shard map, jittered by a fifth. Default 60 s; at most 365 days.
    ///
    /// The map is also refreshed when a record arrives in an unexpected shard.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub shard_map_refresh_interval: Duration,
}

/// Order that the records of a producer keep.
///
/// [`Producer::send`](crate::Producer::send) states the guarantees of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RecordOrdering {
    /// Records of a shard leave in the order of `send`; retries, concurrent requests and resharding may change it. As
    /// the KPL.
    #[default]
    BestEffort,
    /// Records of a key are never overtaken: not across throttles, lost responses, timeouts, resharding, nor failures.
    ///
    /// A shard has one aggregate in flight at a time, so that its throughput is the size of an aggregate per round
    /// trip: see [`aggregation_adaptive`](ProducerConfig::aggregation_adaptive). Each record takes 16 bytes of the
    /// overhead that is counted for it. Needs the shard map: without `kinesis:DescribeStreamSummary` and
    /// `kinesis:ListShards`, and on a stream that places records itself, [`build`](crate::ProducerBuilder::build) fails
    /// with [`BuildError::OrderingUnavailable`](crate::BuildError::OrderingUnavailable).
    PerPartitionKey,
}

/// What happens, in ordered mode, to the records of a key that were accepted before an earlier one was seen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnGap {
    /// They fail too, with [`FailureCause::PredecessorFailed`](crate::FailureCause::PredecessorFailed). To keep the
    /// order, the application sends the failed record again, and the others after it.
    #[default]
    FailSuccessors,
    /// They are sent all the same.
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
    /// Larger aggregates are compressed on threads of tokio for blocking work, at most four at a time: those of more
    /// than 50 KiB at level 3, of more than 25 KiB from level 5 on, nearly all from level 17 on. The same holds for
    /// aggregates of any size where very many are sealed at once. Later records of the shard wait for them. If no
    /// thread is free, an aggregate is sent uncompressed after 5 s, or half of its time to live.
    ///
    /// Memory: up to five contexts of zstd, which are kept; from level 9 on, each takes megabytes.
    Zstd {
        /// The level of zstd: 1 to 22, 3 being usual.
        level: i32,
    },
}

/// Declares the setter and the default of each setting.
macro_rules! settings {
    ($($with:ident, $field:ident: $type:ty = $default:expr;)*) => {
        impl Default for ProducerConfig {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl ProducerConfig {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $with(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*

            /// The names of all settings.
            #[cfg(test)]
            fn field_names() -> Vec<&'static str> {
                vec![$(stringify!($field)),*]
            }

            /// The extreme values of every setting.
            #[cfg(test)]
            fn extremes_of_fields() -> Vec<(&'static str, Vec<extremes::Change<Self>>)> {
                vec![$((
                    stringify!($field),
                    extremes::changes(|config: &mut Self, value: $type| config.$field = value),
                )),*]
            }
        }
    };
}

settings! {
    with_aggregation_enabled, aggregation_enabled: bool = true;
    with_aggregation_max_size, aggregation_max_size: usize = 50 * KIB;
    with_aggregation_adaptive, aggregation_adaptive: bool = false;
    with_aggregation_max_count, aggregation_max_count: u32 = u32::MAX;
    with_record_max_buffered_time, record_max_buffered_time: Duration = Duration::from_millis(100);
    with_record_ttl, record_ttl: Duration = Duration::from_secs(30);
    with_ordering, ordering: RecordOrdering = RecordOrdering::BestEffort;
    with_on_gap, on_gap: OnGap = OnGap::FailSuccessors;
    with_compression, compression: Compression = Compression::Off;
    with_rate_limit, rate_limit: u32 = 150;
    with_fail_if_throttled, fail_if_throttled: bool = false;
    with_collection_max_count, collection_max_count: usize = SERVICE_MAX_REQUEST_RECORDS;
    with_collection_max_size, collection_max_size: usize = 5 * MIB;
    with_max_buffered_bytes, max_buffered_bytes: usize = 64 * MIB;
    with_droppable_limit, droppable_limit: u32 = 50;
    with_max_record_size, max_record_size: Option<usize> = None;
    with_max_in_flight_bytes, max_in_flight_bytes: usize = 32 * MIB;
    with_max_requests_in_flight, max_requests_in_flight: usize = 24;
    with_connections, connections: usize = 4;
    with_wire, wire: Wire = Wire::Auto;
    with_request_timeout, request_timeout: Duration = Duration::from_secs(6);
    with_connect_timeout, connect_timeout: Duration = Duration::from_secs(3);
    with_startup_timeout, startup_timeout: Duration = Duration::from_secs(60);
    with_hot_keys, hot_keys: usize = 0;
    with_shard_map_refresh_interval, shard_map_refresh_interval: Duration = Duration::from_secs(60);
}

impl ProducerConfig {
    /// Settings for tests on an emulator or an embedded AWS: records leave within 10 ms, and a failure shows within
    /// seconds. All else is as by default.
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
        let mut problems = Vec::new();
        let mut add = |field: &str, problem| problems.push((field.to_owned(), problem));
        for (field, value, least, most) in [
            ("aggregation_max_size", self.aggregation_max_size, 64, MIB),
            ("aggregation_max_count", self.aggregation_max_count as usize, 1, u32::MAX as usize),
            ("rate_limit", self.rate_limit as usize, 1, 1_000_000),
            ("collection_max_count", self.collection_max_count, 1, SERVICE_MAX_REQUEST_RECORDS),
            ("collection_max_size", self.collection_max_size, 64 * KIB, SERVICE_MAX_REQUEST),
            ("max_buffered_bytes", self.max_buffered_bytes, MIN_BUFFER, usize::MAX),
            ("droppable_limit", self.droppable_limit as usize, 0, 100),
            ("max_in_flight_bytes", self.max_in_flight_bytes, 64 * KIB, usize::MAX),
            ("max_requests_in_flight", self.max_requests_in_flight, 1, 10_000),
            ("connections", self.connections, 1, 64),
            ("max_record_size", self.max_record_size.unwrap_or(MIB), MIB, SERVICE_MAX_REQUEST),
            ("hot_keys", self.hot_keys, 0, 10_000),
        ] {
            if value < least || value > most {
                add(field, format!("must be {least} to {most}, got {value}"));
            }
        }
        if let Compression::Zstd { level } = self.compression
            && !(1..=22).contains(&level)
        {
            add("compression", format!("the zstd level must be 1 to 22, got {level}"));
        }
        if self.record_ttl.is_zero() {
            add("record_ttl", "must be longer than zero".to_owned());
        }
        for (field, value) in [
            ("request_timeout", self.request_timeout),
            ("connect_timeout", self.connect_timeout),
            ("startup_timeout", self.startup_timeout),
            ("shard_map_refresh_interval", self.shard_map_refresh_interval),
        ] {
            if value.is_zero() || value > LONGEST {
                let rule = "must be longer than zero and at most 365 days";
                add(field, format!("{rule}, got {value:?}"));
            }
        }
        if self.record_max_buffered_time >= self.record_ttl {
            add(
                "record_max_buffered_time",
                format!(
                    "must be shorter than record_ttl ({:?}), got {:?}",
                    self.record_ttl, self.record_max_buffered_time
                ),
            );
        }
        InvalidConfig::check(problems)
    }

    /// The time limit of a request whose largest record has `bytes`, and `left` of its time to live.
    pub(crate) fn request_time_limit(&self, bytes: usize, left: Duration) -> Duration {
        let carried = Duration::from_secs_f64(bytes as f64 * REQUEST_BYTES / SLOWEST_LINK);
        let whole = self.request_timeout.saturating_add(carried);
        // A request that hangs must leave time for another attempt.
        whole.min(left / 2).max(self.request_timeout)
    }

    /// How long a request that is not full waits for more, while another is in flight.
    pub(crate) fn collection_linger(&self) -> Duration {
        (self.record_max_buffered_time / 5).min(Duration::from_millis(50))
    }
}

#[cfg(test)]
mod tests;
