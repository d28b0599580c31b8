//! The processor of one lease as Java drives it, in a cycle of a second.

use std::sync::Arc;
use std::time::Duration;

use kcl::Checkpoint;
use kcl::internals::{Lease, LeaseStore, LeaseWrite};

use super::{Held, Worker};
use crate::stream::{position_of, record_at};

const CYCLE: Duration = Duration::from_secs(1);
/// Time between two checks of unfinished parents.
const PARENT_POLL: Duration = Duration::from_secs(10);
/// Time after which a handoff is transferred by force, whatever its processor does.
const HANDOFF_LIMIT: Duration = Duration::from_secs(30);
/// Time between two checks of a handoff.
const HANDOFF_POLL: Duration = Duration::from_secs(2);

pub(super) struct Consumer {
    worker: Worker,
    held: Arc<Held>,
    id: u64,
    shard: String,
    position: u64,
    /// The lease was transferred already.
    forced: bool,
}

impl Consumer {
    pub(super) fn new(worker: Worker, held: Arc<Held>, id: u64) -> Self {
        let lease = held.lease();
        let position = match &lease.checkpoint {
            Checkpoint::At(at) => record_at(at),
            _ => 0,
        };
        Self { worker, id, shard: lease.key, position, held, forced: false }
    }

    pub(super) async fn run(mut self) {
        let why = self.work().await;
        self.worker.world.oracle.end(self.id, why);
        if self.held.shutdown.is_cancelled() && !self.forced {
            // After a failure the leader forces the handoff.
            let _ = self.worker.transfer(&self.held).await;
        }
        self.worker.drop_lease(&self.held);
    }

    async fn work(&mut self) -> &'static str {
        if !self.held.lease().has_ended() {
            while !self.parents_ended().await {
                tokio::time::sleep(PARENT_POLL).await;
                if !self.held.is_current() {
                    return "lost before it began";
                }
                if self.held.shutdown.is_cancelled() {
                    return "handed over before it began";
                }
            }
            loop {
                if !self.held.is_current() {
                    return "lost";
                }
                if self.held.shutdown.is_cancelled() {
                    if self.worker.random(|random| random.u32(..4) == 0) {
                        self.drain_slowly().await;
                    }
                    self.worker.checkpoint(&self.held, self.at()).await;
                    return "drained";
                }
                if self.deliver().await {
                    break;
                }
                let pause = self.worker.random(|random| random.u64(100..1_000));
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        self.end().await
    }

    /// Drains a slow processor. The handler stops waiting after a time, and does not tell the processor, which is
    /// at work until the next renewal fails.
    async fn drain_slowly(&mut self) {
        let began = self.worker.now();
        let span = Duration::from_secs(self.worker.random(|random| random.u64(1..60)));
        while self.held.is_current() && self.worker.now() - began < span {
            if self.worker.now() - began >= HANDOFF_LIMIT && !self.forced {
                self.forced = self.worker.transfer(&self.held).await.is_ok();
            }
            tokio::time::sleep(HANDOFF_POLL).await;
        }
    }

    /// One batch; true at the shard's end.
    async fn deliver(&mut self) -> bool {
        let most = self.worker.random(|random| random.usize(1..20));
        let world = &self.worker.world;
        let read = world.stream.read(&self.shard, self.position, most);
        for sequence in &read.records {
            world.oracle.delivered(self.id, *sequence);
            self.position = *sequence;
        }
        if !read.records.is_empty() && self.worker.random(|random| random.u32(..3) == 0) {
            self.worker.checkpoint(&self.held, self.at()).await;
        }
        read.ended
    }

    fn at(&self) -> Checkpoint {
        let checkpoint = self.held.lease().checkpoint;
        let at = Checkpoint::At(position_of(self.position));
        if at > checkpoint && self.position > 0 { at } else { checkpoint }
    }

    async fn parents_ended(&self) -> bool {
        for parent in self.held.lease().parents {
            match self.worker.store.get(&parent).await {
                Ok(None) => {}
                Ok(Some(lease)) if lease.has_ended() => {}
                _ => return false,
            }
        }
        true
    }

    /// Creates the children, then checkpoints the end, then cleans up.
    async fn end(&mut self) -> &'static str {
        let children = self.worker.world.stream.children(&self.shard);
        while !self.held.lease().has_ended() {
            if !self.held.is_current() {
                return "lost at its end";
            }
            if self.create_children(&children).await {
                self.worker.checkpoint(&self.held, Checkpoint::ShardEnd).await;
            }
            tokio::time::sleep(CYCLE).await;
        }
        let ids: Vec<String> = children.into_iter().map(|child| child.shard_id).collect();
        let (worker, lease) = (self.worker.clone(), self.held.lease());
        self.worker.process.run(async move {
            clean_up(&worker, &lease, &ids).await;
        });
        "shard end"
    }

    async fn create_children(&self, children: &[kcl::internals::ChildShard]) -> bool {
        // Until then, its parent was this worker's.
        let looked = self.held.state().answered;
        let store = &self.worker.store;
        for child in children {
            for parent in &child.parents {
                // Java waits until both parents have leases, or none.
                let there = store.get(parent).await;
                if *parent != self.shard && !matches!(there, Ok(Some(_))) {
                    return false;
                }
            }
            let mut lease = Lease::new(child.shard_id.clone(), Checkpoint::TrimHorizon);
            lease.parents = child.parents.iter().cloned().collect();
            lease.hash_key_range = Some(child.hash_key_range);
            if self.worker.create(&lease, looked).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Deletes the lease of a finished shard when its children have moved on. Every 5 minutes.
async fn clean_up(worker: &Worker, lease: &Lease, children: &[String]) {
    loop {
        tokio::time::sleep(Duration::from_secs(300)).await;
        let mut moved_on = true;
        for child in children {
            let found = worker.store.get(child).await;
            moved_on &= matches!(found, Ok(Some(child)) if !child.checkpoint.is_initial());
        }
        // Not conditional in Java; a finished lease does not change any more.
        if moved_on && worker.store.write(lease, LeaseWrite::Delete).await.is_ok() {
            return;
        }
    }
}
