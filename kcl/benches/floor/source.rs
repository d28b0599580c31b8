//! The source: answers GetRecords and the calls about the stream, from records that were written at its start.

use std::sync::Arc;

use bytes::Bytes;
use kinesis_benchmark::Error;
use kinesis_benchmark::server::{self, Call, Encoding};
use kinesis_benchmark::stream::{ShardIterator, Stream};
use minicbor::Encoder;
use serde::{Deserialize, Serialize};

use crate::workload::{Kind, Ring};

/// Most data and keys in a page.
const MAX_PAGE_BYTES: usize = 10 << 20;
const MAX_RECORDS: u64 = 10_000;

/// What a source has.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) kind: Kind,
    pub(crate) shards: usize,
    /// Kinesis records in each shard.
    pub(crate) records: u64,
}

impl Contents {
    pub(crate) fn stream(self) -> Stream {
        Stream { shards: self.shards }
    }

    /// User records in all shards.
    pub(crate) fn user_records(self) -> u64 {
        self.shards as u64 * self.records * self.kind.members() as u64
    }
}

struct Source {
    contents: Contents,
    /// Of each shard, in JSON and in CBOR.
    rings: Vec<(Ring, Ring)>,
}

/// Serves until the process is killed.
pub(crate) async fn serve(contents: Contents) -> Result<(), Error> {
    let rings = Ring::of_stream(contents.kind, contents.stream());
    let source = Arc::new(Source { contents, rings });
    server::serve(move |call| {
        let source = Arc::clone(&source);
        async move { source.answer(&call) }
    })
    .await
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetRecords {
    shard_iterator: String,
    limit: Option<u64>,
}

impl Source {
    fn answer(&self, call: &Call) -> Bytes {
        if call.operation != "GetRecords" {
            let answer = self.contents.stream().answer(call);
            return answer.unwrap_or_else(|| panic!("no side calls {}", call.operation));
        }
        let request: GetRecords = call.read();
        let iterator: ShardIterator = request.shard_iterator.parse().expect("an iterator of ours");
        let limit = request.limit.unwrap_or(MAX_RECORDS).min(MAX_RECORDS);
        self.page(iterator, limit, call.encoding).into()
    }

    fn page(&self, from: ShardIterator, limit: u64, encoding: Encoding) -> Vec<u8> {
        let (json, cbor) = &self.rings[from.shard];
        let ring = if encoding == Encoding::Json { json } else { cbor };
        let (mut end, mut bytes) = (from.next, 0);
        while end < self.contents.records && end - from.next < limit {
            bytes += ring.size(end);
            if bytes > MAX_PAGE_BYTES {
                break;
            }
            end += 1;
        }
        let next = ShardIterator { next: end, ..from };
        // One record a millisecond.
        let millis_behind = self.contents.records.saturating_sub(end);
        let mut page = Vec::with_capacity(bytes * 3 / 2 + (end - from.next) as usize * 256 + 256);
        match encoding {
            Encoding::Json => {
                page.extend_from_slice(br#"{"Records":["#);
                for place in from.next..end {
                    if place > from.next {
                        page.push(b',');
                    }
                    ring.append(place, &mut page);
                }
                let rest = format!(
                    r#"],"NextShardIterator":"{next}","MillisBehindLatest":{millis_behind}}}"#
                );
                page.extend_from_slice(rest.as_bytes());
            }
            Encoding::Cbor => {
                let mut encoder = Encoder::new(&mut page);
                let head = encoder.map(3).and_then(|to| to.str("Records"));
                head.and_then(|to| to.array(end - from.next)).expect("a vector takes all bytes");
                for place in from.next..end {
                    ring.append(place, &mut page);
                }
                let mut encoder = Encoder::new(&mut page);
                let rest =
                    encoder.str("NextShardIterator").and_then(|to| to.str(&next.to_string()));
                rest.and_then(|to| to.str("MillisBehindLatest"))
                    .and_then(|to| to.u64(millis_behind))
                    .expect("a vector takes all bytes");
            }
        }
        page
    }
}
