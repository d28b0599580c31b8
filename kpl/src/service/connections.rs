//! Connections: several clients for PutRecords, each with connections of its own.
//!
//! Over HTTP/2 a client of the SDK sends all requests on one connection. One lost packet holds up all of them, and a
//! connection that a router has forgotten holds them up until the operating system gives it up, after a quarter of an hour.
//! So requests are spread over several clients, and a client whose request timed out is replaced: its requests in flight go
//! on, and the next ones open a new connection.
//!
//! The HTTP client of the SDK keeps its connections apart by the connect timeout, so each client has another one. Producers
//! that share an HTTP client through their `SdkConfig` do not share connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::config::timeout::TimeoutConfigBuilder;
use aws_sdk_kinesis::{Client, Config};

use crate::sync::{Mutex, lock};

/// How many connect timeouts there are. An HTTP client forgets no timeout that it has seen, so they are used again: a client
/// that was replaced long ago has closed its connections by then.
const MOST_TIMEOUTS: u32 = 256;

/// How many clients were made, by all producers: they may share an HTTP client.
static MADE: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Connections {
    config: Config,
    connect_timeout: Duration,
    slots: Mutex<Vec<Slot>>,
}

#[derive(Default)]
struct Slot {
    /// `None` until it is needed, and after a timeout.
    client: Option<Client>,
    /// Tells clients of one slot apart.
    number: u32,
    in_flight: usize,
}

/// A client with one request on it.
pub(crate) struct Lease {
    connections: Arc<Connections>,
    slot: usize,
    number: u32,
    pub(crate) client: Client,
}

impl Connections {
    /// `config`: the configuration of each client, without its connect timeout.
    pub(crate) fn new(config: Config, connect_timeout: Duration, count: usize) -> Arc<Self> {
        Arc::new(Self {
            config,
            connect_timeout,
            slots: Mutex::new((0..count.max(1)).map(|_| Slot::default()).collect()),
        })
    }

    /// The client with the fewest requests in flight.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        let mut slots = lock(&self.slots);
        let least = slots.iter_mut().enumerate();
        let Some((place, slot)) = least.min_by_key(|(_, slot)| slot.in_flight) else {
            unreachable!("there is at least one slot");
        };
        let client = match &slot.client {
            Some(client) => client.clone(),
            None => {
                slot.number = MADE.fetch_add(1, Ordering::Relaxed);
                let client = self.make(slot.number);
                slot.client = Some(client.clone());
                client
            }
        };
        slot.in_flight += 1;
        Lease { connections: Arc::clone(self), slot: place, number: slot.number, client }
    }

    fn make(&self, number: u32) -> Client {
        // Not 0: that is the timeout of the other calls.
        let apart = Duration::from_nanos(u64::from(1 + number % MOST_TIMEOUTS));
        // The caller of PutRecords names the limit of each call.
        let timeouts = TimeoutConfigBuilder::new()
            .connect_timeout(self.connect_timeout.saturating_add(apart))
            .disable_read_timeout()
            .disable_operation_attempt_timeout()
            .disable_operation_timeout();
        let config = self.config.to_builder().timeout_config(timeouts.build());
        Client::from_conf(config.build())
    }
}

impl Lease {
    /// The request timed out: the connection may be dead. Requests from now on take another.
    pub(crate) fn replace(&self) {
        let mut slots = lock(&self.connections.slots);
        let slot = &mut slots[self.slot];
        if slot.number == self.number {
            slot.client = None;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.connections.slots)[self.slot].in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::config::BehaviorVersion;

    use super::*;

    #[test]
    fn all_clients_of_all_producers_have_connect_timeouts_of_their_own() {
        let config = || {
            let version = BehaviorVersion::v2026_01_12();
            Config::builder().behavior_version(version).build()
        };
        let timeout = |lease: &Lease| {
            let timeouts = lease.client.config().timeout_config().unwrap();
            timeouts.connect_timeout().unwrap()
        };
        let second = Duration::from_secs(1);
        let [one, other] = [(); 2].map(|()| Connections::new(config(), second, 2));
        let leases = [one.lease(), one.lease(), other.lease(), other.lease()];
        let mut timeouts = leases.each_ref().map(timeout);
        timeouts.sort();
        assert!(timeouts[0] > second, "{timeouts:?}");
        assert!(timeouts.is_sorted_by(|a, b| a < b), "{timeouts:?}");
    }
}
