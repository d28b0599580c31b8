//! The connections to one server: which of them carries a request, and when another one is opened.
//!
//! A request takes a [`Place`] on a connection of HTTP/2 that has one free, the oldest first, so that the youngest fall
//! idle and are closed. Without a free place it waits, in order of arrival. Connections are opened for the requests that
//! wait, as many as these need: a worker that subscribes to two hundred shards opens four, and not two hundred.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::connect::Transport;
use super::connection::{Http1, Http2, Opened, Owner, open};
use super::error::{ConnectError, HttpError};
use super::origin::Origin;
use super::{CONNECT_TIMEOUT, Settings};

/// The right to send a request.
#[derive(Debug)]
pub(super) enum Grant {
    /// A stream of a connection.
    Http2(Place),
    /// A connection of HTTP/1.1 for this request alone.
    Http1(Http1),
}

/// A stream of a connection that one request may use. Dropped, it is free for another.
#[derive(Debug)]
pub(super) struct Place {
    pool: Arc<Pool>,
    connection: Arc<Http2>,
}

impl Place {
    pub(super) fn connection(&self) -> &Http2 {
        &self.connection
    }

    pub(super) fn membership(&self) -> Membership {
        Membership { pool: Arc::downgrade(&self.pool), id: self.connection.id }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.release(self.connection.id);
    }
}

/// A connection as a member of its pool.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pool: Weak<Pool>,
    id: u64,
}

impl Membership {
    /// Lets no further request use the connection. Those on it go on.
    pub(super) fn retire(&self) {
        if let Some(pool) = self.pool.upgrade() {
            drop(pool.remove_if(self.id, |_| true));
        }
    }
}

impl Owner for Membership {
    fn close_if_idle(&self) -> bool {
        let Some(pool) = self.pool.upgrade() else { return true };
        let limit = pool.settings.idle_pings;
        let is_idle = |entry: &mut Entry| {
            entry.idle_pings = if entry.taken == 0 { entry.idle_pings + 1 } else { 0 };
            entry.idle_pings >= limit
        };
        pool.remove_if(self.id, is_idle).is_some()
    }

    fn closed(&self) {
        self.retire();
    }
}

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    origin: Origin,
    transport: Arc<Transport>,
    settings: Settings,
    next_id: AtomicU64,
    state: Mutex<State>,
}

type Waiter = oneshot::Sender<Result<Grant, Arc<ConnectError>>>;

/// While requests wait, connections are being opened that have places for all of them.
#[derive(Debug)]
struct State {
    /// In order of opening.
    connections: Vec<Entry>,
    /// In order of arrival.
    waiters: VecDeque<Waiter>,
    /// Connections that are being opened.
    opening: usize,
    /// Requests that a connection is expected to carry that is being opened: as many as the last one carries.
    expected_places: usize,
    /// Whether the client is gone. Then a connection is closed once it carries no request.
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    connection: Arc<Http2>,
    taken: usize,
    /// Pings in a row at which it carried no request.
    idle_pings: u32,
}

impl Pool {
    pub(super) fn new(origin: Origin, transport: Arc<Transport>, settings: Settings) -> Self {
        // Before the first connection is open, a server with TLS is expected to offer HTTP/2.
        let expected_places = if origin.is_https() { settings.max_streams } else { 1 };
        let state = State {
            connections: Vec::new(),
            waiters: VecDeque::new(),
            opening: 0,
            expected_places,
            is_closed: false,
        };
        let (next_id, state) = (AtomicU64::new(0), Mutex::new(state));
        Self { origin, transport, settings, next_id, state }
    }

    /// Waits for a place on a connection for at most `limit`.
    ///
    /// # Cancel safety
    /// A place that was given to a caller who has gone is given to the next one.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        limit: Option<Duration>,
    ) -> Result<Grant, HttpError> {
        let max_streams = self.settings.max_streams;
        let taken = self.update(limit, |state| {
            state.take(max_streams).ok_or_else(|| {
                let (waiter, granted) = oneshot::channel();
                state.waiters.push_back(waiter);
                granted
            })
        });
        let granted = match taken {
            Ok(connection) => return Ok(Grant::Http2(self.place(connection))),
            Err(granted) => granted,
        };
        let origin = || self.origin.to_string();
        let granted = match limit {
            None => granted.await,
            Some(limit) => tokio::time::timeout(limit, granted)
                .await
                .map_err(|_| HttpError::ConnectTimeout { origin: origin(), limit })?,
        };
        granted
            .unwrap_or_else(|_| Err(Arc::new(ConnectError::Cancelled)))
            .map_err(|source| HttpError::Connect { origin: origin(), source })
    }

    /// Closes the connections that carry no request, and each other one after its last request.
    pub(super) fn close(&self) {
        let unused = {
            let mut state = self.lock();
            state.is_closed = true;
            state.connections.extract_if(.., |entry| entry.taken == 0).collect::<Vec<_>>()
        };
        drop(unused);
    }

    fn release(self: &Arc<Self>, id: u64) {
        let closed = self.update(None, |state| {
            let nth = state.find(id)?;
            let entry = &mut state.connections[nth];
            entry.taken -= 1;
            let is_over = entry.taken == 0 && state.is_closed;
            is_over.then(|| state.connections.remove(nth))
        });
        drop(closed);
    }

    /// Takes a connection out of the pool. It is closed when its last request ends.
    fn remove_if(&self, id: u64, condition: impl FnOnce(&mut Entry) -> bool) -> Option<Entry> {
        let mut state = self.lock();
        let nth = state.find(id)?;
        condition(&mut state.connections[nth]).then(|| state.connections.remove(nth))
    }

    /// Changes the state. Then it gives free places to requests that wait, and opens connections for the others.
    fn update<R>(
        self: &Arc<Self>,
        limit: Option<Duration>,
        change: impl FnOnce(&mut State) -> R,
    ) -> R {
        let (changed, granted, to_open) = {
            let mut state = self.lock();
            let changed = change(&mut state);
            state.waiters.retain(|waiter| !waiter.is_closed());
            (changed, state.grant(self.settings.max_streams), state.count_missing())
        };
        // Without the lock: a place that cannot be delivered, or a task that cannot be started, takes it to go back.
        for (waiter, connection) in granted {
            drop(waiter.send(Ok(Grant::Http2(self.place(connection)))));
        }
        for _ in 0..to_open {
            let limit = limit.unwrap_or(CONNECT_TIMEOUT);
            tokio::spawn(Opening { pool: Arc::clone(self), limit, is_done: false }.run());
        }
        changed
    }

    fn place(self: &Arc<Self>, connection: Arc<Http2>) -> Place {
        Place { pool: Arc::clone(self), connection }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, id: u64) -> Option<usize> {
        self.connections.iter().position(|entry| entry.connection.id == id)
    }

    /// Takes a place on the oldest connection that has one free.
    fn take(&mut self, max_streams: usize) -> Option<Arc<Http2>> {
        let entry = self
            .connections
            .iter_mut()
            .find(|entry| entry.taken < places(entry.connection.max_streams(), max_streams))?;
        entry.taken += 1;
        entry.idle_pings = 0;
        Some(Arc::clone(&entry.connection))
    }

    /// Takes free places for requests that wait.
    fn grant(&mut self, max_streams: usize) -> Vec<(Waiter, Arc<Http2>)> {
        let mut granted = Vec::new();
        while !self.waiters.is_empty()
            && let Some(connection) = self.take(max_streams)
            && let Some(waiter) = self.waiters.pop_front()
        {
            granted.push((waiter, connection));
        }
        granted
    }

    /// Counts the connections to open now for the requests that wait. From now on they count as being opened.
    fn count_missing(&mut self) -> usize {
        let needed = self.waiters.len().div_ceil(self.expected_places);
        let more = needed.saturating_sub(self.opening);
        self.opening += more;
        more
    }
}

/// Requests that a connection may carry. A server that allows none for now gets one, which waits in the connection:
/// otherwise the pool would open connections without end.
fn places(of_server: usize, of_client: usize) -> usize {
    of_server.clamp(1, of_client)
}

/// A connection that is being opened.
struct Opening {
    pool: Arc<Pool>,
    limit: Duration,
    is_done: bool,
}

impl Opening {
    async fn run(self) {
        let opening = async {
            let stream = self.pool.transport.connect(&self.pool.origin).await?;
            open(stream, &self.pool.settings).await
        };
        let opened = tokio::time::timeout(self.limit, opening).await;
        let opened = opened.unwrap_or(Err(ConnectError::Timeout(self.limit)));
        self.finish(opened);
    }

    fn finish(mut self, opened: Result<Opened, ConnectError>) {
        self.is_done = true;
        let (pool, limit) = (&self.pool, Some(self.limit));
        match opened {
            Ok(Opened::Http2(handshake)) => {
                let expected_places = places(handshake.max_streams(), pool.settings.max_streams);
                let id = pool.next_id.fetch_add(1, Ordering::Relaxed);
                let owner = Membership { pool: Arc::downgrade(pool), id };
                let connection = Arc::new(handshake.run(id, owner, &pool.settings));
                let entry = Entry { connection, taken: 0, idle_pings: 0 };
                pool.update(limit, |state| {
                    state.opening -= 1;
                    state.expected_places = expected_places;
                    if !state.is_closed {
                        state.connections.push(entry);
                    }
                });
            }
            Ok(Opened::Http1(connection)) => {
                let waiter = pool.update(limit, |state| {
                    state.opening -= 1;
                    state.expected_places = 1;
                    state.waiters.retain(|waiter| !waiter.is_closed());
                    state.waiters.pop_front()
                });
                if let Some(waiter) = waiter {
                    drop(waiter.send(Ok(Grant::Http1(connection))));
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Fails the requests that wait and for which no other connection is being opened.
    fn fail(&self, error: ConnectError) {
        let failed = self.pool.update(Some(self.limit), |state| {
            state.opening -= 1;
            state.waiters.retain(|waiter| !waiter.is_closed());
            let hopeful = state.opening * state.expected_places;
            state.waiters.split_off(hopeful.min(state.waiters.len()))
        });
        let error = Arc::new(error);
        for waiter in failed {
            drop(waiter.send(Err(Arc::clone(&error))));
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // The runtime of the task has ended.
        if !self.is_done {
            self.fail(ConnectError::Cancelled);
        }
    }
}
