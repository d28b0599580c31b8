//! A waker is code of the caller and may send, so no waker is called while a queue is locked.

use std::sync::atomic::AtomicUsize;
use std::task::{Context, Wake, Waker};

use super::*;
use crate::config::RecordOrdering;

/// Looks at the queues whenever it is called.
struct Looks {
    producer: Producer,
    calls: AtomicUsize,
    saw_locked: AtomicBool,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let locked = self.producer.shards().table().intakes().any(|intake| intake.is_locked());
        self.saw_locked.fetch_or(locked, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
    }
}

impl Looks {
    fn at(producer: &Producer) -> Arc<Self> {
        Arc::new(Self {
            producer: producer.clone(),
            calls: AtomicUsize::new(0),
            saw_locked: AtomicBool::new(false),
        })
    }

    /// Polls a future that is not ready yet.
    fn wait_for(self: &Arc<Self>, future: &mut (impl Future + Unpin)) {
        let waker = Waker::from(Arc::clone(self));
        let polled = future.poll_unpin(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }

    #[track_caller]
    fn check(&self, calls: usize) {
        assert_eq!(self.calls.load(Ordering::SeqCst), calls);
        assert!(!self.saw_locked.load(Ordering::SeqCst));
    }
}

fn record(data: usize) -> UserRecord {
    UserRecord::new("k", vec![b'x'; data]).with_explicit_hash_key(HashKey::MIN)
}

fn stalled() -> Arc<Scripted> {
    Scripted::new(|_, entries| {
        let answer = entries.iter().map(written).collect();
        (Duration::from_secs(3600), Ok(answer))
    })
}

fn config() -> ProducerConfig {
    ProducerConfig {
        max_buffered_bytes: 64 * 1024,
        record_max_buffered_time: Duration::from_secs(1000),
        record_ttl: Duration::from_secs(10_000),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_permit_gives_back_wakes_when_the_queue_is_free() {
    let producer = producer(stalled(), config()).await;
    // The first opens an aggregate, the second joins it.
    for _ in 0..2 {
        let permit = producer.reserve(50_000).await.unwrap();
        let mut waits = Box::pin(producer.reserve(40_000));
        let looks = Looks::at(&producer);
        looks.wait_for(&mut waits);
        drop(permit.send(record(10)).unwrap());
        looks.check(1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_wakes_when_the_lanes_are_free() {
    let service = Scripted::new(|_, entries| {
        let refuse = |_| refused("KMSDisabledException");
        (QUICK, Ok(entries.iter().map(refuse).collect()))
    });
    let config = ProducerConfig {
        ordering: RecordOrdering::PerPartitionKey,
        aggregation_enabled: false,
        ..config()
    };
    let producer = producer(service, config).await;
    let mut fails = producer.try_send(record(20_000)).unwrap();
    let mut waits = Box::pin(producer.send(record(20_000)));
    let mut flushes = Box::pin(producer.flush());
    let looks = Looks::at(&producer);
    looks.wait_for(&mut fails);
    looks.wait_for(&mut waits);
    looks.wait_for(&mut flushes);
    while producer.stats().user_records_failed == 0 {
        tokio::time::sleep(QUICK).await;
    }
    looks.check(3);
}
