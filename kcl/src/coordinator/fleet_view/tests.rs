//! What a worker concludes about leases from what it observed, case by case.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::lease::memory::apply;
use crate::lease::{LeaseWrite, Stamp, WorkerRow};

/// The process of this worker, `me`. Its failover time is 10 s.
const PROCESS: u64 = 7;

pub(super) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A lease with a counter that this process wrote.
pub(super) fn lease(owner: Option<&str>, counter: u64) -> Lease {
    Lease {
        owner: owner.map(str::to_owned),
        counter,
        stamp: Some(Stamp { counter, process: Some(PROCESS) }),
        ..Lease::new("shardId-0", Checkpoint::TrimHorizon)
    }
}

pub(super) fn pending(to: &str, from: &str, counter: u64) -> Lease {
    Lease { checkpoint_owner: Some(from.to_owned()), ..lease(Some(to), counter) }
}

pub(super) fn scan(fleet: &mut FleetView, second: u64, snapshot: Snapshot) {
    let read = ReadTime { sent: at(second), answered: at(second) };
    fleet.observe_scan(&Arc::new(snapshot), read, 5000);
}

/// The view of a worker whose scans showed one lease.
pub(super) fn fleet_of(scans: &[(u64, Lease)]) -> FleetView {
    let mut fleet = FleetView::new("me", PROCESS, at(10));
    for (second, lease) in scans {
        let leases = vec![lease.clone()];
        scan(&mut fleet, *second, Snapshot { leases, ..Snapshot::default() });
    }
    fleet
}

#[test]
fn an_owned_lease_expires_after_the_failover_time_without_a_renewal() {
    let owned = lease(Some("w"), 3);
    let fleet = fleet_of(&[(100, owned.clone()), (105, owned.clone())]);
    assert!(!fleet.is_available(&owned, at(110)), "first seen owned: not before F");
    assert!(fleet.is_available(&owned, at(111)));
    assert!(!fleet.is_available(&lease(Some("w"), 4), at(111)), "it has moved");
    let beating = fleet_of(&[(100, owned.clone()), (109, lease(Some("w"), 4))]);
    assert!(!beating.is_available(&lease(Some("w"), 4), at(119)));
    assert!(beating.is_available(&lease(Some("w"), 4), at(120)));
}

#[test]
fn a_new_owner_has_longer_for_its_first_renewal() {
    // The lease is assigned to a Java worker at 101, which discovers it at 111 and renews it at
    // 114.
    let given = lease(Some("java"), 4);
    let scans = [(100, lease(None, 3)), (101, given.clone())];
    for scans in [
        scans,
        [(100, lease(Some("other"), 3)), (101, given.clone())],
        [(100, pending("java", "other", 3)), (101, given.clone())],
    ] {
        let fleet = fleet_of(&scans);
        assert!(!fleet.is_available(&given, at(126)));
        assert!(fleet.is_available(&given, at(127)), "it is dead");
    }
    let heard =
        fleet_of(&[(100, lease(None, 3)), (101, given.clone()), (114, lease(Some("java"), 5))]);
    assert!(!heard.is_available(&lease(Some("java"), 5), at(124)));
    assert!(heard.is_available(&lease(Some("java"), 5), at(125)));
}

#[test]
fn on_the_first_scan_an_owner_that_may_be_new_has_longer_too() {
    let heard = lease(Some("java"), 4);
    let by_java = Lease { stamp: None, ..heard.clone() };
    let since = Lease { stamp: lease(None, 3).stamp, ..heard.clone() };
    // A worker of this library gives the lease away while its processor may be at work, in a
    // handoff and without one.
    let forced = |lease: Lease| {
        let take = LeaseWrite::Take { owner: "java".into() };
        apply(&take, PROCESS, &lease, Some(&lease)).flatten().unwrap()
    };
    let relinquished = forced(lease(Some("w"), 3));
    let handed_over = forced(pending("java", "w", 3));
    for given in [by_java, since, relinquished, handed_over] {
        let fleet = fleet_of(&[(100, given.clone())]);
        assert!(!fleet.is_available(&given, at(125)), "{given:?}");
        assert!(fleet.is_available(&given, at(126)), "{given:?}");
        // Once it has renewed, it is as any other owner.
        let renewed = Lease { counter: 5, ..given.clone() };
        let fleet = fleet_of(&[(100, given), (105, renewed.clone())]);
        assert!(!fleet.is_available(&renewed, at(115)));
        assert!(fleet.is_available(&renewed, at(116)));
    }
}

#[test]
fn a_lease_of_a_new_owner_starts_elsewhere_when_that_owner_can_start_no_more() {
    // The lease is assigned to a Java worker at 101, which starts when it renews, and to this
    // worker at 103.
    let given = lease(Some("java"), 4);
    let mine = lease(Some("me"), 5);
    let scans = [(100, lease(None, 3)), (101, given), (103, mine.clone())];
    let fleet = fleet_of(&scans);
    assert!(!fleet.may_start(&mine, at(126)));
    assert!(fleet.may_start(&mine, at(127)));
}

#[test]
fn a_leader_leads_while_it_renews_its_lock_and_lives() {
    let lock = |version: &str| LeaderLock {
        owner: "w".into(),
        version: version.into(),
        duration: at(120),
        is_starter: false,
    };
    let row =
        |last_update| WorkerRow { worker: "w".into(), last_update, measures: false, process: None };
    let observe = |fleet: &mut FleetView, second, version: Option<&str>, heartbeat| {
        let (workers, leader) = (vec![row(heartbeat)], version.map(lock));
        scan(fleet, second, Snapshot { workers, leader, ..Snapshot::default() });
    };
    let mut fleet = fleet_of(&[]);
    assert_eq!(fleet.live_leader(at(0)), None);
    observe(&mut fleet, 100, Some("a"), 5000);
    observe(&mut fleet, 200, Some("a"), 5000);
    assert_eq!(fleet.live_leader(at(220)), Some("w"));
    assert_eq!(fleet.live_leader(at(221)), None, "the lock has expired");
    observe(&mut fleet, 230, Some("b"), 5000);
    assert_eq!(fleet.live_leader(at(350)), Some("w"), "the leader renewed the lock");
    observe(&mut fleet, 235, Some("b"), 4900);
    assert_eq!(fleet.live_leader(at(235)), None, "its heartbeat is old");
    observe(&mut fleet, 240, None, 5000);
    assert_eq!(fleet.live_leader(at(240)), None, "it has left");
}

#[test]
fn an_unassigned_lease_is_available_at_once_and_a_finished_one_never() {
    let fleet = fleet_of(&[]);
    assert!(fleet.is_available(&lease(None, 0), at(1)));
    let ended = Lease { checkpoint: Checkpoint::ShardEnd, ..lease(None, 0) };
    assert!(!fleet.is_available(&ended, at(1)));
}

#[test]
fn counts_how_long_a_lease_has_been_available() {
    let free = lease(None, 0);
    let fleet = fleet_of(&[(100, free.clone()), (103, free.clone())]);
    assert_eq!(fleet.available_for(&free, at(107)), at(7));
    let fleet = fleet_of(&[(100, free.clone()), (103, lease(Some("w"), 1))]);
    assert_eq!(fleet.available_for(&free, at(107)), at(0));
}

#[test]
fn a_released_lease_starts_at_once() {
    let released = Lease { released_at: Some(8), ..lease(Some("me"), 8) };
    assert!(fleet_of(&[]).may_start(&released, at(1)));
    let stale_mark = Lease { released_at: Some(7), ..lease(Some("me"), 8) };
    let fleet = fleet_of(&[(100, stale_mark.clone())]);
    assert!(!fleet.may_start(&stale_mark, at(101)));
}

#[test]
fn an_assigned_lease_starts_at_once_if_it_was_unassigned() {
    let mine = lease(Some("me"), 1);
    let fleet = fleet_of(&[(100, lease(None, 0)), (101, mine.clone())]);
    assert!(fleet.may_start(&mine, at(101)));
}

#[test]
fn a_handoff_completed_in_time_starts_at_once_and_a_forced_one_waits() {
    let mine = lease(Some("me"), 9);
    let quick =
        fleet_of(&[(99, lease(Some("w"), 8)), (100, pending("me", "w", 8)), (120, mine.clone())]);
    assert!(quick.may_start(&mine, at(120)));
    // Renewals of the previous owner do not restart the count.
    let long = fleet_of(&[
        (99, lease(Some("w"), 7)),
        (100, pending("me", "w", 7)),
        (128, pending("me", "w", 8)),
        (131, mine.clone()),
    ]);
    assert!(!long.may_start(&mine, at(131)));
    assert!(long.may_start(&mine, at(139)), "F after the old owner's last heartbeat");
}

#[test]
fn a_handoff_of_unknown_age_is_not_trusted() {
    // The handoff may have been pending for long, and a Java leader may have forced it just now.
    let mine = lease(Some("me"), 9);
    let rare =
        fleet_of(&[(40, lease(Some("w"), 5)), (100, pending("me", "w", 8)), (101, mine.clone())]);
    let unknown = fleet_of(&[(100, pending("me", "w", 8)), (101, mine.clone())]);
    for fleet in [rare, unknown] {
        assert!(!fleet.may_start(&mine, at(101)));
        assert!(!fleet.may_start(&mine, at(110)));
        assert!(fleet.may_start(&mine, at(111)));
    }
}

#[test]
fn a_handoff_may_be_older_than_the_answer_that_did_not_show_it() {
    // A read was sent at 100 and answered at 120. The handoff began at 101, and the owner, a Java
    // worker, transfers the lease by force at 131.
    let mut fleet = fleet_of(&[]);
    let mut observe = |lease: &Lease, sent, answered| {
        fleet.observe_lease(lease, ReadTime { sent: at(sent), answered: at(answered) });
    };
    observe(&lease(Some("w"), 8), 100, 120);
    for (second, counter) in [(121, 8), (128, 9)] {
        observe(&pending("me", "w", counter), second, second);
    }
    let mine = lease(Some("me"), 10);
    observe(&mine, 132, 132);
    assert!(!fleet.may_start(&mine, at(138)));
    assert!(fleet.may_start(&mine, at(139)));
}

#[test]
fn after_a_gap_between_scans_an_owner_that_may_be_new_has_longer() {
    // A Java worker that checkpoints after each batch. Another worker owned the lease between the
    // scans, or did not.
    let java = |counter| Lease { stamp: None, ..lease(Some("java"), counter) };
    let given_back = |by: u64| Lease { released_at: Some(by), ..java(8) };
    let forced = Lease { owner_switches: 1, ..lease(Some("java"), 8) };
    let heard =
        |at| Lease { checkpoint: Checkpoint::parse("7", 0).unwrap(), ..lease(Some("java"), at) };
    for (after, lease, longer) in [
        (5, java(8), false),
        (6, java(4), false),
        (6, java(8), true),
        (1, given_back(8), true),
        (1, given_back(7), true),
        (1, given_back(3), false),
        (1, forced, true),
        (60, heard(8), false),
    ] {
        let scanned = 100 + after;
        let fleet = fleet_of(&[(100, java(3)), (scanned, lease.clone())]);
        let free = |second| fleet.is_available(&lease, at(scanned + second));
        let limit = if longer { 25 } else { 10 };
        assert!(!free(limit) && free(limit + 1), "after {after}: {lease:?}");
    }
}

#[test]
fn a_decreased_counter_is_a_new_item_when_no_read_can_lag_that_long() {
    let owned = |counter| lease(Some("w"), counter);
    // An operator or a Java worker deletes the item and creates it again at 101.
    let scans = [(100, owned(500)), (101, owned(3)), (110, owned(3))];
    let lagging = fleet_of(&scans);
    assert!(!lagging.is_available(&owned(3), at(300)), "the read may lag");
    let believed = fleet_of(&[scans[0].clone(), scans[1].clone(), (111, owned(3))]);
    assert!(!believed.is_available(&owned(3), at(121)));
    assert!(believed.is_available(&owned(3), at(122)), "it is dead");
    let rare = fleet_of(&[scans[0].clone(), (200, owned(3))]);
    assert!(rare.is_available(&owned(3), at(211)));
    // The silence of the former item says nothing about the new one.
    let mine = lease(Some("me"), 3);
    let former = fleet_of(&[(100, owned(500)), (101, mine.clone())]);
    assert!(!former.may_start(&mine, at(300)));
    let known = fleet_of(&[(100, owned(500)), (111, mine.clone())]);
    assert!(!known.may_start(&mine, at(121)));
    assert!(known.may_start(&mine, at(122)));
}

#[test]
fn scans_may_be_further_apart_than_the_failover_time() {
    let owned = |counter| lease(Some("w"), counter);
    let beating = fleet_of(&[(0, owned(3)), (100, owned(23)), (200, owned(43))]);
    assert!(!beating.is_available(&owned(43), at(200)), "it lives");
    let silent = fleet_of(&[(0, owned(3)), (100, owned(23)), (200, owned(23))]);
    assert!(silent.is_available(&owned(23), at(200)));
    let mine = lease(Some("me"), 44);
    let hidden = fleet_of(&[(0, owned(3)), (100, owned(23)), (200, mine.clone())]);
    assert!(!hidden.may_start(&mine, at(210)));
    assert!(hidden.may_start(&mine, at(211)));
}

#[test]
fn a_handoff_to_another_does_not_let_this_worker_start() {
    // The lease went to another worker, which may be at work. Then a leader assigned it to this
    // worker.
    let mine = lease(Some("me"), 9);
    let elsewhere = fleet_of(&[(100, pending("other", "w", 7)), (103, mine.clone())]);
    assert!(!elsewhere.may_start(&mine, at(103)));
    assert!(elsewhere.may_start(&mine, at(114)));
}

#[test]
fn else_it_starts_when_the_previous_owner_is_fenced() {
    let mine = lease(Some("me"), 9);
    let taken = fleet_of(&[(100, lease(Some("w"), 8)), (102, mine.clone())]);
    assert!(!taken.may_start(&mine, at(110)));
    assert!(taken.may_start(&mine, at(111)));
    let unknown = fleet_of(&[(100, mine.clone())]);
    assert!(!unknown.may_start(&mine, at(110)));
    assert!(unknown.may_start(&mine, at(111)));
    assert!(!fleet_of(&[]).may_start(&mine, at(500)), "never seen");
}

#[test]
fn a_jump_of_the_counter_hides_a_renewal_and_restarts_the_wait() {
    // The previous owner renewed (8) and a leader assigned the lease (9). The renewal was not
    // observed.
    let mine = lease(Some("me"), 9);
    let jumped = fleet_of(&[(100, lease(Some("w"), 7)), (106, mine.clone())]);
    assert!(!jumped.may_start(&mine, at(116)));
    assert!(jumped.may_start(&mine, at(117)));
    // Another worker took the unassigned lease before it was assigned to this worker.
    let taken = fleet_of(&[(100, lease(None, 7)), (106, mine.clone())]);
    assert!(!taken.may_start(&mine, at(116)));
    assert!(taken.may_start(&mine, at(117)));
    // An observed handoff shows that the previous owner stopped, however often it renewed.
    let handed =
        fleet_of(&[(99, lease(Some("w"), 5)), (100, pending("me", "w", 5)), (106, mine.clone())]);
    assert!(handed.may_start(&mine, at(106)));
}

#[test]
fn a_lease_that_this_process_held_last_starts_at_once() {
    let mine = lease(Some("me"), 9);
    for (own, expected) in [(9, true), (8, true), (7, false), (10, false)] {
        let mut fleet = fleet_of(&[]);
        fleet.lease_ended(&mine.key, own);
        assert_eq!(fleet.may_start(&mine, at(1)), expected, "{own}");
    }
}

#[test]
fn an_unreadable_stamp_may_be_of_any_process() {
    let at_nine = |owner| Lease { stamp: Some(Stamp::unreadable(9)), ..lease(Some(owner), 9) };
    let mine = at_nine("me");
    let fleet = fleet_of(&[(100, lease(None, 8)), (101, mine.clone())]);
    assert!(!fleet.may_start(&mine, at(111)));
    assert!(fleet.may_start(&mine, at(112)));
    // Nor does it prove that the owner has renewed.
    let others = at_nine("w");
    let fleet = fleet_of(&[(100, others.clone())]);
    assert!(!fleet.is_available(&others, at(125)));
    assert!(fleet.is_available(&others, at(126)));
}

#[test]
fn a_write_of_another_process_of_this_id_restarts_the_wait() {
    let stamped = |process| Lease { stamp: Some(Stamp::after(8, process)), ..lease(Some("me"), 9) };
    let mine = stamped(PROCESS + 1);
    for before in [lease(None, 8), pending("me", "w", 8), lease(Some("w"), 8), lease(Some("me"), 8)]
    {
        // The lease was silent for long before that.
        let mut fleet = fleet_of(&[(100, before.clone()), (120, mine.clone())]);
        for held_before in [false, true] {
            if held_before {
                fleet.lease_ended(&mine.key, 8);
            }
            assert!(!fleet.may_start(&mine, at(130)), "{before:?}");
            assert!(fleet.may_start(&mine, at(131)), "{before:?}");
        }
        // A stamp of this process, or one of an earlier counter, does not restart the wait.
        let own = stamped(PROCESS);
        assert!(fleet_of(&[(100, before.clone()), (120, own.clone())]).may_start(&own, at(120)));
    }
    let since = Lease { counter: 10, ..mine.clone() };
    let free = Lease { owner: None, ..mine };
    assert!(fleet_of(&[(100, free), (101, since.clone())]).may_start(&since, at(101)));
}

#[test]
fn the_lease_table_shows_since_when_a_lease_is_as_it_is() {
    let mut fleet = fleet_of(&[]);
    assert!(fleet.lease_table(at(9)).is_none());
    let mut scanned = |second, owner: &str, counter| {
        let leases = vec![lease(Some(owner), counter)];
        scan(&mut fleet, second, Snapshot { leases, ..Snapshot::default() });
        fleet.lease_table(at(20)).unwrap()
    };
    scanned(10, "a", 1);
    scanned(13, "a", 2);
    scanned(15, "b", 3);
    let seen = scanned(16, "b", 3);
    assert_eq!(seen.age, at(4));
    let shown = &seen.leases[0];
    assert_eq!(shown.owner.as_deref(), Some("b"));
    assert_eq!((shown.owned_for, shown.heartbeat_age), (at(5), at(5)));
    assert_eq!(shown.checkpoint_age, at(10));
    let advanced = Lease { checkpoint: Checkpoint::Latest, ..lease(Some("b"), 4) };
    scan(&mut fleet, 18, Snapshot { leases: vec![advanced], ..Snapshot::default() });
    let shown = fleet.lease_table(at(20)).unwrap().leases.remove(0);
    assert_eq!((shown.owned_for, shown.checkpoint_age), (at(5), at(2)));
    scan(&mut fleet, 21, Snapshot::default());
    let leases = vec![lease(Some("b"), 4)];
    scan(&mut fleet, 22, Snapshot { leases, ..Snapshot::default() });
    let again = fleet.lease_table(at(22)).unwrap();
    assert_eq!(again.leases[0].owned_for, at(0), "forgotten when it was gone");
}

#[test]
fn the_lease_table_shows_both_owners_of_a_pending_handoff() {
    let fleet = fleet_of(&[(1, pending("next", "now", 3))]);
    let shown = fleet.lease_table(at(1)).unwrap().leases.remove(0);
    assert_eq!(shown.owner.as_deref(), Some("now"));
    assert_eq!(shown.pending_owner.as_deref(), Some("next"));
}
