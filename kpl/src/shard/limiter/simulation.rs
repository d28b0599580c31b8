//! Producers that share one throttled shard, in simulated time: seeded, hours in milliseconds.
//!
//! What comes of the constants of the limiter, over 24 seeds: refused part of the attempts; share of the slowest
//! producer, as a part of the mean share (the median, and the least of all seeds); after which warm-up. Records of 50
//! KiB and more live for 5 minutes in the fleets of 50 and more.
//!
//! | producers | 100 B | 50 KiB |
//! |---|---|---|
//! | 8 | 1 %; 0.94, 0.89; 2 minutes | 2 %; 0.76, 0.59; 2 minutes |
//! | 50 | 3 %; 0.59, 0.48; 2 minutes | 5 %; 0.55, 0.46; 10 minutes |
//! | 200 | 5 %; 0.69, 0.61; 2 minutes | 8 %; 0.72, 0.54; 20 minutes |
//! | 1,000 | 9 %; 0.58, 0.48; 4 minutes | 10 %; 0.57, 0.50; 5 hours |
//!
//! Ten hours after the start, the slowest of 200 producers of 50 KiB has 0.55, 0.50 (8 seeds).
//!
//! If 200 producers of 50 KiB become 10, these use the shard after 15 minutes. A single one that is left needs 20 to
//! 25, and 50 of 1,000 need 30 to 45. One of them takes most of the shard at first. After an hour, the slowest usually
//! still has less than a tenth of its fair share. If 1,000 producers of 100 B become 50, these use the shard after 3
//! minutes, and the slowest has 0.59, 0.32 after 15.
//!
//! A producer learns of its share from refusals alone. If its fair share is one record in 50 seconds and a tenth of its
//! attempts are refused, there is one refusal in 8 minutes. That is why the last warm-up is so long.
//!
//! The shard has the buckets of Kinesis: 1,000 records and 1 MiB, refilled each second. Each producer has more to send
//! than it ever may, and collects and sends as the sender does. Round trips take 10 to 60 ms, by chance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::clock;

const MILLI: u64 = 1000;
const SECOND: u64 = 1000 * MILLI;

/// How finely the outcome is recorded, in seconds.
const WINDOW: u64 = 10;

/// The shard as Kinesis has it: two buckets of one second; a refused entry costs nothing.
struct Shard {
    records: TokenBucket,
    bytes: TokenBucket,
}

impl Shard {
    fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        self.records.fill(now);
        self.bytes.fill(now);
        let cost = bytes as f64;
        let admitted = self.records.wait_for(1.0).is_zero() && self.bytes.wait_for(cost).is_zero();
        if admitted {
            self.records.tokens -= 1.0;
            self.bytes.tokens -= cost;
        }
        admitted
    }
}

/// A producer with an endless backlog of records of one size.
struct Sim {
    limiter: ShardLimiter,
    size: usize,
    in_flight: usize,
    /// When it last began a request, in microseconds.
    last_sent: u64,
}

enum Event {
    /// A producer checks whether it may send.
    Look,
    /// A request reaches the shard.
    Arrives { sent: u64, count: usize, rtt: u64 },
    /// Its answer reaches the producer.
    Answered { sent: u64, written: usize, refused: usize },
}

struct Host {
    /// The size of its records.
    size: usize,
    /// When it begins and when it ends, in seconds.
    begins: u64,
    ends: u64,
}

struct Scenario {
    producers: Vec<Host>,
    time_to_live: Duration,
    /// In seconds.
    length: u64,
}

impl Scenario {
    fn new(sizes: &[usize], length: u64) -> Self {
        Self {
            producers: sizes
                .iter()
                .map(|size| Host { size: *size, begins: 0, ends: u64::MAX })
                .collect(),
            // Where the fair share is less than a record in 10 s, records must live for long.
            time_to_live: match sizes.len() {
                0..50 => Duration::from_secs(30),
                _ => Duration::from_secs(300),
            },
            length,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    written: u64,
    refused: u64,
}

/// Entries written and refused of each producer, in windows of [`WINDOW`] seconds.
struct Outcome {
    windows: Vec<Vec<Counts>>,
    sizes: Vec<usize>,
}

/// What came of it in a range of time.
struct Measures {
    /// Each producer's share of the shard: of its records or its bytes, whichever is more.
    shares: Vec<f64>,
    /// Of all entries sent.
    refused: f64,
    utilisation: f64,
}

impl Measures {
    /// The least share of some producers, as a part of their mean.
    fn slowest(&self) -> f64 {
        slowest(&self.shares)
    }
}

impl std::fmt::Display for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the slowest got {:.2} of the fair share, {:.4} refused, {:.2} used",
            self.slowest(),
            self.refused,
            self.utilisation
        )
    }
}

fn slowest(shares: &[f64]) -> f64 {
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    shares.iter().copied().fold(f64::MAX, f64::min) / mean
}

impl Outcome {
    fn between(&self, from: u64, to: u64) -> Measures {
        let seconds = (to - from) as f64;
        let windows = &self.windows[(from / WINDOW) as usize..(to / WINDOW) as usize];
        let mut totals = vec![Counts::default(); self.sizes.len()];
        for window in windows {
            for (total, counts) in totals.iter_mut().zip(window) {
                total.written += counts.written;
                total.refused += counts.refused;
            }
        }
        let records = totals.iter().map(|t| t.written as f64 / SHARD_RECORDS_PER_SECOND);
        let bytes = (totals.iter().zip(&self.sizes))
            .map(|(t, size)| (t.written * *size as u64) as f64 / SHARD_BYTES_PER_SECOND);
        let (written, refused) =
            totals.iter().fold((0, 0), |(w, r), t| (w + t.written, r + t.refused));
        Measures {
            utilisation: records.clone().sum::<f64>().max(bytes.clone().sum()) / seconds,
            shares: records
                .zip(bytes)
                .map(|(records, bytes)| records.max(bytes) / seconds)
                .collect(),
            refused: refused as f64 / (written + refused) as f64,
        }
    }
}

fn run(scenario: &Scenario, seed: u64) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let start = clock::now();
    let at = |micros: u64| start + Duration::from_micros(micros);
    let mut shard = Shard {
        records: TokenBucket::new(SHARD_RECORDS_PER_SECOND, SHARD_RECORDS_PER_SECOND, start),
        bytes: TokenBucket::new(SHARD_BYTES_PER_SECOND, SHARD_BYTES_PER_SECOND, start),
    };
    let count = scenario.producers.len();
    let mut windows =
        vec![vec![Counts::default(); count]; scenario.length.div_ceil(WINDOW) as usize];
    let mut events = BinaryHeap::new();
    let mut bodies = Vec::new();
    let mut producers = Vec::new();
    let push = |events: &mut BinaryHeap<_>, bodies: &mut Vec<_>, when: u64, who: usize, event| {
        bodies.push(Some(event));
        events.push(Reverse((when, bodies.len() - 1, who)));
    };
    for (who, host) in scenario.producers.iter().enumerate() {
        let begin = host.begins * SECOND + rng.u64(0..100 * MILLI);
        producers.push(Sim {
            limiter: ShardLimiter::new(150, scenario.time_to_live, at(begin)),
            size: host.size,
            in_flight: 0,
            last_sent: 0,
        });
        push(&mut events, &mut bodies, begin, who, Event::Look);
    }
    while let Some(Reverse((micros, body, who))) = events.pop() {
        if micros >= scenario.length * SECOND {
            break;
        }
        let now = at(micros);
        let producer = &mut producers[who];
        match bodies[body].take().expect("an event happens once") {
            Event::Look if micros / SECOND >= scenario.producers[who].ends => {}
            Event::Look => {
                // A request that is not full waits for company while another is in flight.
                let due = producer.last_sent + 20 * MILLI;
                if producer.in_flight > 0 && micros < due {
                    push(&mut events, &mut bodies, due, who, Event::Look);
                    continue;
                }
                let mut count = 0;
                let mut next = micros + 20 * MILLI;
                while count < 500 && (count + 1) * producer.size <= 5 << 20 {
                    if let Err(ready) = producer.limiter.take(producer.size, now) {
                        next = next.max((ready - start).as_micros() as u64 + 1);
                        break;
                    }
                    count += 1;
                }
                push(&mut events, &mut bodies, next, who, Event::Look);
                if count > 0 {
                    producer.in_flight += 1;
                    producer.last_sent = micros;
                    let rtt = rng.u64(10 * MILLI..60 * MILLI);
                    let event = Event::Arrives { sent: micros, count, rtt };
                    push(&mut events, &mut bodies, micros + rtt / 2, who, event);
                }
            }
            Event::Arrives { sent, count, rtt } => {
                let written = (0..count).filter(|_| shard.admits(producer.size, now)).count();
                let refused = count - written;
                let counts = &mut windows[(micros / SECOND / WINDOW) as usize][who];
                counts.written += written as u64;
                counts.refused += refused as u64;
                let event = Event::Answered { sent, written, refused };
                push(&mut events, &mut bodies, sent + rtt, who, event);
            }
            Event::Answered { sent, written, refused } => {
                producer.in_flight -= 1;
                for _ in 0..written {
                    producer.limiter.served(now);
                }
                if refused > 0 {
                    producer.limiter.throttled(at(sent), now, &mut rng);
                }
            }
        }
    }
    Outcome { windows, sizes: scenario.producers.iter().map(|host| host.size).collect() }
}

/// Eight producers: none is starved, few entries are refused, and the shard is used.
fn assert_shared(name: &str, size: usize, begins: [u64; 8]) {
    for seed in 0..3 {
        let mut scenario = Scenario::new(&[size; 8], 360);
        for (producer, begin) in scenario.producers.iter_mut().zip(begins) {
            producer.begins = begin;
        }
        let outcome = run(&scenario, seed).between(120, 360);
        let all = format!("{name}, seed {seed}: {outcome}");
        assert!(outcome.slowest() >= 0.5, "{all}");
        assert!(outcome.refused < 0.05, "{all}");
        assert!(outcome.utilisation > 0.9, "{all}");
    }
}

const AT_ONCE: [u64; 8] = [0; 8];
const LATE: [u64; 8] = [0, 0, 0, 0, 20, 40, 60, 90];

#[test]
fn small_records_share_the_records_of_a_shard() {
    assert_shared("100 B", 100, AT_ONCE);
    assert_shared("100 B, late", 100, LATE);
}

#[test]
fn aggregates_and_large_records_share_its_bytes() {
    for (name, size) in [("5 KiB", 5 << 10), ("50 KiB", 50 << 10), ("100 KiB", 100 << 10)] {
        assert_shared(name, size, AT_ONCE);
        assert_shared(&format!("{name}, late"), size, LATE);
    }
}

#[test]
fn producers_that_use_its_records_and_producers_that_use_its_bytes_share_it() {
    let sizes: [usize; 8] = std::array::from_fn(|who| if who % 2 == 0 { 100 } else { 50 << 10 });
    for seed in 0..3 {
        let outcome = run(&Scenario::new(&sizes, 360), seed).between(120, 360);
        assert!(outcome.refused < 0.05, "{outcome}");
        for kind in 0..2 {
            let shares: Vec<_> = outcome.shares.iter().copied().skip(kind).step_by(2).collect();
            assert!(slowest(&shares) >= 0.45, "{shares:?}");
        }
    }
}

const SMALL: usize = 100;
const AGGREGATE: usize = 50 << 10;
const MINUTE: u64 = 60;

/// A fleet that starts at once: few attempts are refused after the warm-up, the shard is used, and the slowest producer
/// has a part of its fair share.
fn assert_fleet(producers: usize, size: usize, warm_up: u64, measured: u64, least: f64) {
    for seed in 0..if producers < 1000 { 2 } else { 1 } {
        let scenario = Scenario::new(&vec![size; producers], warm_up + measured);
        let outcome = run(&scenario, seed).between(warm_up, warm_up + measured);
        let all = format!("{producers} producers of {size} B, seed {seed}: {outcome}");
        assert!(outcome.refused < 0.1, "{all}");
        assert!(outcome.slowest() >= least, "{all}");
        assert!(outcome.utilisation > 0.97, "{all}");
    }
}

#[test]
fn a_fleet_shares_the_records_of_a_shard() {
    assert_fleet(50, SMALL, 2 * MINUTE, 4 * MINUTE, 0.5);
    assert_fleet(200, SMALL, 2 * MINUTE, 4 * MINUTE, 0.5);
    assert_fleet(1000, SMALL, 4 * MINUTE, 4 * MINUTE, 0.4);
}

#[test]
fn a_fleet_shares_the_bytes_of_a_shard() {
    assert_fleet(50, AGGREGATE, 10 * MINUTE, 20 * MINUTE, 0.45);
    assert_fleet(200, AGGREGATE, 20 * MINUTE, 20 * MINUTE, 0.5);
    // The rates of a large fleet drift apart slowly, if they do.
    assert_fleet(200, AGGREGATE, 300 * MINUTE, 20 * MINUTE, 0.5);
    assert_fleet(1000, AGGREGATE, 300 * MINUTE, 60 * MINUTE, 0.4);
}

#[test]
fn the_rest_of_a_fleet_soon_uses_the_shard() {
    // From when on, in seconds after most producers have ended.
    for (before, after, size, ends, from) in [
        (200, 10, AGGREGATE, 40 * MINUTE, 15 * MINUTE),
        (200, 1, AGGREGATE, 40 * MINUTE, 20 * MINUTE),
        (1000, 50, SMALL, 5 * MINUTE, 3 * MINUTE),
    ] {
        for seed in 0..2 {
            let until = ends + from + 10 * MINUTE;
            let mut scenario = Scenario::new(&vec![size; before], until);
            for host in &mut scenario.producers[after..] {
                host.ends = ends;
            }
            let measured = run(&scenario, seed).between(ends + from, until);
            let all = format!("{after} of {before} producers of {size} B, seed {seed}: {measured}");
            assert!(measured.utilisation > 0.9, "{all}");
            assert!(measured.refused < 0.1, "{all}");
        }
    }
}

#[test]
fn a_producer_that_joins_a_busy_fleet_finds_its_share() {
    // From when on it has at most so many fair shares, and at least half of one.
    for (size, joins, bounds) in [
        (SMALL, 2 * MINUTE, [(MINUTE, 4.0), (3 * MINUTE, 2.5)]),
        (AGGREGATE, 40 * MINUTE, [(10 * MINUTE, 6.0), (60 * MINUTE, 4.0)]),
    ] {
        for seed in 0..2 {
            let length = joins + 2 * bounds[1].0;
            let mut scenario = Scenario::new(&vec![size; 201], length);
            scenario.producers[200].begins = joins;
            let outcome = run(&scenario, seed);
            for (after, most) in bounds {
                let measured = outcome.between(joins + after, joins + 2 * after);
                let mean = measured.shares.iter().sum::<f64>() / 201.0;
                let share = measured.shares[200] / mean;
                let all =
                    format!("{size} B, seed {seed}, after {after} s: {share:.2} of {measured}");
                assert!(share >= 0.5 && share <= most, "{all}");
                assert!(measured.refused < 0.1 && measured.slowest() > 0.35, "{all}");
            }
        }
    }
}
