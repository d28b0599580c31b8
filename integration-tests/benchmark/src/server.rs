//! A server that speaks the protocols of Kinesis over TLS, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::Error;
use crate::process::{Endpoint, report};

/// How a request and its answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-amz-json-1.1`.
    Json,
    /// `application/x-amz-cbor-1.1`.
    Cbor,
}

impl Encoding {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// Writes an answer. Not for answers with data: JSON has no bytes.
    pub fn write(self, answer: &Value) -> Bytes {
        let mut bytes = Vec::new();
        match self {
            Self::Json => {
                serde_json::to_writer(&mut bytes, answer).expect("a value can be written")
            }
            Self::Cbor => {
                ciborium::into_writer(answer, &mut bytes).expect("a value can be written")
            }
        }
        bytes.into()
    }
}

/// A request.
#[derive(Debug)]
pub struct Call {
    /// The operation, such as `GetRecords`.
    pub operation: String,
    /// The encoding of the body.
    pub encoding: Encoding,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// Reads the body. Members that `T` lacks are skipped.
    ///
    /// # Panics
    /// The body is no valid request: a side is at fault.
    pub fn read<T: DeserializeOwned>(&self) -> T {
        let read = match self.encoding {
            Encoding::Json => serde_json::from_slice(&self.body).map_err(|error| error.to_string()),
            Encoding::Cbor => {
                ciborium::from_reader(&self.body[..]).map_err(|error| error.to_string())
            }
        };
        read.unwrap_or_else(|error| panic!("an invalid {}: {error}", self.operation))
    }
}

/// [Reports](report) the endpoint, and answers calls until the process is killed.
///
/// `answer` returns the body of the answer, in the encoding of the call.
///
/// # Errors
/// There is no free port.
pub async fn serve<F>(answer: impl Fn(Call) -> F + Clone + Send + 'static) -> Result<(), Error>
where
    F: Future<Output = Bytes> + Send + 'static,
{
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    report(&Endpoint {
        url: format!("https://{}", listener.local_addr()?),
        certificate: Some(signed.cert.pem()),
    })?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (tls, answer) = (tls.clone(), answer.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(socket).await else {
                return;
            };
            let service = service_fn(move |request| {
                let answer = answer.clone();
                async move {
                    let call = receive(request).await;
                    let content_type = HeaderValue::from_static(call.encoding.content_type());
                    let mut response = Response::new(Full::new(answer(call).await));
                    response.headers_mut().insert(CONTENT_TYPE, content_type);
                    Ok::<_, Infallible>(response)
                }
            });
            let mut http = auto::Builder::new(TokioExecutor::new());
            // As wide as a request: flow control is not what is measured.
            http.http2()
                .initial_stream_window_size(8 << 20)
                .initial_connection_window_size(64 << 20);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn receive(request: Request<Incoming>) -> Call {
    let (head, mut body) = request.into_parts();
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default();
    let is_cbor =
        head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == Encoding::Cbor.content_type());
    let mut whole = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            whole.extend_from_slice(data);
        }
    }
    Call {
        operation: operation.to_owned(),
        encoding: if is_cbor { Encoding::Cbor } else { Encoding::Json },
        body: whole.freeze(),
    }
}
