//! The records of a shard, written once for all pages.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kinesis_aggregation::{AggregateBuilder, HashKey};
use kinesis_benchmark::server::Encoding;
use kinesis_benchmark::stream::{SEQUENCE_NUMBER_LENGTH, Stream, sequence_number};
use minicbor::Encoder;
use minicbor::data::IanaTag;
use serde::{Deserialize, Serialize};

/// Keys of all shards together.
const KEYS: usize = 100_003;
/// Arrival of every record, in milliseconds since 1970.
const ARRIVAL: i64 = 1_790_000_000_123;

/// What the records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Records of 200 bytes.
    Plain,
    /// Aggregates of 400 members of 100 bytes, each with another key.
    Aggregated,
}

impl Kind {
    pub(crate) const MEMBERS: usize = 400;

    /// User records in a Kinesis record.
    pub(crate) fn members(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Aggregated => Self::MEMBERS,
        }
    }

    fn record_bytes(self) -> usize {
        match self {
            Self::Plain => 200,
            Self::Aggregated => 100,
        }
    }
}

/// Records of one shard in one encoding, which repeat with other sequence numbers.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: Vec<u8>,
    /// Where each record begins, and where the last one ends.
    starts: Vec<usize>,
    /// Size of the data and key of each record.
    sizes: Vec<usize>,
    /// Where the digits of the sequence number begin in each record.
    number_at: usize,
}

impl Ring {
    /// The rings of all shards in JSON and in CBOR.
    pub(crate) fn of_stream(kind: Kind, stream: Stream) -> Vec<(Self, Self)> {
        let mut keys = vec![Vec::new(); stream.shards];
        for key in (0..KEYS).map(|n| format!("key-{n}")) {
            keys[stream.shard_of(HashKey::of_partition_key(&key).into())].push(key);
        }
        let both = |keys: &Vec<String>| {
            let records = records(kind, keys);
            (Self::new(&records, Encoding::Json), Self::new(&records, Encoding::Cbor))
        };
        keys.iter().map(both).collect()
    }

    fn new(records: &[(String, Bytes)], encoding: Encoding) -> Self {
        let mut ring = Self { bytes: Vec::new(), starts: vec![0], sizes: Vec::new(), number_at: 0 };
        for (key, data) in records {
            match encoding {
                Encoding::Json => write_json(&mut ring.bytes, key, data),
                Encoding::Cbor => write_cbor(&mut ring.bytes, key, data),
            }
            ring.starts.push(ring.bytes.len());
            ring.sizes.push(key.len() + data.len());
        }
        // The number is the first value, so it stands at the same place in each record.
        let number = sequence_number(0).into_bytes();
        let found = ring.bytes.windows(number.len()).position(|bytes| bytes == number);
        ring.number_at = found.expect("each record has a number");
        ring
    }

    /// Bytes of data and key of the record at `place`.
    pub(crate) fn size(&self, place: u64) -> usize {
        self.sizes[(place % self.sizes.len() as u64) as usize]
    }

    /// Appends the record at `place`, with its sequence number.
    pub(crate) fn append(&self, place: u64, page: &mut Vec<u8>) {
        let nth = (place % self.sizes.len() as u64) as usize;
        let start = page.len();
        page.extend_from_slice(&self.bytes[self.starts[nth]..self.starts[nth + 1]]);
        let number = &mut page[start + self.number_at..];
        let mut rest = place;
        for digit in number[..SEQUENCE_NUMBER_LENGTH].iter_mut().rev() {
            // The digits before are zeros already.
            if rest == 0 {
                break;
            }
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// Key and data of each record.
fn records(kind: Kind, keys: &[String]) -> Vec<(String, Bytes)> {
    let data =
        |nth: usize| -> Vec<u8> { (nth..nth + kind.record_bytes()).map(|n| n as u8).collect() };
    match kind {
        Kind::Plain => {
            keys.iter().enumerate().map(|(nth, key)| (key.clone(), data(nth).into())).collect()
        }
        Kind::Aggregated => {
            let aggregates = keys.chunks_exact(Kind::MEMBERS).map(|members| {
                let mut open = AggregateBuilder::new(usize::MAX);
                for (nth, key) in members.iter().enumerate() {
                    open.push(key, None, &data(nth)).expect("it has no limit");
                }
                (members[0].clone(), open.seal().into_bytes())
            });
            aggregates.collect()
        }
    }
}

fn write_json(bytes: &mut Vec<u8>, key: &str, data: &[u8]) {
    let (number, data) = (sequence_number(0), BASE64_STANDARD.encode(data));
    let arrival = ARRIVAL as f64 / 1e3;
    bytes.extend_from_slice(
        format!(
            r#"{{"SequenceNumber":"{number}","ApproximateArrivalTimestamp":{arrival},"Data":"{data}","PartitionKey":"{key}"}}"#
        )
        .as_bytes(),
    );
}

fn write_cbor(bytes: &mut Vec<u8>, key: &str, data: &[u8]) {
    let write = || {
        Encoder::new(bytes)
            .map(4)?
            .str("SequenceNumber")?
            .str(&sequence_number(0))?
            .str("ApproximateArrivalTimestamp")?
            .tag(IanaTag::Timestamp)?
            .i64(ARRIVAL)?
            .str("Data")?
            .bytes(data)?
            .str("PartitionKey")?
            .str(key)?
            .ok()
    };
    write().expect("a vector takes all bytes");
}
