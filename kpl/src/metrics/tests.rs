//! What the sender measures, seen by a sink of our own.

use std::collections::BTreeMap;

use super::*;

type Series = (&'static str, Option<String>, Option<String>);

/// Number of samples, their sum, and the last value.
type Totals = (u64, f64, f64);

/// Adds up the samples.
#[derive(Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<BTreeMap<Series, Totals>>>);

impl Sink for Recorded {
    fn record(&mut self, sample: Sample<'_>) {
        let text = |label: Option<&Arc<str>>| label.map(|label| label.to_string());
        let series = (sample.metric.definition().name, text(sample.shard), text(sample.code));
        let mut recorded = lock(&self.0);
        let entry = recorded.entry(series).or_default();
        entry.0 += sample.count;
        entry.1 += sample.value * sample.count as f64;
        entry.2 = sample.value;
    }
}

impl Recorded {
    /// How many samples of a metric there were, and their sum.
    pub(crate) fn of(&self, name: &str, shard: Option<&str>, code: Option<&str>) -> (u64, f64) {
        let recorded = lock(&self.0);
        let series = recorded
            .iter()
            .find(|((n, s, c), _)| *n == name && s.as_deref() == shard && c.as_deref() == code);
        series.map_or((0, 0.0), |(_, (count, sum, _))| (*count, *sum))
    }

    /// The last value of a metric of the stream.
    pub(crate) fn last(&self, name: &'static str) -> Option<f64> {
        let recorded = lock(&self.0);
        recorded.get(&(name, None, None)).map(|(.., last)| *last)
    }
}

#[test]
fn gauges_are_sampled_by_time_and_never_stand_still_behind_the_truth() {
    let start = clock::now();
    let recorded = Recorded::default();
    let mut meter = Meter::new(Arc::new(Telemetry::new(0)));
    let counters = Counters::default();
    assert_eq!(meter.turn(start, &counters, 7, 7), None, "without a sink");
    meter.add_sink(recorded.clone());
    let at = |millis| start + Duration::from_millis(millis);
    for millis in 0..1000 {
        counters.user_records_accepted.add(1);
        let again = meter.turn(at(millis), &counters, millis as usize, 0);
        let due = at(millis / 200 * 200 + 200);
        assert_eq!(again, (millis % 200 > 0).then_some(due));
    }
    assert_eq!(recorded.of("BufferedBytes", None, None).0, 5);
    assert_eq!(recorded.last("BufferedBytes"), Some(800.0));
    // At the time that the last answer named. After that, no wake-up is due.
    assert_eq!(meter.turn(at(1000), &counters, 0, 0), None);
    assert_eq!(recorded.last("BufferedBytes"), Some(0.0));
    counters.user_records_accepted.add(1);
    meter.end();
    meter.turn(at(1001), &counters, 0, 0);
    assert_eq!(recorded.of("UserRecordsReceived", None, None), (1001, 1001.0));
}

#[test]
fn hot_keys_cost_nothing_when_off_and_are_found_when_on() {
    let off = Telemetry::new(0);
    assert!((0..100).all(|_| off.draw("k", 1).is_none()));
    assert!(off.hot_keys().is_empty() && off.drawn.load(Ordering::Relaxed) == 0);
    let on = Telemetry::new(20);
    for n in 0..40_000 {
        // A period of 4: it must not fall in step with the sampling.
        let key = if n % 4 == 0 { "hot".to_owned() } else { format!("{n}") };
        on.accepted(on.draw(&key, 100));
        // Refused records do not count, however often they are refused.
        drop(on.draw("refused", 100));
    }
    let hottest = &on.hot_keys()[0];
    assert_eq!(hottest.partition_key, "hot");
    assert!((0.2..0.3).contains(&hottest.share), "{hottest:?}");
}

#[cfg(feature = "serde")]
mod data {
    use serde_json::{Value, json};

    use super::*;
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
        let mut request_time = Percentiles::default();
        request_time.p99 = Duration::from_micros(1500);
        let latencies = data(Latencies { request_time, ..Default::default() });
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
