use proptest::prelude::*;

use super::*;

const IDLE: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn pacer() -> Pacer {
    Pacer::new(IDLE, fastrand::Rng::with_seed(1))
}

#[test]
fn the_first_read_is_sent_at_once() {
    assert_eq!(pacer().delay(ms(0)), Duration::ZERO);
}

#[test]
fn at_the_tip_the_idle_time_counts_from_the_last_read_and_is_spread() {
    let mut pacer = pacer();
    let mut pauses = Vec::new();
    for read in 0..100 {
        let now = ms(10_000 * read);
        pacer.sent(now);
        pacer.answered(now, 10, true);
        let pause = pacer.delay(now);
        assert_eq!(pacer.delay(now + ms(100)), pause - ms(100));
        assert_eq!(pacer.delay(now + ms(9_000)), Duration::ZERO);
        pauses.push(pause);
    }
    let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
    assert!(*least >= ms(800) && *least < ms(850), "{least:?}");
    assert!(*most <= ms(1_200) && *most > ms(1_150), "{most:?}");
}

#[test]
fn behind_the_tip_reads_are_spread_over_the_second_whatever_their_size() {
    let mut pacer = pacer();
    for read in 0..50 {
        let now = ms(1000 + 208 * read);
        assert_eq!(pacer.delay(now), Duration::ZERO, "read {read}");
        pacer.sent(now);
        let answered = now + ms(20);
        pacer.answered(answered, 10 << 20, false);
        assert_eq!(pacer.delay(answered), ms(188));
        assert_eq!(pacer.page_bytes(answered), u64::MAX);
    }
}

#[test]
fn after_a_pause_one_read_is_sent_and_no_more() {
    for pause in [ms(300), ms(60_000)] {
        let mut pacer = pacer();
        pacer.sent(ms(0));
        pacer.answered(ms(10), 1000, false);
        assert_eq!(pacer.delay(pause), Duration::ZERO);
        pacer.sent(pause);
        pacer.answered(pause, 1000, false);
        assert_eq!(pacer.delay(pause), LEAST_INTERVAL);
    }
}

#[test]
fn a_throttle_after_ones_own_large_pages_cuts_nothing_but_the_page() {
    let mut pacer = pacer();
    pacer.sent(ms(0));
    pacer.answered(ms(0), 10 << 20, false);
    assert_eq!(pacer.delay(ms(0)), LEAST_INTERVAL);
    pacer.throttled(ms(300));
    assert_eq!(pacer.delay(ms(300)), ms(4_700), "until the page is paid for");
    assert_eq!(pacer.page_bytes(ms(300)), PAGE_BYTES);
    assert!((pacer.share - CEILING).abs() < 1e-9);
}

#[test]
fn a_throttle_by_others_halves_the_share_and_an_outage_does_not_end_at_the_floor() {
    let mut pacer = pacer();
    for _ in 0..20 {
        pacer.throttled(ms(0));
    }
    assert!((pacer.share - CEILING / 4.0).abs() < 1e-9);
    assert!(pacer.delay(ms(0)) <= LONGEST_PAUSE);
    assert_eq!(pacer.throttles_in_a_row(), 20);
    pacer.sent(ms(10_000));
    pacer.answered(ms(10_000), 0, false);
    assert_eq!(pacer.throttles_in_a_row(), 0);
}

#[test]
fn the_share_rises_to_the_ceiling_and_the_limits_are_forgotten() {
    let mut pacer = pacer();
    pacer.throttled(ms(0));
    let mut now = ms(0);
    while now < LIMITS_APPLY {
        now += pacer.delay(now);
        pacer.sent(now);
        pacer.answered(now, 1000, false);
    }
    assert!((pacer.share - CEILING).abs() < 1e-9);
    assert_eq!(pacer.page_bytes(now), u64::MAX);
}

proptest! {
    #[test]
    fn never_two_reads_within_a_fifth_of_a_second(
        reads in prop::collection::vec((0u64..400, 0u8..4), 1..80),
        seed in any::<u64>(),
    ) {
        let mut pacer = Pacer::new(ms(200), fastrand::Rng::with_seed(seed));
        let mut now = Duration::ZERO;
        let mut sent = Vec::new();
        for (wait, outcome) in reads {
            now += ms(wait);
            now += pacer.delay(now);
            prop_assert_eq!(pacer.delay(now), Duration::ZERO);
            pacer.sent(now);
            match outcome {
                0 => pacer.throttled(now),
                1 => pacer.answered(now, 10 << 20, false),
                _ => pacer.answered(now, 0, outcome == 2),
            }
            sent.push(now);
        }
        for pair in sent.windows(2) {
            prop_assert!(pair[1] - pair[0] >= LEAST_INTERVAL);
        }
    }
}

/// An emulator without limits lets any number of full pages pass, and may throttle all the same.
#[test]
fn a_throttle_after_a_long_catch_up_beyond_the_limit_pauses_for_seconds() {
    let mut pacer = pacer();
    for read in 0..300 {
        let now = ms(200 * read);
        pacer.sent(now);
        pacer.answered(now, 10 << 20, false);
    }
    let now = ms(60_000);
    pacer.throttled(now);
    let pause = pacer.delay(now);
    assert!(pause <= MOST_BYTES_OWED + ms(5_000), "{pause:?}");
}
