//! The SDK as the client.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{CLIENTS, ENTRIES, GETS, PUTS, RECORD, STREAM, data, partition_key};

pub(crate) fn client(url: &str) -> Client {
    let credentials = Credentials::new("any", "any", None, None, "benchmark");
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url);
    Client::from_conf(config.build())
}

/// Puts from all clients at once; the bytes of data put.
pub(crate) async fn put(client: &Client) -> usize {
    let entry = |nth| {
        PutRecordsRequestEntry::builder()
            .partition_key(partition_key(nth))
            .data(Blob::from_maybe_shared(Bytes::from(data(nth))))
            .build()
            .unwrap()
    };
    let entries: Vec<_> = (0..ENTRIES).map(entry).collect();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, entries) = (client.clone(), entries.clone());
        clients.spawn(async move {
            for _ in 0..PUTS {
                let put = client.put_records().stream_name(STREAM);
                let put = put.set_records(Some(entries.clone())).send().await;
                assert_eq!(put.unwrap().failed_record_count(), Some(0));
            }
        });
    }
    clients.join_all().await;
    CLIENTS * PUTS * ENTRIES * RECORD
}

/// Reads a page again and again, from all clients at once; the bytes of data read.
pub(crate) async fn get(client: &Client, iterators: &[String]) -> usize {
    let mut clients = JoinSet::new();
    for iterator in iterators {
        let (client, iterator) = (client.clone(), iterator.clone());
        clients.spawn(async move {
            let mut bytes = 0;
            for _ in 0..GETS {
                let read = client.get_records().shard_iterator(&iterator).send();
                let records = read.await.unwrap().records;
                let sizes = records.iter().map(|record| record.data().as_ref().len());
                bytes += sizes.sum::<usize>();
            }
            bytes
        });
    }
    clients.join_all().await.into_iter().sum()
}
