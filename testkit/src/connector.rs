//! The SDK's way in without a socket.
//!
//! A request is answered on the task that makes it. Under paused tokio time that is what counts:
//! the clock jumps to the next timer, the SDK's timeouts among them, as soon as every task waits,
//! and here no task ever waits for a socket or for another thread.

use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::HttpError;
use aws_smithy_types::body::SdkBody;

use crate::front::Front;
use crate::http::respond;

/// An HTTP client of the SDK that hands each request to the front.
#[derive(Debug, Clone)]
pub(crate) struct InProcess {
    /// Weak, so that what is stopped is also forgotten while clients are still around.
    front: Weak<Front>,
}

impl InProcess {
    pub(crate) fn new(front: &Arc<Front>) -> Self {
        Self { front: Arc::downgrade(front) }
    }
}

impl HttpClient for InProcess {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            front: Weak::clone(&self.front),
            read_timeout: settings.read_timeout(),
        })
    }
}

#[derive(Debug)]
struct Connector {
    front: Weak<Front>,
    read_timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (front, read_timeout) = (self.front.upgrade(), self.read_timeout);
        HttpConnectorFuture::new(async move {
            let front = front.ok_or_else(|| ConnectorError::io(Stopped.into()))?;
            // As on a socket, a call lets others run: a task that calls in a loop starves none. A
            // task that yields does not wait, so a paused clock stands still.
            tokio::task::yield_now().await;
            let answer = call(request, front);
            match read_timeout {
                None => answer.await,
                Some(limit) => tokio::time::timeout(limit, answer)
                    .await
                    .map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?,
            }
        })
    }
}

async fn call(request: HttpRequest, front: Arc<Front>) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let response = respond(request, front).await.map_err(|cut| ConnectorError::io(cut.into()))?;
    response
        .map(SdkBody::from_body_1_x)
        .try_into()
        .map_err(|error: HttpError| ConnectorError::other(error.into(), None))
}

/// The services a client was made for are gone.
#[derive(Debug, thiserror::Error)]
#[error("the `LocalAws` this client was made for was dropped: keep it for as long as its clients")]
struct Stopped;
