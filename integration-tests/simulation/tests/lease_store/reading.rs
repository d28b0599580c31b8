//! Reads: of one lease, of the whole table, of the index; and items that cannot be read.

use std::time::Duration;

use kcl::Checkpoint;
use kcl::internals::{
    Item, Lease, LeaseStoreError, LeaseWrite, PendingCheckpoint, TableItem, WorkerRow,
    attribute as name, decode, encode, text,
};

use super::golden::golden;
use super::{Subject, Trouble, applied, assign, owned, renew, start_handoff, take};

fn item(key: &str, attributes: &[(&str, &str)]) -> Item {
    let key = (name::KEY.to_owned(), text(key));
    let rest = attributes.iter().map(|(name, value)| ((*name).to_owned(), text(*value)));
    rest.chain([key]).collect()
}

pub(super) async fn lists_leases_and_workers_and_skips_what_it_cannot_read(subject: &impl Subject) {
    let store = subject.store();
    owned(store, "a", "me").await;
    owned(store, "b", "me").await;
    store.put_worker("w1", 77).await.unwrap();
    let leader = [
        (name::ENTITY_TYPE, "LEADER"),
        (name::LOCK_OWNER, "w2"),
        (name::LOCK_VERSION, "v"),
        (name::LOCK_DURATION, "120000"),
    ];
    subject.put_item("Leader", item("Leader", &leader)).await;
    subject.put_item("broken", item("broken", &[])).await;
    for consistent in [true, false] {
        let found = store.list(consistent).await.unwrap();
        let mut keys: Vec<_> = found.leases.iter().map(|lease| &lease.key).collect();
        keys.sort();
        assert_eq!(keys, ["a", "b"]);
        let row =
            WorkerRow { worker: "w1".into(), last_update: 77, measures: false, process: Some(1) };
        assert_eq!(found.workers, [row]);
        let leader = found.leader.map(|lock| lock.owner);
        assert_eq!(leader.as_deref(), Some("w2"));
        assert_eq!(found.corrupt.len(), 1);
        assert_eq!(found.corrupt[0].key, "broken");
    }

    store.delete_worker("w1", 75..=76).await.unwrap();
    store.delete_worker("w1", 78..=80).await.unwrap();
    let found = store.list(true).await.unwrap();
    assert_eq!(found.workers.len(), 1, "another process has written it");
    store.put_worker("w1", 78).await.unwrap();
    store.delete_worker("w1", 77..=79).await.unwrap();
    assert!(store.list(true).await.unwrap().workers.is_empty());
    store.delete_worker("w1", 77..=79).await.unwrap();
}

pub(super) async fn a_large_table_is_read_whole_in_one_segment_and_in_many(subject: &impl Subject) {
    let store = subject.store();
    // More than two pages of 1 MB: the second scan has as many segments.
    for shard in 0..7 {
        let mut lease = Lease::new(format!("shard-{shard}"), Checkpoint::TrimHorizon);
        lease.pending = Some(PendingCheckpoint {
            checkpoint: Checkpoint::Latest,
            state: Some(vec![7; 350_000].into()),
        });
        applied(store.write(&lease, LeaseWrite::Create).await.unwrap());
    }
    for _ in 0..3 {
        let found = store.list(true).await.unwrap().leases;
        let mut keys: Vec<_> = found.into_iter().map(|lease| lease.key).collect();
        keys.sort();
        let all: Vec<_> = (0..7).map(|shard| format!("shard-{shard}")).collect();
        assert_eq!(keys, all);
    }
}

pub(super) async fn a_corrupt_item_stops_only_what_needs_it(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "good", "me").await;
    let mut broken = encode(&mine);
    broken.insert(name::KEY.to_owned(), text("broken"));
    broken.insert(name::CHECKPOINT.to_owned(), text("SOMEWHERE"));
    subject.put_item("broken", broken).await;
    store.put_worker("w1", 77).await.unwrap();
    for key in ["broken", "w1"] {
        let lease = Lease { key: key.to_owned(), counter: 99, ..mine.clone() };
        for answer in [
            store.get(key).await.map(|_| ()),
            store.write(&lease, LeaseWrite::Create).await.map(|_| ()),
            store.write(&lease, renew("me")).await.map(|_| ()),
            store.write(&lease, take("me")).await.map(|_| ()),
        ] {
            let error = answer.unwrap_err();
            let LeaseStoreError::Corrupt(corrupt) = &error else { panic!("{error:?}") };
            assert_eq!(corrupt.key, key);
            assert!(!error.is_retryable() && !error.is_ambiguous());
        }
    }
    applied(store.write(&mine, renew("me")).await.unwrap());
    assert_eq!(store.list(true).await.unwrap().leases.len(), 1);
}

pub(super) async fn golden_items_are_read_and_written_back_as_java_left_them(
    subject: &impl Subject,
) {
    let store = subject.store();
    let mut leases = 0;
    for (_, _, golden) in golden() {
        let Ok(TableItem::Lease(expected)) = decode(golden.clone()) else {
            continue;
        };
        let key = expected.key.clone();
        subject.put_item(&key, golden.clone()).await;
        let read = store.get(&key).await.unwrap().unwrap();
        assert_eq!(read, *expected);
        // The other way: created by ours, the item is Java's.
        applied(store.write(&read, LeaseWrite::Delete).await.unwrap());
        assert_eq!(subject.item(&key).await, None);
        applied(store.write(&read, LeaseWrite::Create).await.unwrap());
        let written = subject.item(&key).await.unwrap();
        assert_eq!(super::replay::sorted(written), super::replay::sorted(golden));
        applied(store.write(&read, LeaseWrite::Delete).await.unwrap());
        leases += 1;
    }
    assert_eq!(leases, 34);
}

async fn keys_of(subject: &impl Subject, owner: &str) -> Vec<String> {
    let mut keys = subject.store().owned_by(owner).await.unwrap();
    keys.sort();
    keys
}

pub(super) async fn the_index_names_the_leases_of_an_owner(subject: &impl Subject) {
    let store = subject.store();
    owned(store, "a", "me").await;
    let b = owned(store, "b", "me").await;
    owned(store, "c", "other").await;
    let free = Lease::new("d", Checkpoint::TrimHorizon);
    store.write(&free, LeaseWrite::Create).await.unwrap();
    assert_eq!(keys_of(subject, "me").await, ["a", "b"]);
    assert!(keys_of(subject, "nobody").await.is_empty());
    applied(store.write(&b, start_handoff("nobody")).await.unwrap());
    assert_eq!(keys_of(subject, "nobody").await, ["b"], "the next owner's");
    assert_eq!(keys_of(subject, "me").await, ["a"]);
}

pub(super) async fn the_index_may_be_behind_and_reads_are_not(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "a", "me").await;
    let second = Duration::from_secs(1);
    subject.pass(second);
    subject.trouble(Trouble::IndexBehind(3 * second), u64::MAX);
    subject.pass(3 * second);
    assert_eq!(keys_of(subject, "me").await, ["a"]);
    applied(store.write(&mine, assign("other", false)).await.unwrap());
    subject.pass(second);
    assert_eq!(keys_of(subject, "me").await, ["a"], "as it was");
    assert!(keys_of(subject, "other").await.is_empty());
    let read = store.get("a").await.unwrap().unwrap();
    assert_eq!(read.owner.as_deref(), Some("other"));
    let listed = store.list(true).await.unwrap().leases;
    assert_eq!(listed, [read]);
    subject.pass(3 * second);
    assert_eq!(keys_of(subject, "other").await, ["a"]);
    assert!(keys_of(subject, "me").await.is_empty());
}
