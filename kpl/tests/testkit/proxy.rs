//! A proxy between the producer and Kinesis that refuses the requests with one record in them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kpl::{FailureCause, Producer, ProducerConfig, UserRecord};
use tokio::net::TcpListener;

use crate::reader::{stream, unhurried};

/// `poisoned` as a request in CBOR holds it, and one in JSON.
const MARKERS: [&[u8]; 2] = [b"poisoned", b"cG9pc29uZWQ"];

/// What the proxy answers to a request with the marker.
#[derive(Clone, Copy)]
struct Refusal {
    status: u16,
    body: &'static str,
}

struct Proxy {
    service: String,
    client: Client<HttpConnector, Full<Bytes>>,
    refusal: Refusal,
}

impl Proxy {
    /// Starts a proxy for `service`; returns its URL.
    async fn start(service: String, refusal: Refusal) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::builder(TokioExecutor::new()).build_http();
        let proxy = Arc::new(Self { service, client, refusal });
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let proxy = Arc::clone(&proxy);
                tokio::spawn(async move {
                    let service = service_fn(|request| proxy.answer(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        url
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (mut head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let holds = |marker: &[u8]| body.windows(marker.len()).any(|part| part == marker);
        if MARKERS.into_iter().any(holds) {
            let mut response = Response::new(Full::from(self.refusal.body));
            *response.status_mut() = StatusCode::from_u16(self.refusal.status).unwrap();
            return Ok(response);
        }
        head.uri = Uri::try_from(format!("{}{}", self.service, head.uri.path())).unwrap();
        let answer = self.client.request(Request::from_parts(head, Full::new(body)));
        let (head, body) = answer.await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Ok(Response::from_parts(head, Full::new(body)))
    }
}

const HTML: &str = "<html><body>refused by the firewall</body></html>";

#[tokio::test]
async fn what_a_proxy_refuses_fails_alone_and_the_other_records_are_delivered() {
    for (status, body, code, is_final) in [
        (413, HTML, "Http413", true),
        (400, HTML, "Http400", false),
        (403, HTML, "Http403", false),
        (502, HTML, "Http502", false),
        (200, HTML, "UnusableAnswer", false),
        (400, r#"{"__type":"SomethingNew","message":"m"}"#, "SomethingNew", false),
    ] {
        let aws = stream(2).await;
        let url = Proxy::start(aws.kinesis_url().to_owned(), Refusal { status, body }).await;
        let sdk_config = aws.sdk_config().into_builder().endpoint_url(url).build();
        let config = ProducerConfig { aggregation_enabled: false, ..unhurried() };
        let producer = Producer::builder("s", &sdk_config).config(config);
        let producer = producer.seed(1).build().await.unwrap();
        let mut good = Vec::new();
        let mut poisoned = Vec::new();
        for id in 0..200 {
            let record = UserRecord::new(format!("key-{id}"), format!("good {id}"));
            good.push(producer.send(record).await.unwrap());
            if id % 50 == 25 {
                let mut record = UserRecord::new(format!("key-{id}"), "poisoned");
                if !is_final {
                    // What may pass is tried for as long.
                    record = record.with_time_to_live(Duration::from_secs(4));
                }
                poisoned.push(producer.send(record).await.unwrap());
            }
        }
        for delivery in good {
            delivery.await.unwrap();
        }
        for delivery in poisoned {
            let error = delivery.await.unwrap_err();
            let is_rejected = matches!(error.cause(), FailureCause::Rejected { .. });
            assert_eq!(is_rejected, is_final, "{error}");
            assert!(!error.attempts().is_empty(), "{error:?}");
            assert!(error.attempts().iter().all(|attempt| &*attempt.code == code), "{error:?}");
            assert_eq!(error.may_have_been_written(), !(300..500).contains(&status), "{error}");
        }
    }
}
