//! What tests of sources share: a stream of an embedded Kinesis, and a shard's status.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use kinesis_common::sync::Mutex;
use kinesis_testkit::{LocalAws, LocalAwsBuilder};

use super::Page;
use crate::checkpoint::Checkpoint;
use crate::clock::{Clock, TokioClock};
use crate::current_stream::find_stream;
use crate::health::ProblemLog;
use crate::lease::StreamIdentity;
use crate::metrics::Meter;
use crate::progress::Progress;
use crate::sequence::SequenceNumber;
use crate::snapshot::{ShardStatus, Totals};

pub(super) const STREAM: &str = "reads";
pub(super) const SHARD: &str = "shardId-000000000000";

/// An embedded AWS in the time of the test's runtime, which is paused.
pub(super) struct Paused {
    pub(super) aws: LocalAws,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timeout: Duration,
}

impl Paused {
    pub(super) async fn start() -> Self {
        Self::with(|aws| aws).await
    }

    pub(super) async fn with(set: impl FnOnce(LocalAwsBuilder) -> LocalAwsBuilder) -> Self {
        let clock = TokioClock::new();
        let services = kinesis_testkit::TokioClock::starting_at(clock.wall());
        let aws = set(LocalAws::builder()).clock(services);
        let aws = aws.build().await.unwrap();
        aws.create_stream(STREAM, 1).await.unwrap();
        Self { aws, clock: Arc::new(clock), timeout: Duration::from_secs(10) }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.aws.in_process_config())
    }

    pub(super) async fn put(&self, numbers: std::ops::Range<u32>) -> Vec<SequenceNumber> {
        put_by(&self.client(), numbers, 0).await
    }
}

pub(super) fn status(shard_id: &str, clock: &Arc<dyn Clock>) -> Arc<ShardStatus> {
    let problems = Arc::new(ProblemLog::new(Arc::clone(clock)));
    let totals = Arc::new(Totals::new(Meter::default(), problems));
    let progress = Arc::new(Mutex::new(Progress::new(Checkpoint::TrimHorizon)));
    Arc::new(ShardStatus::new(shard_id, progress, totals))
}

pub(super) fn texts(page: &Page) -> Vec<String> {
    let data = (0..page.records.len()).map(|index| page.records.data(index));
    data.map(|data| str::from_utf8(data).unwrap().trim_start().to_owned()).collect()
}

pub(super) async fn identity(client: &Client) -> StreamIdentity {
    match find_stream(client, &STREAM.parse().unwrap()).await {
        Ok(Some(found)) => found.identity,
        other => panic!("{other:?}"),
    }
}

/// As [`put`], each behind so many bytes that [`texts`] leaves out.
pub(super) async fn put_by(
    client: &Client,
    numbers: std::ops::Range<u32>,
    padding: usize,
) -> Vec<SequenceNumber> {
    let mut put = Vec::new();
    for number in numbers {
        let request = client.put_record().stream_name(STREAM).partition_key("k");
        let data = format!("{}{number}", " ".repeat(padding));
        let output = request.data(Blob::new(data)).send().await.unwrap();
        put.push(output.sequence_number.parse().unwrap());
    }
    put
}

pub(super) fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
