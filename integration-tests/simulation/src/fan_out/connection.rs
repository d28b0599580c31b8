//! A process's way to the service: an HTTP client of the AWS SDK that answers in simulated time, or fails.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_sdk_kinesis::{Client, Config};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::{DateTime, Format};
use bytes::Bytes;
use fastrand::Rng;
use hyper::body::{Body, Frame};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::FanOut;
use super::messages::{self, Refusal};
use crate::network::Network;

/// Time after which the connection of a request breaks that is not answered. All callers give up before.
const UNANSWERED: Duration = Duration::from_secs(60);

/// Returns a client for a process. It uses nothing of the system: no credentials, no time, no retries.
pub(crate) fn client(
    service: &Arc<FanOut>,
    process: &str,
    network: &Arc<Network>,
    seed: u64,
) -> Client {
    let connection = Connection(Arc::new(Inner {
        service: Arc::clone(service),
        process: process.to_owned(),
        network: Arc::clone(network),
        random: Mutex::new(Rng::with_seed(seed)),
        open: Arc::default(),
    }));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-west-1"))
        .endpoint_url("http://simulated")
        .allow_no_auth()
        .http_client(connection);
    Client::from_conf(config.build())
}

/// See the module.
#[derive(Debug, Clone)]
struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Arc<FanOut>,
    process: String,
    network: Arc<Network>,
    random: Mutex<Rng>,
    open: Arc<OpenBodies>,
}

/// The number of subscriptions to each shard that the process has not dropped.
#[derive(Debug, Default)]
struct OpenBodies(Mutex<BTreeMap<String, usize>>);

impl OpenBodies {
    fn change(&self, shard: &str, change: impl FnOnce(&mut usize)) -> usize {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(shard.to_owned()).or_default();
        change(count);
        *count
    }
}

/// Fate of a request.
#[derive(Debug)]
struct Fate {
    /// Time until it arrives.
    there: Duration,
    /// Why it is refused in any case.
    refused: Option<Refusal>,
    /// Time until its answer arrives after that. `None`: the connection breaks instead.
    back: Option<Duration>,
}

enum Answer {
    Json(u16, Value),
    Events(String, mpsc::Receiver<messages::Frame>),
}

impl HttpClient for Connection {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connection {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let inner = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let fate = inner.draw_fate();
            let (answer, answered) = oneshot::channel();
            // A request that was sent arrives, even if its process dies.
            tokio::spawn(Arc::clone(&inner).pass_on(request, fate, answer));
            let answer = answered.await.map_err(|_| ConnectorError::io("no answer".into()))?;
            inner.respond(answer)
        })
    }
}

impl Inner {
    fn draw_fate(&self) -> Fate {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let mut millis = |from, to| Duration::from_millis(random.u64(from..to));
        let outage = self.network.outage();
        let (there, back) = (outage + millis(1, 15), Some(millis(1, 15)));
        let arrives = Fate { there, refused: None, back };
        if self.network.is_calm() {
            return arrives;
        }
        let (late, later) = (millis(100, 8_000), millis(5_000, 25_000));
        match random.u32(..100) {
            0..6 => Fate { refused: Some(Refusal::THROTTLED), ..arrives },
            6..9 => Fate { refused: Some(Refusal::INTERNAL), ..arrives },
            9..11 => Fate { refused: Some(Refusal::NOT_FOUND), ..arrives },
            11..13 => Fate { there: UNANSWERED, refused: Some(Refusal::INTERNAL), back: None },
            13..15 => Fate { back: None, ..arrives },
            15..17 => Fate { back: Some(late), ..arrives },
            17..19 => Fate { there: there + late, ..arrives },
            19..20 => Fate { there: there + later, ..arrives },
            _ => arrives,
        }
    }

    async fn pass_on(
        self: Arc<Self>,
        request: HttpRequest,
        fate: Fate,
        to: oneshot::Sender<Answer>,
    ) {
        tokio::time::sleep(fate.there).await;
        let answer = match fate.refused {
            None => self.answer(&request),
            Some(refusal) => Err(refusal),
        };
        let Some(back) = fate.back else {
            return;
        };
        tokio::time::sleep(back).await;
        // The caller may have given up.
        let _ =
            to.send(answer.unwrap_or_else(|refusal| Answer::Json(refusal.status, refusal.body())));
    }

    fn answer(&self, request: &HttpRequest) -> Result<Answer, Refusal> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request.body().bytes().and_then(|body| serde_json::from_slice(body).ok());
        let body: Value = body.ok_or(Refusal::INVALID)?;
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match target.rsplit('.').next() {
            Some("SubscribeToShard") => {
                let shard = body["ShardId"].as_str().unwrap_or_default().to_owned();
                let (service, network) = (&self.service, &self.network);
                let events = service.subscribe(&self.process, &body, network, random.fork())?;
                return Ok(Answer::Events(shard, events));
            }
            Some("DescribeStreamSummary") => messages::stream_summary(&body["StreamName"]),
            Some("ListShards") => messages::list_shards(&self.service.stream),
            Some("DescribeStreamConsumer") => {
                let is_new = !self.network.is_calm() && random.u32(..10) == 0;
                messages::stream_consumer(&body, if is_new { "CREATING" } else { "ACTIVE" })
            }
            _ => return Err(Refusal::INVALID),
        };
        Ok(Answer::Json(200, answer))
    }

    fn respond(&self, answer: Answer) -> Result<HttpResponse, ConnectorError> {
        let (status, body) = match answer {
            Answer::Json(status, body) => (status, SdkBody::from(body.to_string())),
            Answer::Events(shard, frames) => {
                if self.open.change(&shard, |open| *open += 1) > 1 {
                    let what = format!("{} keeps two subscriptions to {shard}", self.process);
                    self.service.oracle.violation(&what);
                }
                let open = Arc::clone(&self.open);
                (200, SdkBody::from_body_1_x(Events { frames, shard, open }))
            }
        };
        let status =
            status.try_into().map_err(|error| ConnectorError::other(Box::new(error), None))?;
        let mut response = HttpResponse::new(status, body);
        let date = DateTime::from(self.service.clock.wall()).fmt(Format::HttpDate);
        if let Ok(date) = date {
            response.headers_mut().insert("date", date);
        }
        Ok(response)
    }
}

/// The events of a subscription as the body of its response. Dropped, it ends the subscription.
struct Events {
    frames: mpsc::Receiver<messages::Frame>,
    shard: String,
    open: Arc<OpenBodies>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.frames.poll_recv(context).map(|frame| Some(frame?.map(Frame::data)))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.open.change(&self.shard, |open| *open -= 1);
    }
}
