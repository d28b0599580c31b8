//! Connections: several clients for PutRecords, each with connections of its own.
//!
//! Over HTTP/2 a client of the SDK sends all requests on one connection. One lost packet holds up all of them, and a
//! connection that a router has forgotten holds them up until the operating system gives it up, after a quarter of an hour.
//! So requests are spread over several clients, and a client whose request timed out is replaced: its requests in flight go
//! on, and the next ones open a new connection.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::config::timeout::TimeoutConfigBuilder;
use aws_sdk_kinesis::{Client, Config};

use crate::sync::{Mutex, lock};

/// The HTTP client of the SDK keeps its connections apart by the connect timeout, and forgets no timeout that it has seen.
/// So there are only so many; a client that was replaced long ago has closed its connections when its turn comes again.
const MOST_TIMEOUTS: u32 = 256;

pub(crate) struct Connections {
    config: Config,
    connect_timeout: Duration,
    state: Mutex<State>,
}

struct State {
    slots: Vec<Slot>,
    /// How many clients were made.
    made: u32,
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
    /// `config` is all but the connect timeout.
    pub(crate) fn new(config: Config, connect_timeout: Duration, count: usize) -> Arc<Self> {
        Arc::new(Self {
            config,
            connect_timeout,
            state: Mutex::new(State {
                slots: (0..count.max(1)).map(|_| Slot::default()).collect(),
                made: 0,
            }),
        })
    }

    /// The client with the fewest requests in flight.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        let mut state = lock(&self.state);
        let State { slots, made } = &mut *state;
        let least = slots.iter_mut().enumerate();
        let Some((place, slot)) = least.min_by_key(|(_, slot)| slot.in_flight) else {
            unreachable!("there is at least one slot");
        };
        let client = match &slot.client {
            Some(client) => client.clone(),
            None => {
                let client = self.make(*made);
                *made = made.wrapping_add(1);
                slot.number = *made;
                slot.client = Some(client.clone());
                client
            }
        };
        slot.in_flight += 1;
        Lease {
            connections: Arc::clone(self),
            slot: place,
            number: slot.number,
            client,
        }
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
        let mut state = lock(&self.connections.state);
        let slot = &mut state.slots[self.slot];
        if slot.number == self.number {
            slot.client = None;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.connections.state).slots[self.slot].in_flight -= 1;
    }
}
