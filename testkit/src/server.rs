//! HTTP/1.1 on a listener: connections, bodies, and cuts.
//!
//! On hyper itself and not on a router: there is one path, and a fault must be able to close a
//! connection without an answer, which a router does not let a handler do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::front::{Cut, Front, Reply};

/// Largest body taken: more than any request AWS allows, base64 counted.
const MAX_BODY: usize = 32 << 20;

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

/// Answers a request; an error makes hyper close the connection without a word.
async fn respond(
    request: Request<Incoming>,
    front: Arc<Front>,
) -> Result<Response<Full<Bytes>>, Cut> {
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    let (head, body) = request.into_parts();
    let Some(body) = read(body).await else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return Ok(response);
    };
    let target = head
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let Reply {
        status,
        content_type,
        body,
    } = front.answer(target.unwrap_or_default(), body).await?;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    let request_id = format!("{:032x}", REQUESTS.fetch_add(1, Ordering::Relaxed));
    if let Ok(request_id) = request_id.try_into() {
        headers.insert("x-amzn-requestid", request_id);
    }
    Ok(response)
}

/// The whole body, copied once; none if it is too large or breaks off.
async fn read(body: Incoming) -> Option<Bytes> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut whole = BytesMut::with_capacity(announced.min(MAX_BODY));
    let mut body = Limited::new(body, MAX_BODY);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Some(whole.freeze())
}
