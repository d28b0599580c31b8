//! Encoding and decoding of 100-byte records in 50 KiB aggregates, next to the floor: what the
//! format itself demands. Compare within one run only.
//!
//! The floor of encoding is MD5 of each key (which shard?), MD5 of the body and one copy of the
//! payloads; that of decoding is MD5 of the body and of each key.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kinesis_aggregation::{
    Aggregate, AggregateBuilder, Decoded, Decoder, HashKey, SealedAggregate,
};
use md5::{Digest, Md5};

const MAX_SIZE: usize = 50 * 1024;

/// Aggregates of a page.
const PAGE: usize = 100;

/// As many records as fit: keys as long as a UUID, each its own or out of `distinct`.
fn records(distinct: usize) -> Vec<(String, Vec<u8>)> {
    let record = |i: usize| (format!("{:0>36}", i % distinct), vec![i as u8; 100]);
    let mut open = AggregateBuilder::new(MAX_SIZE);
    (0..).map(record).take_while(|(key, data)| open.push(key, None, data).is_ok()).collect()
}

fn encode(records: &[(String, Vec<u8>)]) -> SealedAggregate {
    let mut open = AggregateBuilder::new(MAX_SIZE);
    for (key, data) in records {
        black_box(HashKey::of_partition_key(key));
        let _ = black_box(open.push(key, None, data));
    }
    open.seal()
}

fn hash_keys(records: &[(String, Vec<u8>)]) {
    for (key, _) in records {
        black_box(HashKey::of_partition_key(key));
    }
}

fn decode(decoder: &mut Decoder, data: &Bytes) -> usize {
    let Ok(Decoded::Aggregate(aggregate)) = decoder.decode(data.clone()) else {
        return 0;
    };
    touch(&aggregate)
}

fn decode_page(decoder: &mut Decoder, page: &[Bytes]) -> usize {
    let decoded = decoder.decode_all(page.to_vec());
    let touched = decoded.map(|record| match record {
        Ok(Decoded::Aggregate(aggregate)) => touch(&aggregate),
        _ => 0,
    });
    touched.sum()
}

fn touch(aggregate: &Aggregate) -> usize {
    black_box(aggregate.hash_keys());
    aggregate.iter().map(|member| black_box(member.data_bytes()).len()).sum()
}

fn codec(c: &mut Criterion) {
    for (name, distinct) in [("own_keys", usize::MAX), ("16_keys", 16)] {
        let records = records(distinct);
        let sealed = encode(&records);
        let (body, data) = (sealed.body(), sealed.bytes());
        let mut decoder = Decoder::new(0);
        assert_eq!(decode(&mut decoder, data), records.len() * 100);

        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(records.len() as u64));
        group.bench_function("encode_floor", |b| {
            b.iter(|| {
                hash_keys(&records);
                let mut copy = Vec::with_capacity(MAX_SIZE);
                for (_, data) in &records {
                    copy.extend_from_slice(data);
                }
                black_box(Md5::digest(body));
                copy
            });
        });
        group.bench_function("encode", |b| b.iter(|| encode(&records)));
        group.bench_function("decode_floor", |b| {
            b.iter(|| {
                hash_keys(&records);
                black_box(Md5::digest(body))
            });
        });
        group.bench_function("decode", |b| b.iter(|| decode(&mut decoder, data)));
        // The digests of a page are computed several at a time.
        let page = vec![data.clone(); PAGE];
        group.throughput(Throughput::Elements((PAGE * records.len()) as u64));
        group.bench_function("decode_page", |b| b.iter(|| decode_page(&mut decoder, &page)));
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
