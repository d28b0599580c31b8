//! The services on sockets: listeners, connections, and cuts.
//!
//! HTTP/1.1 and HTTP/2 alike on every port: over TLS by ALPN, in the clear by what a client begins
//! with. On hyper itself and not on a router: there is one path, and a fault must be able to close a
//! connection without an answer, which a router does not let a handler do.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use http_body_util::{BodyExt, Either};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::error::StartError;
use crate::front::{Front, ReplyBody};
use crate::http::respond;

/// A loopback port that takes connections from now on.
pub(crate) struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Listens on this port, 0: a free one.
    pub(crate) fn bind(port: u16, tls: Option<TlsAcceptor>) -> Result<Self, StartError> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let bound = std::net::TcpListener::bind(wanted).and_then(|socket| {
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        });
        match bound {
            Ok((socket, address)) => Ok(Self { socket, address, tls }),
            Err(error) if error.kind() == ErrorKind::AddrInUse && port != 0 => {
                Err(StartError::PortInUse { port })
            }
            Err(error) => Err(StartError::Bind(error)),
        }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

/// The threads that serve some listeners, until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `max_concurrent_streams` is of each connection of HTTP/2.
    pub(crate) fn start(
        listeners: Vec<Listener>,
        front: &Arc<Front>,
        max_concurrent_streams: u32,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("kinesis-testkit")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        for Listener { socket, tls, .. } in listeners {
            let socket = {
                let _in_runtime = runtime.enter();
                TcpListener::from_std(socket).map_err(StartError::Bind)?
            };
            let host = Host { tls, front: Arc::clone(front), max_concurrent_streams };
            let accept = accept(socket, host, stop.clone());
            serving.spawn_on(accept, runtime.handle());
        }
        let thread = std::thread::Builder::new()
            .name("kinesis-testkit".to_owned())
            .spawn(move || drop(runtime.block_on(serving.join_all())))
            .map_err(StartError::Runtime)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the server thread of testkit panicked");
        }
    }
}

/// Serves connections until `stop`; then drops them.
async fn accept(listener: TcpListener, host: Host, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(panic) = ended {
                    tracing::error!(error = %panic, "a connection of testkit failed");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(host.clone().serve(socket));
                }
                Err(error) => {
                    tracing::warn!(%error, "testkit could not accept a connection");
                    // Out of file descriptors, most likely: let others give some back.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    connections.shutdown().await;
}

/// What serves the connections of a port.
#[derive(Clone)]
struct Host {
    tls: Option<TlsAcceptor>,
    front: Arc<Front>,
    max_concurrent_streams: u32,
}

impl Host {
    async fn serve(self, socket: TcpStream) {
        let _counted = self.front.count_connection();
        // Without it, small answers wait for acknowledgements of the ones before.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        match &self.tls {
            None => self.converse(socket).await,
            Some(tls) => match tls.accept(socket).await {
                Ok(stream) => self.converse(stream).await,
                Err(error) => tracing::debug!(%error, "a TLS handshake with testkit failed"),
            },
        }
    }

    /// Answers what comes, until either side closes, or a fault does.
    async fn converse<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Of the connection and not of the request: HTTP/2 would only reset one stream of it.
        let cut = CancellationToken::new();
        let service = service_fn(|request| {
            let (front, cut) = (Arc::clone(&self.front), cut.clone());
            async move {
                match respond(request, front).await {
                    Ok(response) => Ok(response.map(|body| cutting(body, cut))),
                    Err(fault) => {
                        cut.cancel();
                        Err(fault)
                    }
                }
            }
        });
        // The tasks of HTTP/2 end with their connection, and at the latest with the server's runtime.
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http2().max_concurrent_streams(self.max_concurrent_streams);
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            served = http.serve_connection(TokioIo::new(stream), service) => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection of testkit ended early");
                }
            }
        }
    }
}

/// A body that is sent as it comes to be can be cut in its middle.
fn cutting(body: ReplyBody, cut: CancellationToken) -> ReplyBody {
    let fault = move |fault| {
        cut.cancel();
        fault
    };
    match body {
        Either::Left(whole) => Either::Left(whole),
        Either::Right(stream) => Either::Right(stream.map_err(fault).boxed()),
    }
}
