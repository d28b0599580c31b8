//! HTTP/1.1 on a listener: connections, and cuts.
//!
//! On hyper itself and not on a router: there is one path, and a fault must be able to close a
//! connection without an answer, which a router does not let a handler do.

use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::front::Front;
use crate::http::respond;

/// Serves connections until `stop`; then drops them.
pub(crate) async fn serve(listener: TcpListener, front: Arc<Front>, stop: CancellationToken) {
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
                Ok((socket, _)) => drop(connections.spawn(connection(socket, Arc::clone(&front)))),
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

async fn connection(socket: TcpStream, front: Arc<Front>) {
    // Without it, small answers wait for acknowledgements of the ones before.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let service = service_fn(move |request| respond(request, Arc::clone(&front)));
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of testkit ended early");
    }
}
