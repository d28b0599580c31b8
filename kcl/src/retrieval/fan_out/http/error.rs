//! Failures of connections and requests, and their class for the SDK.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::result::ConnectorError;

/// A request or a response body that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// The request is no request of HTTP. It was not sent.
    #[error("the request cannot be sent over HTTP")]
    Request(#[source] BoxError),
    /// There was no connection in time. The request was not sent.
    #[error("no connection to {origin} within {limit:?}")]
    ConnectTimeout { origin: String, limit: Duration },
    /// No connection could be opened. The request was not sent.
    #[error("no connection to {origin}")]
    Connect {
        origin: String,
        #[source]
        source: Arc<ConnectError>,
    },
    /// The request was sent, but the headers of the response have not come in time.
    #[error("no response within {limit:?}")]
    ResponseTimeout { limit: Duration },
    /// The server did not answer a ping in time.
    #[error("the connection is dead: no answer to a ping within {limit:?}")]
    PingTimeout { limit: Duration },
    /// The connection or the stream broke.
    #[error("the connection to the service broke")]
    Lost(#[source] BoxError),
}

impl HttpError {
    pub(super) fn lost(error: impl Into<BoxError>) -> Self {
        Self::Lost(error.into())
    }
}

impl From<HttpError> for ConnectorError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Request(_) => Self::user(error.into()),
            HttpError::ConnectTimeout { .. } | HttpError::ResponseTimeout { .. } => {
                Self::timeout(error.into())
            }
            HttpError::Connect { .. } | HttpError::PingTimeout { .. } | HttpError::Lost(_) => {
                Self::io(error.into())
            }
        }
    }
}

/// A connection that could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the TCP connection or the proxy failed")]
    Transport(#[source] BoxError),
    #[error("the host name cannot be verified by TLS")]
    ServerName(#[source] BoxError),
    #[error("the settings of TLS are invalid")]
    TlsSettings(#[source] BoxError),
    #[error("the TLS handshake failed")]
    Tls(#[source] std::io::Error),
    #[error("the HTTP handshake failed")]
    Handshake(#[source] BoxError),
    #[error("the server closed the connection before its settings came")]
    ClosedByServer,
    #[error("the connection was not open within {0:?}")]
    Timeout(Duration),
    #[error("the runtime that was opening the connection has ended")]
    Cancelled,
}
