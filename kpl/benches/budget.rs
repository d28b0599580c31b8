//! What a record costs in the memory budget while 4,000 tasks wait for room, with 4, 500 and 2,000 shards. Compare within
//! one run only.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "the modules are the producer's own source files")]

#[path = "../src/buffer/id.rs"]
mod id;
#[path = "../src/buffer/ledger.rs"]
mod ledger;
#[path = "../src/buffer/tournament.rs"]
mod tournament;
#[path = "../src/buffer/wait_index.rs"]
mod wait_index;

use std::collections::VecDeque;
use std::task::Waker;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use self::id::LaneId;
use self::ledger::{Ledger, Share, Ticket};

const TASKS: usize = 4000;
const RECORD: usize = 200;

/// Tasks that send to shards in turn, and wait for room most of the time.
struct Tasks {
    ledger: Ledger<()>,
    /// In the order of arrival.
    waiting: VecDeque<(Share, Ticket)>,
    /// In the order in which they are delivered.
    held: VecDeque<Share>,
}

impl Tasks {
    fn new(shards: u32) -> Self {
        let mut ledger = Ledger::new(1 << 20);
        let producer = ledger.add_producer(());
        let shares: Vec<_> = (0..shards)
            .map(|lane| Share { producer, lane: LaneId(LaneId::FIRST + lane) })
            .collect();
        let mut held = VecDeque::new();
        loop {
            let before = held.len();
            held.extend((shares.iter().copied()).filter(|s| ledger.try_take(*s, RECORD, None)));
            if held.len() == before {
                break;
            }
        }
        let waiting = (shares.iter().cycle().take(TASKS))
            .map(|share| (*share, ledger.wait(*share, RECORD).unwrap().0))
            .collect();
        Self { ledger, waiting, held }
    }

    /// One record is delivered, and the tasks that get room send their next.
    fn deliver(&mut self) {
        let share = self.held.pop_front().unwrap();
        drop(self.ledger.give_back(share, RECORD));
        while let Some((share, ticket)) = self.waiting.front().copied() {
            let (granted, _) = self.ledger.poll(share, ticket, Waker::noop());
            if granted.is_pending() {
                break;
            }
            self.waiting.pop_front();
            self.held.push_back(share);
            let (ticket, _) = self.ledger.wait(share, RECORD).unwrap();
            self.waiting.push_back((share, ticket));
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
