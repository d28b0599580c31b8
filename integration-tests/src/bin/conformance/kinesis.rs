//! A Kinesis to ask, and streams that only one case knows.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    Consumer, ConsumerStatus, PutRecordsRequestEntry, Record, Shard, ShardIteratorType,
    StreamDescriptionSummary, StreamStatus,
};
use aws_types::SdkConfig;
use kinesis_common::protocol::{Wire, WireProtocol};
use kinesis_testkit::{Clock, SystemClock};

use crate::check::{Failure, some};

pub(crate) const SHARD_0: &str = "shardId-000000000000";
pub(crate) const SHARD_1: &str = "shardId-000000000001";
pub(crate) const SHARD_2: &str = "shardId-000000000002";

/// The first hash key of the upper of two even shards.
pub(crate) const HALF: u128 = 1 << 127;

/// How often something that is under way is looked at.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A Kinesis, as one case sees it; it is a client of the SDK above all.
#[derive(Debug, Clone)]
pub(crate) struct Kinesis {
    client: Client,
    names: Names,
}

impl Deref for Kinesis {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Kinesis {
    pub(crate) fn new(config: &SdkConfig, wire: Wire, case: usize) -> Self {
        let config = WireProtocol::new(wire).install(config.into()).build();
        Self { client: Client::from_conf(config), names: Names::of(case) }
    }

    /// A name no one has used, that is cleaned up after the case.
    pub(crate) fn fresh_name(&self) -> String {
        self.names.fresh()
    }

    /// A provisioned stream of its own, once it is active.
    pub(crate) async fn stream(&self, shards: i32) -> Result<Stream, Failure> {
        let name = self.fresh_name();
        let create = self.create_stream().stream_name(&name);
        create.shard_count(shards).send().await?;
        self.created(name).await
    }

    /// The stream that has been created under this name, once it is active.
    pub(crate) async fn created(&self, name: String) -> Result<Stream, Failure> {
        let mut stream = Stream { client: self.client.clone(), name, arn: String::new() };
        stream.arn = stream.active().await?.stream_arn;
        Ok(stream)
    }

    pub(crate) async fn clean_up(&self) {
        for name in self.names.taken() {
            let delete = self.delete_stream().stream_name(name);
            // It may never have been created, or be deleted already.
            let _ = delete.enforce_consumer_deletion(true).send().await;
        }
    }
}

/// Names that no other case and no other run has.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Names {
    pub(crate) fn of(case: usize) -> Self {
        let now = SystemClock.now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        Self {
            prefix: format!("conformance-{}-{now}-{case}", std::process::id()),
            taken: Arc::default(),
        }
    }

    pub(crate) fn fresh(&self) -> String {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}-{}", self.prefix, taken.len());
        taken.push(name.clone());
        name
    }

    pub(crate) fn taken(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.clone()
    }
}

/// A stream that only this case knows.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) client: Client,
    pub(crate) name: String,
    pub(crate) arn: String,
}

impl Stream {
    pub(crate) async fn summary(&self) -> Result<StreamDescriptionSummary, Failure> {
        let describe = self.client.describe_stream_summary();
        let described = describe.stream_name(&self.name).send().await?;
        some("summary", described.stream_description_summary)
    }

    /// Waits until nothing is under way.
    pub(crate) async fn active(&self) -> Result<StreamDescriptionSummary, Failure> {
        loop {
            let summary = self.summary().await?;
            if summary.stream_status == StreamStatus::Active {
                return Ok(summary);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// All shards, once the stream is active and has so many open ones.
    pub(crate) async fn settled(&self, open: usize) -> Result<Vec<Shard>, Failure> {
        loop {
            self.active().await?;
            let shards = self.shards().await?;
            if shards.iter().filter(|shard| is_open(shard)).count() == open {
                return Ok(shards);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub(crate) async fn shards(&self) -> Result<Vec<Shard>, Failure> {
        let list = self.client.list_shards().stream_name(&self.name);
        Ok(list.send().await?.shards.unwrap_or_default())
    }

    /// Splits a shard, waits for it, and gives all shards.
    pub(crate) async fn split(&self, shard: &str, at: u128) -> Result<Vec<Shard>, Failure> {
        let open = self.shards().await?.iter().filter(|shard| is_open(shard)).count();
        let split = self.client.split_shard().stream_name(&self.name);
        let split = split.shard_to_split(shard).new_starting_hash_key(at.to_string());
        split.send().await?;
        self.settled(open + 1).await
    }

    /// Merges two shards, waits for it, and gives all shards.
    pub(crate) async fn merge(&self, shard: &str, adjacent: &str) -> Result<Vec<Shard>, Failure> {
        let open = self.shards().await?.iter().filter(|shard| is_open(shard)).count();
        let merge = self.client.merge_shards().stream_name(&self.name);
        let merge = merge.shard_to_merge(shard).adjacent_shard_to_merge(adjacent);
        merge.send().await?;
        self.settled(open - 1).await
    }

    /// Puts a record where this hash key falls; the sequence number it got.
    pub(crate) async fn put(&self, hash_key: u128, data: &str) -> Result<String, Failure> {
        let put = self.client.put_record().stream_name(&self.name);
        let put = put.partition_key("key").explicit_hash_key(hash_key.to_string());
        Ok(put.data(Blob::new(data)).send().await?.sequence_number)
    }

    /// Sets how large a record may be.
    pub(crate) async fn allow_records_of(&self, kib: i32) -> Result<(), Failure> {
        let update = self.client.update_max_record_size().stream_arn(&self.arn);
        update.max_record_size_in_kib(kib).send().await?;
        self.active().await.map(drop)
    }

    pub(crate) fn iterator_at(
        &self,
        shard: &str,
        kind: ShardIteratorType,
    ) -> GetShardIteratorFluentBuilder {
        let iterator = self.client.get_shard_iterator().stream_name(&self.name);
        iterator.shard_id(shard).shard_iterator_type(kind)
    }

    pub(crate) async fn iterator(
        &self,
        shard: &str,
        kind: ShardIteratorType,
    ) -> Result<String, Failure> {
        let iterator = self.iterator_at(shard, kind).send().await?;
        some("iterator", iterator.shard_iterator)
    }

    pub(crate) async fn get(&self, iterator: &str) -> Result<GetRecordsOutput, Failure> {
        let get = self.client.get_records().shard_iterator(iterator);
        Ok(get.send().await?)
    }

    /// Reads from an iterator up to so many records, or to the end of the shard.
    pub(crate) async fn read(
        &self,
        iterator: String,
        count: usize,
    ) -> Result<Vec<Record>, Failure> {
        let mut records = Vec::new();
        let mut next = Some(iterator);
        while let (Some(iterator), true) = (&next, records.len() < count) {
            let page = self.get(iterator).await?;
            if page.records.is_empty() && page.next_shard_iterator.is_some() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            records.extend(page.records);
            next = page.next_shard_iterator;
        }
        Ok(records)
    }

    /// The data of so many records from the start of a shard.
    pub(crate) async fn texts_of(&self, shard: &str, count: usize) -> Result<Vec<String>, Failure> {
        let start = self.iterator(shard, ShardIteratorType::TrimHorizon).await?;
        Ok(texts(&self.read(start, count).await?))
    }

    /// Registers a consumer, and waits until it is active.
    pub(crate) async fn consumer(&self, name: &str) -> Result<Consumer, Failure> {
        let register = self.client.register_stream_consumer();
        let register = register.stream_arn(&self.arn).consumer_name(name);
        let consumer = some("consumer", register.send().await?.consumer)?;
        loop {
            let describe = self.client.describe_stream_consumer();
            let described = describe.consumer_arn(&consumer.consumer_arn).send().await?;
            let described = some("consumer", described.consumer_description)?;
            if described.consumer_status == ConsumerStatus::Active {
                return Ok(consumer);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

pub(crate) fn entry(
    key: &str,
    data: impl Into<Vec<u8>>,
) -> Result<PutRecordsRequestEntry, Failure> {
    let entry = PutRecordsRequestEntry::builder().partition_key(key);
    Ok(entry.data(Blob::new(data)).build()?)
}

pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| String::from_utf8_lossy(record.data.as_ref()).into_owned();
    records.iter().map(text).collect()
}

/// First and last hash key.
pub(crate) fn range(shard: &Shard) -> Result<(u128, u128), Failure> {
    let range = some("hash key range", shard.hash_key_range())?;
    let (first, last) = (range.starting_hash_key.parse()?, range.ending_hash_key.parse()?);
    Ok((first, last))
}

/// The last sequence number, of a shard that is closed.
pub(crate) fn ending(shard: &Shard) -> Option<&str> {
    shard.sequence_number_range()?.ending_sequence_number()
}

pub(crate) fn is_open(shard: &Shard) -> bool {
    ending(shard).is_none()
}

/// Whether ranges cover all hash keys, none twice.
pub(crate) fn cover(shards: &[Shard]) -> Result<bool, Failure> {
    let open = shards.iter().filter(|shard| is_open(shard)).map(range);
    let mut ranges = open.collect::<Result<Vec<_>, _>>()?;
    ranges.sort_unstable();
    let ends = ranges.first().map(|first| first.0) == Some(0)
        && ranges.last().map(|last| last.1) == Some(u128::MAX);
    Ok(ends && ranges.windows(2).all(|pair| pair[0].1.checked_add(1) == Some(pair[1].0)))
}

pub(crate) fn ids(shards: &[Shard]) -> Vec<&str> {
    shards.iter().map(Shard::shard_id).collect()
}

/// A number of sequence: they have 56 digits or fewer and are compared as numbers.
pub(crate) fn rises(numbers: &[&str]) -> bool {
    numbers.is_sorted_by(|a, b| (a.len(), a) < (b.len(), b))
}
