//! The buffer is bounded, whatever the sink does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kinesis_testkit::Fault;
use kpl::{HashKey, ProducerConfig, SendError, UserRecord};

use crate::reader::{builder, read, receipts, stream, unhurried, until};

const BOUND: usize = 512 * 1024;

fn config() -> ProducerConfig {
    ProducerConfig {
        record_max_buffered_time: Duration::from_millis(5),
        max_buffered_bytes: BOUND,
        ..unhurried()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gauge_never_passes_its_bound_while_the_sink_stalls() {
    let aws = stream(2).await;
    let producer = builder(&aws, config()).build().await.unwrap();
    let stall = aws.faults().add(Fault::throttle().operation("PutRecords"));

    let over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (producer, over) = (producer.clone(), Arc::clone(&over));
        async move {
            loop {
                if producer.buffered_bytes() > BOUND {
                    over.store(true, Ordering::SeqCst);
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (producer, accepted) = (producer.clone(), Arc::clone(&accepted));
        tasks.spawn(async move {
            let mut deliveries = Vec::new();
            for id in 0..60 {
                let data = format!("{task}/{id}:{}", "x".repeat(2500));
                let delivery = producer
                    .send(UserRecord::new(format!("{task}/{id}"), data.clone()))
                    .await
                    .unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                deliveries.push((data, delivery));
            }
            receipts(deliveries).await
        });
    }
    // The sink takes nothing: the senders are held back with most of their records.
    until(|| {
        aws.faults().count(stall) > 3
            && matches!(
                producer.try_send(UserRecord::new("k", vec![0; 4000])),
                Err(SendError::Full { .. })
            )
    })
    .await;
    assert!(accepted.load(Ordering::SeqCst) < 8 * 60);
    aws.faults().remove(stall);

    let mut receipts = Vec::new();
    while let Some(done) = tasks.join_next().await {
        receipts.extend(done.unwrap());
    }
    assert_eq!(receipts.len(), 8 * 60);
    let seen = read(&aws, "s");
    for (data, receipt) in &receipts {
        seen.assert_holds(data.as_bytes(), receipt);
    }
    watcher.abort();
    assert!(!over.load(Ordering::SeqCst));
    assert!(producer.peak_buffered_bytes() <= BOUND);
    assert!(producer.peak_buffered_bytes() > BOUND / 2);
}

#[tokio::test]
async fn a_hot_shard_does_not_stall_the_others() {
    let aws = stream(2).await;
    let throttle =
        Fault::refuse_entry("ProvisionedThroughputExceededException").shard("shardId-000000000000");
    let throttle = aws.faults().add(throttle);
    let producer = builder(&aws, config()).build().await.unwrap();
    let record = |hash_key| {
        UserRecord::new("k", vec![1; 4000]).with_explicit_hash_key(HashKey::new(hash_key))
    };
    let mut stuck = Vec::new();
    loop {
        match producer.try_send(record(0)) {
            Ok(delivery) => stuck.push(delivery),
            Err(SendError::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    // Half of the buffer is the hot shard's; one more of its records waits, and the other shard goes on.
    assert!(producer.buffered_bytes() <= BOUND / 2);
    let one_more = tokio::spawn({
        let (producer, record) = (producer.clone(), record(0));
        async move { producer.send(record).await.unwrap().await.unwrap() }
    });
    for _ in 0..100 {
        producer.send(record(u128::MAX)).await.unwrap().await.unwrap();
    }
    assert!(!one_more.is_finished());
    aws.faults().remove(throttle);
    for delivery in stuck {
        delivery.await.unwrap();
    }
    one_more.await.unwrap();
}

#[tokio::test]
async fn a_sender_that_gives_up_leaves_nothing_behind() {
    let aws = stream(1).await;
    let producer = builder(&aws, config()).build().await.unwrap();
    let stall = aws.faults().add(Fault::refuse_entry("ProvisionedThroughputExceededException"));
    let record = |size| UserRecord::new("k", vec![1; size]);
    let mut held = Vec::new();
    while let Ok(delivery) = producer.try_send(record(30_000)) {
        held.push(delivery);
    }
    let buffered = producer.buffered_bytes();
    let mut gives_up = Box::pin(producer.send(record(200_000)));
    assert!(futures::poll!(&mut gives_up).is_pending());
    let mut stays = Box::pin(producer.send(record(10_000)));
    assert!(futures::poll!(&mut stays).is_pending());
    assert_eq!(producer.buffered_bytes(), buffered, "a waiting send holds nothing");
    drop(gives_up);
    aws.faults().remove(stall);
    stays.await.unwrap().await.unwrap();
    for delivery in held {
        delivery.await.unwrap();
    }
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test]
async fn a_large_record_gets_its_room_in_the_end() {
    let aws = stream(2).await;
    let producer = builder(&aws, config()).build().await.unwrap();
    // Nearly the whole buffer: only possible once its shard holds nothing.
    let large =
        UserRecord::new("k", vec![1; BOUND - 10_000]).with_explicit_hash_key(HashKey::new(0));
    let mut small = Vec::new();
    for id in 0..50_u128 {
        let record =
            UserRecord::new("k", vec![1; 4000]).with_explicit_hash_key(HashKey::new(id << 122));
        small.push(producer.send(record).await.unwrap());
    }
    producer.send(large).await.unwrap().await.unwrap();
    for delivery in small {
        delivery.await.unwrap();
    }
    assert!(producer.peak_buffered_bytes() <= BOUND);
}
