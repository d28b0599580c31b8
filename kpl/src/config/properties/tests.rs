use proptest::prelude::*;

use super::options::NO_MEANING;
use super::*;

/// Every option of `KinesisProducerConfiguration` 1.x that a `.properties` file may name, with a value.
const OPTIONS: [(&str, &str); 47] = [
    ("AggregationEnabled", "false"),
    ("AggregationMaxCount", "7"),
    ("AggregationMaxSize", "64"),
    ("CaCertFile", "x"),
    ("CaCertPath", "x"),
    ("CloudwatchEndpoint", "monitoring.example.com"),
    ("CloudwatchPort", "8443"),
    ("CollectionMaxCount", "1"),
    ("CollectionMaxSize", "1048576"),
    ("ConnectTimeout", "100"),
    ("CredentialsRefreshDelay", "1"),
    ("DaemonHealthCheckTimeoutMs", "5000"),
    ("DescribeStreamSummaryIntervalMs", "300000"),
    ("EnableCoreDumps", "true"),
    ("EnableDaemonHealthCheck", "true"),
    ("EnableOldestFutureTracker", "true"),
    ("FailIfThrottled", "TRUE"),
    ("GlueSchemaRegistryPropertiesFilePath", "x"),
    ("KinesisEndpoint", "kinesis.example.com"),
    ("KinesisPort", "443"),
    ("LogLevel", "debug"),
    ("MaxConnections", "256"),
    ("MaxUserRecordSize", "64"),
    ("MetricsGranularity", "stream"),
    ("MetricsLevel", "summary"),
    ("MetricsNamespace", "Mine"),
    ("MetricsUploadDelay", "1"),
    ("MinConnections", "1"),
    ("NativeExecutable", "x"),
    ("ProxyHost", "proxy"),
    ("ProxyPassword", "hunter2"),
    ("ProxyPort", "1"),
    ("ProxyUserName", "me"),
    ("RateLimit", "100"),
    ("RecordDistributionStrategyDefault", "AUTO"),
    ("RecordMaxBufferedTime", "0"),
    ("RecordTtl", "9223372036854775807"),
    ("Region", "us-gov-west-1"),
    ("RequestTimeout", "600000"),
    ("ReturnUserRecordOnFailure", "true"),
    ("StsEndpoint", ""),
    ("StsPort", "443"),
    ("TempDirectory", "/tmp"),
    ("ThreadPoolSize", "64"),
    ("ThreadingModel", "POOLED"),
    ("UserRecordTimeoutInMillis", "1"),
    ("VerifyCertificate", "false"),
];

/// Options that only code can set.
const IN_CODE: [&str; 5] = [
    "CredentialsProvider",
    "MetricsCredentialsProvider",
    "GlueSchemaRegistryConfiguration",
    "GlueSchemaRegistryCredentialsProvider",
    "addAdditionalMetricsDimension",
];

fn fields_of(error: &InvalidConfig) -> Vec<&str> {
    error.problems().map(|(field, _)| field).collect()
}

#[test]
fn every_option_of_the_kpl_is_read() {
    let text: String = OPTIONS.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    let read = ProducerConfig::from_properties(&text).unwrap();
    let expected = ProducerConfig {
        aggregation_enabled: false,
        aggregation_max_count: 7,
        aggregation_max_size: 64,
        collection_max_count: 1,
        collection_max_size: 1 << 20,
        connect_timeout: std::time::Duration::from_millis(100),
        fail_if_throttled: true,
        max_requests_in_flight: 256,
        rate_limit: 100,
        record_max_buffered_time: std::time::Duration::ZERO,
        record_ttl: std::time::Duration::from_millis(i64::MAX as u64),
        request_timeout: std::time::Duration::from_secs(600),
        shard_map_refresh_interval: std::time::Duration::from_secs(300),
        ..Default::default()
    };
    assert_eq!(read.config, expected);
    assert_eq!(read.region.as_deref(), Some("us-gov-west-1"));
    assert_eq!(read.kinesis_endpoint_url.as_deref(), Some("https://kinesis.example.com"));
    assert_eq!(
        read.cloudwatch_endpoint_url.as_deref(),
        Some("https://monitoring.example.com:8443")
    );
    #[cfg(feature = "cloudwatch")]
    {
        use crate::config::{MetricsGranularity, MetricsLevel};
        assert_eq!(read.cloudwatch.namespace, "Mine");
        assert_eq!(read.cloudwatch.level, MetricsLevel::Summary);
        assert_eq!(read.cloudwatch.granularity, MetricsGranularity::Stream);
        assert_eq!(read.cloudwatch.upload_interval.as_millis(), 1);
    }
    // A note names each key without an effect. It does not repeat a password.
    let noted: Vec<_> = read.notes.iter().map(|note| note.key.as_str()).collect();
    let without_meaning = OPTIONS.iter().map(|(key, _)| *key).filter(|key| {
        NO_MEANING.iter().any(|(keys, _)| keys.contains(key))
            || *key == "VerifyCertificate"
            || cfg!(not(feature = "cloudwatch")) && key.starts_with("Metrics")
    });
    assert_eq!(noted, without_meaning.collect::<Vec<_>>());
    let told: String = read.notes.iter().map(PropertyNote::to_string).collect();
    assert!(!told.contains("hunter2") && !told.contains("unknown"), "{told}");
}

#[test]
fn every_option_and_every_field_has_its_row() {
    let page = include_str!("../../parity.md");
    let names = OPTIONS.iter().map(|(key, _)| *key).chain(IN_CODE);
    for name in names.chain(NO_MEANING.iter().flat_map(|(keys, _)| *keys).copied()) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
    for field in ProducerConfig::field_names() {
        assert!(page.contains(&format!("`{field}`")), "{field}");
    }
}

#[test]
fn an_empty_file_has_the_kpls_defaults() {
    let read = ProducerConfig::from_properties("\n# nothing\n").unwrap();
    let expected =
        ProducerConfig { connect_timeout: std::time::Duration::from_secs(6), ..Default::default() };
    assert_eq!((read.config, read.notes), (expected, Vec::new()));
}

#[test]
fn all_problems_are_told_at_once() {
    let text = r"
        AggregationMaxSize = 63
        RecordTtl: 99
        RateLimit fast
        AggregationEnabled = yes
        KinesisEndpoint = https://host/path
        KinesisPort = 65536
        Region = Mars
        MetricsLevel = loud
        MetricsNamespace = AWS/mine
        CollectionMaxCount = 501
        broken = \u00g0
        RecordMaxBufferedTime = 9223372036854775807
    ";
    let error = ProducerConfig::from_properties(text).unwrap_err();
    let expected = [
        "AggregationMaxSize",
        "RecordTtl",
        "RateLimit",
        "AggregationEnabled",
        "KinesisEndpoint",
        "KinesisPort",
        "Region",
        "MetricsLevel",
        "MetricsNamespace",
        "CollectionMaxCount",
        "properties",
        "record_max_buffered_time",
    ];
    assert_eq!(fields_of(&error), expected);
    assert!(error.to_string().contains("line 12"), "{error}");
}

#[test]
fn what_cannot_be_taken_whole_is_told() {
    let text = "AggregationMaxSize=10485760\nCollectionMaxSize=9223372036854775807\n\
                RateLimit=9223372036854775807\nAggregationMaxCount=9223372036854775807\n\
                KinesisPort=4567\nkinesisPort=1\nRateLimit=100\n";
    let read = ProducerConfig::from_properties(text).unwrap();
    assert_eq!(read.config.aggregation_max_size, 1 << 20);
    assert_eq!(read.config.collection_max_size, 10 << 20);
    assert_eq!((read.config.rate_limit, read.config.aggregation_max_count), (100, u32::MAX));
    let noted: Vec<_> = read.notes.iter().map(|note| note.key.as_str()).collect();
    assert_eq!(noted, ["AggregationMaxSize", "CollectionMaxSize", "kinesisPort", "KinesisPort"]);
}

#[test]
fn a_request_smaller_than_any_here_is_told() {
    for (size, notes) in [(52_224, 1), (65_535, 1), (65_536, 0)] {
        let read = ProducerConfig::from_properties(&format!("CollectionMaxSize={size}")).unwrap();
        assert_eq!(read.config.collection_max_size, 65_536);
        assert_eq!(read.notes.len(), notes, "{size}");
    }
}

#[test]
fn the_syntax_is_that_of_java() {
    let text = "! comment \\\n# another\na=1\n  b : 2\r\nc 3\rd\n\te\\=\\:\\ x = \\u00e4\\t\\\\\\q\n\
                f=one,\\\n    two\\\\\ng=\\ud83d\\ude00\n=empty key\nh = \\\n\n  i=j k = l  \nlast=\\";
    let read: Vec<_> = syntax::parse(text).into_iter().map(Result::unwrap).collect();
    let expected = [
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("d", ""),
        ("e=: x", "ä\t\\q"),
        ("f", "one,two\\"),
        ("g", "😀"),
        ("", "empty key"),
        ("h", ""),
        ("i", "j k = l  "),
        ("last", ""),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(read, expected);
    assert_eq!(
        syntax::parse("a\nb=\\u12\nc=\\ud83d\nd=\\u+123"),
        [Ok(("a".into(), String::new())), Err(2), Err(3), Err(4)]
    );
}

proptest! {
    /// Whatever is escaped as `Properties.store` does comes back, and no text makes it panic.
    #[test]
    fn what_is_stored_is_read(pairs in proptest::collection::vec((any::<String>(), any::<String>()), 0..5), noise in any::<String>()) {
        let store = |text: &str| -> String {
            text.encode_utf16()
                .map(|unit| match char::from_u32(u32::from(unit)) {
                    Some(c) if c.is_ascii_alphanumeric() => c.to_string(),
                    Some(c @ ('=' | ':' | '#' | '!' | ' ' | '\\')) => format!("\\{c}"),
                    _ => format!("\\u{unit:04X}"),
                })
                .collect()
        };
        let text: String = pairs
            .iter()
            .map(|(key, value)| format!("{} = {}\n", store(key), store(value)))
            .collect();
        let read: Vec<_> = syntax::parse(&text).into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(read, pairs);
        drop(ProducerConfig::from_properties(&noise));
        drop(ProducerConfig::from_properties(&format!("RecordTtl = {noise}")));
    }
}
