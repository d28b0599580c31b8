//! Enhanced fan-out, as the service does it: the fleet's consumer has at most one subscription to each shard.
//!
//! The workers' side is the code of `kcl` on a client of the AWS SDK. Its requests arrive at a [`connection`], which
//! answers them in the service's JSON. Each subscription is a [`session`], which sends its events as frames of an event
//! stream, whether they are read or not.

mod connection;
mod messages;
mod session;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use kcl::Clock;
use serde_json::Value;
use tokio::sync::mpsc;

pub(super) use self::connection::client;
use self::messages::{Frame, Refusal};
use self::session::Session;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::stream::{MOST_MEMBERS, Stream};

/// Time after the beginning of a subscription in which another one of the consumer to the shard is refused.
const TAKEOVER: Duration = Duration::from_secs(5);
/// Age at which the service ends a subscription.
const LONGEST: Duration = Duration::from_secs(300);
/// Least age at which a worker renews a subscription that nothing has disturbed.
const RENEWED: Duration = Duration::from_secs(255);

/// What happened to the subscriptions of a fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FanOutCounts {
    /// Subscriptions that the service accepted.
    pub subscriptions: u64,
    /// Requests that it refused because another subscription to the shard had begun a moment ago.
    pub refusals: u64,
    /// Subscriptions that another one ended while their worker was still there.
    pub takeovers: u64,
    /// Subscriptions that a worker replaced shortly before the service would have ended them.
    pub renewals: u64,
    /// Subscriptions whose connection broke, some within an event.
    pub cuts: u64,
    /// Subscriptions that the service ended with an error of its own.
    pub failures: u64,
    /// Subscriptions that fell silent for longer than the worker waits.
    pub silences: u64,
}

impl AddAssign for FanOutCounts {
    fn add_assign(&mut self, other: Self) {
        self.subscriptions += other.subscriptions;
        self.refusals += other.refusals;
        self.takeovers += other.takeovers;
        self.renewals += other.renewals;
        self.cuts += other.cuts;
        self.failures += other.failures;
        self.silences += other.silences;
    }
}

impl fmt::Display for FanOutCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subscriptions, refusals, takeovers, renewals, cuts, failures, silences } = self;
        write!(
            f,
            "{subscriptions} subscriptions, {refusals} refused, {takeovers} taken over, {renewals} renewed, \
             {cuts} cut, {failures} failed, {silences} silent"
        )
    }
}

/// The consumer of the fleet. See the module.
#[derive(Debug)]
pub(super) struct FanOut {
    clock: Arc<dyn Clock>,
    stream: Arc<Stream>,
    oracle: Arc<Oracle>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last subscription to each shard.
    holders: BTreeMap<String, Holder>,
    next: u64,
    counts: FanOutCounts,
}

#[derive(Debug)]
struct Holder {
    id: u64,
    process: String,
    since: Duration,
    /// The service knows that the subscription is over.
    is_over: bool,
}

impl FanOut {
    pub(super) fn new(clock: Arc<dyn Clock>, stream: Arc<Stream>, oracle: Arc<Oracle>) -> Self {
        Self { clock, stream, oracle, state: Mutex::default() }
    }

    pub(super) fn counts(&self) -> FanOutCounts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, count: impl FnOnce(&mut FanOutCounts)) {
        count(&mut self.state().counts);
    }

    /// Answers SubscribeToShard of a process. Returns the events that the service sends.
    fn subscribe(
        self: &Arc<Self>,
        process: &str,
        request: &Value,
        network: &Arc<Network>,
        mut random: Rng,
    ) -> Result<mpsc::Receiver<Frame>, Refusal> {
        let now = self.clock.now();
        let shard = request["ShardId"].as_str().unwrap_or_default().to_owned();
        let horizon = self.stream.horizon(&shard).ok_or(Refusal::NOT_FOUND)?;
        let start = &request["StartingPosition"];
        let number = || start["SequenceNumber"].as_str().and_then(|digits| digits.parse().ok());
        let next = match (start["Type"].as_str(), number()) {
            (Some("AT_SEQUENCE_NUMBER"), Some(number)) => u64::saturating_mul(number, MOST_MEMBERS),
            (Some("AFTER_SEQUENCE_NUMBER"), Some(number)) => (number + 1) * MOST_MEMBERS,
            // Nothing was put before the leases were made.
            (Some("TRIM_HORIZON" | "LATEST" | "AT_TIMESTAMP"), None) => horizon,
            _ => return Err(Refusal::INVALID),
        };
        let state = &mut *self.state();
        let former = state.holders.get(&shard);
        if former.is_some_and(|former| !former.is_over && now < former.since + TAKEOVER) {
            state.counts.refusals += 1;
            self.oracle.step(&format!("fan-out: {process} is refused {shard}"));
            return Err(Refusal::IN_USE);
        }
        if former.is_some_and(|former| {
            let age = now - former.since;
            former.process == process && (RENEWED..LONGEST).contains(&age)
        }) {
            state.counts.renewals += 1;
        }
        state.counts.subscriptions += 1;
        let id = state.hold(&shard, process, now);
        let place = format!("{shard} at {next} (subscription {id})");
        self.oracle.step(&format!("fan-out: {process} subscribes to {place}"));
        // As many events as fit into the receive window of the connection.
        let (sender, frames) = mpsc::channel(random.usize(1..5));
        let session = Session::new(Arc::clone(self), Arc::clone(network), id, shard, next, random);
        tokio::spawn(session.serve(sender));
        Ok(frames)
    }

    /// Lets another application, which uses the consumer by mistake, subscribe to a shard.
    fn pass_to_stranger(&self, shard: &str) {
        self.state().hold(shard, "another application", self.clock.now());
    }

    /// True until another subscription takes the shard over.
    fn is_current(&self, shard: &str, id: u64) -> bool {
        self.state().holders.get(shard).is_some_and(|holder| holder.id == id)
    }

    /// Notes that the service knows that a subscription is over.
    fn is_over(&self, shard: &str, id: u64) {
        let state = &mut *self.state();
        if let Some(holder) = state.holders.get_mut(shard).filter(|holder| holder.id == id) {
            holder.is_over = true;
        }
    }
}

impl State {
    /// Gives a shard to a new subscription. Returns the number of that.
    fn hold(&mut self, shard: &str, process: &str, now: Duration) -> u64 {
        let id = self.next;
        self.next += 1;
        let holder = Holder { id, process: process.to_owned(), since: now, is_over: false };
        self.holders.insert(shard.to_owned(), holder);
        id
    }
}
