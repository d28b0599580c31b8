//! Ordered mode: what a KCL reads of a key follows `send`, whatever goes wrong.

use std::time::Duration;

use futures::FutureExt;
use kinesis_testkit::{Fault, LocalAws, Service};
use kpl::{
    BuildError, DeliveryError, FailureCause, OnGap, Producer, ProducerConfig, RecordOrdering,
    UserRecord,
};

use crate::reader::{Seen, builder, read, reshard, stream, unhurried, until};

fn config(on_gap: OnGap) -> ProducerConfig {
    ProducerConfig {
        ordering: RecordOrdering::PerPartitionKey,
        on_gap,
        aggregation_max_size: 512,
        record_max_buffered_time: Duration::from_millis(5),
        max_buffered_bytes: 256 * 1024,
        ..unhurried()
    }
}

/// A place that compares as a KCL reads: parents before children, then by sequence number.
fn first_place(seen: &Seen, data: &str) -> Option<(String, (usize, String), u64)> {
    let places = seen.places.get(data.as_bytes())?.iter();
    places.map(|(shard, number, sub)| (shard.clone(), (number.len(), number.clone()), *sub)).min()
}

/// Sends `count` records of a key without awaiting any, and returns their outcomes.
async fn send_key(
    producer: Producer,
    key: String,
    count: usize,
) -> Vec<(String, Result<(), DeliveryError>)> {
    let mut deliveries = Vec::new();
    for id in 0..count {
        let data = format!("{key}/{id}");
        let record = UserRecord::new(key.clone(), data.clone());
        deliveries.push((data, producer.send(record).await.unwrap()));
        if id % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    let mut outcomes = Vec::new();
    for (data, delivery) in deliveries {
        outcomes.push((data, delivery.await.map(drop)));
    }
    outcomes
}

fn assert_in_order(seen: &Seen, outcomes: &[(String, Result<(), DeliveryError>)]) {
    let acknowledged = outcomes.iter().filter(|(_, outcome)| outcome.is_ok());
    let places: Vec<_> = acknowledged
        .map(|(data, _)| first_place(seen, data).unwrap_or_else(|| panic!("{data} is lost")))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_keep_their_order_through_faults_splits_and_merges() {
    let aws = stream(2).await;
    for fault in [
        Fault::refuse_entry("ProvisionedThroughputExceededException"),
        Fault::refuse_entry("InternalFailure"),
        Fault::response_lost().operation("PutRecords"),
        Fault::cut_connection().operation("PutRecords"),
    ] {
        aws.faults().add(fault.probability(0.1));
    }
    let producer = builder(&aws, config(OnGap::FailSuccessors)).build().await.unwrap();
    let mut senders = tokio::task::JoinSet::new();
    for key in 0..40 {
        senders.spawn(send_key(producer.clone(), format!("key-{key}"), 60));
    }
    reshard(&aws, &producer, [200, 800, 1500]).await;

    let all = senders.join_all().await;
    let seen = read(&aws, "s");
    for outcomes in &all {
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
        assert_in_order(&seen, outcomes);
    }
    assert!(aws.faults().injected().len() > 20);
}

#[tokio::test]
async fn what_was_accepted_behind_a_failed_record_fails_or_goes_on() {
    for on_gap in [OnGap::FailSuccessors, OnGap::Continue] {
        let aws = stream(1).await;
        // The first record alone is refused for good, when the others have been accepted.
        let config = ProducerConfig { aggregation_max_count: 1, ..config(on_gap) };
        let producer = builder(&aws, config).build().await.unwrap();
        let slow = aws
            .faults()
            .add(Fault::delay(Duration::from_millis(300)).operation("PutRecords").times(1));
        aws.faults()
            .add(Fault::refuse_entry("ValidationException").operation("PutRecords").times(1));
        let send = |key: &'static str, data: &str| {
            producer.try_send(UserRecord::new(key, data.to_owned())).unwrap()
        };
        let first = send("k", "first");
        let [second, third] = [send("k", "second"), send("k", "third")];
        let other = send("other", "other");
        until(|| aws.faults().count(slow) > 0).await;
        let error = first.await.unwrap_err();
        assert!(matches!(error.cause(), FailureCause::Fatal { .. }), "{error}");
        // A caller that has seen the failure sends into a new order.
        let again = send("k", "first again");
        for successor in [second, third] {
            match (on_gap, successor.await) {
                (OnGap::Continue, outcome) => drop(outcome.unwrap()),
                (_, outcome) => {
                    let error = outcome.unwrap_err();
                    let FailureCause::PredecessorFailed { cause } = error.cause() else {
                        panic!("{error}")
                    };
                    assert!(matches!(&**cause, FailureCause::Fatal { .. }));
                    assert!(error.is_retryable() && !error.may_have_been_written());
                    assert!(error.record().is_some());
                }
            }
        }
        other.await.unwrap();
        again.await.unwrap();
        let seen = read(&aws, "s");
        let expected = if on_gap == OnGap::Continue { 4 } else { 2 };
        assert_eq!(seen.places.len(), expected);
    }
}

/// Sends records of a key as fast as it goes. Returns, with each outcome, the earlier records that were not completed when
/// its `send` had returned.
async fn send_and_look(
    producer: Producer,
    key: String,
) -> Vec<(Vec<usize>, Result<(), DeliveryError>)> {
    let mut deliveries = Vec::new();
    let mut outcomes: Vec<Option<Result<(), DeliveryError>>> = Vec::new();
    let mut behind = Vec::new();
    for id in 0..150 {
        let record = UserRecord::new(key.clone(), format!("{key}/{id}"));
        deliveries.push(producer.send(record).await.unwrap());
        let mut open = Vec::new();
        for (earlier, outcome) in outcomes.iter_mut().enumerate() {
            if outcome.is_none() {
                *outcome =
                    (&mut deliveries[earlier]).now_or_never().map(|completed| completed.map(drop));
                if outcome.is_none() {
                    open.push(earlier);
                }
            }
        }
        behind.push(open);
        outcomes.push(None);
        if id % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut all = Vec::new();
    for ((delivery, outcome), behind) in deliveries.into_iter().zip(outcomes).zip(behind) {
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => delivery.await.map(drop),
        };
        all.push((behind, outcome));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_record_slips_through_between_a_failure_and_its_news() {
    let aws = stream(4).await;
    let refused = Fault::refuse_entry("KMSDisabledException").operation("PutRecords");
    let refused = aws.faults().add(refused.probability(0.1));
    let config = ProducerConfig {
        record_max_buffered_time: Duration::ZERO,
        ..config(OnGap::FailSuccessors)
    };
    let producer = builder(&aws, config).build().await.unwrap();
    let mut senders = tokio::task::JoinSet::new();
    for key in 0..16 {
        senders.spawn(send_and_look(producer.clone(), format!("key-{key}")));
    }
    for key in senders.join_all().await {
        for (behind, outcome) in &key {
            if outcome.is_ok() {
                assert!(
                    behind.iter().all(|&earlier| key[earlier].1.is_ok()),
                    "one went on after a gap"
                );
            }
        }
    }
    assert!(aws.faults().count(refused) > 0);
}

#[tokio::test]
async fn without_the_shard_map_there_is_no_ordered_mode() {
    for operation in ["ListShards", "DescribeStreamSummary"] {
        let aws = LocalAws::builder().deny(Service::Kinesis, operation).build().await.unwrap();
        aws.create_stream("s", 1).await.unwrap();
        let error = builder(&aws, config(OnGap::Continue)).build().await.unwrap_err();
        assert!(matches!(error, BuildError::OrderingUnavailable { .. }), "{error}");
        assert!(error.to_string().contains(operation) && !error.is_retryable());
    }
}
