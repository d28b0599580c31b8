use proptest::prelude::*;

use super::*;
use crate::clock;

const MIB: usize = 1024 * 1024;
const TIME_TO_LIVE: Duration = Duration::from_secs(30);

#[test]
fn a_record_above_the_burst_goes_when_the_bucket_is_full_and_is_paid_back() {
    let now = clock::now();
    let mut limiter = ShardLimiter::new(100, TIME_TO_LIVE, now);
    assert_eq!(limiter.take(10 * MIB, now), Ok(()));
    let ready = limiter.take(MIB, now).unwrap_err();
    let wait = (ready - now).as_secs_f64();
    assert!((10.0..10.1).contains(&wait), "{wait}");
    assert_eq!(limiter.take(MIB, ready), Ok(()));
}

proptest! {
    /// Over any window from the start, the limiter grants at most burst + rate x time + one large record. A record that
    /// waits as long as it is told may go.
    #[test]
    fn the_rate_holds_over_any_run(
        percent in 1..400_u32,
        time_to_live in 1..60_000_u64,
        steps in proptest::collection::vec((0..200_u64, 1..2 * MIB), 1..200),
    ) {
        let start = clock::now();
        let mut now = start;
        let time_to_live = Duration::from_millis(time_to_live);
        let mut limiter = ShardLimiter::new(percent, time_to_live, now);
        let (mut records, mut bytes, mut largest) = (0_f64, 0_f64, 0_f64);
        for (pause, size) in steps {
            now += Duration::from_millis(pause);
            if let Err(ready) = limiter.take(size, now) {
                prop_assert!(ready > now);
                now = ready;
                prop_assert_eq!(limiter.take(size, now), Ok(()));
            }
            records += 1.0;
            bytes += size as f64;
            largest = largest.max(size as f64);
            let seconds = (now - start).as_secs_f64() * f64::from(percent) / 100.0;
            prop_assert!(records <= 1000.0 + 1000.0 * seconds + 1.0);
            prop_assert!(bytes <= MIB as f64 * (1.0 + seconds) + largest);
        }
    }
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(1)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_throttle_cuts_the_rate_once_for_all_that_was_under_way() {
    let start = clock::now();
    let mut limiter = ShardLimiter::new(150, TIME_TO_LIVE, start);
    let answered = start + SECOND;
    for _ in 0..100 {
        limiter.throttled(start, answered, &mut rng());
    }
    assert_eq!(limiter.rate(), 1.5 * (1.0 - CUT));
    limiter.throttled(answered, answered + SECOND, &mut rng());
    assert_eq!(limiter.rate(), 1.5 * (1.0 - CUT) * (1.0 - CUT));
}

/// Refuses every other attempt, so that no row of throttles looks like an outage.
fn cut_to(
    limiter: &mut ShardLimiter,
    rate: f64,
    mut now: Instant,
    rng: &mut fastrand::Rng,
) -> Instant {
    while limiter.rate() > rate {
        now += SECOND;
        limiter.served(now);
        limiter.throttled(now, now, rng);
    }
    now
}

/// How long a shard takes for a record, if it is used by nothing else.
fn shard_needs(size: usize) -> Duration {
    Duration::from_secs_f64((size as f64 / MIB as f64).max(0.001))
}

#[test]
fn however_small_the_rate_there_are_attempts_within_the_time_to_live() {
    let an_hour = Duration::from_secs(3600);
    let most = Duration::from_secs(75);
    for (time_to_live, gap) in [(TIME_TO_LIVE, TIME_TO_LIVE / 4), (an_hour, most)] {
        for size in [100, 50 << 10, 10 * MIB] {
            let start = clock::now();
            let mut limiter = ShardLimiter::new(150, time_to_live, start);
            let mut now = cut_to(&mut limiter, 1e-5, start, &mut rng());
            // The bucket, as empty as it gets.
            assert!(limiter.take(size, now + time_to_live).is_ok());
            now += time_to_live;
            for _ in 0..10 {
                let ready = limiter.take(size, now).unwrap_err();
                assert!(ready - now <= shard_needs(size) + gap, "{size}");
                assert!(ready - now >= shard_needs(size), "{size}");
                now = ready;
                assert_eq!(limiter.take(size, now), Ok(()));
            }
        }
    }
}

#[test]
fn attempts_within_a_short_time_to_live_stay_below_the_ceiling() {
    let start = clock::now();
    let size = 50 << 10;
    let mut limiter = ShardLimiter::new(10, SECOND, start);
    let began = cut_to(&mut limiter, 1e-5, start, &mut rng()) + SECOND;
    let mut now = began;
    let mut sent = 0;
    while now < began + 100 * SECOND {
        match limiter.take(size, now) {
            Ok(()) => sent += size,
            Err(ready) => now = ready,
        }
    }
    assert!(sent <= 10 * MIB + size, "{sent} bytes in 100 s");
}

#[test]
fn the_pause_after_throttles_leaves_time_for_other_attempts() {
    let start = clock::now();
    let mut rng = rng();
    for time_to_live in [SECOND / 10, 2 * SECOND] {
        let mut limiter = ShardLimiter::new(150, time_to_live, start);
        let mut now = start;
        for _ in 0..50 {
            now += SECOND;
            limiter.throttled(now, now, &mut rng);
            let ready = limiter.check(1, now).err().unwrap_or(now);
            let pause = ready - now;
            assert!(pause <= time_to_live / 4, "{pause:?} of {time_to_live:?}");
        }
    }
}

/// In equilibrium the refused part of the attempts is the rise of one attempt, as a part of the cut.
#[test]
fn the_smaller_the_rate_the_smaller_are_cuts_and_the_more_refusals_does_a_producer_tolerate() {
    let mut limiter = ShardLimiter::new(150, TIME_TO_LIVE, clock::now());
    let mut rng = rng();
    let mut now = clock::now();
    let (mut last_cut, mut last_tolerated) = (1.0, 0.0);
    for rate in [0.05, 0.005, 0.001] {
        now = cut_to(&mut limiter, rate, now, &mut rng);
        for _ in 0..50 {
            // The first cuts of a limiter are large whatever its rate.
            limiter.served(now);
        }
        limiter.usual_rate = limiter.rate();
        let before = limiter.rate();
        let a_record_of_50_kib = Duration::from_secs_f64(0.05 / before);
        let rise = limiter.rise(1.0, a_record_of_50_kib) / before;
        now += SECOND;
        limiter.throttled(now, now, &mut rng);
        let cut = 1.0 - limiter.rate() / before;
        let tolerated = rise / cut;
        let all = format!("{rate}: cut by {cut}, {tolerated} tolerated");
        assert!(cut < last_cut && tolerated > last_tolerated, "{all}");
        assert!((0.01..0.15).contains(&tolerated), "{all}");
        (last_cut, last_tolerated) = (cut, tolerated);
    }
    assert!(last_cut < CUT / 10.0, "{last_cut}");
}

#[test]
fn after_an_outage_slow_start_gives_back_what_its_throttles_cut() {
    let start = clock::now();
    let mut limiter = ShardLimiter::new(150, TIME_TO_LIVE, start);
    let mut now = start;
    let mut rng = rng();
    for _ in 0..20 {
        now += 10 * SECOND;
        limiter.throttled(now, now, &mut rng);
    }
    assert!(limiter.rate() < 0.05, "{}", limiter.rate());
    let pauses = (0..20).map(|_| {
        now += 10 * SECOND;
        limiter.throttled(now, now, &mut rng);
        limiter.take(1, now).map_or_else(|until| until - now, |()| Duration::ZERO)
    });
    assert!(pauses.max() > Some(2 * SECOND));
    now += 10 * SECOND;
    let mut records = 0;
    while limiter.rate() < 1.5 * (1.0 - CUT) {
        assert_eq!(limiter.take(MIB, now), Ok(()), "slow start does not wait");
        limiter.served(now);
        records += 1;
        assert!(records < 20);
    }
    assert_eq!(limiter.rate(), 1.5 * (1.0 - CUT), "as after the first throttle");
    limiter.throttled(now, now, &mut rng);
    limiter.throttled(now, now, &mut rng);
    let cut = limiter.rate();
    limiter.served(now);
    assert!(limiter.rate() <= cut, "two throttles are no outage");
}

#[test]
fn after_a_throttle_there_is_a_pause_and_nothing_is_saved_up() {
    let start = clock::now();
    let mut limiter = ShardLimiter::new(100, TIME_TO_LIVE, start);
    limiter.throttled(start, start, &mut rng());
    let mut now = start;
    let mut waited = 0;
    while let Err(ready) = limiter.take(MIB / 10, now) {
        now = ready;
        waited += 1;
        assert!(waited < 3, "it may go when it was told");
    }
    let expected = 0.1 / (1.0 - CUT);
    let seconds = (now - start).as_secs_f64();
    assert!(seconds >= expected * 0.9 && seconds < expected + 0.06, "{seconds}");
}

#[test]
fn the_rate_rises_to_its_ceiling_while_it_is_what_holds_back() {
    let start = clock::now();
    let mut limiter = ShardLimiter::new(80, TIME_TO_LIVE, start);
    let mut now = cut_to(&mut limiter, 0.05, start, &mut rng()) + 20 * SECOND;
    limiter.served(now);
    let cut = limiter.rate();
    for _ in 0..1000 {
        // Nothing was taken: the rate holds no record back, and stays.
        limiter.served(now);
        now += SECOND;
    }
    assert_eq!(limiter.rate(), cut);
    let mut last = cut;
    let mut until_ceiling = 0;
    while limiter.rate() < 0.8 {
        while let Err(ready) = limiter.take(1000, now) {
            now = ready;
        }
        limiter.served(now);
        assert!(limiter.rate() >= last);
        last = limiter.rate();
        until_ceiling += 1;
        assert!(until_ceiling < 100_000);
    }
    assert_eq!(limiter.rate(), 0.8);
}

proptest! {
    #[test]
    fn the_rate_stays_between_its_bounds(
        percent in 1..400_u32,
        events in proptest::collection::vec((0..3000_u64, any::<bool>(), 1..MIB), 1..200),
    ) {
        let start = clock::now();
        let mut limiter = ShardLimiter::new(percent, TIME_TO_LIVE, start);
        let ceiling = f64::from(percent) / 100.0;
        let mut now = start;
        for (pause, is_full, size) in events {
            let sent = now;
            now += Duration::from_millis(pause);
            let _ = limiter.take(size, now);
            if is_full { limiter.throttled(sent, now, &mut rng()) } else { limiter.served(now) }
            prop_assert!(limiter.rate() <= ceiling && limiter.rate() >= SMALLEST_RATE);
        }
    }
}
