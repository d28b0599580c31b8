//! Aggregates whose members must travel alone: one after the other, within the memory bound.

use super::*;
use crate::shard::map::ShardMap;

const MEMBERS: usize = 30_000;

/// A sender whose queues are full of aggregates, and the deliveries of their members.
fn full_of_aggregates(service: &Arc<Scripted>) -> (Arc<ShardRouter>, Sender, Vec<Delivery>) {
    let config = ProducerConfig {
        max_requests_in_flight: 1,
        record_ttl: Duration::from_secs(36_000),
        ..Default::default()
    };
    let context = Context::new(config, None, None);
    let shards = ShardRouter::new(Arc::clone(&context), 1 << 20, false);
    shards.install(1, ShardMap::new(lock(&service.shards).clone()));
    let mut sender =
        Sender::new(context, Arc::clone(&shards), Arc::clone(service) as _, 42).unwrap();
    let deliveries = (0..MEMBERS).map(|id| {
        let mut record = UserRecord::new("k", id.to_string()).with_explicit_hash_key(HashKey::MIN);
        let Ok(delivery) = shards.accept(&mut record, HashKey::MIN, &mut None) else {
            panic!("there is room");
        };
        delivery
    });
    let deliveries = deliveries.collect();
    sender.intake(clock::now());
    (shards, sender, deliveries)
}

/// All Kinesis records that the sender holds.
fn held(sender: &Sender) -> usize {
    let waiting: usize = sender.queues.values().map(|queue| queue.waiting.len()).sum();
    let batches = sender.in_flight.values();
    let in_flight: usize = batches.map(|request| request.batch.records.len()).sum();
    let batch = sender.collector.batch();
    waiting + in_flight + sender.backing_off.len() + batch.map_or(0, |(b, _)| b.records.len())
}

#[tokio::test(start_paused = true)]
async fn a_buffer_of_aggregates_is_taken_apart_as_it_is_sent() {
    let gap = vec![shard("high", u128::MAX / 2, u128::MAX, true)];
    for map in [
        ShardMap::new(gap),
        ShardMap::new(vec![shard("all", 0, u128::MAX, true)]).without_prediction(),
    ] {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&sent);
        // Many records are refused at first, so split records wait beside those that are being split.
        let service = Scripted::new(move |_, entries| {
            let mut sent = lock(&noted);
            let outcome = |entry: &Entry| {
                let id: usize = std::str::from_utf8(&entry.data).unwrap().parse().unwrap();
                sent.push(id);
                if sent.len() <= 20_000 { refused("InternalFailure") } else { written(entry) }
            };
            (QUICK, Ok(entries.iter().map(outcome).collect()))
        });
        let (shards, mut sender, deliveries) = full_of_aggregates(&service);
        let aggregates = held(&sender);
        assert!((5..20).contains(&aggregates), "{aggregates}");
        shards.install(2, map);
        sender.intake(clock::now());
        let mut most = 0;
        while sender.context.budget.used() > 0 {
            let next = sender.advance(clock::now());
            most = most.max(held(&sender));
            tokio::select! {
                biased;
                Some(answer) = sender.requests.join_next() => sender.on_answer(answer),
                () = tokio::time::sleep_until(next.unwrap_or_else(clock::now)), if next.is_some() => {}
                else => panic!("nothing is to come"),
            }
        }
        assert!(most > 1000 && most < 6100, "{most} at once");
        for delivery in deliveries {
            assert_eq!(delivery.await.unwrap().sub_sequence_number, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn members_that_leave_their_aggregate_keep_their_order() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&sent);
    let service = Scripted::new(move |_, entries| {
        let data = |entry: &Entry| String::from_utf8(entry.data.to_vec()).unwrap();
        lock(&noted).extend(entries.iter().map(data));
        all_written(entries)
    });
    let (shards, mut sender, deliveries) = full_of_aggregates(&service);
    let gap = vec![shard("high", u128::MAX / 2 + 1, u128::MAX, true)];
    shards.install(2, ShardMap::new(gap));
    sender.intake(clock::now());
    let mut later = UserRecord::new("k", MEMBERS.to_string()).with_explicit_hash_key(HashKey::MIN);
    let Ok(later) = shards.accept(&mut later, HashKey::MIN, &mut None) else {
        panic!("there is room");
    };
    let run = tokio::spawn(async move { sender.run().await });
    later.await.unwrap();
    all_delivered(deliveries).await;
    let all: Vec<_> = (0..=MEMBERS).map(|id| id.to_string()).collect();
    assert_eq!(*lock(&sent), all);
    shards.stop(StopReason::Closed);
    run.await.unwrap();
}
