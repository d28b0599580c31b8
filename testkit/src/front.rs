//! One request, whatever carried it here: which operation, which faults, which answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::Frame;
use hyper::http::request::Parts;

use crate::access::{Access, check_arns};
use crate::buffers::Buffers;
use crate::control;
use crate::dynamodb::{self, DynamoDb};
use crate::encoding::{CborSupport, Encoding};
use crate::faults::{Asks, Call, Faults, Plan, Service, Stop};
use crate::kinesis::{ApiError, KinesisService, frames};

/// Both services, the faults in front of them, and the count of calls.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) kinesis: Arc<KinesisService>,
    pub(crate) dynamodb: DynamoDb,
    pub(crate) faults: Arc<Faults>,
    pub(crate) buffers: Buffers,
    access: Access,
    cbor: CborSupport,
    calls: Mutex<HashMap<String, Calls>>,
    /// Counts requests that may have changed something.
    changes: AtomicU64,
    connections: AtomicUsize,
}

/// Counts a connection for as long as it is held.
pub(crate) struct CountedConnection<'a>(&'a AtomicUsize);

impl Drop for CountedConnection<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How often an operation was called.
#[derive(Debug, Default, Clone, Copy)]
struct Calls {
    all: u64,
    in_cbor: u64,
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: ReplyBody,
}

/// A whole body, or one that is sent as it comes to be; that one ends early by a cut.
pub(crate) type ReplyBody = Either<Full<Bytes>, BoxBody<Bytes, Cut>>;

/// There is no answer: the connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is cut by a fault")]
pub(crate) struct Cut;

impl Front {
    pub(crate) fn new(
        kinesis: KinesisService,
        dynamodb: DynamoDb,
        faults: Arc<Faults>,
        access: Access,
        cbor: CborSupport,
    ) -> Self {
        Self {
            kinesis: Arc::new(kinesis),
            dynamodb,
            faults,
            buffers: Buffers::default(),
            access,
            cbor,
            calls: Mutex::default(),
            changes: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
        }
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    pub(crate) fn count_connection(&self) -> CountedConnection<'_> {
        self.connections.fetch_add(1, Ordering::AcqRel);
        CountedConnection(&self.connections)
    }

    /// How many requests may have changed something.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Notes that something may have changed.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// How often an operation has been called, refused and faulted calls counted.
    pub(crate) fn calls(&self, operation: &str) -> u64 {
        self.counted(operation).all
    }

    /// How many of these calls were in CBOR.
    pub(crate) fn calls_in_cbor(&self, operation: &str) -> u64 {
        self.counted(operation).in_cbor
    }

    fn counted(&self, operation: &str) -> Calls {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.get(operation).copied().unwrap_or_default()
    }

    fn count(&self, operation: &str, encoding: Encoding) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        // An operation that is known needs no name of its own.
        if !calls.contains_key(operation) {
            calls.insert(operation.to_owned(), Calls::default());
        }
        if let Some(calls) = calls.get_mut(operation) {
            calls.all += 1;
            calls.in_cbor += u64::from(encoding == Encoding::Cbor);
        }
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, head: &Parts, body: Bytes) -> Result<Reply, Cut> {
        if let Some((status, json)) = control::answer(&self.faults, head, &body) {
            let json = json.to_string().into_bytes();
            return Ok(reply(Service::DynamoDb, Encoding::Json, status, json));
        }
        let target = head.headers.get("x-amz-target");
        let target = target.and_then(|target| target.to_str().ok());
        let target = target.unwrap_or_default();
        let Some((service, operation)) = parse_target(target) else {
            let message = format!("{target:?} is no target of Kinesis or DynamoDB");
            let error = ApiError::new("UnknownOperationException", message);
            let service = Service::Kinesis;
            return Ok(refusal(service, Encoding::of(service, &head.headers), &error));
        };
        let request_encoding = Encoding::of(service, &head.headers);
        self.count(operation, request_encoding);
        let encoding = match encoding_of_answer(request_encoding, &self.cbor) {
            Ok(encoding) => encoding,
            Err(reply) => return Ok(reply),
        };
        let now = self.faults.now();
        let checked = self.access.check(head, &body, service, operation, now);
        if let Err(error) = checked {
            return Ok(refusal(service, encoding, &error));
        }
        let body = match request_encoding.read(body) {
            Ok(body) => body,
            Err(error) => return Ok(refusal(service, encoding, &error)),
        };
        if let Err(error) = check_arns(head, &body) {
            return Ok(refusal(service, encoding, &error));
        }
        let mut plan = self.plan(service, operation, &body);
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        match &plan.stop {
            Some(Stop::Cut) => return Err(Cut),
            Some(Stop::Refuse(error)) => return Ok(refusal(service, encoding, error)),
            None => {}
        }
        let lose_response = plan.lose_response;
        let reply = match service {
            Service::Kinesis if operation == "SubscribeToShard" => self.subscribe(encoding, &body),
            Service::Kinesis => {
                match self.kinesis.call(operation, &body, std::mem::take(&mut plan.refused)) {
                    Ok(body) => reply(service, encoding, 200, body),
                    Err(error) => refusal(service, encoding, &error),
                }
            }
            Service::DynamoDb => {
                let stalest = self.faults.stalest_index();
                let (status, body) = self.dynamodb.call(operation, &body, &plan, stalest);
                reply(service, encoding, status, body)
            }
        };
        let reads = ["Get", "List", "Describe", "Subscribe", "Query", "Scan", "BatchGet"];
        if !reads.iter().any(|read| operation.starts_with(read)) {
            self.note_change();
        }
        if lose_response {
            return Err(Cut);
        }
        Ok(carry(&plan, reply).await)
    }

    fn subscribe(&self, encoding: Encoding, body: &[u8]) -> Reply {
        let subscription = match self.kinesis.subscribe(body) {
            Ok(subscription) => subscription,
            Err(error) => return refusal(Service::Kinesis, encoding, &error),
        };
        let faults = Arc::clone(&self.faults);
        let frames = frames(&self.kinesis, faults, subscription, encoding);
        Reply {
            status: 200,
            content_type: "application/vnd.amazon.eventstream",
            body: Either::Right(StreamBody::new(frames.map_ok(Frame::data)).boxed()),
        }
    }

    fn plan(&self, service: Service, operation: &str, body: &[u8]) -> Plan {
        if self.faults.is_empty() {
            return Plan::default();
        }
        let (parts, asks) = match service {
            Service::Kinesis => (self.kinesis.locate(body), Asks::default()),
            Service::DynamoDb => dynamodb::locate(body),
        };
        let batch = matches!(operation, "PutRecords" | "BatchWriteItem" | "BatchGetItem");
        self.faults.plan(&Call { service, operation, parts, batch, asks })
    }
}

impl Reply {
    /// An answer whose body is there.
    pub(crate) fn whole(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, body: Either::Left(Full::new(body.into())) }
    }
}

/// What faults make of an answer on its way. Event streams have faults of their own.
async fn carry(plan: &Plan, reply: Reply) -> Reply {
    let is_whole = !plan.cut_response && !plan.garbled_response && plan.slow_response.is_none();
    let body = match reply.body {
        Either::Left(body) if !is_whole => body,
        body => return Reply { body, ..reply },
    };
    let Ok(body) = body.collect().await;
    let mut bytes = body.to_bytes();
    if let Some(rate) = plan.slow_response {
        tokio::time::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate as f64)).await;
    }
    let half = bytes.len() / 2;
    if plan.garbled_response {
        bytes = [&bytes[..half], b"\x00 garbage"].concat().into();
    }
    let body = if plan.cut_response {
        let parts = [Ok(Frame::data(bytes.slice(..half))), Err(Cut)];
        Either::Right(StreamBody::new(futures::stream::iter(parts)).boxed())
    } else {
        Either::Left(Full::new(bytes))
    };
    Reply { body, ..reply }
}

/// The encoding of the answer to a request, or the answer itself if the request is not looked at.
fn encoding_of_answer(request: Encoding, support: &CborSupport) -> Result<Encoding, Reply> {
    match (request, support) {
        (Encoding::Json, _) | (Encoding::Cbor, CborSupport::AnsweredInJson) => Ok(Encoding::Json),
        (Encoding::Cbor, CborSupport::Full) => Ok(Encoding::Cbor),
        (Encoding::Cbor, CborSupport::UnsupportedMediaType) => {
            Err(Reply::whole(415, "text/plain", Vec::new()))
        }
        (Encoding::Cbor, CborSupport::Refused { code }) => {
            let error = ApiError::new(code.clone(), "the request is not valid JSON");
            Err(refusal(Service::Kinesis, Encoding::Json, &error))
        }
        (Encoding::Cbor, CborSupport::Failed) => {
            Err(Reply::whole(500, "text/html", b"<p>Internal Server Error</p>".to_vec()))
        }
    }
}

fn parse_target(target: &str) -> Option<(Service, &str)> {
    let (service, operation) = target.split_once('.')?;
    match service {
        "Kinesis_20131202" => Some((Service::Kinesis, operation)),
        "DynamoDB_20120810" | "DynamoDBStreams_20120810" => Some((Service::DynamoDb, operation)),
        _ => None,
    }
}

fn refusal(service: Service, encoding: Encoding, error: &ApiError) -> Reply {
    reply(service, encoding, error.status(), error.to_json())
}

fn reply(service: Service, encoding: Encoding, status: u16, json: Vec<u8>) -> Reply {
    Reply::whole(status, encoding.content_type(service), encoding.write(json))
}
