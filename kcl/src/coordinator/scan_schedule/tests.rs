use proptest::prelude::{ProptestConfig, Strategy, prop, prop_assert, proptest};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::lease::Lease;

const RATE: f64 = 5.0;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn table(leases: usize, owner: &str, counter: u64) -> Snapshot {
    let lease = |n| Lease {
        owner: Some(owner.to_owned()),
        counter,
        ..Lease::new(format!("shardId-{n}"), Checkpoint::TrimHorizon)
    };
    Snapshot { leases: (0..leases).map(lease).collect(), ..Snapshot::default() }
}

#[test]
fn scans_are_frequent_until_the_table_has_settled() {
    let mut schedule = ScanSchedule::new(RATE);
    let mut pause = |table, millis| schedule.succeeded(&table, at(millis)).at_most;
    assert_eq!(pause(table(4, "a", 1), 0), SHORTEST);
    assert_eq!(pause(table(4, "a", 2), 2_900), SHORTEST);
    assert_eq!(pause(table(4, "a", 3), 3_000), IDLE, "heartbeats do not count");
    assert_eq!(pause(table(4, "b", 4), 9_000), SHORTEST);
    assert_eq!(pause(table(5, "b", 4), 11_000), SHORTEST);
    assert_eq!(pause(table(5, "b", 4), 14_000), IDLE);
}

#[test]
fn a_large_table_is_read_less_often() {
    let mut schedule = ScanSchedule::new(RATE);
    let mut pause = |leases, millis| schedule.succeeded(&table(leases, "a", 1), at(millis)).at_most;
    assert_eq!(pause(100, 0), SHORTEST);
    assert_eq!(pause(100, 5_000), IDLE);
    assert_eq!(pause(500, 6_000), at(500));
    assert_eq!(pause(500, 11_000), at(5_000));
    let mut frugal = ScanSchedule::new(1.0);
    let pause = frugal.succeeded(&table(500, "a", 1), at(5_000)).at_most;
    assert_eq!(pause, at(2_500));
    assert_eq!(between_syncs(10_000, RATE), at(200_000));
    assert_eq!(between_queries(400, RATE), IDLE);
    assert_eq!(between_queries(1_000, RATE), at(2_000));
}

#[test]
fn a_scan_that_a_task_asks_for_is_made_when_it_is_paid_for() {
    let mut schedule = ScanSchedule::new(RATE);
    let mut scan = |millis| schedule.succeeded(&table(10_000, "a", 1), at(millis));
    // One scan is always saved up. Two cost as much as comes in during a pause.
    let (eager, at_rest) = (at(10_000), at(100_000));
    let wait = |at_least, at_most| Wait { at_least, at_most };
    assert_eq!(scan(1_000), wait(SHORTEST, eager));
    assert_eq!(scan(2_000), wait(at(49_000), at(49_000)));
    assert_eq!(scan(51_000), wait(at(50_000), at_rest));
    assert_eq!(scan(151_000), wait(SHORTEST, at_rest));
}

#[test]
fn a_failed_scan_is_not_repeated_sooner_than_any_other() {
    let (mut schedule, mut random) = (ScanSchedule::new(RATE), Rng::with_seed(1));
    let first = schedule.failed(at(0), &mut random).at_most;
    assert!((IDLE..=IDLE * 3 / 2).contains(&first), "the size is not known");
    schedule.succeeded(&table(10_000, "a", 1), at(1_000));
    let mut now = at(1_000);
    for _ in 0..10 {
        let wait = schedule.failed(now, &mut random);
        assert!((at(100_000)..=at(150_000)).contains(&wait.at_most));
        assert_eq!(wait.at_least, wait.at_most, "no task shortens it");
        now += wait.at_most;
    }
}

/// A scan, and the wait after it.
#[derive(Debug, Clone, Copy)]
struct Step {
    leases: usize,
    moves: bool,
    fails: bool,
    /// The part of the wait between its least and its most by which a task shortens it.
    shortened: f64,
}

fn step() -> impl Strategy<Value = Step> {
    let leases = prop::sample::select(vec![0_usize, 4, 90, 300, 2_000]);
    let shortened = prop::sample::select(vec![0.0, 0.5, 1.0, 1.0]);
    let flag = prop::bool::weighted;
    (leases, flag(0.7), flag(0.3), shortened).prop_map(|(leases, moves, fails, shortened)| Step {
        leases,
        moves,
        fails,
        shortened,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// At any size, with any changes, requests and failures, the scans cost no more than twice the
    /// rate, the saved budget, and one scan of what the table has grown by. And no wait is longer
    /// than the size of the table demands.
    #[test]
    fn never_spends_more_than_the_rate_allows(
        rate in 1_u32..50,
        steps in prop::collection::vec(step(), 1..60),
        size in prop::option::of(prop::sample::select(vec![4_usize, 300, 2_000])),
    ) {
        let rate = f64::from(rate);
        let (mut schedule, mut random) = (ScanSchedule::new(rate), Rng::with_seed(7));
        let (mut now, mut spent, mut seen, mut largest) = (at(0), 0.0, 0, 0);
        for (n, step) in steps.into_iter().enumerate() {
            let wait = if step.fails {
                spent += units(seen);
                schedule.failed(now, &mut random)
            } else {
                seen = size.unwrap_or(step.leases);
                largest = largest.max(seen);
                spent += units(seen);
                let owner = if step.moves { n.to_string() } else { String::new() };
                schedule.succeeded(&table(seen, &owner, 1), now)
            };
            let saved = (rate * SAVED_SECONDS).max(SAVED_SCANS * units(largest));
            let allowed = 2.0 * rate * now.as_secs_f64() + saved + units(largest);
            prop_assert!(spent <= allowed + 1e-6, "{spent} > {allowed}");
            prop_assert!(wait.at_least <= wait.at_most);
            let longest = at_rest(seen, rate).mul_f64(if step.fails { 1.5 } else { 1.0 });
            prop_assert!(wait.at_most <= longest + at(1), "{wait:?} > {longest:?}");
            now += wait.at_most - (wait.at_most - wait.at_least).mul_f64(step.shortened);
        }
    }
}
