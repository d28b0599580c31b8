//! Serializes points in time as RFC 3339.

use std::time::SystemTime;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

use crate::config::validate::is_timestamp;

pub(crate) fn serialize<S: Serializer>(
    value: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // The formatter panics for other years.
    if !is_timestamp(*value) {
        return Err(S::Error::custom("a time before 1970 or after 9999"));
    }
    serializer.collect_str(&humantime::format_rfc3339(*value))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339_weak(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use crate::config::{
        CheckpointPolicy, ConsumerConfig, InitialPosition, ShardPosition, ShardPositions,
        StreamPosition,
    };

    #[test]
    fn durations_and_times_are_text() {
        let config: ConsumerConfig = serde_json::from_str(
            r#"{"failover_time": "1500ms", "dynamodb_request_timeout": "300ms", "checkpoint": {"interval": "5s"},
                "initial_position": {"at_timestamp": "1970-01-01T00:00:09Z"},
                "aggregate_range": "keep_in_range"}"#,
        )
        .unwrap();
        assert_eq!(config.failover_time, Duration::from_millis(1500));
        let timeout = config.dynamodb_request_timeout;
        assert_eq!(timeout, Some(Duration::from_millis(300)));
        assert_eq!(config.checkpoint, CheckpointPolicy::Interval(Duration::from_secs(5)));
        assert_eq!(
            config.initial_position,
            InitialPosition::AtTimestamp(UNIX_EPOCH + Duration::from_secs(9))
        );
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""failover_time":"1s 500ms""#), "{text}");
        assert_eq!(serde_json::from_str::<ConsumerConfig>(&text).unwrap(), config);
    }

    #[test]
    fn positions_of_single_shards_are_text() {
        let text = r#"{"initial_position": {"per_shard": {
            "shards": {"shardId-0": {"after_sequence_number": "42"}, "shardId-1": "latest"},
            "others": {"at_timestamp": "1970-01-01T00:00:09Z"}}}}"#;
        let config: ConsumerConfig = serde_json::from_str(text).unwrap();
        let others = StreamPosition::AtTimestamp(UNIX_EPOCH + Duration::from_secs(9));
        let positions = ShardPositions::new(others)
            .with("shardId-0", ShardPosition::AfterSequenceNumber("42".parse().unwrap()))
            .with("shardId-1", ShardPosition::Latest);
        assert_eq!(config.initial_position, InitialPosition::PerShard(positions));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ConsumerConfig>(&text).unwrap(), config);
        let text = r#"{"initial_position": {"per_shard": {
            "shards": {"shardId-0": {"after_sequence_number": "x"}}}}}"#;
        let error = serde_json::from_str::<ConsumerConfig>(text).unwrap_err();
        assert!(error.to_string().contains("not a sequence number"), "{error}");
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error =
            serde_json::from_str::<ConsumerConfig>(r#"{"failovertime": "1s"}"#).unwrap_err();
        assert!(error.to_string().contains("failovertime"), "{error}");
    }
}
