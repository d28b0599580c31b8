use proptest::prelude::*;

use super::*;
use crate::clock;

const MIB: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

fn fits(window: &Window, bytes: usize) -> bool {
    window.in_flight() + bytes <= window.size
}

#[test]
fn it_reaches_its_most_within_a_few_round_trips() {
    let mut window = Window::new(&ProducerConfig::default());
    let mut now = clock::now();
    for round in 0.. {
        if fits(&window, 32 * MIB) {
            assert_eq!(round, 5);
            break;
        }
        let mut sent = Vec::new();
        while fits(&window, window.max_request()) {
            sent.push(window.start(window.max_request(), false, now));
        }
        now += Duration::from_millis(20);
        for sent in sent {
            window.end(sent, RequestEnd::Answered, now);
        }
    }
    assert!(!fits(&window, 32 * MIB + 1));
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut window = Window::new(&ProducerConfig::default());
    let now = clock::now();
    for _ in 0..1000 {
        let sent = window.start(MIB / 4, false, now);
        window.end(sent, RequestEnd::Answered, now + SECOND / 50);
    }
    assert!(fits(&window, MIB) && !fits(&window, MIB + 1));
}

#[test]
fn it_does_not_grow_beyond_what_the_link_carries() {
    let mut window = Window::new(&ProducerConfig::default());
    let mut now = clock::now();
    // A link of 1 MiB a second, that carries one request after the other.
    for _ in 0..100 {
        let mut sent = Vec::new();
        while fits(&window, window.max_request()) {
            sent.push(window.start(window.max_request(), false, now));
        }
        for sent in sent {
            now += SECOND.mul_f64(sent.bytes as f64 / MIB as f64);
            window.end(sent, RequestEnd::Answered, now);
        }
    }
    assert!(fits(&window, 3 * MIB / 2) && !fits(&window, 3 * MIB));
}

#[test]
fn after_a_timeout_it_is_what_the_link_carried() {
    let mut window = Window::new(&ProducerConfig::default());
    let now = clock::now();
    // An outage: nothing was carried.
    let sent = window.start(MIB, false, now);
    window.end(sent, RequestEnd::TimedOut, now + 6 * SECOND);
    assert!(fits(&window, LEAST) && !fits(&window, LEAST + 1));
    assert_eq!(window.max_request(), LEAST_REQUEST);

    // A link that is too slow for what is in flight.
    let mut window = Window::new(&ProducerConfig::default());
    window.size = 32 * MIB;
    let slow = window.start(MIB, false, now);
    for _ in 0..12 {
        let sent = window.start(MIB, false, now);
        window.end(sent, RequestEnd::Answered, now + 5 * SECOND);
    }
    window.end(slow, RequestEnd::TimedOut, now + 6 * SECOND);
    assert!(fits(&window, 4 * MIB) && !fits(&window, 4 * MIB + 1));
}

#[test]
fn one_request_that_hangs_beside_others_does_not_shrink_it() {
    let mut window = Window::new(&ProducerConfig::default());
    let now = clock::now();
    let hangs = window.start(1000, false, now);
    for _ in 0..100 {
        let sent = window.start(MIB / 4, false, now);
        window.end(sent, RequestEnd::Answered, now + SECOND / 50);
    }
    window.end(hangs, RequestEnd::TimedOut, now + 6 * SECOND);
    assert!(fits(&window, MIB));
}

/// A service that answers each request after `latency`, whatever is in flight.
fn rounds(window: &mut Window, now: &mut Instant, latency: Duration, slots: usize, rounds: u32) {
    for _ in 0..rounds {
        let mut sent = Vec::new();
        while sent.len() < slots && fits(window, window.max_request()) {
            sent.push(window.start(window.max_request(), false, *now));
        }
        *now += latency;
        for sent in sent {
            window.end(sent, RequestEnd::Answered, *now);
        }
    }
}

#[test]
fn a_slow_service_is_not_taken_for_a_full_link() {
    for (latency, request_timeout) in [(3000, 6000), (220, 600)] {
        let latency = Duration::from_millis(latency);
        let request_timeout = Duration::from_millis(request_timeout);
        let config = ProducerConfig { request_timeout, ..Default::default() };
        let mut window = Window::new(&config);
        let mut now = clock::now();
        rounds(&mut window, &mut now, latency, 1000, 6);
        assert!(fits(&window, 32 * MIB), "{}", window.size);

        // A service that becomes as slow later.
        let mut window = Window::new(&config);
        rounds(&mut window, &mut now, latency / 10, 1000, 6);
        for _ in 0..30 {
            rounds(&mut window, &mut now, latency, 1000, 1);
            assert!(fits(&window, 16 * MIB), "{}", window.size);
        }
        rounds(&mut window, &mut now, latency, 1000, 100);
        assert!(fits(&window, 30 * MIB), "{}", window.size);
    }
}

#[test]
fn it_grows_with_few_requests_in_flight() {
    for slots in [1, 2, 4] {
        let config = ProducerConfig { max_requests_in_flight: slots, ..Default::default() };
        let mut window = Window::new(&config);
        rounds(&mut window, &mut clock::now(), SECOND / 50, slots, 6);
        assert!(fits(&window, 32 * MIB), "{slots}: {}", window.size);
    }
}

#[test]
fn requests_are_small_only_while_the_link_is_slow() {
    let mut window = Window::new(&ProducerConfig::default());
    let mut now = clock::now();
    assert_eq!(window.max_request(), MIB / 2);
    let sent = window.start(MIB, false, now);
    now += 6 * SECOND;
    window.end(sent, RequestEnd::TimedOut, now);
    assert_eq!(window.max_request(), LEAST_REQUEST);
    // Requests that are nearly as large as they may be, one at a time.
    for _ in 0..5 {
        now += SECOND / 10;
        let sent = window.start(window.max_request() * 3 / 5, false, now);
        now += SECOND / 50;
        window.end(sent, RequestEnd::Answered, now);
    }
    assert_eq!(window.max_request(), MIB / 2);
    assert!(!fits(&window, 2 * MIB));
}

#[test]
fn parts_take_half_of_it_at_most() {
    let mut window = Window::new(&ProducerConfig::default());
    let now = clock::now();
    let batch = window.start(MIB / 2, false, now);
    // Room for an isolated request is kept free.
    assert!(window.has_room(MIB / 2, 0) && !window.has_room(MIB / 2, MIB / 4));
    assert!(window.has_room_for_isolated(2 * MIB));
    let part = window.start(2 * MIB, true, now);
    assert!(!window.has_room_for_isolated(1) && !window.has_room(1, 0));
    window.end(batch, RequestEnd::Answered, now);
    // Whatever hangs, a batch of any size goes through.
    assert!(window.has_room(4 * MIB, 0));
    window.end(part, RequestEnd::TimedOut, now + 6 * SECOND);
    assert!(window.has_room_for_isolated(MIB));
}

#[test]
fn a_part_that_hangs_does_not_count_as_use() {
    let mut window = Window::new(&ProducerConfig::default());
    let mut now = clock::now();
    let part = window.start(MIB, true, now);
    for _ in 0..100 {
        let sent = window.start(1000, false, now);
        now += SECOND / 50;
        window.end(sent, RequestEnd::Answered, now);
        now += SECOND;
    }
    assert_eq!(window.size, INITIAL);
    window.end(part, RequestEnd::Failed, now);
}

proptest! {
    #[test]
    fn it_stays_within_its_bounds(
        steps in prop::collection::vec((any::<u32>(), 0..3_usize, 0..10_000_u64), 1..100),
        most in (64_usize << 10)..(64 << 20),
    ) {
        let config = ProducerConfig { max_in_flight_bytes: most, ..Default::default() };
        let mut window = Window::new(&config);
        let now = clock::now();
        let mut sent = Vec::new();
        for (bytes, how, took) in steps {
            sent.push(window.start(bytes as usize, bytes % 3 == 0, now));
            let end = [RequestEnd::Answered, RequestEnd::TimedOut, RequestEnd::Failed][how];
            if took % 2 == 0 {
                let sent = sent.swap_remove(took as usize % sent.len());
                window.end(sent, end, now + Duration::from_millis(took));
            }
            prop_assert!((LEAST.min(most)..=most).contains(&window.size));
        }
        for sent in sent {
            window.end(sent, RequestEnd::Failed, now);
        }
        prop_assert_eq!(window.in_flight(), 0);
    }
}
