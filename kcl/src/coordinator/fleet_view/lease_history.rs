//! What this worker saw of the table over time: pure. A lease is expired when its counter stood still
//! for the failover time, by this worker's clock; times in the table are not compared.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::lease::{LeaderLock, Lease, WorkerRow};

/// A receiver may start at once after a handoff that took less than this. A Java owner transfers by
/// force at 30 s, while its processor may still be at work; a look may miss the last second, or more.
const HANDOFF_TRUSTED: Duration = Duration::from_secs(25);

/// How long a new owner has for its first heartbeat. A Java worker discovers what it was given within
/// the failover time (once more if the index lags) and renews it within a third of that: it is quiet
/// for longer than it may be later.
fn until_first_heartbeat(failover: Duration) -> Duration {
    failover * 5 / 2
}

/// How long the counter of a live owner's lease may stand still. `given`: nobody heard it yet.
fn heartbeat_within(given: bool, failover: Duration) -> Duration {
    if given { until_first_heartbeat(failover) } else { failover }
}

/// At a first look, or one that is as good: nothing in the item shows that its owner was heard. The stamp of one of ours does,
/// unless it gave the lease away by that write. What Java writes tells nothing: a handoff leaves the
/// item as a heartbeat does. So what a dead Java worker had is free after 2.5 F for one that has just
/// come, which a Java leader that has just come does not better.
fn may_be_new(lease: &Lease) -> bool {
    lease.owner.is_some() && (!lease.is_stamped() || lease.owner_switches > 0)
}

/// The last looks at each lease.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observations {
    leases: HashMap<String, Seen>,
    /// Workers that lost a lease without having let go of it, since the last look at the rows.
    robbed: BTreeSet<String>,
    /// Workers that were found dead, and when the row they had was written.
    dead: HashMap<String, u64>,
    /// The leader's lock, and since when it has been as it is.
    leader: Option<(LeaderLock, Duration)>,
}

#[derive(Debug, Clone)]
struct Seen {
    counter: u64,
    /// Who processes it.
    owner: Option<String>,
    /// The counter's last move changed the owner, or may have: nobody heard the new one yet.
    given: bool,
    /// When the counter was first seen at this value.
    since: Duration,
    /// When the last look at it was sent.
    asked: Duration,
    handoff: Option<Handoff>,
    /// Since when it may be taken.
    available_since: Option<Duration>,
    /// How it was before the counter took this value.
    before: Option<Before>,
}

#[derive(Debug, Clone)]
struct Before {
    counter: u64,
    owner: Option<String>,
    given: bool,
    since: Duration,
    handoff: Option<Handoff>,
}

/// A pending handoff: to whom, and since when at the earliest. `None`: nobody knows.
#[derive(Debug, Clone)]
struct Handoff {
    to: Option<String>,
    since: Option<Duration>,
}

impl Handoff {
    /// That of `lease`; `seen`: what was seen of it before. Looks may be far apart: it may have begun
    /// right after the last one that did not show it was sent.
    fn of(lease: &Lease, seen: Option<&Seen>) -> Option<Self> {
        let known = seen.and_then(|seen| seen.handoff.as_ref());
        let known = known.filter(|known| known.to == lease.owner);
        lease.is_handoff_pending().then(|| Self {
            to: lease.owner.clone(),
            since: known.map_or(seen.map(|seen| seen.asked), |known| known.since),
        })
    }
}

/// Who asks whether it may start on a lease.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Successor {
    pub(crate) process: u64,
    /// The lease's counter at the end of this process's last tenure of it.
    pub(crate) own_counter: Option<u64>,
}

impl Successor {
    /// Nobody had it since. One write of its own may have arrived after that tenure ended.
    pub(crate) fn left_untouched(self, lease: &Lease) -> bool {
        self.own_counter.is_some_and(|own| (own..=own.saturating_add(1)).contains(&lease.counter))
    }
}

impl Seen {
    /// The worker that owned it, if `lease` says that another does, and that one did not let go of it.
    fn robbed_by(&self, lease: &Lease) -> Option<String> {
        let moved = lease.actual_owner().is_some() && lease.actual_owner() != self.owner.as_deref();
        let let_go = self.handoff.is_some() || lease.released_at > Some(self.counter);
        self.owner.clone().filter(|_| moved && !let_go)
    }

    /// `lease`, of the same owner, may have been another's since: it was away and was given it again.
    /// A Java leader needs two passes for that. A Java worker that checkpoints moves the counter more
    /// than once in a shorter time, too.
    fn may_hide_another(&self, lease: &Lease, now: Duration, failover: Duration) -> bool {
        let by_ours = lease.is_stamped() || lease.released_at > Some(self.counter);
        let long = now.saturating_sub(self.asked) > failover / 2;
        lease.counter > self.counter.saturating_add(1) && (by_ours || long)
    }

    /// The item that was seen is not there any more: it was deleted, and made anew. An index or a scan
    /// may lag behind what was read already, but not for that long.
    fn is_of_a_former_item(&self, lease: &Lease, asked: Duration, failover: Duration) -> bool {
        lease.counter < self.counter && asked.saturating_sub(self.asked) > failover
    }
}

impl Observations {
    /// Takes in a whole snapshot, asked for at `asked` and read by `now`; leases that are gone are
    /// forgotten.
    pub(crate) fn observe_all(
        &mut self,
        leases: &[Lease],
        asked: Duration,
        now: Duration,
        failover: Duration,
    ) {
        for lease in leases {
            self.observe(lease, asked, now, failover);
        }
        let present: std::collections::HashSet<&str> =
            leases.iter().map(|lease| lease.key.as_str()).collect();
        self.leases.retain(|key, _| present.contains(key.as_str()));
        for lease in leases {
            let available = self.is_available(lease, now, failover);
            if let Some(seen) = self.leases.get_mut(&lease.key) {
                seen.available_since = available.then(|| seen.available_since.unwrap_or(now));
            }
        }
    }

    /// Takes in one lease, asked for at `asked` and read by `now`.
    pub(crate) fn observe(
        &mut self,
        lease: &Lease,
        asked: Duration,
        now: Duration,
        failover: Duration,
    ) {
        let owner = lease.actual_owner();
        let known = self.leases.get(&lease.key);
        let known = known.filter(|seen| !seen.is_of_a_former_item(lease, asked, failover));
        if let Some(seen) = known {
            match lease.counter.cmp(&seen.counter) {
                // It lags behind.
                Ordering::Less => return,
                Ordering::Equal => {
                    let handoff = Handoff::of(lease, known);
                    if let Some(seen) = self.leases.get_mut(&lease.key) {
                        seen.asked = seen.asked.max(asked);
                        seen.owner = owner.map(str::to_owned);
                        // A lagging look may not show one that was seen already.
                        seen.handoff = handoff.or(seen.handoff.take());
                    }
                    return;
                }
                Ordering::Greater => {}
            }
        }
        if let Some(robbed) = known.and_then(|seen| seen.robbed_by(lease)) {
            self.robbed.insert(robbed);
        }
        let seen = Seen {
            counter: lease.counter,
            owner: owner.map(str::to_owned),
            given: match known {
                Some(seen) if seen.owner.as_deref() != owner => true,
                Some(seen) if !seen.may_hide_another(lease, now, failover) => false,
                _ => may_be_new(lease),
            },
            since: now,
            asked,
            handoff: Handoff::of(lease, known),
            available_since: None,
            before: known.map(|seen| Before {
                counter: seen.counter,
                owner: seen.owner.clone(),
                given: seen.given,
                since: seen.since,
                handoff: seen.handoff.clone(),
            }),
        };
        self.leases.insert(lease.key.clone(), seen);
    }

    /// Takes in the workers' rows, after the leases. `renews`: of each owner, whether it renews any.
    /// A worker of which every lease expired, or was taken, is dead until it writes another row: the
    /// one it left behind stays fresh for longer than the others need to take its leases.
    pub(crate) fn observe_workers(&mut self, rows: &[WorkerRow], renews: &BTreeMap<&str, bool>) {
        let robbed = std::mem::take(&mut self.robbed);
        let dead = rows.iter().filter(|row| {
            let worker = row.worker.as_str();
            match renews.get(worker) {
                Some(renews) => !renews,
                None => self.is_dead(row) || robbed.contains(worker),
            }
        });
        self.dead = dead.map(|row| (row.worker.clone(), row.last_update)).collect();
    }

    /// True if the worker was found dead, and has written no row since.
    pub(crate) fn is_dead(&self, row: &WorkerRow) -> bool {
        self.dead.get(&row.worker) == Some(&row.last_update)
    }

    /// Takes in the leader's lock.
    pub(crate) fn observe_leader(&mut self, lock: Option<&LeaderLock>, now: Duration) {
        let known = self.leader.take();
        self.leader = lock.map(|lock| {
            let same = known.filter(|(known, _)| known.version == lock.version);
            (lock.clone(), same.map_or(now, |(_, since)| since))
        });
    }

    /// The worker that holds the leader's lock, unless the lock has had no heartbeat for its duration
    /// (120 s in Java). [`Liveness`](super::fleet_view::workers::Liveness) tells sooner whether that worker is dead.
    pub(crate) fn leader(&self, now: Duration) -> Option<&str> {
        let (lock, since) = self.leader.as_ref()?;
        (now.saturating_sub(*since) <= lock.duration).then_some(lock.owner.as_str())
    }

    /// Its counter stood still for longer than the failover time; if its owner is new, for longer than
    /// that one may need to be heard for the first time.
    pub(crate) fn is_expired(&self, lease: &Lease, now: Duration, failover: Duration) -> bool {
        self.leases.get(&lease.key).is_some_and(|seen| {
            let limit = heartbeat_within(seen.given, failover);
            lease.owner.is_some()
                && seen.counter == lease.counter
                && now.saturating_sub(seen.since) > limit
        })
    }

    /// Unassigned or expired, and not finished: it may be taken.
    pub(crate) fn is_available(&self, lease: &Lease, now: Duration, failover: Duration) -> bool {
        !lease.has_ended() && (lease.owner.is_none() || self.is_expired(lease, now, failover))
    }

    /// For how long it may be taken already.
    pub(crate) fn available_for(&self, lease: &Lease, now: Duration) -> Duration {
        let since = self.leases.get(&lease.key).and_then(|seen| seen.available_since);
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Time since the counter was first seen at this value.
    pub(crate) fn silent_for(&self, lease: &Lease, now: Duration) -> Duration {
        let seen = self.leases.get(&lease.key);
        let seen = seen.filter(|seen| seen.counter == lease.counter);
        seen.map_or(Duration::ZERO, |seen| now.saturating_sub(seen.since))
    }

    /// The worker that processed the shard before the counter took this value, as far as it was seen.
    pub(crate) fn former_owner(&self, lease: &Lease) -> Option<String> {
        self.before(lease)?.owner.clone()
    }

    /// A handoff to the present owner was seen, and it is over.
    pub(crate) fn was_handed_over(&self, lease: &Lease) -> bool {
        let handoff = self.before(lease).and_then(|before| before.handoff.as_ref());
        handoff.is_some_and(|handoff| handoff.to == lease.owner)
    }

    fn before(&self, lease: &Lease) -> Option<&Before> {
        let seen = self.leases.get(&lease.key)?;
        seen.before.as_ref().filter(|_| seen.counter == lease.counter)
    }

    /// This worker is named as the owner of a lease that it did not take: may it start? Only if
    /// nobody else can still be at work: it was given up on purpose, it was unassigned, a handoff was
    /// completed in time, or the last owner's fence has fallen.
    pub(crate) fn may_start(
        &self,
        lease: &Lease,
        me: Successor,
        now: Duration,
        failover: Duration,
    ) -> bool {
        if lease.was_released_to_owner() {
            return true;
        }
        // Another process of this id may be at work, however it came to be.
        let anothers = lease.is_anothers(me.process);
        if me.left_untouched(lease) && !anothers {
            return true;
        }
        let Some(seen) = self.leases.get(&lease.key) else {
            return false;
        };
        match &seen.before {
            Some(before) if seen.counter == lease.counter && !anothers => {
                let in_time = before.handoff.as_ref().is_some_and(|handoff| {
                    let soon = |since| now.saturating_sub(since) < HANDOFF_TRUSTED;
                    handoff.to == lease.owner && handoff.since.is_some_and(soon)
                });
                // A jump hides writes between the two looks: a heartbeat, or another's take.
                let next = before.counter.checked_add(1) == Some(lease.counter);
                let (quiet_since, limit) = if next {
                    (before.since, heartbeat_within(before.given, failover))
                } else {
                    (seen.since, failover)
                };
                in_time
                    || (next && before.owner.is_none())
                    || now.saturating_sub(quiet_since) > limit
            }
            _ => seen.counter == lease.counter && now.saturating_sub(seen.since) > failover,
        }
    }
}

#[cfg(test)]
mod tests;
