//! The writes with their conditions.

use std::time::{Duration, SystemTime};

use kcl::Checkpoint;
use kcl::internals::{
    Failing, LeaderLock, Lease, LeaseWrite, Outcome, OwnerReport, PendingCheckpoint, ShardFacts,
    StreamIdentity, attribute as name, encode, number,
};

use super::{
    Subject, Trouble, applied, assign, at, checkpoint, owned, refused, renew, start_handoff, take,
};

pub(super) async fn a_created_lease_is_read_back_equal_and_not_created_again(
    subject: &impl Subject,
) {
    let store = subject.store();
    let mut lease = Lease::new("shardId-0", Checkpoint::Latest);
    lease.parents = ["shardId-a".to_owned()].into();
    lease.hash_key_range = Some(kinesis_aggregation::HashKeyRange::FULL);
    lease.resume_from = Some(std::time::UNIX_EPOCH + std::time::Duration::from_millis(12_345));
    assert_eq!(applied(store.write(&lease, LeaseWrite::Create).await.unwrap()), lease);
    assert_eq!(store.get("shardId-0").await.unwrap().unwrap(), lease);
    assert_eq!(store.get("shardId-1").await.unwrap(), None);
    let other = Lease::new("shardId-0", Checkpoint::TrimHorizon);
    assert_eq!(refused(store.write(&other, LeaseWrite::Create).await.unwrap()), lease);
}

pub(super) async fn renewals_prove_ownership_and_notice_handoffs_and_takers(
    subject: &impl Subject,
) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    assert_eq!((mine.counter, mine.owner_switches), (1, 0));
    let measured = LeaseWrite::Renew {
        owner: "me".into(),
        report: OwnerReport { throughput: Some(1.5), failing: Failing::parse("3@49:7") },
    };
    let renewed = applied(store.write(&mine, measured).await.unwrap());
    assert_eq!((renewed.counter, renewed.throughput), (2, Some(1.5)));
    assert_eq!(renewed.failing.as_ref().map(|failing| failing.failures), Some(3));
    // With an old counter, or by another worker.
    let old = Lease { counter: 0, ..mine };
    assert_eq!(refused(store.write(&old, renew("me")).await.unwrap()), renewed);
    assert_eq!(refused(store.write(&renewed, renew("other")).await.unwrap()), renewed);

    let leader_view = renewed.clone();
    let pending = applied(store.write(&leader_view, start_handoff("next")).await.unwrap());
    assert_eq!(pending.counter, renewed.counter, "a handoff leaves the counter");
    assert_eq!(refused(store.write(&renewed, renew("me")).await.unwrap()), pending);
    let renewed = applied(store.write(&pending, renew("me")).await.unwrap());
    assert_eq!(renewed.counter, pending.counter + 1);
    assert_eq!(renewed.failing, pending.failing, "without a report it stays");
    assert_eq!(refused(store.write(&renewed, renew("next")).await.unwrap()), renewed);
    // Nor does it if it does not know of the handoff.
    let blind = Lease { checkpoint_owner: None, ..renewed.clone() };
    refused(store.write(&blind, renew("next")).await.unwrap());
    // A handoff starts once.
    refused(store.write(&renewed, start_handoff("third")).await.unwrap());
}

pub(super) async fn checkpoints_need_the_counter_and_the_processing_owner(subject: &impl Subject) {
    let store = subject.store();
    let mut lease = Lease::new("k", Checkpoint::Latest);
    lease.resume_from = Some(std::time::UNIX_EPOCH);
    store.write(&lease, LeaseWrite::Create).await.unwrap();
    let mine = applied(store.write(&lease, take("me")).await.unwrap());

    let pending = Some(PendingCheckpoint {
        checkpoint: at("9", 1),
        state: Some(bytes::Bytes::from_static(b"state")),
    });
    let prepare = LeaseWrite::Checkpoint {
        owner: "me".into(),
        checkpoint: Checkpoint::Latest,
        pending: pending.clone(),
        report: OwnerReport::default(),
    };
    let mine = applied(store.write(&mine, prepare).await.unwrap());
    assert_eq!((&mine.pending, mine.counter), (&pending, 2));
    assert!(mine.resume_from.is_some(), "still at its start");

    let done = applied(store.write(&mine, checkpoint("me", at("9", 2))).await.unwrap());
    assert_eq!(done.checkpoint, at("9", 2));
    assert_eq!((&done.pending, done.resume_from, done.counter), (&None, None, 3));
    refused(store.write(&mine, checkpoint("me", at("10", 2))).await.unwrap());
    refused(store.write(&done, checkpoint("other", at("10", 2))).await.unwrap());

    // In a handoff, even one that the owner has not seen, the old owner may, the next may not.
    applied(store.write(&done, start_handoff("next")).await.unwrap());
    let late = applied(store.write(&done, checkpoint("me", at("11", 2))).await.unwrap());
    assert_eq!(late.checkpoint_owner.as_deref(), Some("me"));
    refused(store.write(&late, checkpoint("next", at("12", 2))).await.unwrap());
}

pub(super) async fn a_move_writes_the_whole_position_on_the_condition_of_a_checkpoint(
    subject: &impl Subject,
) {
    let store = subject.store();
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
    let mine = owned(store, "k", "me").await;
    let mine = applied(store.write(&mine, checkpoint("me", at("9", 2))).await.unwrap());
    let note = LeaseWrite::SetFacts(ShardFacts::ReadTo(time));
    let mine = applied(store.write(&mine, note).await.unwrap());
    let to = |owner: &str, checkpoint, resume_from| LeaseWrite::Move {
        owner: owner.into(),
        checkpoint,
        resume_from,
    };
    let back = to("me", Checkpoint::AtTimestamp, Some(time));
    let moved = applied(store.write(&mine, back).await.unwrap());
    assert_eq!((&moved.checkpoint, moved.resume_from), (&Checkpoint::AtTimestamp, Some(time)));
    assert_eq!((moved.read_to, moved.counter), (None, mine.counter + 1));
    let horizon = || to("me", Checkpoint::TrimHorizon, None);
    refused(store.write(&mine, horizon()).await.unwrap());
    refused(store.write(&moved, to("other", Checkpoint::TrimHorizon, None)).await.unwrap());
    let moved = applied(store.write(&moved, horizon()).await.unwrap());
    assert_eq!((&moved.checkpoint, moved.resume_from), (&Checkpoint::TrimHorizon, None));
    applied(store.write(&moved, start_handoff("next")).await.unwrap());
    applied(store.write(&moved, horizon()).await.unwrap());
}

pub(super) async fn taking_needs_the_lease_as_it_was_seen(subject: &impl Subject) {
    let store = subject.store();
    let seen = owned(store, "k", "old").await;
    let renewed = applied(store.write(&seen, renew("old")).await.unwrap());
    refused(store.write(&seen, take("me")).await.unwrap());
    let pending = applied(store.write(&renewed, start_handoff("next")).await.unwrap());
    refused(store.write(&renewed, take("me")).await.unwrap());
    let mine = applied(store.write(&pending, take("me")).await.unwrap());
    assert_eq!(mine.owner.as_deref(), Some("me"));
    assert_eq!((&mine.checkpoint_owner, mine.counter, mine.owner_switches), (&None, 3, 1));
    refused(store.write(&pending, renew("old")).await.unwrap());
    let again = applied(store.write(&mine, take("me")).await.unwrap());
    assert_eq!(again.owner_switches, 1, "the same owner is no switch");
    // A handoff is forced. The next owner did not process the shard yet, so this is a switch.
    let pending = applied(store.write(&again, start_handoff("next")).await.unwrap());
    let forced = applied(store.write(&pending, take("next")).await.unwrap());
    assert_eq!((forced.owner.as_deref(), forced.owner_switches), (Some("next"), 2));
    // The worker that processes the shard takes the lease back.
    let pending = applied(store.write(&forced, start_handoff("last")).await.unwrap());
    let back = applied(store.write(&pending, take("next")).await.unwrap());
    assert_eq!(back.owner_switches, 2, "no switch");
}

pub(super) async fn assigning_needs_the_owners_and_completes_a_handoff(subject: &impl Subject) {
    let store = subject.store();
    let free = Lease::new("k", Checkpoint::TrimHorizon);
    store.write(&free, LeaseWrite::Create).await.unwrap();
    let given = applied(store.write(&free, assign("a", false)).await.unwrap());
    assert_eq!((given.counter, given.owner_switches, given.released_at), (1, 0, None));
    assert_eq!(refused(store.write(&free, assign("b", false)).await.unwrap()), given);

    // The owner's renewals matter only if the owner itself transfers the lease.
    let renewed = applied(store.write(&given, renew("a")).await.unwrap());
    refused(store.write(&given, assign("b", true)).await.unwrap());
    let pending = applied(store.write(&renewed, start_handoff("b")).await.unwrap());
    refused(store.write(&renewed, assign("b", false)).await.unwrap());
    let done = applied(store.write(&pending, assign("b", true)).await.unwrap());
    assert_eq!((done.owner.as_deref(), &done.checkpoint_owner), (Some("b"), &None));
    assert_eq!(done.counter, pending.counter + 1);
    assert!(done.was_released_to_owner());
    let renewed = applied(store.write(&done, renew("b")).await.unwrap());
    assert!(!renewed.was_released_to_owner(), "the mark holds for one counter");

    let gone = Lease::new("gone", Checkpoint::TrimHorizon);
    assert_eq!(
        store.write(&gone, assign("a", false)).await.unwrap(),
        Outcome::ConditionFailed(None)
    );
    assert_eq!(store.get("gone").await.unwrap(), None);
}

pub(super) async fn evicting_frees_the_lease_or_leaves_it_to_the_next_owner(
    subject: &impl Subject,
) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    let others = Lease { owner: Some("other".into()), ..mine.clone() };
    refused(store.write(&others, LeaseWrite::Evict).await.unwrap());
    let mine = applied(store.write(&mine, renew("me")).await.unwrap());
    let earlier = Lease { counter: 1, ..mine.clone() };
    refused(store.write(&earlier, LeaseWrite::Evict).await.unwrap());
    let free = applied(store.write(&mine, LeaseWrite::Evict).await.unwrap());
    assert_eq!((&free.owner, free.counter), (&None, 3));
    assert!(!subject.item("k").await.unwrap().contains_key(name::OWNER), "absent, not empty");

    let mine = applied(store.write(&free, take("me")).await.unwrap());
    let pending = applied(store.write(&mine, start_handoff("next")).await.unwrap());
    let left = applied(store.write(&pending, LeaseWrite::Evict).await.unwrap());
    assert_eq!((left.owner.as_deref(), &left.checkpoint_owner), (Some("next"), &None));
}

pub(super) async fn facts_about_the_shard_leave_the_counter_and_need_the_lease(
    subject: &impl Subject,
) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    let children = LeaseWrite::SetFacts(ShardFacts::Children(vec!["a".into(), "b".into()]));
    let changed = applied(store.write(&mine, children.clone()).await.unwrap());
    assert_eq!(changed.children.len(), 2);
    assert_eq!(changed.counter, mine.counter);
    let range = ShardFacts::HashKeyRange(kinesis_aggregation::HashKeyRange::FULL);
    let changed = applied(store.write(&mine, LeaseWrite::SetFacts(range)).await.unwrap());
    assert_eq!(changed.hash_key_range, Some(kinesis_aggregation::HashKeyRange::FULL));
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
    let read_to = LeaseWrite::SetFacts(ShardFacts::ReadTo(time));
    let changed = applied(store.write(&mine, read_to).await.unwrap());
    assert_eq!((changed.read_to, changed.counter), (Some(time), mine.counter));
    let streams = ["arn:orders@1", "arn:orders@2"];
    let [one, two] = streams.map(|text| StreamIdentity::parse(text).unwrap());
    let named = |stream: &StreamIdentity| LeaseWrite::SetFacts(ShardFacts::Stream(stream.clone()));
    let changed = applied(store.write(&mine, named(&one)).await.unwrap());
    assert_eq!(changed.stream, Some(one));
    // A lease that names its stream keeps it.
    assert_eq!(refused(store.write(&mine, named(&two)).await.unwrap()), changed);
    let gone = Lease::new("gone", Checkpoint::TrimHorizon);
    assert_eq!(store.write(&gone, children).await.unwrap(), Outcome::ConditionFailed(None));
}

/// A worker of another library that owns a lease moves the counter, and leaves the stamp and the note.
pub(super) async fn a_note_of_reading_is_dropped_once_another_library_has_owned_the_lease(
    subject: &impl Subject,
) {
    let store = subject.store();
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
    for (key, renewals, kept) in [
        ("released", 0, true),
        ("assigned-by-a-java-leader", 1, true),
        ("owned-by-a-java-worker", 1_000, false),
    ] {
        let mine = owned(store, key, "me").await;
        let note = LeaseWrite::SetFacts(ShardFacts::ReadTo(time));
        applied(store.write(&mine, note).await.unwrap());
        let renewed = applied(store.write(&mine, renew("me")).await.unwrap());
        assert_eq!(renewed.read_to, Some(time), "{key}");
        applied(store.write(&renewed, LeaseWrite::Evict).await.unwrap());
        let mut item = subject.item(key).await.unwrap();
        let counter = renewed.counter + 1 + renewals;
        item.insert(name::COUNTER.into(), number(counter));
        subject.put_item(key, item).await;

        let found = store.get(key).await.unwrap().unwrap();
        assert_eq!(found.read_to, Some(time), "{key}");
        let taken = applied(store.write(&found, take("next")).await.unwrap());
        assert_eq!(taken.read_to, kept.then_some(time), "{key}");
        // The stamp of the take must not make the note valid again for the next owner.
        let next = applied(store.write(&taken, renew("next")).await.unwrap());
        assert_eq!(next.read_to, kept.then_some(time), "{key}");
    }
    // A worker that was named as the owner renews, and does not take.
    let item = encode(&Lease {
        owner: Some("me".into()),
        counter: 1_000,
        read_to: Some(SystemTime::UNIX_EPOCH),
        ..Lease::new("never-stamped", Checkpoint::TrimHorizon)
    });
    subject.put_item("never-stamped", item).await;
    let found = store.get("never-stamped").await.unwrap().unwrap();
    let renewed = applied(store.write(&found, renew("me")).await.unwrap());
    assert_eq!(renewed.read_to, None);
}

pub(super) async fn a_lease_of_a_former_stream_is_replaced_with_its_owner_and_counter_as_known(
    subject: &impl Subject,
) {
    let store = subject.store();
    let mut new = Lease::new("k", Checkpoint::TrimHorizon);
    new.stream = StreamIdentity::parse("arn:orders@2");
    let mine = owned(store, "k", "me").await;
    let renewed = applied(store.write(&mine, renew("me")).await.unwrap());
    refused(store.write(&mine, replace(&new)).await.unwrap());
    let pending = applied(store.write(&renewed, start_handoff("next")).await.unwrap());
    refused(store.write(&renewed, replace(&new)).await.unwrap());

    applied(store.write(&pending, replace(&new)).await.unwrap());
    let found = store.get("k").await.unwrap().unwrap();
    assert_eq!((&found.checkpoint, &found.stream), (&new.checkpoint, &new.stream));
    assert_eq!(
        (found.owner.as_deref(), &found.checkpoint_owner),
        (Some("me"), &None),
        "the worker that processed it is waited for, and the handoff is over"
    );
    assert_eq!(found.counter, pending.counter + 2);
    assert!(found.is_stamped());
    // The former owner loses it, whatever it writes.
    refused(store.write(&pending, renew("me")).await.unwrap());
    refused(store.write(&pending, replace(&new)).await.unwrap());

    let mut ended = Lease::new("ended", Checkpoint::ShardEnd);
    ended.owner = Some("me".into());
    applied(store.write(&ended, LeaseWrite::Create).await.unwrap());
    let new = Lease::new("ended", Checkpoint::TrimHorizon);
    let free = applied(store.write(&ended, replace(&new)).await.unwrap());
    assert_eq!(free.owner, None, "an ended shard has no processor");
    let gone = Lease::new("gone", Checkpoint::TrimHorizon);
    assert_eq!(store.write(&gone, replace(&gone)).await.unwrap(), Outcome::ConditionFailed(None));
}

fn replace(new: &Lease) -> LeaseWrite {
    LeaseWrite::Replace { new: Box::new(new.clone()) }
}

pub(super) async fn deleting_needs_the_checkpoint(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    let ended = Lease { checkpoint: Checkpoint::ShardEnd, ..mine.clone() };
    assert_eq!(refused(store.write(&ended, LeaseWrite::Delete).await.unwrap()), mine);
    applied(store.write(&mine, LeaseWrite::Delete).await.unwrap());
    assert_eq!(store.get("k").await.unwrap(), None);
    assert_eq!(
        store.write(&mine, LeaseWrite::Delete).await.unwrap(),
        Outcome::ConditionFailed(None)
    );
}

pub(super) async fn the_leaders_lock_changes_hands_only_as_it_was_seen(subject: &impl Subject) {
    let store = subject.store();
    let lock = |owner: &str, version: &str, is_starter| LeaderLock {
        owner: owner.into(),
        version: version.into(),
        duration: Duration::from_secs(5),
        is_starter,
    };
    let (first, second) = (lock("a", "v1", true), lock("b", "v2", true));
    assert_eq!(store.leader().await.unwrap(), None);
    assert!(store.change_leader(None, Some(&first)).await.unwrap());
    assert!(!store.change_leader(None, Some(&second)).await.unwrap());
    assert_eq!(store.leader().await.unwrap(), Some(first.clone()));
    assert_eq!(store.list(true).await.unwrap().leader, None, "it assigns nothing");

    let same = lock("b", "v1", true);
    assert!(!store.change_leader(None, Some(&same)).await.unwrap());

    let next = lock("a", "v3", true);
    assert!(!store.change_leader(Some(&second), Some(&next)).await.unwrap());
    assert!(store.change_leader(Some(&first), Some(&next)).await.unwrap());
    assert!(!store.change_leader(Some(&first), None).await.unwrap());
    assert_eq!(store.leader().await.unwrap(), Some(next.clone()));
    assert!(store.change_leader(Some(&next), None).await.unwrap());
    assert_eq!(store.leader().await.unwrap(), None);

    let leader = lock("c", "v4", false);
    assert!(store.change_leader(None, Some(&leader)).await.unwrap());
    assert_eq!(store.list(true).await.unwrap().leader, Some(leader));

    // An answer that got lost is no refusal.
    subject.trouble(Trouble::PutAnswersLost, 1);
    let known = store.leader().await.unwrap();
    assert!(store.change_leader(known.as_ref(), Some(&first)).await.unwrap());
    assert!(subject.heal() > 0);
    assert_eq!(store.leader().await.unwrap(), Some(first));
}
