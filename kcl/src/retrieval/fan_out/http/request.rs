//! A request of the SDK, as one message that is in memory.

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Uri;
use hyper::http::uri::Authority;
use hyper::http::{HeaderValue, Request, Version, header};

use super::connect::Forwarder;
use super::error::HttpError;
use super::origin::Origin;

/// Reads the body of a request into memory. The body of SubscribeToShard has some hundred bytes.
pub(super) async fn read(request: HttpRequest) -> Result<(Origin, Request<Bytes>), HttpError> {
    let request = request.try_into_http1x().map_err(|error| HttpError::Request(error.into()))?;
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(HttpError::Request)?.to_bytes();
    let origin = Origin::of(&head.uri)
        .ok_or_else(|| HttpError::Request("the URI has no scheme or no host".into()))?;
    Ok((origin, Request::from_parts(head, body)))
}

/// Gives a request the form of HTTP/1.1: a `Host` header, and a path in place of the URI unless a proxy forwards it.
pub(super) fn for_http1(
    mut request: Request<Bytes>,
    forwarder: Option<&Forwarder>,
) -> Result<Request<Full<Bytes>>, HttpError> {
    if let Some(authority) = request.uri().authority() {
        let host = host(authority).map_err(|error| HttpError::Request(error.into()))?;
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    match forwarder {
        None => {
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        }
        Some(Forwarder { credentials }) => {
            if let Some(credentials) = credentials {
                let headers = request.headers_mut();
                headers.insert(header::PROXY_AUTHORIZATION, credentials.clone());
            }
        }
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(request.map(Full::new))
}

/// Host and port, without the user of the URI.
fn host(authority: &Authority) -> Result<HeaderValue, header::InvalidHeaderValue> {
    match authority.port() {
        None => HeaderValue::from_str(authority.host()),
        Some(port) => HeaderValue::from_str(&format!("{}:{port}", authority.host())),
    }
}
