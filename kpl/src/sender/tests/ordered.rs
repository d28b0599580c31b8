//! Random histories as a KCL sees the stream, with and without ordered mode.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::history::{Sent, check_delivery, histories, run, simulate};
use super::*;
use crate::config::{OnGap, RecordOrdering};

/// First deliveries of acknowledged records follow `send`.
fn check_order(seen: &HashMap<HashKey, Vec<Bytes>>, sent: &[Vec<Sent>]) {
    let mut first: HashMap<&Bytes, usize> = HashMap::new();
    for (place, data) in seen.values().flatten().enumerate() {
        first.entry(data).or_insert(place);
    }
    for key in sent {
        let acknowledged: Vec<_> = key.iter().filter(|record| record.outcome.is_ok()).collect();
        for pair in acknowledged.windows(2) {
            let [before, after] = [pair[0], pair[1]];
            assert!(
                first[&before.data] < first[&after.data],
                "{:?} overtook {:?}",
                after.data,
                before.data
            );
        }
    }
}

fn check_gaps(sent: &[Vec<Sent>]) {
    for key in sent {
        for record in key.iter().filter(|record| record.outcome.is_ok()) {
            for &before in &record.behind {
                let failed = &key[before].outcome;
                assert!(failed.is_ok(), "{:?} went on after {failed:?}", record.data);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn a_key_keeps_its_order_through_all_troubles(history in histories()) {
        let (model, sent) = simulate(run(&history, RecordOrdering::PerPartitionKey));
        let seen = model.delivered();
        check_delivery(&history, &seen, &sent);
        check_order(&seen, &sent);
        if history.on_gap == OnGap::FailSuccessors {
            check_gaps(&sent);
        }
    }

    #[test]
    fn an_ordered_producer_that_is_closed_under_way_keeps_its_word(
        mut history in histories(),
        after in 0..3000_u64,
        deadline in 0..1000_u64,
    ) {
        history.close = Some((after, deadline));
        let (model, sent) = simulate(run(&history, RecordOrdering::PerPartitionKey));
        let seen = model.delivered();
        check_delivery(&history, &seen, &sent);
        check_order(&seen, &sent);
    }

    #[test]
    fn nothing_acknowledged_is_lost_without_order_either(history in histories()) {
        let (model, sent) = simulate(run(&history, RecordOrdering::BestEffort));
        check_delivery(&history, &model.delivered(), &sent);
    }

    #[test]
    fn nothing_acknowledged_is_lost_while_the_strategy_changes(
        mut history in histories(),
        may_describe in any::<bool>(),
    ) {
        history.strategy = Some(may_describe);
        history.reshards += 2;
        let (model, sent) = simulate(run(&history, RecordOrdering::BestEffort));
        check_delivery(&history, &model.delivered(), &sent);
    }
}

/// It takes many turns to complete the records that fail together. All are seen to fail in the first of these turns,
/// and what is sent from then on is delivered.
#[tokio::test(start_paused = true)]
async fn a_key_fails_at_one_moment_however_long_it_takes_to_complete() {
    const RECORDS: usize = 3000;
    let service = Scripted::new(|passed, entries| {
        if passed > Duration::from_secs(1) {
            return all_written(entries);
        }
        let refuse = |_| refused("ValidationException");
        (Duration::from_secs(2), Ok(entries.iter().map(refuse).collect()))
    });
    let deliveries: Arc<Mutex<Vec<Delivery>>> = Arc::default();
    let still_open = Arc::new(Mutex::new(None));
    let (held, noted) = (Arc::clone(&deliveries), Arc::clone(&still_open));
    let hook = move |_: &DeliveryError| {
        let held = std::mem::take(&mut *lock(&held));
        let open =
            held.into_iter().filter_map(|delivery| delivery.now_or_never().is_none().then_some(()));
        lock(&noted).get_or_insert(open.count());
    };
    let components =
        Components { seed: Some(42), on_failure: Some(Arc::new(hook)), ..Default::default() };
    let config = ProducerConfig {
        ordering: RecordOrdering::PerPartitionKey,
        aggregation_max_count: 100,
        ..Default::default()
    };
    let producer = builder::start("s".into(), service, config, components).await.unwrap();
    drop(send(&producer, 7, "its failure goes to the hook").await);
    let mut others = Vec::new();
    for id in 1..RECORDS {
        let delivery = send(&producer, 7, "v").await;
        lock(&deliveries).push(delivery);
        if id > 200 {
            others.push(send(&producer, 8, "in the same aggregates").await);
        }
    }
    while lock(&still_open).is_none() {
        tokio::time::sleep(QUICK).await;
    }
    assert_eq!(*lock(&still_open), Some(0), "all of the key failed with the first");
    send(&producer, 7, "again").await.await.unwrap();
    all_delivered(others).await;
    let stats = producer.stats();
    assert_eq!(stats.user_records_failed as usize, RECORDS, "{stats:?}");
}
