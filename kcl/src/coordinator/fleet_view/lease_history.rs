//! What this worker observed of one lease over time, and what follows: whether the lease is
//! expired, and whether the previous owner has stopped. Pure.
//!
//! All times are of this worker's clock. Times that other workers write to the table are not
//! compared, because clocks differ.

use std::cmp::Ordering;
use std::mem;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::lease::Lease;
use crate::lease_table::LeaseSnapshot;

/// Handoff time below which the new owner may start at once.
///
/// A Java owner transfers the lease by force 30 s after the handoff was requested, and its
/// processor may still be at work then. The margin of 5 s is for scans, which may miss the latest
/// writes.
const TRUSTED_HANDOFF: Duration = Duration::from_secs(25);

/// Time without a renewal after which a lease is expired.
///
/// `is_unconfirmed`: no renewal by the present owner was observed yet. A Java worker discovers an
/// assigned lease within the failover time (within twice that, if the index lags) and renews it
/// within a third of the failover time. So a new owner may be silent for longer than an owner that
/// has renewed before.
fn expires_after(is_unconfirmed: bool, failover: Duration) -> Duration {
    if is_unconfirmed { failover * 5 / 2 } else { failover }
}

/// True if the item alone does not prove that its owner has ever renewed the lease. Asked on the
/// first scan, and after a gap between scans in which another worker may have owned the lease.
///
/// A counter that was stamped by a worker of this library proves it, unless that write changed the
/// owner. A counter that was written by a Java worker proves nothing: a transfer leaves the item as
/// a renewal does. So a worker that has just started takes the leases of a dead Java worker 2.5
/// failover times after its first scan. A Java leader that has just started is not faster.
fn may_have_new_owner(lease: &Lease) -> bool {
    lease.owner.is_some() && (!lease.is_stamped() || lease.owner_switches > 0)
}

/// When a lease or the table was read, by this worker's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadTime {
    /// When the read was sent: a write that it does not show may have been made right after that.
    pub(crate) sent: Duration,
    /// When the read was answered: a write that it shows was made before that.
    pub(crate) answered: Duration,
}

/// The history of one lease: its latest two counters, as far as they were observed.
#[derive(Debug, Clone)]
pub(in crate::coordinator) struct LeaseHistory {
    current: Ownership,
    /// The ownership at the counter that was observed before.
    previous: Option<Ownership>,
    /// When the latest read was sent.
    last_read: Duration,
    /// Since when scans have shown that a worker may take the lease.
    available_since: Option<Duration>,
    /// Since when the present owner has been observed.
    owned_since: Duration,
    /// The checkpoint, and since when it has been observed.
    checkpoint: (Checkpoint, Duration),
}

/// The ownership of a lease at one value of its counter.
#[derive(Debug, Clone)]
struct Ownership {
    counter: u64,
    /// The worker that processes the shard. `None`: the lease is unassigned.
    owner: Option<String>,
    /// True if the owner changed with this counter, or may have: no renewal by it was observed.
    is_unconfirmed: bool,
    /// When this counter was first observed.
    since: Duration,
    handoff: Option<Handoff>,
}

/// A pending handoff.
#[derive(Debug, Clone)]
struct Handoff {
    to: Option<String>,
    /// The earliest time at which it may have been requested. `None`: unknown, because the first
    /// read showed it.
    since: Option<Duration>,
}

impl Handoff {
    /// The handoff that `lease` shows. `history`: of the lease before this read.
    fn of(lease: &Lease, history: Option<&LeaseHistory>) -> Option<Self> {
        let known = history.and_then(|history| history.current.handoff.as_ref());
        let known = known.filter(|known| known.to == lease.owner);
        // The handoff may have been requested right after the latest read that did not show it was
        // sent.
        let since = match known {
            Some(known) => known.since,
            None => history.map(|history| history.last_read),
        };
        lease.is_handoff_pending().then(|| Self { to: lease.owner.clone(), since })
    }
}

impl LeaseHistory {
    /// Begins with the first read of the lease.
    pub(super) fn new(lease: &Lease, read: ReadTime) -> Self {
        Self {
            current: Ownership {
                counter: lease.counter,
                owner: lease.actual_owner().map(str::to_owned),
                is_unconfirmed: may_have_new_owner(lease),
                since: read.answered,
                handoff: Handoff::of(lease, None),
            },
            previous: None,
            last_read: read.sent,
            available_since: None,
            owned_since: read.answered,
            checkpoint: (lease.checkpoint.clone(), read.answered),
        }
    }

    /// Takes in a later read of the lease. Returns the worker from which the lease was stolen since
    /// the read before.
    pub(super) fn observe(
        &mut self,
        lease: &Lease,
        read: ReadTime,
        failover: Duration,
    ) -> Option<String> {
        if self.is_of_deleted_item(lease, read, failover) {
            *self = Self::new(lease, read);
            return None;
        }
        let order = lease.counter.cmp(&self.current.counter);
        if order != Ordering::Less {
            if self.current.owner.as_deref() != lease.actual_owner() {
                self.owned_since = read.answered;
            }
            if self.checkpoint.0 != lease.checkpoint {
                self.checkpoint = (lease.checkpoint.clone(), read.answered);
            }
        }
        match order {
            // The read lags behind an earlier one.
            Ordering::Less => None,
            Ordering::Equal => {
                // A read that lags may not show a handoff that an earlier read has shown.
                let handoff = Handoff::of(lease, Some(self));
                self.current.handoff = handoff.or(self.current.handoff.take());
                self.current.owner = lease.actual_owner().map(str::to_owned);
                self.last_read = self.last_read.max(read.sent);
                None
            }
            Ordering::Greater => {
                let stolen_from = self.stolen_from(lease);
                let is_unconfirmed = if self.current.owner.as_deref() != lease.actual_owner() {
                    true
                } else if self.may_hide_another_owner(lease, read, failover) {
                    may_have_new_owner(lease)
                } else {
                    false
                };
                let current = Ownership {
                    counter: lease.counter,
                    owner: lease.actual_owner().map(str::to_owned),
                    is_unconfirmed,
                    since: read.answered,
                    handoff: Handoff::of(lease, Some(self)),
                };
                self.previous = Some(mem::replace(&mut self.current, current));
                self.last_read = read.sent;
                self.available_since = None;
                stolen_from
            }
        }
    }

    /// True if the shard is finished.
    pub(super) fn has_ended(&self) -> bool {
        self.checkpoint.0 == Checkpoint::ShardEnd
    }

    /// Time since the checkpoint last moved.
    pub(super) fn checkpoint_age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.checkpoint.1)
    }

    /// The lease in the form of the public interface, as a scan showed it.
    pub(super) fn present(&self, lease: &Lease, now: Duration) -> LeaseSnapshot {
        LeaseSnapshot {
            owned_for: now.saturating_sub(self.owned_since),
            heartbeat_age: now.saturating_sub(self.current.since),
            checkpoint_age: self.checkpoint_age(now),
            ..LeaseSnapshot::new(lease)
        }
    }

    /// Notes whether a scan at `now` shows that a worker may take the lease.
    pub(super) fn set_available(&mut self, is_available: bool, now: Duration) {
        self.available_since = is_available.then(|| self.available_since.unwrap_or(now));
    }

    /// The worker that owned the lease, if `lease` shows that another worker owns it now and the
    /// former owner had neither released it nor agreed to a handoff.
    fn stolen_from(&self, lease: &Lease) -> Option<String> {
        let has_moved =
            lease.actual_owner().is_some() && lease.actual_owner() != self.current.owner.as_deref();
        let was_given =
            self.current.handoff.is_some() || lease.released_at > Some(self.current.counter);
        self.current.owner.clone().filter(|_| has_moved && !was_given)
    }

    /// True if another worker may have owned the lease since the read before, although `lease`
    /// shows the same owner.
    ///
    /// The counter then moved by more than one. That alone proves nothing for a Java owner, which
    /// moves the counter with each checkpoint. But a Java leader needs two of its passes to move a
    /// lease away and back, so only a gap between reads of more than half a failover time can hide
    /// that.
    fn may_hide_another_owner(&self, lease: &Lease, read: ReadTime, failover: Duration) -> bool {
        let is_ours = lease.is_stamped() || lease.released_at > Some(self.current.counter);
        let is_long = read.answered.saturating_sub(self.last_read) > failover / 2;
        lease.counter > self.current.counter.saturating_add(1) && (is_ours || is_long)
    }

    /// True if the item was deleted and created again since the read before: its counter went back.
    /// A read from the index or a scan may lag behind an earlier read, but not by more than the
    /// failover time.
    fn is_of_deleted_item(&self, lease: &Lease, read: ReadTime, failover: Duration) -> bool {
        lease.counter < self.current.counter && read.sent.saturating_sub(self.last_read) > failover
    }

    /// True if the counter has not moved for the failover time; if the owner may be new, for 2.5
    /// times that.
    pub(super) fn is_expired(&self, lease: &Lease, now: Duration, failover: Duration) -> bool {
        let patience = expires_after(self.current.is_unconfirmed, failover);
        lease.owner.is_some() && self.time_since_renewal(lease, now) > patience
    }

    /// Time for which scans have shown that a worker may take the lease.
    pub(super) fn available_for(&self, now: Duration) -> Duration {
        self.available_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Time since the counter of `lease` was first observed. Zero, if the counter has moved on.
    pub(in crate::coordinator) fn time_since_renewal(
        &self,
        lease: &Lease,
        now: Duration,
    ) -> Duration {
        if self.current.counter == lease.counter {
            now.saturating_sub(self.current.since)
        } else {
            Duration::ZERO
        }
    }

    /// The worker that processed the shard at the counter before that of `lease`, as far as it was
    /// observed.
    pub(in crate::coordinator) fn previous_owner(&self, lease: &Lease) -> Option<String> {
        self.previous(lease)?.owner.clone()
    }

    /// True if a handoff to the present owner was observed and is completed.
    pub(in crate::coordinator) fn was_handed_over(&self, lease: &Lease) -> bool {
        let handoff = self.previous(lease).and_then(|previous| previous.handoff.as_ref());
        handoff.is_some_and(|handoff| handoff.to == lease.owner)
    }

    fn previous(&self, lease: &Lease) -> Option<&Ownership> {
        self.previous.as_ref().filter(|_| self.current.counter == lease.counter)
    }

    /// True if no processor of the previous owner can be at work any more on a lease that names a
    /// new owner: rules 3 to 5 of [`FleetView::may_start`](super::FleetView::may_start).
    ///
    /// `is_of_other_process`: a process other than this one wrote the counter, perhaps under the
    /// same worker id. It may have begun to process at that write, so what was observed before does
    /// not count.
    pub(super) fn previous_owner_has_stopped(
        &self,
        lease: &Lease,
        is_of_other_process: bool,
        now: Duration,
        failover: Duration,
    ) -> bool {
        // The history is of another counter: it says nothing about this one.
        if self.current.counter != lease.counter {
            return false;
        }
        let quiet = now.saturating_sub(self.current.since);
        let Some(previous) = self.previous.as_ref().filter(|_| !is_of_other_process) else {
            return quiet > failover;
        };
        // The previous owner completed the handoff, and it cannot have been a forced one yet.
        let in_time = previous.handoff.as_ref().is_some_and(|handoff| {
            let is_trusted = |since| now.saturating_sub(since) < TRUSTED_HANDOFF;
            handoff.to == lease.owner && handoff.since.is_some_and(is_trusted)
        });
        if in_time {
            return true;
        }
        // The counter moved by more than one: a renewal by the previous owner was not observed, or
        // another worker took the lease in between. Either may have happened right before the
        // present counter.
        if previous.counter.checked_add(1) != Some(lease.counter) {
            return quiet > failover;
        }
        // The only write since then is the one that named this worker.
        previous.owner.is_none()
            || now.saturating_sub(previous.since) > expires_after(previous.is_unconfirmed, failover)
    }
}
