//! Digests of aggregates are added when a request is built. [`Scripted`] checks each aggregate of every request, here and
//! in all other tests.

use super::*;
use crate::config::Compression;

/// Number of members of each plain aggregate that was sent, and where its data lies in memory.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(usize, usize)>>>);

impl Seen {
    fn note(&self, entries: &[Entry]) {
        for entry in entries {
            if let Ok(Decoded::Aggregate(aggregate)) =
                Decoder::new(1 << 24).decode(entry.data.clone())
                && !aggregate.is_compressed()
            {
                lock(&self.0).push((aggregate.len(), entry.data.as_ptr() as usize));
            }
        }
    }

    fn sizes(&self) -> Vec<usize> {
        lock(&self.0).iter().map(|(members, _)| *members).collect()
    }
}

async fn send_all(producer: &Producer, data: impl IntoIterator<Item = String>) {
    let mut deliveries = Vec::new();
    for data in data {
        deliveries.push(send(producer, 0, &data).await);
    }
    all_delivered(deliveries).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_sent_again_is_not_hashed_again() {
    let (seen, calls) = (Seen::default(), AtomicU64::new(0));
    let noted = seen.clone();
    let service = Scripted::new(move |_, entries| {
        noted.note(entries);
        let outcomes = |code| entries.iter().map(|_| refused(code)).collect();
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => (QUICK, Ok(outcomes("ProvisionedThroughputExceededException"))),
            1 => (QUICK, Ok(outcomes("InternalFailure"))),
            2 => (QUICK, Err(unreachable())),
            _ => all_written(entries),
        }
    });
    let producer = producer(service, ProducerConfig::default()).await;
    send_all(&producer, (0..20).map(|id| id.to_string())).await;
    // The digest stands behind the message in the same buffer. Adding it again would copy what a request still holds.
    let (_, place) = lock(&seen.0)[0];
    assert_eq!(*lock(&seen.0), [(20, place); 4]);
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_split_aggregate_are_whole() {
    let seen = Seen::default();
    let noted = seen.clone();
    let service = Scripted::new(move |_, entries| {
        noted.note(entries);
        // Each aggregate is split down to its members.
        match entries.iter().any(looks_aggregated) {
            true => (QUICK, Err(refused_request("ValidationException"))),
            false => all_written(entries),
        }
    });
    let producer = producer(service, ProducerConfig::default()).await;
    send_all(&producer, (0..16).map(|id| id.to_string())).await;
    let sizes = seen.sizes();
    assert!([16, 8, 4, 2].iter().all(|size| sizes.contains(size)), "{sizes:?}");
}

fn looks_aggregated(entry: &Entry) -> bool {
    looks_framed(&entry.data)
}

#[tokio::test]
async fn aggregates_that_compression_makes_no_smaller_are_whole() {
    let mut rng = fastrand::Rng::with_seed(7);
    let noise: Vec<Vec<u8>> =
        (0..20).map(|_| std::iter::repeat_with(|| rng.u8(..)).take(10_000).collect()).collect();
    // At once, and as a job of another thread.
    for level in [1, 12] {
        let seen = Seen::default();
        let noted = seen.clone();
        let service = Scripted::new(move |_, entries| {
            noted.note(entries);
            all_written(entries)
        });
        let compression = Compression::Zstd { level };
        let config = ProducerConfig { compression, ..Default::default() };
        let producer = producer(service, config).await;
        let mut deliveries = Vec::new();
        for data in &noise {
            let record = UserRecord::new("k", data.clone());
            deliveries.push(producer.send(record).await.unwrap());
        }
        all_delivered(deliveries).await;
        assert_eq!(seen.sizes().iter().sum::<usize>(), noise.len());
        assert!(seen.sizes().contains(&5), "{:?}", seen.sizes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_record_that_looks_like_an_aggregate_is_wrapped_in_a_whole_one() {
    let seen = Seen::default();
    let noted = seen.clone();
    let service = Scripted::new(move |_, entries| {
        noted.note(entries);
        all_written(entries)
    });
    let producer = producer(service, ProducerConfig::default()).await;
    let record = UserRecord::new("k", &b"\xf3\x89\x9a\xc2 and no aggregate"[..]);
    producer.send(record).await.unwrap().await.unwrap();
    assert_eq!(seen.sizes(), [1]);
}
