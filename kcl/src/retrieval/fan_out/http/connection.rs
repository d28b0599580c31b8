//! One connection: the handshake of HTTP, the task that runs the connection, and its pings.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::Settings;
use super::connect::{Forwarder, Io, Stream};
use super::error::{ConnectError, HttpError};
use super::request::for_http1;

/// What the task of an HTTP/2 connection asks and tells the pool.
pub(super) trait Owner: Send + Sync + 'static {
    /// Takes the connection out of the pool if it has been without a request for long enough. Returns whether it has.
    fn close_if_idle(&self) -> bool;

    /// Takes the connection out of the pool.
    fn closed(&self);
}

/// An open connection that carries no request yet.
pub(super) enum Opened {
    Http2(Box<Handshake>),
    Http1(Http1),
}

/// Opens HTTP on a byte stream.
pub(super) async fn open(stream: Stream, settings: &Settings) -> Result<Opened, ConnectError> {
    if stream.is_http2 {
        Ok(Opened::Http2(Box::new(Handshake::start(stream.io, settings).await?)))
    } else {
        Ok(Opened::Http1(Http1::open(stream).await?))
    }
}

/// An HTTP/2 connection whose peer has told its limits.
pub(super) struct Handshake {
    requests: SendRequest<Bytes>,
    connection: h2::client::Connection<Box<dyn Io>, Bytes>,
    pings: PingPong,
}

impl Handshake {
    async fn start(io: Box<dyn Io>, settings: &Settings) -> Result<Self, ConnectError> {
        let failed = |error: h2::Error| ConnectError::Handshake(error.into());
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            // The budget for small DATA frames that are not read. A frame of an event stream has more than 128 bytes, for
            // which `h2` charges less than its length, so the windows are used up before the budget is.
            .data_frame_budget(settings.connection_window as usize)
            .enable_push(false)
            .handshake(io)
            .await
            .map_err(failed)?;
        let mut pings = connection.ping_pong().ok_or_else(|| {
            ConnectError::Handshake("the connection has no channel for pings".into())
        })?;
        // The server sends its settings before it answers a ping. Until then its limit of streams is not known.
        tokio::select! {
            biased;
            ended = &mut connection => {
                return Err(ended.err().map_or(ConnectError::ClosedByServer, failed));
            }
            pong = pings.ping(Ping::opaque()) => {
                pong.map_err(failed)?;
            }
        }
        Ok(Self { requests, connection, pings })
    }

    /// Most streams that the server allows.
    pub(super) fn max_streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Runs the connection in a task on the runtime of the caller.
    pub(super) fn run(self, id: u64, owner: impl Owner, settings: &Settings) -> Http2 {
        let Self { requests, connection, pings } = self;
        let unanswered = Arc::new(OnceLock::new());
        let task = run(connection, pings, owner, Arc::clone(&unanswered), *settings);
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        Http2 { id, requests, unanswered, _task: task }
    }
}

/// An HTTP/2 connection. It is closed when the value is dropped.
pub(super) struct Http2 {
    /// Names the connection in its pool.
    pub(super) id: u64,
    requests: SendRequest<Bytes>,
    /// Set before the streams fail, if they fail because a ping had no answer for so long.
    unanswered: Arc<OnceLock<Duration>>,
    _task: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Http2 {
    /// Most streams that the server allows now.
    pub(super) fn max_streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Sends a request. `None`: the connection takes no more requests, and the request was not sent.
    pub(super) async fn send(&self, request: &Request<Bytes>) -> Option<ResponseFuture> {
        let mut requests = self.requests.clone().ready().await.ok()?;
        let (mut head, body) = request.clone().into_parts();
        head.version = Version::HTTP_2;
        let head = Request::from_parts(head, ());
        let (response, mut send) = requests.send_request(head, body.is_empty()).ok()?;
        if !body.is_empty() {
            // It fails if the stream is reset already. Then the response says why.
            drop(send.send_data(body, true));
        }
        Some(response)
    }

    /// The error of a stream of this connection.
    pub(super) fn error(&self, error: h2::Error) -> HttpError {
        match self.unanswered.get() {
            Some(limit) => HttpError::PingTimeout { limit: *limit },
            None => HttpError::lost(error),
        }
    }
}

/// Runs a connection until either side closes it, its peer is dead, or it is idle.
async fn run(
    mut connection: h2::client::Connection<Box<dyn Io>, Bytes>,
    pings: PingPong,
    owner: impl Owner,
    unanswered: Arc<OnceLock<Duration>>,
    settings: Settings,
) {
    tokio::select! {
        biased;
        ended = &mut connection => match ended {
            Ok(()) => tracing::debug!("a connection of subscriptions was closed"),
            Err(error) => tracing::debug!(%error, "a connection of subscriptions broke"),
        },
        silence = keep_alive(pings, &owner, &settings) => if let Some(silence) = silence {
            tracing::warn!(
                ?silence,
                "the service answers no ping; the subscriptions of this connection end, and are renewed"
            );
            let _ = unanswered.set(silence);
        },
    }
    owner.closed();
    // The streams that are left fail as `connection` is dropped here.
}

/// Pings until a ping has no answer, and returns for how long; or until the connection is idle.
async fn keep_alive(
    mut pings: PingPong,
    owner: &impl Owner,
    settings: &Settings,
) -> Option<Duration> {
    loop {
        tokio::time::sleep(settings.ping_interval).await;
        let pong = pings.ping(Ping::opaque());
        match tokio::time::timeout(settings.ping_timeout, pong).await {
            Err(_) => return Some(settings.ping_timeout),
            // The connection itself ends now, and tells why.
            Ok(Err(_)) => std::future::pending().await,
            Ok(Ok(_)) if owner.close_if_idle() => return None,
            Ok(Ok(_)) => {}
        }
    }
}

/// An HTTP/1.1 connection that carries one request.
#[derive(Debug)]
pub(super) struct Http1 {
    requests: http1::SendRequest<Full<Bytes>>,
    forwarder: Option<Forwarder>,
    task: AbortOnDropHandle<()>,
}

impl Http1 {
    async fn open(stream: Stream) -> Result<Self, ConnectError> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream.io))
            .await
            .map_err(|error| ConnectError::Handshake(error.into()))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of a subscription broke");
            }
        });
        let task = AbortOnDropHandle::new(task);
        Ok(Self { requests, forwarder: stream.forwarder, task })
    }

    /// Sends the request. The connection is closed when the second value is dropped.
    pub(super) async fn send(
        mut self,
        request: Request<Bytes>,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), HttpError> {
        let request = for_http1(request, self.forwarder.as_ref())?;
        let response = self.requests.send_request(request).await.map_err(HttpError::lost)?;
        Ok((response, self.task))
    }
}
