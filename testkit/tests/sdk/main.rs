//! What testkit promises, seen through the AWS SDK.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is a failure")]

mod access;
mod consumers;
mod dynamodb;
mod fan_out;
mod faults;
mod large;
mod limits;
mod list_shards;
mod managed;
mod put;
mod read;
mod reshard;
mod stale_dynamodb;
mod streams;
mod tags;
mod tail_readers;

use std::fmt::Debug;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, Record, Shard, ShardIteratorType};
use kinesis_testkit::LocalAws;

const STREAM: &str = "orders";
const SHARD_0: &str = "shardId-000000000000";
const SHARD_1: &str = "shardId-000000000001";
const SHARD_2: &str = "shardId-000000000002";

/// A client that tries once, so that a test sees each refusal.
fn client(aws: &LocalAws) -> Client {
    let config = aws_sdk_kinesis::config::Builder::from(&aws.sdk_config())
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

async fn with_stream(shards: u32) -> (LocalAws, Client) {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, shards).await.unwrap();
    let client = client(&aws);
    (aws, client)
}

/// The code of a refusal.
fn code<T: Debug, E: ProvideErrorMetadata + Debug, R: Debug>(
    result: Result<T, SdkError<E, R>>,
) -> String {
    let error = result.expect_err("should have been refused");
    error.code().unwrap_or_else(|| panic!("no code in {error:?}")).to_owned()
}

fn entry(key: &str, data: impl Into<Vec<u8>>) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build().unwrap()
}

/// A record with this hash key; the sequence number it got.
async fn put(client: &Client, hash_key: u128, data: &str) -> String {
    let put = client
        .put_record()
        .stream_name(STREAM)
        .partition_key("key")
        .explicit_hash_key(hash_key.to_string())
        .data(Blob::new(data));
    put.send().await.unwrap().sequence_number
}

async fn iterator(client: &Client, shard: &str, kind: ShardIteratorType) -> String {
    let iterator =
        client.get_shard_iterator().stream_name(STREAM).shard_id(shard).shard_iterator_type(kind);
    iterator.send().await.unwrap().shard_iterator.unwrap()
}

async fn get(client: &Client, iterator: impl Into<String>) -> GetRecordsOutput {
    client.get_records().shard_iterator(iterator).send().await.unwrap()
}

/// The data of everything from the start of a shard.
async fn read_all(client: &Client, shard: &str) -> Vec<String> {
    let start = iterator(client, shard, ShardIteratorType::TrimHorizon).await;
    texts(get(client, start).await.records())
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| text(record.data().as_ref())).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn shards(client: &Client) -> Vec<Shard> {
    client.list_shards().stream_name(STREAM).send().await.unwrap().shards.unwrap_or_default()
}

/// First and last hash key.
fn range(shard: &Shard) -> (u128, u128) {
    let range = shard.hash_key_range().unwrap();
    (range.starting_hash_key.parse().unwrap(), range.ending_hash_key.parse().unwrap())
}

fn is_open(shard: &Shard) -> bool {
    shard.sequence_number_range().unwrap().ending_sequence_number.is_none()
}

async fn split(client: &Client, shard: &str, at: u128) {
    let split = client.split_shard().stream_name(STREAM).shard_to_split(shard);
    split.new_starting_hash_key(at.to_string()).send().await.unwrap();
}

async fn merge(client: &Client, shard: &str, adjacent: &str) {
    let merge = client.merge_shards().stream_name(STREAM).shard_to_merge(shard);
    merge.adjacent_shard_to_merge(adjacent).send().await.unwrap();
}
