//! Subscriptions to the embedded Kinesis, over TLS and in the clear.

mod errors;
mod flow;
mod peers;
mod sdk;

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use futures::future::join_all;
use kinesis_testkit::{LocalAws, LocalAwsBuilder};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::client::SubscriptionHttpClient;
use super::connect::Roots;
use super::{Settings, client_for_subscriptions};

const STREAM: &str = "orders";
const STREAM_ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
const CONSUMER: &str = "app";

/// No request of these tests takes as long, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// An embedded Kinesis with a stream and a consumer.
struct Service {
    aws: LocalAws,
    consumer: String,
    /// Opens no connection, so the connections that are open are those of subscriptions.
    without_socket: Client,
}

impl Service {
    async fn start(shards: u32) -> Self {
        Self::build(LocalAws::builder(), shards).await
    }

    async fn build(builder: LocalAwsBuilder, shards: u32) -> Self {
        let aws = builder.tls_port(0).build().await.unwrap();
        aws.create_stream(STREAM, shards).await.unwrap();
        let without_socket = Client::new(&aws.in_process_config());
        let register = without_socket.register_stream_consumer().stream_arn(STREAM_ARN);
        let registered = register.consumer_name(CONSUMER).send().await.unwrap();
        let consumer = registered.consumer.unwrap().consumer_arn;
        Self { aws, consumer, without_socket }
    }

    /// A client for subscriptions over TLS, on connections with these settings.
    fn client(&self, settings: Settings) -> Client {
        self.client_at(self.aws.tls_url().unwrap(), settings)
    }

    fn client_at(&self, url: &str, settings: Settings) -> Client {
        let mut roots = RootCertStore::empty();
        let pem = self.aws.certificate_pem().unwrap();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let http = SubscriptionHttpClient::with(settings, Roots::Only(roots));
        let config = self.aws.sdk_config().to_builder().endpoint_url(url).http_client(http);
        client_for_subscriptions(&Client::new(&config.build()), PATIENCE)
    }

    async fn subscribe(&self, client: &Client, shard: usize) -> SubscribeToShardOutput {
        let start = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon);
        let subscribe = client
            .subscribe_to_shard()
            .consumer_arn(&self.consumer)
            .shard_id(shard_id(shard))
            .starting_position(start.build().unwrap());
        tokio::time::timeout(PATIENCE, subscribe.send()).await.unwrap().unwrap()
    }

    async fn subscribe_to_all(
        &self,
        client: &Client,
        shards: usize,
    ) -> Vec<SubscribeToShardOutput> {
        join_all((0..shards).map(|shard| self.subscribe(client, shard))).await
    }

    async fn put(&self, shard: usize, data: Vec<u8>) {
        let range = &self.aws.records(STREAM)[shard];
        let put = self.without_socket.put_record().stream_name(STREAM).partition_key("key");
        let put = put.explicit_hash_key(range.starting_hash_key.to_string());
        put.data(Blob::new(data)).send().await.unwrap();
    }

    /// Registers the consumer again. A consumer may not subscribe to a shard again within five seconds; a new one may.
    async fn register_again(&mut self) {
        let name = format!("{CONSUMER}-{}", self.aws.calls("RegisterStreamConsumer"));
        let register = self.without_socket.register_stream_consumer().stream_arn(STREAM_ARN);
        let registered = register.consumer_name(name).send().await.unwrap();
        self.consumer = registered.consumer.unwrap().consumer_arn;
    }

    /// Waits until so many connections are open.
    async fn wait_for_connections(&self, wanted: usize) {
        wait_until(|| self.aws.connections() == wanted).await;
    }
}

fn shard_id(shard: usize) -> String {
    format!("shardId-{shard:012}")
}

async fn wait_until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// The data of the next event that has records.
async fn next(subscription: &mut SubscribeToShardOutput) -> Vec<Blob> {
    let next = async {
        loop {
            match subscription.event_stream.recv().await.unwrap().unwrap() {
                SubscribeToShardEventStream::SubscribeToShardEvent(event)
                    if !event.records().is_empty() =>
                {
                    return event.records.into_iter().map(|record| record.data).collect();
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}
