//! The cases on the table in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kcl::Clock;
use kcl::internals::{Item, Lease, LeaseStore, LeaseWrite, Outcome};
use kcl_simulation::memory::{Link, MemoryLeaseStore, MemoryTable, Passage};

use super::{Subject, Trouble, conformance, take};

/// A clock and a network under the control of the test.
#[derive(Debug, Default)]
struct Hand {
    millis: AtomicU64,
    next: Mutex<VecDeque<(Passage, u64)>>,
    hides: AtomicBool,
    index_lag: Mutex<Duration>,
    struck: AtomicU64,
}

impl Clock for Hand {
    fn now(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn wall(&self) -> std::time::SystemTime {
        std::time::SystemTime::UNIX_EPOCH + self.now()
    }
}

impl Link for Hand {
    fn passage(&self, is_write: bool) -> Passage {
        let mut next = self.next.lock().unwrap();
        match next.front_mut() {
            Some((passage, times)) if is_write => {
                let passage = *passage;
                *times -= 1;
                if *times == 0 {
                    next.pop_front();
                }
                self.struck.fetch_add(1, Ordering::SeqCst);
                passage
            }
            _ => Passage::AT_ONCE,
        }
    }

    fn index_lag(&self) -> Duration {
        *self.index_lag.lock().unwrap()
    }

    fn hides_old_item(&self) -> bool {
        let hides = self.hides.load(Ordering::SeqCst);
        self.struck.fetch_add(u64::from(hides), Ordering::SeqCst);
        hides
    }
}

struct InMemory {
    hand: Arc<Hand>,
    table: Arc<MemoryTable>,
    store: MemoryLeaseStore,
}

impl InMemory {
    fn new() -> Self {
        let hand = Arc::new(Hand::default());
        let table = Arc::new(MemoryTable::new(Arc::clone(&hand) as Arc<dyn Clock>, None));
        let link = Arc::clone(&hand) as Arc<dyn Link>;
        let timeout = Duration::from_millis(100);
        Self {
            store: MemoryLeaseStore::new(Arc::clone(&table), link, "test", timeout).of_process(1),
            hand,
            table,
        }
    }
}

impl Subject for InMemory {
    fn store(&self) -> &dyn LeaseStore {
        &self.store
    }

    async fn put_item(&self, key: &str, item: Item) {
        self.table.put_item(key, item);
    }

    async fn item(&self, key: &str) -> Option<Item> {
        self.table.item(key)
    }

    fn trouble(&self, trouble: Trouble, times: u64) {
        let passage = match trouble {
            Trouble::AnswersLost | Trouble::PutAnswersLost => {
                Passage::Through { there: Duration::ZERO, back: None }
            }
            Trouble::Throttled => Passage::Throttled,
            Trouble::Cut => Passage::Cut,
            Trouble::OldItemHidden => return self.hand.hides.store(true, Ordering::SeqCst),
            Trouble::IndexBehind(lag) => {
                *self.hand.index_lag.lock().unwrap() = lag;
                return;
            }
        };
        self.hand.next.lock().unwrap().push_back((passage, times));
    }

    fn heal(&self) -> u64 {
        self.hand.next.lock().unwrap().clear();
        self.hand.hides.store(false, Ordering::SeqCst);
        *self.hand.index_lag.lock().unwrap() = Duration::ZERO;
        self.hand.struck.swap(0, Ordering::SeqCst)
    }

    fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.hand.millis.fetch_add(millis, Ordering::SeqCst);
    }
}

conformance!(InMemory::new());

#[tokio::test(start_paused = true)]
async fn a_write_on_its_way_arrives_after_its_sender_gave_up() {
    let subject = InMemory::new();
    let lease = Lease::new("k", kcl::Checkpoint::TrimHorizon);
    subject.store.write(&lease, LeaseWrite::Create).await.unwrap();
    let late = Passage::Through { there: Duration::from_secs(5), back: Some(Duration::ZERO) };
    subject.hand.next.lock().unwrap().push_back((late, 1));
    let written = subject.store.write(&lease, take("me"));
    drop(tokio::time::timeout(Duration::from_millis(50), written).await);
    assert_eq!(subject.store.get("k").await.unwrap().unwrap().owner, None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let taken = subject.store.get("k").await.unwrap().unwrap();
    assert_eq!(taken.owner.as_deref(), Some("me"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_lost_is_made_again() {
    let subject = InMemory::new();
    subject.hand.next.lock().unwrap().push_back((Passage::Lost, 2));
    let lease = Lease::new("k", kcl::Checkpoint::TrimHorizon);
    let created = subject.store.write(&lease, LeaseWrite::Create).await.unwrap();
    assert_eq!(created, Outcome::Applied(lease));
    assert_eq!(subject.heal(), 2);
}
