//! Servers that fall silent, close, or break.

use std::error::Error;
use std::net::SocketAddr;

use kinesis_testkit::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::super::error::HttpError;
use super::*;

/// A TCP proxy that can stop to forward, in both ways, while its sockets stay open.
struct Forwarding {
    url: String,
    frozen: watch::Sender<bool>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Forwarding {
    async fn to(url: &str) -> Self {
        let server: SocketAddr = url.rsplit('/').next().unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (frozen, is_frozen) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut copies = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                copies.spawn(copy(from_client, to_server, is_frozen.clone()));
                copies.spawn(copy(from_server, to_client, is_frozen.clone()));
            }
        });
        Self { url, frozen, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }
}

/// Copies while it is not frozen. Once frozen, it holds both sockets and does nothing.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut frozen: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        tokio::select! {
            biased;
            () = async { drop(frozen.wait_for(|frozen| *frozen).await) } => {
                std::future::pending().await
            }
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => if to.write_all(&buffer[..length]).await.is_err() { return },
            }
        }
    }
}

/// The error that ends a subscription.
async fn failure(mut subscription: SubscribeToShardOutput) -> Box<dyn Error + Send + Sync> {
    let failure = async {
        loop {
            match subscription.event_stream.recv().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the subscription ended without an error"),
                Err(error) => return error.into(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, failure).await.unwrap()
}

fn http_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a HttpError> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref())
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_fails_all_subscriptions_of_its_connection() {
    let mut service = Service::start(3).await;
    let proxy = Forwarding::to(service.aws.tls_url().unwrap()).await;
    let client = service.client_at(
        &proxy.url,
        Settings {
            ping_interval: Duration::from_millis(10),
            ping_timeout: Duration::from_millis(500),
            ..Settings::default()
        },
    );
    let subscriptions = service.subscribe_to_all(&client, 3).await;
    assert_eq!(service.aws.connections(), 1);
    proxy.frozen.send_replace(true);
    for subscription in subscriptions {
        let error = failure(subscription).await;
        let error = http_error(error.as_ref()).unwrap();
        assert!(matches!(error, HttpError::PingTimeout { .. }), "{error:?}");
    }
    // The next subscription does not try the dead connection.
    proxy.frozen.send_replace(false);
    service.register_again().await;
    let mut again = service.subscribe(&client, 0).await;
    service.put(0, b"again".to_vec()).await;
    assert_eq!(next(&mut again).await, [Blob::new("again")]);
}

#[tokio::test]
async fn a_connection_that_breaks_is_replaced() {
    let mut service = Service::start(2).await;
    let client = service.client(Settings::default());
    let subscriptions = service.subscribe_to_all(&client, 2).await;
    assert_eq!(service.aws.cut_subscriptions(), 2);
    for subscription in subscriptions {
        let error = failure(subscription).await;
        let error = http_error(error.as_ref()).unwrap();
        assert!(matches!(error, HttpError::Lost(_)), "{error:?}");
    }
    service.register_again().await;
    let mut again = service.subscribe(&client, 0).await;
    service.put(0, b"again".to_vec()).await;
    assert_eq!(next(&mut again).await, [Blob::new("again")]);
}

#[tokio::test]
async fn a_cut_after_some_events_ends_a_plain_subscription_with_an_error() {
    let service = Service::start(1).await;
    let client = service.client_at(service.aws.kinesis_url(), Settings::default());
    let cut = Fault::cut_connection().operation("SubscribeToShardEvent").skip(1);
    service.aws.faults().add(cut);
    let mut subscription = service.subscribe(&client, 0).await;
    service.put(0, b"one".to_vec()).await;
    assert_eq!(next(&mut subscription).await, [Blob::new("one")]);
    service.put(0, b"two".to_vec()).await;
    let error = failure(subscription).await;
    assert!(matches!(http_error(error.as_ref()), Some(HttpError::Lost(_))), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_the_sdk_poisons_takes_no_more_subscriptions() {
    let service = Service::start(2).await;
    let client = service.client(Settings::default());
    let mut running = service.subscribe(&client, 0).await;
    let unavailable = Fault::brownout(PATIENCE).operation("SubscribeToShard").times(1);
    service.aws.faults().add(unavailable);
    let start = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
    let refused = client.subscribe_to_shard().consumer_arn(&service.consumer);
    let refused = refused.shard_id(shard_id(1)).starting_position(start);
    refused.send().await.unwrap_err();
    let _another = service.subscribe(&client, 1).await;
    assert_eq!(service.aws.connections(), 2);
    service.put(0, b"undisturbed".to_vec()).await;
    assert_eq!(next(&mut running).await, [Blob::new("undisturbed")]);
}
