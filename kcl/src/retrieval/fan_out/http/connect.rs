//! Opening a byte stream to a server: TCP, a proxy if the environment names one, and TLS.

use std::sync::{Arc, OnceLock};

use aws_smithy_runtime_api::box_error::BoxError;
use hyper::Uri;
use hyper::http::HeaderValue;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::error::ConnectError;
use super::origin::Origin;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The certificates that a server's certificate must lead to.
#[derive(Debug, Clone)]
pub(super) enum Roots {
    /// Those of the system, as the SDK's own client has them.
    Native,
    #[cfg(test)]
    Only(RootCertStore),
}

impl Roots {
    fn load(&self) -> RootCertStore {
        match self {
            Self::Native => {
                let found = rustls_native_certs::load_native_certs();
                for error in &found.errors {
                    tracing::warn!(%error, "a root certificate of the system cannot be read");
                }
                let mut roots = RootCertStore::empty();
                let (valid, invalid) = roots.add_parsable_certificates(found.certs);
                if valid == 0 {
                    tracing::warn!(invalid, "the system has no root certificates; TLS will fail");
                }
                roots
            }
            #[cfg(test)]
            Self::Only(roots) => roots.clone(),
        }
    }
}

/// How to reach servers.
#[derive(Debug)]
pub(super) struct Transport {
    roots: Roots,
    proxies: Matcher,
    /// Made at the first use of TLS, because it reads files.
    tls: OnceLock<Arc<ClientConfig>>,
}

/// A byte stream to a server.
pub(super) struct Stream {
    pub(super) io: Box<dyn Io>,
    /// Whether the server chose HTTP/2 in the TLS handshake.
    pub(super) is_http2: bool,
    /// The proxy that forwards the requests, if one does.
    pub(super) forwarder: Option<Forwarder>,
}

/// A proxy that reads plain requests and forwards them.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub(super) credentials: Option<HeaderValue>,
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Transport {
    pub(super) fn new(roots: Roots) -> Self {
        Self { roots, proxies: Matcher::from_env(), tls: OnceLock::new() }
    }

    /// Opens a byte stream to a server.
    pub(super) async fn connect(&self, origin: &Origin) -> Result<Stream, ConnectError> {
        let uri = origin.uri();
        let proxy = self.proxies.intercept(&uri);
        if !origin.is_https() {
            return self.connect_plain(uri, proxy).await;
        }
        let io = match proxy {
            None => opened(tcp().call(uri).await)?,
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy()?);
                if let Some(credentials) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(credentials.clone());
                }
                opened(tunnel.call(uri).await)?
            }
        };
        let name = ServerName::try_from(origin.host().to_owned())
            .map_err(|error| ConnectError::ServerName(error.into()))?;
        let tls = TlsConnector::from(self.tls()?);
        let stream = tls.connect(name, io).await.map_err(ConnectError::Tls)?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok(Stream { io: Box::new(stream), is_http2, forwarder: None })
    }

    async fn connect_plain(
        &self,
        uri: Uri,
        proxy: Option<Intercept>,
    ) -> Result<Stream, ConnectError> {
        let Some(proxy) = proxy else {
            let io = opened(tcp().call(uri).await)?;
            return Ok(Stream { io, is_http2: false, forwarder: None });
        };
        // Plain requests need no tunnel: the proxy reads and forwards them.
        let io = opened(self.to_proxy()?.call(proxy.uri().clone()).await)?;
        let forwarder = Some(Forwarder { credentials: proxy.basic_auth().cloned() });
        Ok(Stream { io, is_http2: false, forwarder })
    }

    /// A connector to a proxy. It is asked by HTTP/1.1, so TLS, if the proxy has it, offers no HTTP/2.
    fn to_proxy(&self) -> Result<HttpsConnector<HttpConnector>, ConnectError> {
        let mut config = ClientConfig::clone(&*self.tls()?);
        config.alpn_protocols = Vec::new();
        Ok(HttpsConnector::from((tcp(), config)))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, ConnectError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        // Named, so that nothing depends on a provider that is installed for the whole process.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConnectError::TlsSettings(error.into()))?;
        let mut config = builder.with_root_certificates(self.roots.load()).with_no_client_auth();
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

/// TCP with the resolver of the system, and IPv4 and IPv6 in a race.
fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp
}

fn opened<S, E>(stream: Result<S, E>) -> Result<Box<dyn Io>, ConnectError>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    E: Into<BoxError>,
{
    let stream = stream.map_err(|error| ConnectError::Transport(error.into()))?;
    Ok(Box::new(TokioIo::new(stream)))
}
