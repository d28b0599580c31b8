//! Readers that know nothing of each other, on one shard with the service's limits.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_kinesis::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;

use super::*;

/// Counts the answers to the reads, and those that are refusals.
#[derive(Debug, Default)]
struct Answers {
    all: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Clone)]
struct Count(Arc<Answers>);

impl Intercept for Count {
    fn name(&self) -> &'static str {
        "Count"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let refused = context.response().status().as_u16() != 200;
        self.0.all.fetch_add(1, Ordering::Relaxed);
        self.0.refused.fetch_add(u64::from(refused), Ordering::Relaxed);
        Ok(())
    }
}

struct Shared {
    paused: Paused,
    answers: Arc<Answers>,
}

impl Shared {
    async fn start() -> Self {
        Self { paused: Paused::with(|aws| aws.shard_limits(true)).await, answers: Arc::default() }
    }

    async fn readers(&self, idle: Duration, position: Position) -> Vec<Reader> {
        let counted = self.paused.client();
        let counted = counted.config().to_builder();
        let counted = counted.interceptor(Count(Arc::clone(&self.answers)));
        let counted = Client::from_conf(counted.build());
        let mut readers = Vec::new();
        for seed in 0..3 {
            let config = ConsumerConfig::default().with_idle_time_between_reads(idle);
            let clock = Arc::clone(&self.paused.clock);
            let mut reader = Reader::with(&counted, SHARD, position.clone(), config, clock).await;
            reader.polling.pacer = Pacer::new(idle, Rng::with_seed(seed));
            readers.push(reader);
        }
        readers
    }

    fn count(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.answers.all), of(&self.answers.refused))
    }
}

#[tokio::test(start_paused = true)]
async fn three_readers_at_the_tip_are_hardly_ever_throttled() {
    for (idle, most) in [(1000, 0.0), (200, 0.02)] {
        let shared = Shared::start().await;
        let readers = shared.readers(Duration::from_millis(idle), Position::Latest);
        let readers: Vec<_> = readers
            .await
            .into_iter()
            .map(|mut reader| tokio::spawn(async move { reader.read(1).await }))
            .collect();
        tokio::time::sleep(Duration::from_secs(120)).await;
        let warm = shared.count();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let (all, refused) = shared.count();
        let (all, refused) = ((all - warm.0) as f64, (refused - warm.1) as f64);
        assert!(all > 1500.0, "{all}");
        assert!(refused <= most * all, "{refused} of {all} at {idle} ms");
        shared.paused.put(0..1).await;
        for reader in readers {
            assert_eq!(reader.await.unwrap(), numbers(0..1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn three_readers_that_catch_up_get_fair_shares() {
    const RECORDS: u32 = 120;
    let shared = Shared::start().await;
    for number in 0..RECORDS {
        put_by(&shared.paused.client(), number..number + 1, 100_000).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let started = shared.paused.clock.now();
    let readers = shared.readers(Duration::from_secs(1), Position::TrimHorizon);
    let readers = readers.await.into_iter().map(|mut reader| {
        let clock = Arc::clone(&shared.paused.clock);
        async move {
            assert_eq!(reader.read(RECORDS as usize).await, numbers(0..RECORDS));
            clock.now() - started
        }
    });
    let mut took = futures::future::join_all(readers).await;
    took.sort();
    // 36 MB at 2 MiB a second, and the time to find the shares.
    assert!(took[2] < Duration::from_secs(60), "{took:?}");
    assert!(took[0] > took[2] / 3, "{took:?}");
    let (all, refused) = shared.count();
    assert!(refused * 5 < all, "{refused} of {all}, warm-up included");
}
