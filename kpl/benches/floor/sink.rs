//! The sink: answers PutRecords, ListShards and DescribeStreamSummary over TLS; checks and keeps nothing.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::Error;
use crate::workload::{SHARDS, shard_id, shard_of};

const CBOR: &str = "application/x-amz-cbor-1.1";
const JSON: &str = "application/x-amz-json-1.1";

/// Prints its URL and its certificate, and serves until the process is killed.
pub(crate) async fn serve(stalled: bool) -> Result<(), Error> {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let certificate = signed.cert.pem();
    println!("https://{}\n{}\n", listener.local_addr()?, certificate.trim_end());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let tls = tls.clone();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(socket).await else {
                return;
            };
            let service = service_fn(move |request| answer(request, stalled));
            let mut http = auto::Builder::new(TokioExecutor::new());
            // As wide as a request: flow control is not what is measured.
            http.http2()
                .initial_stream_window_size(8 << 20)
                .initial_connection_window_size(64 << 20);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    stalled: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target");
    let operation = target
        .and_then(|target| target.to_str().ok()?.rsplit('.').next().map(str::to_owned))
        .unwrap_or_default();
    let is_cbor = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == CBOR);
    let mut body = request.into_body();
    let mut whole = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            whole.extend_from_slice(data);
        }
    }
    let text = match &*operation {
        "PutRecords" if stalled => std::future::pending().await,
        "PutRecords" if is_cbor => put_records(ciborium::from_reader(&whole[..])),
        "PutRecords" => put_records(serde_json::from_slice(&whole)),
        "ListShards" => list_shards(),
        _ => r#"{"StreamDescriptionSummary":{"StreamName":"bench","StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/bench","StreamStatus":"ACTIVE","RetentionPeriodHours":24,"StreamCreationTimestamp":1.7e9,"EnhancedMonitoring":[],"OpenShardCount":4}}"#.to_owned(),
    };
    let (kind, body) = if is_cbor { (CBOR, in_cbor(&text)) } else { (JSON, text.into_bytes()) };
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

fn in_cbor(json: &str) -> Vec<u8> {
    let answer: serde_json::Value = serde_json::from_str(json).expect("the sink writes valid JSON");
    let mut bytes = Vec::with_capacity(json.len());
    ciborium::into_writer(&answer, &mut bytes).expect("a vector takes all bytes");
    bytes
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecords {
    records: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    explicit_hash_key: Option<String>,
}

fn put_records<E: std::fmt::Debug>(request: Result<PutRecords, E>) -> String {
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    let request = request.expect("both sides write valid requests");
    let mut text = r#"{"FailedRecordCount":0,"Records":["#.to_owned();
    for (place, entry) in request.records.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        // A record alone may be told any shard.
        let hash_key = entry.explicit_hash_key.as_ref().and_then(|text| text.parse().ok());
        let shard = shard_id(shard_of(hash_key.unwrap_or(0)));
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let _ =
            write!(text, r#"{comma}{{"SequenceNumber":"49{sequence:054}","ShardId":"{shard}"}}"#);
    }
    text + "]}"
}

fn list_shards() -> String {
    let width = u128::MAX / SHARDS + 1;
    let shards = (0..SHARDS).map(|n| {
        let (start, end) = (n * width, (n * width).wrapping_add(width - 1));
        format!(
            r#"{{"ShardId":"{}","HashKeyRange":{{"StartingHashKey":"{start}","EndingHashKey":"{end}"}},"SequenceNumberRange":{{"StartingSequenceNumber":"1"}}}}"#,
            shard_id(n as usize)
        )
    });
    format!(r#"{{"Shards":[{}]}}"#, shards.collect::<Vec<_>>().join(","))
}
