//! Flush, close, drop, clones: every delivery resolves.

use std::time::Duration;

use kinesis_testkit::Fault;
use kpl::{FailureCause, HashKey, ProducerConfig, SendError, StopReason, UserRecord};

use crate::reader::{builder, read, receipts, stream, unhurried, until};

fn slow() -> ProducerConfig {
    // Nothing leaves by itself before the tests are long over.
    ProducerConfig { record_max_buffered_time: Duration::from_secs(3000), ..unhurried() }
}

#[tokio::test]
async fn flush_completes_everything_before_it() {
    let aws = stream(2).await;
    let producer = builder(&aws, slow()).build().await.unwrap();
    let mut before = Vec::new();
    for id in 0..100 {
        before
            .push(producer.send(UserRecord::new(format!("k{id}"), format!("{id}"))).await.unwrap());
    }
    assert_eq!(producer.stats().put_records_calls, 0);
    producer.flush().await;
    assert_eq!(producer.stats().user_records_delivered, 100);
    for delivery in before {
        assert!(futures::FutureExt::now_or_never(delivery).unwrap().is_ok());
    }
    // Later records are not flushed.
    let later = producer.send(UserRecord::new("k", "later")).await.unwrap();
    assert_eq!(read(&aws, "s").places.len(), 100);
    producer.flush().await;
    later.await.unwrap();
    producer.flush().await;
}

#[tokio::test]
async fn close_drains_and_reports_and_clones_are_closed_too() {
    let aws = stream(2).await;
    let producer = builder(&aws, slow()).build().await.unwrap();
    let clone = producer.clone();
    let mut deliveries = Vec::new();
    for id in 0..50 {
        deliveries.push(clone.send(UserRecord::new(format!("k{id}"), "v")).await.unwrap());
    }
    let report = producer.close(Duration::from_secs(60)).await;
    assert_eq!((report.delivered, report.failed, report.abandoned), (50, 0, 0));
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let error = clone.send(UserRecord::new("k", "v")).await.unwrap_err();
    assert!(matches!(&error, SendError::Closed { reason: StopReason::Closed, .. }), "{error:?}");
    assert_eq!(error.into_record(), UserRecord::new("k", "v"));
    assert!(matches!(clone.try_send(UserRecord::new("k", "v")), Err(SendError::Closed { .. })));
    assert_eq!(clone.close(Duration::ZERO).await, report);
    clone.flush().await;
}

#[tokio::test]
async fn close_abandons_what_is_left_at_the_deadline_and_gives_the_records_back() {
    let aws = stream(1).await;
    let producer = builder(&aws, slow()).build().await.unwrap();
    drop(producer.send(UserRecord::new("k", "sent")).await.unwrap());
    producer.flush().await;
    aws.faults().add(Fault::refuse_entry("InternalFailure"));
    let left =
        [1, 2].map(|id| producer.try_send(UserRecord::new("k", format!("left {id}"))).unwrap());
    let report = producer.close(Duration::from_millis(50)).await;
    assert_eq!((report.delivered, report.failed, report.abandoned), (1, 0, 2));
    for (id, delivery) in (1..).zip(left) {
        let error = delivery.await.unwrap_err();
        assert_eq!(*error.cause(), FailureCause::Abandoned(StopReason::Closed));
        assert!(error.is_retryable());
        assert_eq!(error.record(), Some(&UserRecord::new("k", format!("left {id}"))));
    }
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test]
async fn dropping_the_last_producer_resolves_every_delivery() {
    let aws = stream(1).await;
    aws.faults().add(Fault::delay(Duration::from_secs(3000)).operation("PutRecords"));
    let config = ProducerConfig { record_max_buffered_time: Duration::from_secs(3000), ..slow() };
    let producer = builder(&aws, config).build().await.unwrap();
    let in_flight = producer.send(UserRecord::new("k", vec![0; 60_000])).await.unwrap();
    until(|| producer.stats().put_records_calls == 1).await;
    let open = producer.send(UserRecord::new("k", "open")).await.unwrap();
    let clone = producer.clone();
    drop(producer);
    assert!(clone.try_send(UserRecord::new("k", "the clone keeps it alive")).is_ok());
    drop(clone);
    for (delivery, may_have_been_written) in [(in_flight, true), (open, false)] {
        let error = delivery.await.unwrap_err();
        assert_eq!(*error.cause(), FailureCause::Abandoned(StopReason::Dropped));
        assert_eq!(error.may_have_been_written(), may_have_been_written);
    }
}

#[test]
fn a_runtime_that_ends_resolves_every_delivery() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (producer, delivery, _aws) = runtime.block_on(async {
        let aws = stream(1).await;
        let producer = builder(&aws, slow()).build().await.unwrap();
        let delivery = producer.send(UserRecord::new("k", "v")).await.unwrap();
        (producer, delivery, aws)
    });
    runtime.shutdown_background();
    let error = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(delivery)
        .unwrap_err();
    assert_eq!(*error.cause(), FailureCause::Abandoned(StopReason::RuntimeShutDown));
    let error = producer.try_send(UserRecord::new("k", "v")).unwrap_err();
    assert!(
        matches!(error, SendError::Closed { reason: StopReason::RuntimeShutDown, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_hook_that_panics_disturbs_no_record() {
    let aws = stream(2).await;
    let producer = builder(&aws, slow())
        .on_failure(|_| panic!("a hook that breaks its promise"))
        .build()
        .await
        .unwrap();
    let record = |size, hash_key| {
        UserRecord::new("k", vec![0; size]).with_explicit_hash_key(HashKey::new(hash_key))
    };
    let waiting = producer.send(record(1, u128::MAX)).await.unwrap();
    let refuse = Fault::refuse("ValidationException").operation("PutRecords").times(1);
    aws.faults().add(refuse);
    // Too large for company: it goes at once and fails unobserved.
    drop(producer.send(record(60_000, 0)).await.unwrap());
    until(|| producer.stats().failures_unobserved == 1).await;
    // Unobserved and abandoned, both.
    producer.flush().await;
    waiting.await.unwrap();
    drop(producer.send(record(1, 0)).await.unwrap());
    let left = producer.send(record(1, u128::MAX)).await.unwrap();
    drop(producer);
    let error = left.await.unwrap_err();
    assert_eq!(*error.cause(), FailureCause::Abandoned(StopReason::Dropped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_share_a_producer() {
    let aws = stream(3).await;
    let config = ProducerConfig {
        record_max_buffered_time: Duration::from_millis(5),
        max_buffered_bytes: 256 * 1024,
        ..unhurried()
    };
    let producer = builder(&aws, config).build().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let producer = producer.clone();
        tasks.spawn(async move {
            let mut deliveries = Vec::new();
            for id in 0..300 {
                let data = format!("task {task} record {id} {}", "x".repeat(id));
                let record = UserRecord::new(format!("{task}/{id}"), data.clone());
                deliveries.push((data, producer.send(record).await.unwrap()));
            }
            receipts(deliveries).await
        });
    }
    let mut receipts = Vec::new();
    while let Some(done) = tasks.join_next().await {
        receipts.extend(done.unwrap());
    }
    let seen = read(&aws, "s");
    assert_eq!(receipts.len(), 16 * 300);
    for (data, receipt) in &receipts {
        seen.assert_holds(data.as_bytes(), receipt);
    }
    assert!(producer.peak_buffered_bytes() <= 256 * 1024);
    assert_eq!(producer.buffered_bytes(), 0);
}
