//! The floor: one loop on one thread that reads with the plain SDK, and does what must be done for each record.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;
use kinesis_benchmark::Error;
use kinesis_benchmark::process::Endpoint;
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::stream::shard_id;
use kinesis_benchmark::usage::{Begun, Used};
use md5::{Digest, Md5};

use crate::Touched;
use crate::source::Contents;

/// The first bytes of an aggregate.
const MAGIC: &[u8] = b"\xf3\x89\x9a\xc2";
const CHECKSUM_BYTES: usize = 16;

pub(crate) fn run(contents: Contents, source: &Endpoint) -> Result<Used, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(read(contents, source))
}

async fn read(contents: Contents, source: &Endpoint) -> Result<Used, Error> {
    let client = Client::new(&sdk_config(source)?);
    // The connection and the first use of everything are start-up.
    client.describe_stream_summary().stream_name("benchmark").send().await?;
    let begun = Begun::now();
    let mut iterators = Vec::new();
    for shard in 0..contents.shards {
        let request =
            client.get_shard_iterator().stream_name("benchmark").shard_id(shard_id(shard));
        let request = request.shard_iterator_type(ShardIteratorType::TrimHorizon);
        iterators.push(request.send().await?.shard_iterator);
    }
    let mut touched = Touched::default();
    // The shards in turn, as a worker reads them.
    while !iterators.is_empty() {
        let mut unread = Vec::new();
        for iterator in iterators {
            let page = client.get_records().set_shard_iterator(iterator).send().await?;
            for record in page.records() {
                let key = record.partition_key().unwrap_or_default();
                one(key, record.data().as_ref(), &mut touched)?;
            }
            if page.millis_behind_latest() != Some(0) {
                unread.push(page.next_shard_iterator);
            }
        }
        iterators = unread;
    }
    touched.check(contents)?;
    begun.used()
}

/// Takes a Kinesis record: a plain one, or an aggregate whose checksum and keys are checked.
fn one(key: &str, data: &[u8], touched: &mut Touched) -> Result<(), Error> {
    let Some(framed) = data.strip_prefix(MAGIC) else {
        touched.record(key, data);
        return Ok(());
    };
    let body = framed.len().checked_sub(CHECKSUM_BYTES).ok_or("a short aggregate")?;
    let (body, checksum) = framed.split_at(body);
    if Md5::digest(body).as_slice() != checksum {
        return Err("a wrong checksum".into());
    }
    let mut keys = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        // All fields of an aggregate have a length. 1: a key. 3: a record.
        let field = varint(&mut rest) >> 3;
        let content = bytes(&mut rest);
        match field {
            1 => keys.push(str::from_utf8(content)?),
            3 => {
                let (key, data) = member(content);
                let key = keys[key];
                // A worker does not deliver a member whose key belongs to another shard.
                touched.hash(u128::from_be_bytes(Md5::digest(key.as_bytes()).into()));
                touched.record(key, data);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The key's index and the data of a member.
fn member(mut message: &[u8]) -> (usize, &[u8]) {
    let (mut key, mut data) = (0, &[][..]);
    while !message.is_empty() {
        match varint(&mut message) >> 3 {
            1 => key = varint(&mut message) as usize,
            3 => data = bytes(&mut message),
            // The index of an explicit hash key, which the source does not write.
            _ => drop(varint(&mut message)),
        }
    }
    (key, data)
}

fn bytes<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let length = varint(from) as usize;
    let (content, rest) = from.split_at(length);
    *from = rest;
    content
}

fn varint(from: &mut &[u8]) -> u64 {
    let mut number = 0;
    for place in 0.. {
        let byte = from[0];
        *from = &from[1..];
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    number
}
