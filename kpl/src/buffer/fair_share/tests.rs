//! A second implementation of the rules, as a walk over all waiters, with which `complete` compares in every test.
//! And the cost of a grant.

use std::collections::BTreeMap;

use super::*;

impl<S: Clone> FairShare<S> {
    /// Counts the shards that are reported. With debug assertions, compares them with a walk over all shards that wait:
    /// each is reported now, or was reported since it began to wait.
    pub(super) fn check_pressure(&mut self, producer: usize, queue_ids: &BTreeSet<QueueId>) {
        self.looked_at += queue_ids.len();
        if cfg!(debug_assertions) {
            let waiting: BTreeSet<_> = self.queues(producer).copied().collect();
            self.reported.retain(|holder| holder.producer != producer || waiting.contains(holder));
            self.reported
                .extend(queue_ids.iter().map(|queue_id| Holder { producer, queue_id: *queue_id }));
            assert!(waiting.is_subset(&self.reported));
        }
    }

    /// The waiters that the rules give room, in order, and what is reserved then.
    pub(super) fn expected_grants(&self) -> (Vec<Ticket>, usize) {
        let mut waiting: BTreeMap<Ticket, (Holder, usize)> = BTreeMap::new();
        for (holder, queue) in &self.waiters {
            waiting.extend(queue.iter().map(|w| (w.ticket, (*holder, w.bytes))));
        }
        let mut free = self.free;
        let mut granted_bytes: BTreeMap<Holder, usize> = BTreeMap::new();
        let held = |granted: &BTreeMap<Holder, usize>, holder: Holder| {
            let usage = self.usages[holder.producer].as_ref().unwrap();
            usage.held(holder.queue_id) + granted.get(&holder).copied().unwrap_or(0)
        };
        let (mut granted, mut reserved) = (Vec::new(), 0_usize);
        // Shards whose first waiter waits on, and producers with such a shard.
        let mut stopped: BTreeSet<Holder> = BTreeSet::new();
        for (ticket, (holder, bytes)) in waiting {
            if stopped.contains(&holder) {
                continue;
            }
            let is_permit = holder.queue_id == QueueId::PERMITS;
            let is_behind = is_permit && stopped.iter().any(|s| s.producer == holder.producer);
            let holds = held(&granted_bytes, holder);
            let rest = free.checked_sub(reserved.saturating_add(bytes));
            let fits = rest.is_some_and(|rest| {
                if is_permit {
                    let usage = self.usages[holder.producer].as_ref().unwrap();
                    let queue_ids = 0..usage.held.capacity().max(100) as u32;
                    let fullest = queue_ids
                        .map(QueueId)
                        .filter(|queue_id| *queue_id != QueueId::PERMITS)
                        .map(|queue_id| held(&granted_bytes, Holder { queue_id, ..holder }))
                        .max();
                    holds + fullest.unwrap_or(0) <= rest.saturating_mul(2)
                } else {
                    holds == 0 || holds + bytes <= rest
                }
            });
            if fits && !is_behind {
                free -= bytes;
                *granted_bytes.entry(holder).or_default() += bytes;
                granted.push(ticket);
                continue;
            }
            stopped.insert(holder);
            if !is_behind && holds == 0 {
                reserved = reserved.saturating_add(bytes);
                if reserved > free {
                    break;
                }
            }
        }
        (granted, reserved)
    }
}

/// A budget whose waiters all wait for one more record of a shard that is at its fair share.
fn crowded(shards: u32) -> (FairShare<()>, Vec<Holder>) {
    let mut fair_share = FairShare::new(shards as usize * 1000 + 1500);
    let producer = fair_share.add_producer(());
    let holders: Vec<_> = (0..shards)
        .map(|queue_id| Holder { producer, queue_id: QueueId(QueueId::FIRST + queue_id) })
        .collect();
    for holder in &holders {
        assert!(fair_share.try_take(*holder, 1000, None));
    }
    for holder in holders.iter().chain(&holders) {
        assert!(!fair_share.try_take(*holder, 400, None));
        let (_, wakes) = fair_share.wait(*holder, 400).unwrap();
        assert!(wakes.granted.is_empty());
    }
    (fair_share, holders)
}

#[test]
fn a_grant_looks_at_few_waiters_however_many_wait() {
    for shards in [4, 500] {
        let (mut fair_share, holders) = crowded(shards);
        assert!(fair_share.granted.is_empty());
        fair_share.looked_at = 0;
        let returns = 4;
        for holder in holders.iter().take(returns) {
            drop(fair_share.give_back(*holder, 1000));
        }
        let grants = fair_share.granted.len();
        assert!(grants >= returns, "{grants}");
        // One more check each time finds that no further waiter fits.
        assert!(fair_share.looked_at <= grants + returns, "{} looks", fair_share.looked_at);
    }
}

#[test]
fn the_pressure_is_read_with_few_looks_however_many_shards_wait() {
    for shards in [4, 500] {
        let (mut fair_share, holders) = crowded(shards);
        let queue_ids: Vec<_> = holders.iter().map(|holder| holder.queue_id).collect();
        let (first, stays) = fair_share.take_pressure(0, &[]);
        assert_eq!((first, stays), (Pressure::Queues(queue_ids.clone()), true));
        fair_share.looked_at = 0;
        assert_eq!(fair_share.take_pressure(0, &[]), (Pressure::None, true));
        // A shard that may have an open aggregate now is asked for.
        let asked = fair_share.take_pressure(0, &queue_ids[2..3]).0;
        assert_eq!(asked, Pressure::Queues(queue_ids[2..3].to_vec()));
        // So is one that gets a waiter.
        drop(fair_share.wait(holders[1], 400));
        assert_eq!(fair_share.take_pressure(0, &[]).0, Pressure::Queues(queue_ids[1..2].to_vec()));
        // One check is that of the new waiter.
        assert!(fair_share.looked_at <= 3, "{} looks, {shards} shards", fair_share.looked_at);
    }
}
