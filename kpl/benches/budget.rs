//! What a record costs in the memory budget while 4,000 tasks wait for room, with 4, 500 and 2,000 shards. Compare within
//! one run only.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "the modules are the producer's own source files")]

#[path = "../src/buffer/fair_share.rs"]
mod fair_share;
#[path = "../src/buffer/tournament.rs"]
mod tournament;
#[path = "../src/buffer/wait_index.rs"]
mod wait_index;

use std::collections::VecDeque;
use std::task::Waker;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use self::fair_share::{FairShare, Holder, QueueId, Ticket};

const TASKS: usize = 4000;
const RECORD: usize = 200;

/// Tasks that send to shards in turn, and wait for room most of the time.
struct Tasks {
    fair_share: FairShare<()>,
    /// In the order of arrival.
    waiting: VecDeque<(Holder, Ticket)>,
    /// In the order in which they are delivered.
    held: VecDeque<Holder>,
}

impl Tasks {
    fn new(shards: u32) -> Self {
        let mut fair_share = FairShare::new(1 << 20);
        let producer = fair_share.add_producer(());
        let holders: Vec<_> = (0..shards)
            .map(|queue_id| Holder { producer, queue_id: QueueId(QueueId::FIRST + queue_id) })
            .collect();
        let mut held = VecDeque::new();
        loop {
            let before = held.len();
            held.extend(
                (holders.iter().copied()).filter(|s| fair_share.try_take(*s, RECORD, None)),
            );
            if held.len() == before {
                break;
            }
        }
        let waiting = (holders.iter().cycle().take(TASKS))
            .map(|holder| (*holder, fair_share.wait(*holder, RECORD).unwrap().0))
            .collect();
        Self { fair_share, waiting, held }
    }

    /// One record is delivered, and the tasks that get room send their next.
    fn deliver(&mut self) {
        let holder = self.held.pop_front().unwrap();
        drop(self.fair_share.give_back(holder, RECORD));
        while let Some((holder, ticket)) = self.waiting.front().copied() {
            let (granted, _) = self.fair_share.poll(holder, ticket, Waker::noop());
            if granted.is_pending() {
                break;
            }
            self.waiting.pop_front();
            self.held.push_back(holder);
            let (ticket, _) = self.fair_share.wait(holder, RECORD).unwrap();
            self.waiting.push_back((holder, ticket));
        }
    }
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("a record while 4,000 tasks wait");
    for shards in [4, 500, 2000] {
        let mut tasks = Tasks::new(shards);
        group.bench_function(BenchmarkId::new("shards", shards), |b| {
            b.iter(|| tasks.deliver());
        });
    }
    group.finish();
}

criterion_group!(benches, records);
criterion_main!(benches);
