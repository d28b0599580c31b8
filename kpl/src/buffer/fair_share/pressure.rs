//! Pressure: which open aggregates of a producer are sealed early, because records wait for the room that they hold.

use super::{FairShare, Holder, QueueId};

/// The open aggregates that must be sealed, because records wait for the room that they hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    None,
    Queues(Vec<QueueId>),
    All,
}

impl<S: Clone> FairShare<S> {
    /// Notes that a shard was refused room, without a waiter. Returns the signals of the producers that must seal open
    /// aggregates.
    pub(crate) fn note_refusal(&mut self, holder: Holder) -> Vec<S> {
        let usage = self.usage(holder.producer);
        if usage.held(holder.queue_id) > 0 {
            usage.refused.insert(holder.queue_id);
            return vec![usage.signal.clone()];
        }
        // The shard holds nothing: other shards have the room that it needs.
        let usages = self.usages.iter_mut().flatten();
        usages
            .map(|usage| {
                usage.asked_by_others = true;
                usage.signal.clone()
            })
            .collect()
    }

    /// The queues of a producer whose open aggregates must be sealed: those that were refused room or got a waiter
    /// since the last call, and those of `asked` that have waiters. Also returns whether to ask again.
    pub(crate) fn take_pressure(&mut self, producer: usize, asked: &[QueueId]) -> (Pressure, bool) {
        let is_short = self.is_short();
        let stays = is_short || self.queues(producer).next().is_some();
        let usage = self.usage(producer);
        let mut queue_ids = std::mem::take(&mut usage.refused);
        let mut may_wait = std::mem::take(&mut usage.got_waiter);
        may_wait.extend(asked);
        // While a permit waits, the fullest shard may be another one each time.
        may_wait.insert(QueueId::PERMITS);
        let waits = |queue_id: &QueueId| {
            self.waiters.contains_key(&Holder { producer, queue_id: *queue_id })
        };
        queue_ids.extend(may_wait.into_iter().filter(waits));
        #[cfg(test)]
        self.check_pressure(producer, &queue_ids);
        let usage = self.usage(producer);
        if queue_ids.remove(&QueueId::PERMITS) {
            // A permit waits until the fullest shard holds less.
            queue_ids.extend(usage.fullest().0);
        }
        let pressure = if std::mem::take(&mut usage.asked_by_others) || is_short {
            Pressure::All
        } else if queue_ids.is_empty() {
            Pressure::None
        } else {
            Pressure::Queues(queue_ids.into_iter().collect())
        };
        (pressure, stays)
    }
}
