//! What a worker may conclude from what it saw, case by case.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::lease::{Intent, Stamp};

const F: Duration = Duration::from_secs(10);
const ME: Successor = Successor { process: 7, own_counter: None };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One of ours wrote the counter.
fn lease(owner: Option<&str>, counter: u64) -> Lease {
    Lease {
        owner: owner.map(str::to_owned),
        counter,
        stamp: Some(Stamp { counter, process: Some(ME.process) }),
        ..Lease::new("shardId-0", Checkpoint::TrimHorizon)
    }
}

fn pending(to: &str, from: &str, counter: u64) -> Lease {
    Lease { checkpoint_owner: Some(from.to_owned()), ..lease(Some(to), counter) }
}

fn seen(looks: &[(u64, Lease)]) -> Observations {
    let mut observations = Observations::default();
    for (second, lease) in looks {
        observations.observe_all(std::slice::from_ref(lease), at(*second), at(*second), F);
    }
    observations
}

#[test]
fn an_owned_lease_expires_after_the_failover_time_without_a_heartbeat() {
    let owned = lease(Some("w"), 3);
    let observations = seen(&[(100, owned.clone()), (105, owned.clone())]);
    assert!(!observations.is_available(&owned, at(110), F), "first seen owned: not before F");
    assert!(observations.is_available(&owned, at(111), F));
    assert!(!observations.is_available(&lease(Some("w"), 4), at(111), F), "it has moved");
    let beating = seen(&[(100, owned.clone()), (109, lease(Some("w"), 4))]);
    assert!(!beating.is_available(&lease(Some("w"), 4), at(119), F));
    assert!(beating.is_available(&lease(Some("w"), 4), at(120), F));
}

#[test]
fn a_new_owner_has_longer_for_its_first_heartbeat() {
    // A Java worker was given it at 101, discovers it at 111 and renews at 114.
    let given = lease(Some("java"), 4);
    let looks = [(100, lease(None, 3)), (101, given.clone())];
    for looks in [
        looks,
        [(100, lease(Some("other"), 3)), (101, given.clone())],
        [(100, pending("java", "other", 3)), (101, given.clone())],
    ] {
        let observations = seen(&looks);
        assert!(!observations.is_available(&given, at(126), F));
        assert!(observations.is_available(&given, at(127), F), "it is dead");
    }
    let heard = seen(&[(100, lease(None, 3)), (101, given.clone()), (114, lease(Some("java"), 5))]);
    assert!(!heard.is_available(&lease(Some("java"), 5), at(124), F));
    assert!(heard.is_available(&lease(Some("java"), 5), at(125), F));
}

#[test]
fn at_a_first_look_an_owner_that_may_be_new_has_longer_too() {
    let heard = lease(Some("java"), 4);
    let by_java = Lease { stamp: None, ..heard.clone() };
    let since = Lease { stamp: lease(None, 3).stamp, ..heard.clone() };
    // One of ours gives it away while its processor may be at work, in a handoff and without.
    let forced = |lease: Lease| {
        let take = Intent::Take { owner: "java" };
        take.apply(ME.process, &lease, &lease).unwrap()
    };
    let given_away = forced(lease(Some("w"), 3));
    let handed_over = forced(pending("java", "w", 3));
    for given in [by_java, since, given_away, handed_over] {
        let observations = seen(&[(100, given.clone())]);
        assert!(!observations.is_available(&given, at(125), F), "{given:?}");
        assert!(observations.is_available(&given, at(126), F), "{given:?}");
        // Heard later, it is as any other.
        let renewed = Lease { counter: 5, ..given.clone() };
        let observations = seen(&[(100, given), (105, renewed.clone())]);
        assert!(!observations.is_available(&renewed, at(115), F));
        assert!(observations.is_available(&renewed, at(116), F));
    }
}

#[test]
fn what_is_taken_from_a_new_owner_waits_as_long_as_that_one_may_start() {
    // Given to a Java worker at 101, which may start until it renews, and to this one at 103.
    let given = lease(Some("java"), 4);
    let mine = lease(Some("me"), 5);
    let looks = [(100, lease(None, 3)), (101, given), (103, mine.clone())];
    let observations = seen(&looks);
    assert!(!observations.may_start(&mine, ME, at(126), F));
    assert!(observations.may_start(&mine, ME, at(127), F));
}

#[test]
fn a_leader_leads_while_its_lock_moves() {
    let lock = |version: &str| LeaderLock {
        owner: "w".into(),
        version: version.into(),
        duration: at(120),
        is_starter: false,
    };
    let mut observations = Observations::default();
    assert_eq!(observations.leader(at(0)), None);
    observations.observe_leader(Some(&lock("a")), at(100));
    observations.observe_leader(Some(&lock("a")), at(200));
    assert_eq!(observations.leader(at(220)), Some("w"));
    assert_eq!(observations.leader(at(221)), None, "it has died");
    observations.observe_leader(Some(&lock("b")), at(230));
    assert_eq!(observations.leader(at(350)), Some("w"), "a heartbeat");
    observations.observe_leader(None, at(240));
    assert_eq!(observations.leader(at(240)), None, "it has left");
}

#[test]
fn a_worker_whose_leases_were_taken_is_dead_until_its_next_row() {
    let row = |written| WorkerRow {
        worker: "w".into(),
        last_update: written,
        measures: false,
        process: None,
    };
    let dead = |before: Lease, after: Lease| {
        let mut observations = seen(&[(100, before), (101, after)]);
        observations.observe_workers(&[row(5000)], &BTreeMap::new());
        assert!(!observations.is_dead(&row(5030)), "it wrote another row");
        let dead = observations.is_dead(&row(5000));
        observations.observe_workers(&[row(5000)], &BTreeMap::new());
        assert_eq!(observations.is_dead(&row(5000)), dead, "nothing has changed");
        dead
    };
    let owned = lease(Some("w"), 3);
    // Taken, and renewed since.
    assert!(dead(owned.clone(), lease(Some("other"), 4)));
    assert!(dead(owned.clone(), lease(Some("other"), 6)));
    let marked_before = Lease { released_at: Some(3), ..lease(Some("other"), 6) };
    assert!(dead(owned.clone(), marked_before), "given to it, not by it");
    // It gave it up itself: by a mark of ours, by a handoff, or as a planned stop does.
    let marked = Lease { released_at: Some(4), ..lease(Some("other"), 6) };
    assert!(!dead(owned.clone(), marked));
    assert!(!dead(pending("other", "w", 3), lease(Some("other"), 4)));
    assert!(!dead(owned.clone(), lease(None, 4)));
    assert!(!dead(owned.clone(), lease(Some("w"), 4)), "it renewed");
    assert!(!dead(lease(None, 3), lease(Some("other"), 4)));
}

#[test]
fn a_worker_that_renews_is_not_dead_and_one_whose_leases_expired_is() {
    let row = WorkerRow { worker: "w".into(), last_update: 5000, measures: false, process: None };
    let mut observations = seen(&[(100, lease(Some("w"), 3)), (101, lease(Some("x"), 4))]);
    observations.observe_workers(std::slice::from_ref(&row), &BTreeMap::from([("w", true)]));
    assert!(!observations.is_dead(&row), "it has another one");
    observations.observe_workers(std::slice::from_ref(&row), &BTreeMap::from([("w", false)]));
    assert!(observations.is_dead(&row));
    // They were taken over since.
    observations.observe_workers(std::slice::from_ref(&row), &BTreeMap::new());
    assert!(observations.is_dead(&row));
    observations.observe_workers(std::slice::from_ref(&row), &BTreeMap::from([("w", true)]));
    assert!(!observations.is_dead(&row), "it has come back");
}

#[test]
fn an_unassigned_lease_is_available_at_once_and_a_finished_one_never() {
    let observations = seen(&[]);
    assert!(observations.is_available(&lease(None, 0), at(1), F));
    let ended = Lease { checkpoint: Checkpoint::ShardEnd, ..lease(None, 0) };
    assert!(!observations.is_available(&ended, at(1), F));
}

#[test]
fn counts_how_long_a_lease_has_been_available() {
    let free = lease(None, 0);
    let observations = seen(&[(100, free.clone()), (103, free.clone())]);
    assert_eq!(observations.available_for(&free, at(107)), at(7));
    let observations = seen(&[(100, free.clone()), (103, lease(Some("w"), 1))]);
    assert_eq!(observations.available_for(&free, at(107)), at(0));
}

#[test]
fn a_lease_given_up_on_purpose_starts_at_once() {
    let released = Lease { released_at: Some(8), ..lease(Some("me"), 8) };
    assert!(seen(&[]).may_start(&released, ME, at(1), F));
    let stale_mark = Lease { released_at: Some(7), ..lease(Some("me"), 8) };
    let observations = seen(&[(100, stale_mark.clone())]);
    assert!(!observations.may_start(&stale_mark, ME, at(101), F));
}

#[test]
fn an_assigned_lease_starts_at_once_if_it_was_unassigned() {
    let mine = lease(Some("me"), 1);
    let observations = seen(&[(100, lease(None, 0)), (101, mine.clone())]);
    assert!(observations.may_start(&mine, ME, at(101), F));
}

#[test]
fn a_handoff_completed_in_time_starts_at_once_and_a_forced_one_waits() {
    let mine = lease(Some("me"), 9);
    let quick =
        seen(&[(99, lease(Some("w"), 8)), (100, pending("me", "w", 8)), (120, mine.clone())]);
    assert!(quick.may_start(&mine, ME, at(120), F));
    // Renewals of the old owner do not restart the count.
    let long = seen(&[
        (99, lease(Some("w"), 7)),
        (100, pending("me", "w", 7)),
        (128, pending("me", "w", 8)),
        (131, mine.clone()),
    ]);
    assert!(!long.may_start(&mine, ME, at(131), F));
    assert!(long.may_start(&mine, ME, at(139), F), "F after the old owner's last heartbeat");
}

#[test]
fn a_handoff_of_unknown_age_is_not_trusted() {
    // It may have been pending for long: a Java leader has just forced it.
    let mine = lease(Some("me"), 9);
    let rare =
        seen(&[(40, lease(Some("w"), 5)), (100, pending("me", "w", 8)), (101, mine.clone())]);
    let unknown = seen(&[(100, pending("me", "w", 8)), (101, mine.clone())]);
    for observations in [rare, unknown] {
        assert!(!observations.may_start(&mine, ME, at(101), F));
        assert!(!observations.may_start(&mine, ME, at(110), F));
        assert!(observations.may_start(&mine, ME, at(111), F));
    }
}

#[test]
fn a_handoff_may_be_older_than_the_answer_that_did_not_show_it() {
    // Asked for at 100, read at once, and answered at 120; the handoff began at 101, and its owner, a
    // Java worker, transfers by force at 131.
    let mut observations = Observations::default();
    observations.observe(&lease(Some("w"), 8), at(100), at(120), F);
    for (second, counter) in [(121, 8), (128, 9)] {
        observations.observe(&pending("me", "w", counter), at(second), at(second), F);
    }
    let mine = lease(Some("me"), 10);
    observations.observe(&mine, at(132), at(132), F);
    assert!(!observations.may_start(&mine, ME, at(138), F));
    assert!(observations.may_start(&mine, ME, at(139), F));
}

#[test]
fn an_owner_that_may_have_been_away_has_longer_at_a_rare_look() {
    // A Java worker that checkpoints at each batch; another had it between the looks, or not.
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
        let at_look = 100 + after;
        let observations = seen(&[(100, java(3)), (at_look, lease.clone())]);
        let free = |second| observations.is_available(&lease, at(at_look + second), F);
        let limit = if longer { 25 } else { 10 };
        assert!(!free(limit) && free(limit + 1), "after {after}: {lease:?}");
    }
}

#[test]
fn a_counter_that_went_back_is_believed_when_no_look_can_lag_that_long() {
    let owned = |counter| lease(Some("w"), counter);
    // Deleted and made anew at 101 by an operator, or by a Java worker.
    let looks = [(100, owned(500)), (101, owned(3)), (110, owned(3))];
    let lagging = seen(&looks);
    assert!(!lagging.is_available(&owned(3), at(300), F), "it may lag");
    let believed = seen(&[looks[0].clone(), looks[1].clone(), (111, owned(3))]);
    assert!(!believed.is_available(&owned(3), at(121), F));
    assert!(believed.is_available(&owned(3), at(122), F), "it is dead");
    let rare = seen(&[looks[0].clone(), (200, owned(3))]);
    assert!(rare.is_available(&owned(3), at(211), F));
    // How long the former item stood still says nothing.
    let mine = lease(Some("me"), 3);
    let former = seen(&[(100, owned(500)), (101, mine.clone())]);
    assert!(!former.may_start(&mine, ME, at(300), F));
    let known = seen(&[(100, owned(500)), (111, mine.clone())]);
    assert!(!known.may_start(&mine, ME, at(121), F));
    assert!(known.may_start(&mine, ME, at(122), F));
}

#[test]
fn looks_may_be_rarer_than_the_failover_time() {
    let owned = |counter| lease(Some("w"), counter);
    let beating = seen(&[(0, owned(3)), (100, owned(23)), (200, owned(43))]);
    assert!(!beating.is_available(&owned(43), at(200), F), "it lives");
    let silent = seen(&[(0, owned(3)), (100, owned(23)), (200, owned(23))]);
    assert!(silent.is_available(&owned(23), at(200), F));
    let mine = lease(Some("me"), 44);
    let hidden = seen(&[(0, owned(3)), (100, owned(23)), (200, mine.clone())]);
    assert!(!hidden.may_start(&mine, ME, at(210), F));
    assert!(hidden.may_start(&mine, ME, at(211), F));
}

#[test]
fn a_handoff_to_another_does_not_let_this_worker_start() {
    // It went to another, who may be at work; then somebody named this worker.
    let mine = lease(Some("me"), 9);
    let elsewhere = seen(&[(100, pending("other", "w", 7)), (103, mine.clone())]);
    assert!(!elsewhere.may_start(&mine, ME, at(103), F));
    assert!(elsewhere.may_start(&mine, ME, at(114), F));
}

#[test]
fn else_it_waits_until_the_last_owner_is_fenced() {
    let mine = lease(Some("me"), 9);
    let taken = seen(&[(100, lease(Some("w"), 8)), (102, mine.clone())]);
    assert!(!taken.may_start(&mine, ME, at(110), F));
    assert!(taken.may_start(&mine, ME, at(111), F));
    let unknown = seen(&[(100, mine.clone())]);
    assert!(!unknown.may_start(&mine, ME, at(110), F));
    assert!(unknown.may_start(&mine, ME, at(111), F));
    assert!(!seen(&[]).may_start(&mine, ME, at(500), F), "never seen");
}

#[test]
fn a_jump_of_the_counter_hides_a_heartbeat_and_restarts_the_wait() {
    // The old owner renewed (8), then a leader assigned (9); the first was not seen.
    let mine = lease(Some("me"), 9);
    let jumped = seen(&[(100, lease(Some("w"), 7)), (106, mine.clone())]);
    assert!(!jumped.may_start(&mine, ME, at(116), F));
    assert!(jumped.may_start(&mine, ME, at(117), F));
    // Somebody took what was unassigned, before it was assigned to this worker.
    let taken = seen(&[(100, lease(None, 7)), (106, mine.clone())]);
    assert!(!taken.may_start(&mine, ME, at(116), F));
    assert!(taken.may_start(&mine, ME, at(117), F));
    // A handoff that was seen says who let go, however often the old owner renewed.
    let handed =
        seen(&[(99, lease(Some("w"), 5)), (100, pending("me", "w", 5)), (106, mine.clone())]);
    assert!(handed.may_start(&mine, ME, at(106), F));
}

#[test]
fn its_own_lease_untouched_since_starts_at_once() {
    let mine = lease(Some("me"), 9);
    for (own, expected) in [(9, true), (8, true), (7, false), (10, false)] {
        let successor = Successor { own_counter: Some(own), ..ME };
        assert_eq!(seen(&[]).may_start(&mine, successor, at(1), F), expected, "{own}");
    }
}

#[test]
fn a_stamp_that_cannot_be_read_may_be_anybodys() {
    let at_nine = |owner| Lease { stamp: Some(Stamp::unreadable(9)), ..lease(Some(owner), 9) };
    let mine = at_nine("me");
    let observations = seen(&[(100, lease(None, 8)), (101, mine.clone())]);
    assert!(!observations.may_start(&mine, ME, at(111), F));
    assert!(observations.may_start(&mine, ME, at(112), F));
    // Nor does it show that its owner was heard.
    let others = at_nine("w");
    let observations = seen(&[(100, others.clone())]);
    assert!(!observations.is_available(&others, at(125), F));
    assert!(observations.is_available(&others, at(126), F));
}

#[test]
fn what_another_process_of_its_id_wrote_restarts_the_wait() {
    let stamped = |process| Lease { stamp: Some(Stamp::after(8, process)), ..lease(Some("me"), 9) };
    let mine = stamped(ME.process + 1);
    for before in [lease(None, 8), pending("me", "w", 8), lease(Some("w"), 8), lease(Some("me"), 8)]
    {
        // It was quiet for long before that.
        let observations = seen(&[(100, before.clone()), (120, mine.clone())]);
        let after_own = Successor { own_counter: Some(8), ..ME };
        for me in [ME, after_own] {
            assert!(!observations.may_start(&mine, me, at(130), F), "{before:?}");
            assert!(observations.may_start(&mine, me, at(131), F), "{before:?}");
        }
        // Its own stamp, or one that the counter has left behind, says nothing.
        let own = stamped(ME.process);
        assert!(seen(&[(100, before.clone()), (120, own.clone())]).may_start(&own, ME, at(120), F));
    }
    let since = Lease { counter: 10, ..mine.clone() };
    let free = Lease { owner: None, ..mine };
    assert!(seen(&[(100, free), (101, since.clone())]).may_start(&since, ME, at(101), F));
}
