//! One producer and a shard that refuses for a while, in simulated time: how long the trouble outlives its cause.

use std::collections::VecDeque;

use super::*;
use crate::clock;

const TICK: Duration = Duration::from_millis(10);
const TTL: Duration = Duration::from_secs(30);
const KIB: f64 = 1024.0;
const AGGREGATE: usize = 50 << 10;

/// What came of a trouble after which no other producer uses the shard.
struct Outcome {
    expired: usize,
    /// From the end of the trouble until what waits is younger than a second again.
    recovery: Duration,
}

/// `load` bytes a second, steady; of what is sent during the trouble, the shard takes `taken` bytes a second.
fn run(load: f64, size: usize, trouble: Duration, taken: f64, seed: u64) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let start = clock::now();
    let mut limiter = ShardLimiter::new(150, TTL, start);
    let mut shard = TokenBucket::new(taken, taken, start);
    // When each record was accepted.
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut in_flight: VecDeque<(Instant, Instant)> = VecDeque::new();
    let (mut due, mut expired) = (0.0, 0);
    let mut now = start;
    let begins = start + Duration::from_secs(20);
    let ends = begins + trouble;
    shard.tokens = 0.0;
    loop {
        now += TICK;
        let is_trouble = (begins..ends).contains(&now);
        due += load * TICK.as_secs_f64();
        while due >= size as f64 {
            due -= size as f64;
            waiting.push_back(now);
        }
        // Answers come after 30 ms; what is refused goes first again.
        let mut refused = Vec::new();
        let mut sent_at = now;
        while let Some((sent, accepted)) =
            in_flight.pop_front_if(|(sent, _)| *sent + 3 * TICK <= now)
        {
            shard.fill(now);
            if is_trouble && shard.tokens < size as f64 {
                refused.push(accepted);
                sent_at = sent;
            } else {
                if is_trouble {
                    shard.tokens -= size as f64;
                }
                limiter.served(now);
            }
        }
        if !refused.is_empty() {
            limiter.throttled(sent_at, now, &mut rng);
            refused.into_iter().rev().for_each(|accepted| waiting.push_front(accepted));
        }
        while waiting.pop_front_if(|accepted| *accepted + TTL <= now).is_some() {
            expired += 1;
        }
        while !waiting.is_empty() && limiter.take(size, now).is_ok() {
            in_flight.extend(waiting.pop_front().map(|accepted| (now, accepted)));
        }
        let is_caught_up =
            waiting.front().is_none_or(|accepted| now - *accepted < Duration::from_secs(1));
        if now >= ends && is_caught_up {
            return Outcome { expired, recovery: now - ends };
        }
        assert!(now < ends + Duration::from_secs(3600), "it never recovers");
    }
}

/// Nothing expires, and it is over within `bound`.
fn assert_recovers(load: f64, size: usize, trouble: u64, taken: f64, bound: u64) {
    for seed in 0..3 {
        let trouble = Duration::from_secs(trouble);
        let outcome = run(load, size, trouble, taken, seed);
        let (expired, recovery) = (outcome.expired, outcome.recovery);
        let all = format!(
            "{size} B at {load} B/s, {trouble:?} with {taken} B/s, seed {seed}: {expired} expired, {recovery:?}"
        );
        assert_eq!(expired, 0, "{all}");
        assert!(recovery < Duration::from_secs(bound), "{all}");
    }
}

#[test]
fn after_an_outage_the_rate_is_soon_what_it_was() {
    for trouble in [5, 10, 20] {
        assert_recovers(300.0 * KIB, AGGREGATE, trouble, 0.0, 15);
        assert_recovers(500.0 * KIB, AGGREGATE, trouble, 0.0, 25);
        assert_recovers(800.0 * KIB, AGGREGATE, trouble, 0.0, 40);
        assert_recovers(500.0 * KIB, 1 << 20, trouble, 0.0, 30);
    }
}

#[test]
fn once_a_crowd_is_gone_the_rise_gains_speed() {
    for trouble in [5, 10, 20] {
        assert_recovers(300.0 * KIB, AGGREGATE, trouble, 200.0 * KIB, 65);
        assert_recovers(500.0 * KIB, AGGREGATE, trouble, 200.0 * KIB, 100);
    }
}
