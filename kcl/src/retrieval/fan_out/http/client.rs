//! The HTTP client as the SDK calls it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use hyper::http::{Request, Response};

use super::Settings;
use super::body::ResponseBody;
use super::connect::{Roots, Transport};
use super::error::HttpError;
use super::origin::Origin;
use super::pool::{Grant, Membership, Pool};
use super::request::read;

/// An HTTP client for subscriptions. Its connections close when the last clone and the last response are dropped.
#[derive(Debug, Clone)]
pub(super) struct SubscriptionHttpClient(Arc<Pools>);

/// The connections to each server.
#[derive(Debug)]
struct Pools {
    transport: Arc<Transport>,
    settings: Settings,
    /// By server. There are one or two: an account has its own host at some endpoints.
    pools: Mutex<HashMap<Origin, Arc<Pool>>>,
}

impl SubscriptionHttpClient {
    pub(super) fn new() -> Self {
        Self::with(Settings::default(), Roots::Native)
    }

    pub(super) fn with(settings: Settings, roots: Roots) -> Self {
        let transport = Arc::new(Transport::new(roots));
        Self(Arc::new(Pools { transport, settings, pools: Mutex::default() }))
    }
}

impl From<SubscriptionHttpClient> for SharedHttpClient {
    fn from(client: SubscriptionHttpClient) -> Self {
        Self::new(client)
    }
}

impl Pools {
    fn pool(&self, origin: Origin) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(origin).or_insert_with_key(|origin| {
            Arc::new(Pool::new(origin.clone(), Arc::clone(&self.transport), self.settings))
        });
        Arc::clone(pool)
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        let pools = self.pools.get_mut().unwrap_or_else(PoisonError::into_inner);
        pools.values().for_each(|pool| pool.close());
    }
}

impl HttpClient for SubscriptionHttpClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            pools: Arc::clone(&self.0),
            connect_timeout: settings.connect_timeout(),
            read_timeout: settings.read_timeout(),
        })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        Some(ConnectorMetadata::new("h2", Some(Cow::Borrowed("0.4"))))
    }
}

/// The client with the time limits of one call.
#[derive(Debug)]
struct Connector {
    pools: Arc<Pools>,
    connect_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let pools = Arc::clone(&self.pools);
        let (connect_timeout, read_timeout) = (self.connect_timeout, self.read_timeout);
        HttpConnectorFuture::new(async move {
            let (origin, request) = read(request).await?;
            let pool = pools.pool(origin);
            let response = send(&pool, request, connect_timeout, read_timeout).await?;
            let response = response.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(response).map_err(|error| HttpError::lost(error).into())
        })
    }
}

/// Sends a request on the first connection that takes it.
async fn send(
    pool: &Arc<Pool>,
    request: Request<Bytes>,
    connect_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
) -> Result<Response<ResponseBody>, HttpError> {
    let capture = request.extensions().get::<CaptureSmithyConnection>().cloned();
    loop {
        match pool.acquire(connect_timeout).await? {
            Grant::Http1(connection) => {
                let response = in_time(read_timeout, connection.send(request)).await?;
                let (response, connection) = response?;
                return Ok(response
                    .map(|incoming| ResponseBody::Http1 { incoming, _connection: connection }));
            }
            Grant::Http2(place) => {
                let Some(response) = place.connection().send(&request).await else {
                    // The server closes the connection, and the request was not sent. Another connection takes it.
                    place.membership().retire();
                    continue;
                };
                if let Some(capture) = &capture {
                    let member = place.membership();
                    capture.set_connection_retriever(move || Some(metadata(&member)));
                }
                let response = in_time(read_timeout, response).await?;
                let response = response.map_err(|error| place.connection().error(error))?;
                return Ok(response.map(|stream| ResponseBody::Http2 { stream, place }));
            }
        }
    }
}

/// Lets the SDK take a connection out of use. It does so after an error that may be the connection's.
fn metadata(member: &Membership) -> ConnectionMetadata {
    let member = member.clone();
    ConnectionMetadata::builder().proxied(false).poison_fn(move || member.retire()).build()
}

/// Waits for the headers of a response, as long as the SDK's setting allows.
async fn in_time<F: Future>(limit: Option<Duration>, response: F) -> Result<F::Output, HttpError> {
    match limit {
        None => Ok(response.await),
        Some(limit) => tokio::time::timeout(limit, response)
            .await
            .map_err(|_| HttpError::ResponseTimeout { limit }),
    }
}
