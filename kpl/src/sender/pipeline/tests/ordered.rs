//! Ordered mode under random histories, as a KCL sees the stream; and what holds without it.

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
