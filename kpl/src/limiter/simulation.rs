//! Producers that share one throttled shard, in simulated time: seeded, minutes in milliseconds.
//!
//! The shard has the buckets of Kinesis: 1,000 records and 1 MiB, refilled each second. Each producer has more to send than
//! it ever may, and collects and sends as the pipeline does. Round trips take 10 to 60 ms, by chance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::clock;

const PRODUCERS: usize = 8;
const MILLI: u64 = 1000;
const SECOND: u64 = 1000 * MILLI;

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
    written: u64,
    refused: u64,
}

enum Event {
    /// A producer looks whether it may send.
    Look,
    /// A request reaches the shard.
    Arrives { sent: u64, count: usize, rtt: u64 },
    /// Its answer reaches the producer.
    Answered {
        sent: u64,
        written: usize,
        refused: usize,
    },
}

/// What came of it after the warm-up.
struct Outcome {
    /// What each producer got of the shard: of its records or its bytes, whichever is more.
    shares: Vec<f64>,
    /// Of all entries sent.
    refused: f64,
    utilisation: f64,
}

struct Scenario {
    /// The size of each producer's records.
    sizes: [usize; PRODUCERS],
    /// When each begins, in seconds.
    begins: [u64; PRODUCERS],
    warm_up: u64,
    measured: u64,
}

fn run(scenario: &Scenario, seed: u64) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let start = clock::now();
    let at = |micros: u64| start + Duration::from_micros(micros);
    let mut shard = Shard {
        records: TokenBucket::new(SHARD_RECORDS_PER_SECOND, SHARD_RECORDS_PER_SECOND, start),
        bytes: TokenBucket::new(SHARD_BYTES_PER_SECOND, SHARD_BYTES_PER_SECOND, start),
    };
    let mut events = BinaryHeap::new();
    let mut bodies = Vec::new();
    let mut producers = Vec::new();
    let push = |events: &mut BinaryHeap<_>, bodies: &mut Vec<_>, when: u64, who: usize, event| {
        bodies.push(Some(event));
        events.push(Reverse((when, bodies.len() - 1, who)));
    };
    for who in 0..PRODUCERS {
        let begin = scenario.begins[who] * SECOND + rng.u64(0..100 * MILLI);
        producers.push(Sim {
            limiter: ShardLimiter::new(150, at(begin)),
            size: scenario.sizes[who],
            in_flight: 0,
            last_sent: 0,
            written: 0,
            refused: 0,
        });
        push(&mut events, &mut bodies, begin, who, Event::Look);
    }
    let end = (scenario.warm_up + scenario.measured) * SECOND;
    let warm = scenario.warm_up * SECOND;
    while let Some(Reverse((micros, body, who))) = events.pop() {
        if micros > end {
            break;
        }
        let now = at(micros);
        let producer = &mut producers[who];
        match bodies[body].take().expect("an event happens once") {
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
                    let event = Event::Arrives {
                        sent: micros,
                        count,
                        rtt,
                    };
                    push(&mut events, &mut bodies, micros + rtt / 2, who, event);
                }
            }
            Event::Arrives { sent, count, rtt } => {
                let written = (0..count)
                    .filter(|_| shard.admits(producer.size, now))
                    .count();
                let refused = count - written;
                if micros >= warm {
                    producer.written += written as u64;
                    producer.refused += refused as u64;
                }
                let event = Event::Answered {
                    sent,
                    written,
                    refused,
                };
                push(&mut events, &mut bodies, sent + rtt, who, event);
            }
            Event::Answered {
                sent,
                written,
                refused,
            } => {
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
    let seconds = scenario.measured as f64;
    let shares = |of: fn(&Sim) -> f64| producers.iter().map(of).map(move |used| used / seconds);
    let records = shares(|p| p.written as f64 / SHARD_RECORDS_PER_SECOND);
    let bytes = shares(|p| (p.written * p.size as u64) as f64 / SHARD_BYTES_PER_SECOND);
    let utilisation = records.clone().sum::<f64>().max(bytes.clone().sum());
    let (written, refused) = producers.iter().fold((0, 0), |(written, refused), p| {
        (written + p.written, refused + p.refused)
    });
    Outcome {
        shares: records
            .zip(bytes)
            .map(|(records, bytes)| records.max(bytes))
            .collect(),
        refused: refused as f64 / (written + refused) as f64,
        utilisation,
    }
}

/// No producer is starved, few entries are refused, and the shard is used.
fn assert_shared(name: &str, sizes: [usize; PRODUCERS], begins: [u64; PRODUCERS]) {
    for seed in 0..3 {
        let scenario = Scenario {
            sizes,
            begins,
            warm_up: 120,
            measured: 240,
        };
        let outcome = run(&scenario, seed);
        let fair = outcome.shares.iter().sum::<f64>() / PRODUCERS as f64;
        let slowest = outcome.shares.iter().copied().fold(f64::MAX, f64::min) / fair;
        let (refused, utilisation) = (outcome.refused, outcome.utilisation);
        let all = format!(
            "{name}, seed {seed}: the slowest got {slowest:.2} of the fair share, {refused:.4} refused, {utilisation:.2} used"
        );
        assert!(slowest >= 0.5, "{all}");
        assert!(refused < 0.05, "{all}");
        assert!(utilisation > 0.9, "{all}");
    }
}

const AT_ONCE: [u64; PRODUCERS] = [0; PRODUCERS];
const LATE: [u64; PRODUCERS] = [0, 0, 0, 0, 20, 40, 60, 90];

#[test]
fn small_records_share_the_records_of_a_shard() {
    assert_shared("100 B", [100; PRODUCERS], AT_ONCE);
    assert_shared("100 B, late", [100; PRODUCERS], LATE);
}

#[test]
fn aggregates_and_large_records_share_its_bytes() {
    for (name, size) in [
        ("5 KiB", 5 << 10),
        ("50 KiB", 50 << 10),
        ("100 KiB", 100 << 10),
    ] {
        assert_shared(name, [size; PRODUCERS], AT_ONCE);
        assert_shared(&format!("{name}, late"), [size; PRODUCERS], LATE);
    }
}

#[test]
fn those_who_use_its_records_and_those_who_use_its_bytes_share_it() {
    let sizes = std::array::from_fn(|who| if who % 2 == 0 { 100 } else { 50 << 10 });
    let scenario = Scenario {
        sizes,
        begins: AT_ONCE,
        warm_up: 120,
        measured: 240,
    };
    for seed in 0..3 {
        let outcome = run(&scenario, seed);
        assert!(outcome.refused < 0.05, "{}", outcome.refused);
        for kind in 0..2 {
            let shares: Vec<_> = outcome.shares.iter().skip(kind).step_by(2).collect();
            let fair = shares.iter().copied().sum::<f64>() / shares.len() as f64;
            assert!(
                shares.iter().all(|share| **share >= fair / 2.0),
                "{shares:?}"
            );
        }
    }
}
