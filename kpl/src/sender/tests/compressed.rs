//! Compression that takes long: on other threads, and in the order of the records.

use kinesis_aggregation::{Decoded, Decoder};

use super::*;
use crate::config::Compression;

/// Data that zstd is busy with.
fn text(size: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(size as u64);
    let words = std::iter::repeat_with(|| format!("{:x} ", rng.u16(..)));
    words.take(size / 5).collect()
}

fn config(level: i32) -> ProducerConfig {
    ProducerConfig {
        compression: Compression::Zstd { level },
        record_max_buffered_time: Duration::from_secs(1),
        ..Default::default()
    }
}

// Paused time would not advance beside a task that is never idle.
#[tokio::test]
async fn other_tasks_have_their_turns_while_aggregates_are_compressed() {
    let turn = Arc::new(AtomicU64::new(0));
    let last = Arc::new(AtomicU64::new(0));
    let (counted, noted) = (Arc::clone(&turn), Arc::clone(&last));
    let service = Scripted::new(move |_, entries| {
        noted.store(counted.load(Ordering::Relaxed), Ordering::Relaxed);
        all_written(entries)
    });
    let producer = producer(service, config(12)).await;
    let other = tokio::spawn(async move {
        loop {
            turn.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let data = text(10_000);
    for _ in 0..100 {
        drop(send(&producer, 0, &data).await);
    }
    producer.flush().await;
    other.abort();
    let stats = producer.stats();
    assert!(stats.aggregates >= 20 && stats.kinesis_bytes < 600_000);
    // At most so many aggregates are compressed at a time. Other tasks run between them.
    let turns = last.load(Ordering::Relaxed);
    assert!(turns > 2, "{turns}");
}

#[tokio::test(start_paused = true)]
async fn what_is_compressed_long_keeps_its_place() {
    for ordering in [RecordOrdering::BestEffort, RecordOrdering::PerPartitionKey] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let service = Scripted::new(move |_, entries| {
            for entry in entries {
                match Decoder::new(1 << 24).decode(entry.data.clone()).unwrap() {
                    Decoded::Aggregate(aggregate) => {
                        lock(&noted).extend(aggregate.iter().map(|member| member.data_bytes()));
                    }
                    _ => lock(&noted).push(entry.data.clone()),
                }
            }
            all_written(entries)
        });
        let config = ProducerConfig { ordering, ..config(12) };
        let producer = producer(service, config).await;
        let mut sent = Vec::new();
        for round in 0..20 {
            // Aggregates that fill up, and then a raw record, which closes what is open and is not compressed.
            for number in 0..7 {
                sent.push(format!("{round}/{number} {}", text(10_000)));
                drop(send(&producer, 0, sent.last().unwrap()).await);
            }
            sent.push(format!("{round}"));
            let raw = UserRecord::raw("k", sent.last().unwrap().clone());
            let raw = raw.with_explicit_hash_key(HashKey::MIN);
            drop(producer.send(raw).await.unwrap());
        }
        producer.flush().await;
        assert_eq!(*lock(&seen), sent);
    }
}

#[test]
fn aggregates_go_out_as_they_are_while_no_thread_is_free() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true);
    let runtime = runtime.max_blocking_threads(1).build().unwrap();
    // Dropped first: the thread is free then, and the runtime can end.
    let (_release, released) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        drop(tokio::task::spawn_blocking(move || released.recv()));
        let service = Scripted::new(|_, entries| all_written(entries));
        let producer = producer(service, config(12)).await;
        let began = clock::now();
        let mut deliveries = Vec::new();
        for _ in 0..20 {
            deliveries.push(send(&producer, 0, &text(10_000)).await);
        }
        let all = tokio::spawn(futures::future::try_join_all(deliveries));
        // Paused time does not advance by itself while a thread for blocking work is busy.
        while !all.is_finished() {
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        all.await.unwrap().unwrap();
        // Open aggregates are sealed when the others have been sent.
        assert!(began.elapsed() < Duration::from_secs(15));
    });
}

#[tokio::test]
async fn halves_of_an_aggregate_are_compressed() {
    let not_compressed = Arc::new(AtomicU64::new(0));
    let halves = Arc::new(AtomicU64::new(0));
    let (counted, seen) = (Arc::clone(&not_compressed), Arc::clone(&halves));
    let service = Scripted::new(move |_, entries| {
        for entry in entries {
            let Ok(Decoded::Aggregate(aggregate)) =
                Decoder::new(1 << 24).decode(entry.data.clone())
            else {
                continue;
            };
            // Below this size zstd does not leave the thread.
            if aggregate.len() > 1 {
                seen.fetch_add(1, Ordering::Relaxed);
                let is_plain = entry.data.starts_with(&[0xF3, 0x89, 0x9A, 0xC2]);
                counted.fetch_add(is_plain.into(), Ordering::Relaxed);
            }
            if aggregate.len() > 2 {
                return (QUICK, Err(refused_request("ValidationException")));
            }
        }
        all_written(entries)
    });
    let producer = producer(service, config(12)).await;
    let mut deliveries = Vec::new();
    for _ in 0..5 {
        deliveries.push(send(&producer, 0, &text(10_000)).await);
    }
    all_delivered(deliveries).await;
    assert!(halves.load(Ordering::Relaxed) >= 3);
    assert_eq!(not_compressed.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn records_expire_while_they_wait_for_their_compression() {
    let service = Scripted::new(|_, entries| {
        let outcomes = entries.iter().map(|_| refused("InternalFailure"));
        (QUICK, Ok(outcomes.collect()))
    });
    let config = ProducerConfig {
        record_ttl: Duration::from_millis(1),
        record_max_buffered_time: Duration::ZERO,
        ..config(12)
    };
    let producer = producer(service, config).await;
    let data = text(10_000);
    let mut deliveries = Vec::new();
    for _ in 0..50 {
        deliveries.push(send(&producer, 0, &data).await);
    }
    for delivery in deliveries {
        let error = delivery.await.unwrap_err();
        assert_eq!(error.record().unwrap().data(), data.as_bytes());
    }
    assert_eq!(producer.buffered_bytes(), 0);
}
