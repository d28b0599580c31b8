//! What the pipeline measures, seen by a sink of our own.

use std::collections::BTreeMap;

use super::*;

type Series = (&'static str, Option<String>, Option<String>);

/// Adds up what it is given: how often, and the sum.
#[derive(Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<BTreeMap<Series, (u64, f64)>>>);

impl Sink for Recorded {
    fn record(&mut self, sample: Sample<'_>) {
        let text = |label: Option<&Arc<str>>| label.map(|label| label.to_string());
        let series = (
            sample.metric.definition().name,
            text(sample.shard),
            text(sample.code),
        );
        let mut recorded = lock(&self.0);
        let entry = recorded.entry(series).or_default();
        entry.0 += sample.count;
        entry.1 += sample.value * sample.count as f64;
    }
}

impl Recorded {
    /// How many samples of a metric there were, and their sum.
    pub(crate) fn of(&self, name: &str, shard: Option<&str>, code: Option<&str>) -> (u64, f64) {
        let recorded = lock(&self.0);
        let series = recorded
            .iter()
            .find(|((n, s, c), _)| *n == name && s.as_deref() == shard && c.as_deref() == code);
        series.map(|(_, totals)| *totals).unwrap_or_default()
    }
}

#[test]
fn hot_keys_cost_nothing_when_off_and_are_found_when_on() {
    let off = Telemetry::new(0);
    off.sent("k", 1);
    assert!(off.hot_keys().is_empty() && off.sent.load(Ordering::Relaxed) == 0);
    let on = Telemetry::new(20);
    for n in 0..40_000 {
        // A period of 4: it must not fall in step with the sampling.
        let key = if n % 4 == 0 {
            "hot".to_owned()
        } else {
            format!("{n}")
        };
        on.sent(&key, 100);
    }
    let hottest = &on.hot_keys()[0];
    assert_eq!(hottest.partition_key, "hot");
    assert!((0.2..0.3).contains(&hottest.share), "{hottest:?}");
}
