//! Coverage of the hash key space, and what a listing may miss, on a real table. The tests of the
//! coordinator cover the rest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_sdk_dynamodb::types::AttributeValue;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_testkit::LocalAws;

use super::super::list::ShardList;
use super::children::as_child;
use super::*;
use crate::clock::SystemClock;
use crate::config::TableConfig;
use crate::lease::{DynamoDbLeaseStore, Layout, ensure_table};

fn ranges(rows: &[(u128, u128)]) -> bool {
    covers_all_hash_keys(
        rows.iter().map(|(a, b)| HashKeyRange::new(HashKey::new(*a), HashKey::new(*b)).unwrap()),
    )
}

#[test]
fn finds_holes_whatever_the_order_and_the_overlaps() {
    const MAX: u128 = u128::MAX;
    assert!(ranges(&[(0, MAX)]));
    assert!(ranges(&[(4, 23), (2, 3), (0, 1), (24, MAX), (6, 23)]));
    assert!(ranges(&[(0, 10), (3, 5), (11, MAX)]));
    assert!(ranges(&[(0, MAX), (5, 9)]));
    assert!(!ranges(&[(0, 1), (2, 3), (4, 23), (6, 23), (25, MAX)]));
    assert!(!ranges(&[(1, MAX)]));
    assert!(!ranges(&[(0, MAX - 1)]));
    assert!(!ranges(&[]));
}

/// Lists what it is told; another worker writes `meanwhile`.
#[derive(Debug)]
struct Listing {
    shards: Mutex<Vec<Shard>>,
    meanwhile: Vec<Lease>,
    store: Arc<dyn LeaseStore>,
}

impl ShardLister for Listing {
    fn list(&self, _: Option<StreamPosition>) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        async {
            for lease in &self.meanwhile {
                self.store.write(lease, LeaseWrite::Create).await.unwrap();
            }
            Ok(ShardList {
                shards: self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                server_time: SystemTime::UNIX_EPOCH,
            })
        }
        .boxed()
    }
}

struct Fixture {
    aws: LocalAws,
    sync: ShardSync,
}

impl Fixture {
    async fn new(shards: Vec<Shard>, position: InitialPosition, meanwhile: Vec<Lease>) -> Self {
        let aws = LocalAws::start().await.unwrap();
        ensure_table(&aws.dynamodb(), "billing", &TableConfig::default()).await.unwrap();
        let store: Arc<dyn LeaseStore> = Arc::new(DynamoDbLeaseStore::new(
            aws.dynamodb(),
            "billing".into(),
            Layout::OneTable,
            1,
        ));
        let lister =
            Arc::new(Listing { shards: Mutex::new(shards), meanwhile, store: Arc::clone(&store) });
        let sync = ShardSync {
            lister,
            store,
            position,
            stream: Arc::new(CurrentStream::new(
                StreamIdentity { arn: "arn:x".into(), created: 1 },
                OnRecreatedStream::default(),
                Arc::new(SystemClock),
            )),
            has_entity_type: true,
            clock: Arc::new(SystemClock),
            finished: Arc::default(),
        };
        Self { aws, sync }
    }

    async fn put(&self, id: &str, parents: &[&str], checkpoint: Checkpoint) -> Lease {
        let mut lease = lease(id, checkpoint);
        lease.parents = parents.iter().map(|id| (*id).to_owned()).collect();
        self.sync.store.write(&lease, LeaseWrite::Create).await.unwrap();
        lease
    }

    async fn table(&self) -> BTreeMap<String, Lease> {
        let leases = self.sync.store.list(true).await.unwrap().leases;
        leases.into_iter().map(|lease| (lease.key.clone(), lease)).collect()
    }
}

fn lease(id: &str, checkpoint: Checkpoint) -> Lease {
    let mut lease = Lease::new(id, checkpoint);
    lease.hash_key_range = Some(HashKeyRange::FULL);
    lease
}

fn shard(id: u32, parents: &[&str], open: bool) -> Shard {
    Shard {
        id: id.to_string(),
        parents: parents.iter().map(|id| (*id).to_owned()).collect(),
        hash_key_range: HashKeyRange::FULL,
        starting_sequence: (id + 1).to_string().parse().unwrap(),
        open,
    }
}

/// Four shards merge to two, and these to one.
fn merges() -> Vec<Shard> {
    vec![
        shard(0, &[], false),
        shard(1, &[], false),
        shard(2, &[], false),
        shard(3, &[], false),
        shard(4, &["0", "1"], false),
        shard(5, &["2", "3"], false),
        shard(6, &["4", "5"], true),
    ]
}

#[tokio::test]
async fn the_child_of_a_merge_comes_after_the_lease_of_the_parent_that_has_none_yet() {
    for told in [true, false] {
        let fixture = Fixture::new(merges(), InitialPosition::TrimHorizon, Vec::new()).await;
        for id in ["0", "1"] {
            fixture.put(id, &[], Checkpoint::ShardEnd).await;
        }
        for id in ["2", "3"] {
            fixture.put(id, &[], Checkpoint::TrimHorizon).await;
        }
        let ended = fixture.put("4", &["0", "1"], Checkpoint::parse("9", 0).unwrap()).await;
        let children = [shard(6, &["4", "5"], true)].map(as_child);
        let children = if told { children.into() } else { Vec::new() };
        let ids = fixture.sync.create_children(&ended, children).await;
        assert_eq!(ids.unwrap(), ["6"]);
        let table = fixture.table().await;
        assert_eq!(table["5"].checkpoint, Checkpoint::TrimHorizon, "waited for by 6");
        assert_eq!(table["5"].parents, ["2".to_owned(), "3".to_owned()].into(), "waits for them");
        assert_eq!(table["6"].parents, ["4".to_owned(), "5".to_owned()].into());
        assert!(!table["2"].has_ended() && !table["3"].has_ended());
    }
}

#[tokio::test]
async fn every_shard_between_a_missing_parent_and_a_leased_ancestor_gets_its_lease() {
    let mut shards = merges();
    // 2 is itself the child of 7, the only one of its line that has a lease.
    shards[2].parents.insert("7".to_owned());
    let mut seven = shard(7, &[], false);
    seven.starting_sequence = "0".parse().unwrap();
    shards.push(seven);
    let fixture = Fixture::new(shards, InitialPosition::TrimHorizon, Vec::new()).await;
    fixture.put("7", &[], Checkpoint::TrimHorizon).await;
    fixture.put("3", &[], Checkpoint::TrimHorizon).await;
    let ended = fixture.put("4", &["0", "1"], Checkpoint::parse("9", 0).unwrap()).await;
    let children = vec![as_child(shard(6, &["4", "5"], true))];
    fixture.sync.create_children(&ended, children).await.unwrap();
    let table = fixture.table().await;
    let ids: Vec<_> = table.keys().map(String::as_str).collect();
    assert_eq!(ids, ["2", "3", "4", "5", "6", "7"]);
    assert_eq!(table["2"].parents, ["7".to_owned()].into());
}

#[test]
fn the_leases_of_parents_are_created_before_those_of_their_children() {
    let shards = merges();
    let new: Vec<_> = shards
        .iter()
        .filter(|shard| shard.id != "1")
        .map(|shard| NewLease { shard, start: LeaseStart::new(Checkpoint::TrimHorizon) })
        .collect();
    let ids: Vec<Vec<&str>> = generations(&new)
        .into_iter()
        .map(|generation| generation.iter().map(|new| &*new.shard.id).collect())
        .collect();
    assert_eq!(ids, [vec!["0", "2", "3"], vec!["4", "5"], vec!["6"]]);
}

#[tokio::test]
async fn an_open_shard_without_children_has_not_ended() {
    let fixture =
        Fixture::new(vec![shard(0, &[], true)], InitialPosition::Latest, Vec::new()).await;
    let open = fixture.put("0", &[], Checkpoint::TrimHorizon).await;
    let error = fixture.sync.create_children(&open, Vec::new()).await;
    assert!(
        matches!(&error, Err(SyncError::StillOpen { shard_id }) if shard_id == "0"),
        "{error:?}"
    );
    let gone = fixture.put("1", &[], Checkpoint::TrimHorizon).await;
    let none = fixture.sync.create_children(&gone, Vec::new()).await;
    assert!(none.unwrap().is_empty(), "past the stream's retention");
}

#[tokio::test]
async fn a_starter_that_lists_the_stream_while_another_fills_the_table_follows_it() {
    // The other worker listed the shard before it was split.
    let filled = vec![lease("0", Checkpoint::Latest)];
    let split = vec![shard(1, &["0"], true), shard(2, &["0"], true)];
    let fixture = Fixture::new(split, InitialPosition::Latest, filled).await;
    fixture.sync.run().await.unwrap();
    let table = fixture.table().await;
    let ids: Vec<_> = table.keys().map(String::as_str).collect();
    assert_eq!(ids, ["0"], "its children come when it ends");
}

#[tokio::test]
async fn an_item_that_cannot_be_read_counts_as_a_lease() {
    let split = vec![shard(1, &["0"], true), shard(2, &["0"], true)];
    let fixture = Fixture::new(split, InitialPosition::Latest, Vec::new()).await;
    let corrupt = fixture.aws.dynamodb().put_item().table_name("billing");
    let key = AttributeValue::S("0".into());
    corrupt.item("leaseKey", key).send().await.unwrap();
    let report = fixture.sync.run().await.unwrap();
    assert_eq!(report, SyncReport::default());
    assert!(fixture.table().await.is_empty(), "not at LATEST, past what the stream keeps");
}

#[tokio::test]
async fn a_listing_from_before_the_shard_does_not_say_that_it_has_no_children() {
    let before = vec![shard(0, &[], true)];
    let fixture = Fixture::new(before, InitialPosition::TrimHorizon, Vec::new()).await;
    let ended = fixture.put("1", &["0"], Checkpoint::TrimHorizon).await;
    let answer = fixture.sync.create_children(&ended, Vec::new()).await;
    let error = answer.unwrap_err();
    assert!(matches!(error, SyncError::StillOpen { .. }), "{error:?}");
}

/// Each reading is half a minute and a second after the one before.
#[derive(Debug, Default)]
struct Leaping(AtomicU64);

impl Clock for Leaping {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(31, Ordering::Relaxed))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

#[tokio::test]
async fn a_worker_that_was_stopped_creates_nothing_from_what_it_saw_before() {
    let shards = vec![shard(0, &[], true)];
    let mut fixture = Fixture::new(shards, InitialPosition::TrimHorizon, Vec::new()).await;
    fixture.sync.clock = Arc::new(Leaping::default());
    let error = fixture.sync.run().await.unwrap_err();
    assert!(matches!(error, SyncError::Stale), "{error:?}");
    let parent = lease("9", Checkpoint::TrimHorizon);
    let child = as_child(shard(10, &["9"], true));
    let answer = fixture.sync.create_children(&parent, vec![child]).await;
    assert!(matches!(answer, Err(SyncError::Stale)), "{answer:?}");
    assert!(fixture.table().await.is_empty());
}
