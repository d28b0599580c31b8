//! What a producer tells of itself, as data for dashboards.

use std::sync::Arc;
use std::time::Duration;

use serde::Serializer;

/// Milliseconds, with a fraction: a call may take less than one.
pub(crate) fn millis<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(value.as_secs_f64() * 1e3)
}

pub(crate) fn text<S: Serializer>(value: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::ack::Receipt;
    use crate::metrics::{HotSpots, KeyLoad, Latencies, Percentiles, ShardLoad};
    use crate::producer::CloseReport;
    use crate::stats::ProducerStats;

    fn data(value: impl serde::Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }

    #[test]
    fn stats_and_reports_are_data() {
        let stats = data(ProducerStats { throttled: 7, ..Default::default() });
        assert_eq!((&stats["throttled"], &stats["retries"]), (&json!(7), &json!(0)));
        let report = CloseReport { delivered: 1, failed: 2, abandoned: 3 };
        assert_eq!(data(report), json!({"delivered": 1, "failed": 2, "abandoned": 3}));
        let latencies = data(Latencies {
            request_time: Percentiles { p99: Duration::from_micros(1500), ..Default::default() },
            ..Default::default()
        });
        assert_eq!(latencies["request_time"]["p99"], json!(1.5));
        let spots = data(HotSpots {
            shards: vec![ShardLoad {
                shard_id: "shard-1".into(),
                records_per_second: 1.0,
                bytes_per_second: 2.0,
                throttled_per_second: 0.0,
                utilisation: 0.5,
                rate: 1.5,
            }],
            keys: vec![KeyLoad { partition_key: "k".into(), share: 0.25, error: 0.0 }],
        });
        assert_eq!(spots["shards"][0]["shard_id"], json!("shard-1"));
        assert_eq!(spots["keys"][0]["share"], json!(0.25));
        let receipt = data(Receipt::new("shard-1".into(), "49".into(), 1, false));
        assert_eq!(receipt["sequence_number"], json!("49"));
        assert_eq!(receipt["may_be_duplicate"], json!(false));
    }
}
