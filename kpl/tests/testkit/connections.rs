//! HTTP/2 over TLS, through a relay that counts connections and stalls one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_types::SdkConfig;
use kinesis_testkit::LocalAws;
use kpl::{Producer, ProducerConfig, UserRecord};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::reader::{unhurried, until};

/// No connection.
const NONE: usize = usize::MAX;

/// Carries bytes between clients and the service, unseen.
struct Relay {
    opened: AtomicUsize,
    stalled: AtomicUsize,
}

impl Relay {
    /// Starts a relay to `address`; returns its address, too.
    async fn start(address: String) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let relay = Arc::new(Self { opened: AtomicUsize::new(0), stalled: AtomicUsize::new(NONE) });
        let shared = Arc::clone(&relay);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = shared.opened.fetch_add(1, Ordering::SeqCst);
                let service = TcpStream::connect(&address).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_service, to_service) = service.into_split();
                tokio::spawn(Arc::clone(&shared).carry(number, from_client, to_service));
                tokio::spawn(Arc::clone(&shared).carry(number, from_service, to_client));
            }
        });
        (relay, own)
    }

    async fn carry(
        self: Arc<Self>,
        number: usize,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(bytes) = from.read(&mut buffer).await
            && bytes > 0
        {
            if self.stalled.load(Ordering::SeqCst) == number {
                return std::future::pending().await;
            }
            if to.write_all(&buffer[..bytes]).await.is_err() {
                return;
            }
        }
    }

    fn stall(&self, number: usize) {
        self.stalled.store(number, Ordering::SeqCst);
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

/// A service behind a relay, and the settings for it.
async fn relayed() -> (LocalAws, Arc<Relay>, SdkConfig) {
    let aws = LocalAws::builder().tls_port(0).build().await.unwrap();
    aws.create_stream("s", 1).await.unwrap();
    let secured = aws.tls_url().unwrap().strip_prefix("https://").unwrap();
    let (relay, address) = Relay::start(secured.to_owned()).await;
    let trusted = TrustStore::empty().with_pem_certificate(aws.certificate_pem().unwrap());
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context.unwrap())
        .build_https();
    let sdk_config = aws.sdk_config().into_builder();
    let sdk_config = sdk_config.endpoint_url(format!("https://{address}")).http_client(http);
    (aws, relay, sdk_config.build())
}

async fn producer(sdk_config: &SdkConfig, config: ProducerConfig) -> Producer {
    let producer = Producer::builder("s", sdk_config).config(config).seed(1);
    producer.build().await.unwrap()
}

#[tokio::test]
async fn a_connection_that_stalls_holds_up_its_own_requests_alone() {
    let (_aws, relay, sdk_config) = relayed().await;
    let producer = producer(&sdk_config, unhurried()).await;
    let send = || producer.send(UserRecord::new("k", "v"));
    send().await.unwrap().await.unwrap();
    // One for the calls of the start, one for PutRecords.
    assert_eq!(relay.opened(), 2);
    relay.stall(1);
    let held_up = send().await.unwrap();
    until(|| producer.in_flight_bytes() > 0).await;
    for _ in 0..20 {
        send().await.unwrap().await.unwrap();
    }
    assert_eq!(producer.stats().user_records_delivered, 21);
    // Requests that follow each other share a connection.
    assert_eq!(relay.opened(), 3);
    drop(held_up);
}

#[tokio::test]
async fn a_dead_connection_is_left_after_a_timeout() {
    let (_aws, relay, sdk_config) = relayed().await;
    let config =
        ProducerConfig { connections: 1, request_timeout: Duration::from_secs(2), ..unhurried() };
    let producer = producer(&sdk_config, config).await;
    let send = || producer.send(UserRecord::new("k", "v"));
    send().await.unwrap().await.unwrap();
    relay.stall(1);
    let receipt = send().await.unwrap().await.unwrap();
    assert!(receipt.attempts > 1 && receipt.may_be_duplicate());
    assert!(relay.opened() > 2);
}
