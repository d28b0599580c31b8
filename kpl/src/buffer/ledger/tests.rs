//! The rules once more, as a walk over all waiters; `settle` compares with it in every test. And what a grant costs.

use std::collections::BTreeMap;

use super::*;

impl<S: Clone> Ledger<S> {
    /// Counts the shards that are reported. With debug assertions, compares them with a walk over all shards that wait: each
    /// is reported now, or was reported since it began to wait.
    pub(super) fn check_pressure(&mut self, producer: usize, lanes: &BTreeSet<LaneId>) {
        self.looked_at += lanes.len();
        if cfg!(debug_assertions) {
            let waiting: BTreeSet<_> = self.queues(producer).copied().collect();
            self.reported.retain(|share| share.producer != producer || waiting.contains(share));
            self.reported.extend(lanes.iter().map(|lane| Share { producer, lane: *lane }));
            assert!(waiting.is_subset(&self.reported));
        }
    }

    /// The waiters that the rules give room, in order, and what is reserved then.
    pub(super) fn expected_grants(&self) -> (Vec<Ticket>, usize) {
        let mut waiting: BTreeMap<Ticket, (Share, usize)> = BTreeMap::new();
        for (share, queue) in &self.waiters {
            waiting.extend(queue.iter().map(|w| (w.ticket, (*share, w.bytes))));
        }
        let mut free = self.free;
        let mut granted_bytes: BTreeMap<Share, usize> = BTreeMap::new();
        let held = |granted: &BTreeMap<Share, usize>, share: Share| {
            let usage = self.usages[share.producer].as_ref().unwrap();
            usage.held(share.lane) + granted.get(&share).copied().unwrap_or(0)
        };
        let (mut granted, mut reserved) = (Vec::new(), 0_usize);
        // Shards whose first waiter waits on, and producers with such a shard.
        let mut stopped: BTreeSet<Share> = BTreeSet::new();
        for (ticket, (share, bytes)) in waiting {
            if stopped.contains(&share) {
                continue;
            }
            let is_permit = share.lane == LaneId::RESERVED;
            let is_behind = is_permit && stopped.iter().any(|s| s.producer == share.producer);
            let holds = held(&granted_bytes, share);
            let rest = free.checked_sub(reserved.saturating_add(bytes));
            let fits = rest.is_some_and(|rest| {
                if is_permit {
                    let usage = self.usages[share.producer].as_ref().unwrap();
                    let lanes = 0..usage.held.capacity().max(100) as u32;
                    let fullest = lanes
                        .map(LaneId)
                        .filter(|lane| *lane != LaneId::RESERVED)
                        .map(|lane| held(&granted_bytes, Share { lane, ..share }))
                        .max();
                    holds + fullest.unwrap_or(0) <= rest.saturating_mul(2)
                } else {
                    holds == 0 || holds + bytes <= rest
                }
            });
            if fits && !is_behind {
                free -= bytes;
                *granted_bytes.entry(share).or_default() += bytes;
                granted.push(ticket);
                continue;
            }
            stopped.insert(share);
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
fn crowded(shards: u32) -> (Ledger<()>, Vec<Share>) {
    let mut ledger = Ledger::new(shards as usize * 1000 + 1500);
    let producer = ledger.add_producer(());
    let shares: Vec<_> =
        (0..shards).map(|lane| Share { producer, lane: LaneId(LaneId::FIRST + lane) }).collect();
    for share in &shares {
        assert!(ledger.try_take(*share, 1000, None));
    }
    for share in shares.iter().chain(&shares) {
        assert!(!ledger.try_take(*share, 400, None));
        let (_, wakes) = ledger.wait(*share, 400).unwrap();
        assert!(wakes.granted.is_empty());
    }
    (ledger, shares)
}

#[test]
fn a_grant_looks_at_few_waiters_however_many_wait() {
    for shards in [4, 500] {
        let (mut ledger, shares) = crowded(shards);
        assert!(ledger.granted.is_empty());
        ledger.looked_at = 0;
        let returns = 4;
        for share in shares.iter().take(returns) {
            drop(ledger.give_back(*share, 1000));
        }
        let grants = ledger.granted.len();
        assert!(grants >= returns, "{grants}");
        // One more look each time finds that no further waiter fits.
        assert!(ledger.looked_at <= grants + returns, "{} looks", ledger.looked_at);
    }
}

#[test]
fn the_pressure_is_read_with_few_looks_however_many_shards_wait() {
    for shards in [4, 500] {
        let (mut ledger, shares) = crowded(shards);
        let lanes: Vec<_> = shares.iter().map(|share| share.lane).collect();
        let (first, stays) = ledger.take_pressure(0, &[]);
        assert_eq!((first, stays), (Pressure::Lanes(lanes.clone()), true));
        ledger.looked_at = 0;
        assert_eq!(ledger.take_pressure(0, &[]), (Pressure::None, true));
        // A shard that may have an open aggregate now is asked for.
        let asked = ledger.take_pressure(0, &lanes[2..3]).0;
        assert_eq!(asked, Pressure::Lanes(lanes[2..3].to_vec()));
        // So is one that gets a waiter.
        drop(ledger.wait(shares[1], 400));
        assert_eq!(ledger.take_pressure(0, &[]).0, Pressure::Lanes(lanes[1..2].to_vec()));
        // One look is that of the new waiter.
        assert!(ledger.looked_at <= 3, "{} looks, {shards} shards", ledger.looked_at);
    }
}
