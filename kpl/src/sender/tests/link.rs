//! A slow link, and an outage on it: the producer is back to normal as soon as the link allows.
//!
//! The link carries a number of bytes a second and shares them equally among the requests in flight, as TCP does on the
//! whole. A request that is not through within its time limit fails, and what was carried of it is wasted.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;

const TICK: Duration = Duration::from_millis(5);
const ROUND_TRIP: Duration = Duration::from_millis(20);
const OUTAGE: Duration = Duration::from_secs(25);
/// When the outage begins.
const BEGINS: Duration = Duration::from_secs(10);
/// A record that is acknowledged within this time was not held up.
const NORMAL: Duration = Duration::from_secs(1);

/// Bytes of a record on the wire: its data as base64, and its part of the JSON.
fn wire_bytes(entries: &[Entry]) -> f64 {
    let entry = |entry: &Entry| entry.data.len().div_ceil(3) * 4 + entry.partition_key.len() + 100;
    (entries.iter().map(entry).sum::<usize>() + 1000) as f64
}

struct Transfer {
    left: f64,
    carried: f64,
    arrived: oneshot::Sender<()>,
}

#[derive(Default)]
struct Traffic {
    transfers: BTreeMap<u64, Transfer>,
    next: u64,
    /// Bytes of requests that arrived, and of those that were cut off.
    useful: f64,
    wasted: f64,
}

impl Traffic {
    /// Carries `budget` bytes, in equal shares.
    fn carry(&mut self, mut budget: f64) {
        while budget > 1.0 && !self.transfers.is_empty() {
            let share = budget / self.transfers.len() as f64;
            let mut arrived = Vec::new();
            for (id, transfer) in &mut self.transfers {
                let part = transfer.left.min(share);
                transfer.left -= part;
                transfer.carried += part;
                budget -= part;
                if transfer.left <= 0.0 {
                    arrived.push(*id);
                }
            }
            if arrived.is_empty() {
                break;
            }
            for id in arrived {
                if let Some(transfer) = self.transfers.remove(&id) {
                    self.useful += transfer.carried;
                    let _ = transfer.arrived.send(());
                }
            }
        }
    }
}

struct Link {
    traffic: Arc<Mutex<Traffic>>,
    shards: u32,
    started: Instant,
}

impl Link {
    fn new(bytes_per_second: f64, shards: u32) -> Arc<Self> {
        let traffic = Arc::new(Mutex::new(Traffic::default()));
        let (carrier, started) = (Arc::downgrade(&traffic), clock::now());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            while let Some(traffic) = carrier.upgrade() {
                let passed = ticks.tick().await.saturating_duration_since(started);
                if !(BEGINS..BEGINS + OUTAGE).contains(&passed) {
                    lock(&traffic).carry(bytes_per_second * TICK.as_secs_f64());
                }
            }
        });
        Arc::new(Self { traffic, shards, started })
    }

    fn shard_of(&self, entry: &Entry) -> String {
        let width = u128::MAX / u128::from(self.shards) + 1;
        format!("shard-{:03}", hash_key(entry).get() / width)
    }
}

/// Takes a request off the link when it is given up.
struct Underway(Arc<Mutex<Traffic>>, u64);

impl Drop for Underway {
    fn drop(&mut self) {
        let mut traffic = lock(&self.0);
        if let Some(transfer) = traffic.transfers.remove(&self.1) {
            traffic.wasted += transfer.carried;
        }
    }
}

impl Service for Link {
    fn put_records(&self, entries: Vec<Entry>, limit: Duration) -> BoxFuture<'static, Reply> {
        let (arrived, arrives) = oneshot::channel();
        let mut traffic = lock(&self.traffic);
        let id = traffic.next;
        traffic.next += 1;
        let transfer = Transfer { left: wire_bytes(&entries), carried: 0.0, arrived };
        traffic.transfers.insert(id, transfer);
        let underway = Underway(Arc::clone(&self.traffic), id);
        let outcome = |entry| EntryOutcome::Written {
            shard_id: self.shard_of(entry),
            sequence_number: "1".to_owned(),
        };
        let outcomes = entries.iter().map(outcome).collect();
        async move {
            let _underway = underway;
            match tokio::time::timeout(limit, arrives).await {
                Ok(_) => {
                    tokio::time::sleep(ROUND_TRIP).await;
                    Ok(outcomes)
                }
                Err(_) => Err(CallError::timed_out(limit)),
            }
        }
        .boxed()
    }

    fn list_shards(&self, _: Listing) -> BoxFuture<'static, Result<Vec<Shard>, CallError>> {
        let width = u128::MAX / u128::from(self.shards) + 1;
        let of = |n: u32| {
            let start = width * u128::from(n);
            shard(&format!("shard-{n:03}"), start, start + (width - 1), true)
        };
        let shards: Vec<_> = (0..self.shards).map(of).collect();
        async move { Ok(shards) }.boxed()
    }

    fn describe(&self) -> BoxFuture<'static, Result<StreamDescription, CallError>> {
        let description = StreamDescription {
            status: "ACTIVE".into(),
            is_usable: true,
            max_record_size: None,
            service_places_records: false,
            incarnation: String::new(),
        };
        async move { Ok(description) }.boxed()
    }
}

struct Recovery {
    /// Time from the end of the outage until records are acknowledged as fast as before it.
    after: Duration,
    sent: usize,
    lost: usize,
    /// Bytes that the link carried in vain, for one that it carried well.
    wasted: f64,
}

/// Sends records of `size` bytes that fill `load` of the link, and has an outage in between.
async fn outage(megabits: f64, load: f64, size: usize, lasts: Duration) -> Recovery {
    let bytes_per_second = megabits * 1e6 / 8.0;
    let shards = ((bytes_per_second / 5e5) as u32).next_power_of_two().max(2);
    let link = Link::new(bytes_per_second, shards);
    let config = ProducerConfig { max_buffered_bytes: 128 << 20, ..Default::default() };
    let components = Components { seed: Some(42), ..Default::default() };
    let service = Arc::clone(&link);
    let producer = builder::start("s".into(), service, config, components).await.unwrap();
    let data = Bytes::from(vec![b'x'; size]);
    // The load is what it is on the wire: with the record's part of a request, which has an aggregate of 50 KiB or
    // more.
    let part = (size as f64 / 51_200.0).min(1.0);
    let wire = size as f64 * 4.0 / 3.0 + 100.0 + 1000.0 * part;
    // A sender that waited for room does not make up for it.
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due = 0.0;
    let mut deliveries = Vec::new();
    let mut random = fastrand::Rng::with_seed(7);
    while link.started.elapsed() < BEGINS + OUTAGE + lasts {
        if due < wire {
            ticks.tick().await;
            due += bytes_per_second * load / 100.0;
            continue;
        }
        due -= wire;
        let key = HashKey::new(random.u128(..));
        let record = UserRecord::new("k", data.clone()).with_explicit_hash_key(key);
        let delivery = producer.send(record).await.unwrap();
        let sent = link.started.elapsed();
        deliveries.push(tokio::spawn(async move {
            let began = clock::now();
            (sent, delivery.await.is_ok(), began.elapsed())
        }));
    }
    let end = BEGINS + OUTAGE;
    let (mut normal_from, mut lost, sent) = (end, 0, deliveries.len());
    for delivery in deliveries {
        let (sent, is_delivered, took) = delivery.await.unwrap();
        lost += usize::from(!is_delivered);
        if !is_delivered || took > NORMAL {
            normal_from = normal_from.max(sent);
        }
    }
    let traffic = lock(&link.traffic);
    Recovery { after: normal_from - end, sent, lost, wasted: traffic.wasted / traffic.useful }
}

async fn check(megabits: f64, size: usize, loads: &[f64]) {
    for &load in loads {
        let least = OUTAGE.mul_f64(load / (1.0 - load));
        // A fast link is bound by the memory of the producer: its backlog is smaller.
        let lasts = least.mul_f64(1.2).min(Duration::from_secs(300));
        let lasts = if megabits > 100.0 { lasts.min(Duration::from_secs(60)) } else { lasts };
        let recovery = outage(megabits, load, size, lasts + Duration::from_secs(10)).await;
        let all = format!(
            "{megabits} Mbit/s at a load of {load}: normal after {:?} (the link allows {least:?}), {} of {} records lost, {:.4} of the bytes wasted",
            recovery.after, recovery.lost, recovery.sent, recovery.wasted
        );
        println!("{all}");
        assert!(recovery.after <= lasts, "{all}");
        assert_eq!(recovery.lost, 0, "{all}");
        assert!(recovery.wasted < 0.02, "{all}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_of_2_megabits_recovers_from_an_outage_as_soon_as_its_load_allows() {
    check(2.0, 1 << 10, &[0.1, 0.5, 0.68, 0.9]).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_of_32_megabits_recovers_from_an_outage_as_soon_as_its_load_allows() {
    check(8.0, 5 << 10, &[0.3, 0.9]).await;
    check(32.0, 50 << 10, &[0.1, 0.3, 0.5, 0.68, 0.8, 0.9]).await;
}

#[tokio::test(start_paused = true)]
async fn a_fast_link_recovers_from_an_outage_as_soon_as_its_load_allows() {
    check(200.0, 50 << 10, &[0.3, 0.8]).await;
    check(1000.0, 200 << 10, &[0.1, 0.68, 0.9]).await;
}

/// A backlog goes out at the rate of the link, round trips and all.
#[tokio::test(start_paused = true)]
async fn a_fast_link_is_used_soon() {
    let link = Link::new(1e9 / 8.0, 256);
    let config = ProducerConfig { max_buffered_bytes: 128 << 20, ..Default::default() };
    let service = Arc::clone(&link);
    let producer =
        builder::start("s".into(), service, config, Components::default()).await.unwrap();
    let data = Bytes::from(vec![b'x'; 200 << 10]);
    let mut deliveries = Vec::new();
    for id in 0..256_u128 {
        let key = HashKey::new(id << 120);
        let record = UserRecord::new("k", data.clone()).with_explicit_hash_key(key);
        deliveries.push(producer.send(record).await.unwrap());
    }
    let began = clock::now();
    all_delivered(deliveries).await;
    let wire = 256.0 * (200 << 10) as f64 * 4.0 / 3.0;
    let least = Duration::from_secs_f64(wire / (1e9 / 8.0));
    let took = began.elapsed();
    assert!(took < least + Duration::from_millis(500), "{took:?} for {least:?}");
}
