//! An HTTP server for one service, with faults by plan.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request, read whole.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer: status, type of the content, content.
pub(crate) type Answer = (u16, &'static str, String);

/// What happens to a call in place of its answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This answer is given, and nothing is done.
    Answer(u16, &'static str, String),
    /// The connection is closed, and nothing is done.
    Cut,
    /// The call is done, and the connection is closed without an answer.
    CutAfter,
    /// The call is done, except for its entry with this number.
    Entry(usize),
}

/// A service: does a call, without the entry that a fault names.
pub(crate) trait Service: Send + Sync + 'static {
    fn answer(&self, call: &Call, without: Option<usize>) -> Answer;
}

pub(crate) struct Server {
    pub(crate) url: String,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(service: Arc<impl Service>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let faults = Arc::<Mutex<VecDeque<Fault>>>::default();
        let planned = Arc::clone(&faults);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (service, faults) = (Arc::clone(&service), Arc::clone(&planned));
                let serve = service_fn(move |request| {
                    serve(Arc::clone(&service), Arc::clone(&faults), request)
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), serve);
                tokio::spawn(connection);
            }
        });
        Self { url, faults, task }
    }

    /// Plans a fault for each of the next calls.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Faults that have not come.
    pub(crate) fn planned(&self) -> usize {
        self.faults.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    service: Arc<impl Service>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let call = Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: body.collect().await?.to_bytes(),
    };
    let fault = faults.lock().unwrap().pop_front();
    let (status, kind, body) = match fault {
        Some(Fault::Answer(status, kind, body)) => (status, kind, body),
        Some(Fault::Cut) => return Err("cut".into()),
        Some(Fault::CutAfter) => {
            service.answer(&call, None);
            return Err("cut".into());
        }
        Some(Fault::Entry(entry)) => service.answer(&call, Some(entry)),
        None => service.answer(&call, None),
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", kind)
        .header("etag", "\"tag\"")
        .header("last-modified", "Sun, 29 Nov 2026 05:00:00 GMT");
    Ok(response.body(Full::new(Bytes::from(body)))?)
}
