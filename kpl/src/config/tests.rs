use super::*;

#[test]
fn the_default_is_valid() {
    assert_eq!(ProducerConfig::default().validate(), Ok(()));
    assert_eq!(ProducerConfig::for_tests().validate(), Ok(()));
}

#[test]
fn a_request_leaves_time_for_another_attempt() {
    let config = ProducerConfig::default();
    for (mib, left, limit) in [(0, 30, 6), (1, 30, 11), (10, 30, 15), (10, 300, 61), (10, 1, 6)] {
        let actual = config.request_time_limit(mib * MIB, Duration::from_secs(left));
        assert_eq!(actual.as_secs(), limit, "{mib} MiB, {left} s");
    }
    let longest = ProducerConfig { request_timeout: Duration::MAX, ..Default::default() };
    assert_eq!(longest.request_time_limit(MIB, Duration::MAX), Duration::MAX);
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
