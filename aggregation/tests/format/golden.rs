//! Records that the published Java KPL sent, both ways.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kinesis_aggregation::{AggregateBuilder, Decoded, Decoder, HashKey, PlainReason, looks_framed};
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Sent {
    partition_key: String,
    explicit_hash_key: HashKeyText,
    pub(crate) data: String,
    pub(crate) members: Option<Vec<Given>>,
}

#[derive(Deserialize)]
pub(crate) struct Given {
    partition_key: String,
    explicit_hash_key: Option<HashKeyText>,
    data: String,
}

#[derive(Deserialize)]
struct HashKeyText(String);

impl HashKeyText {
    fn get(&self) -> HashKey {
        self.0.parse().unwrap()
    }
}

impl Sent {
    fn data(&self) -> Bytes {
        BASE64_STANDARD.decode(&self.data).unwrap().into()
    }
}

impl Given {
    fn data(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(&self.data).unwrap()
    }

    fn explicit_hash_key(&self) -> Option<HashKey> {
        self.explicit_hash_key.as_ref().map(HashKeyText::get)
    }

    fn hash_key(&self) -> HashKey {
        self.explicit_hash_key().unwrap_or_else(|| HashKey::of_partition_key(&self.partition_key))
    }
}

pub(crate) fn golden() -> Vec<Sent> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/kpl-1.0.8-records.ndjson");
    let text = std::fs::read_to_string(path).expect("the golden records belong to the repository");
    let records: Vec<Sent> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let aggregates = records.iter().filter(|record| record.members.is_some()).count();
    assert_eq!((records.len(), aggregates), (9, 5), "records in the file");
    records
}

#[test]
fn decoding_gives_what_the_kpl_was_given() {
    let mut decoder = Decoder::new(0);
    for sent in golden() {
        let data = sent.data();
        let Some(members) = sent.members else {
            let Decoded::Plain(plain, PlainReason::NoMagic) = decoder.decode(data.clone()).unwrap()
            else {
                panic!("sent raw");
            };
            assert_eq!(plain, data);
            assert!(!looks_framed(&data));
            continue;
        };
        assert!(looks_framed(&data));
        let Decoded::Aggregate(aggregate) = decoder.decode(data).unwrap() else {
            panic!("sent as an aggregate");
        };
        assert_eq!(aggregate.len(), members.len());
        assert_eq!(aggregate.defect(), None);
        assert!(!aggregate.is_compressed());
        for (index, (member, given)) in aggregate.iter().zip(&members).enumerate() {
            assert_eq!(member.index(), index as u64);
            assert_eq!(member.partition_key(), given.partition_key);
            assert_eq!(member.explicit_hash_key(), given.explicit_hash_key());
            assert_eq!(member.hash_key(), given.hash_key());
            assert_eq!(member.data(), given.data());
        }
    }
}

#[test]
fn encoding_the_members_gives_the_bytes_of_the_kpl() {
    for sent in golden() {
        let data = sent.data();
        let Some(members) = sent.members else {
            continue;
        };
        let mut open = AggregateBuilder::new(data.len());
        for (index, given) in members.iter().enumerate() {
            let (key, explicit) = (&given.partition_key, given.explicit_hash_key());
            assert_eq!(open.push(key, explicit, &given.data()), Ok(index as u32));
        }
        assert_eq!(open.size(), data.len());
        assert!(open.push("", None, b"").is_err(), "not a byte is left");
        assert_eq!(open.seal().into_bytes(), data);
    }
}

#[test]
fn the_hash_key_of_a_sent_record_is_that_of_its_first_member() {
    for sent in golden() {
        let first = match &sent.members {
            Some(members) => {
                assert_eq!(sent.partition_key, "a");
                members[0].hash_key()
            }
            // "n" was given an explicit hash key of its own, which only the sent record shows.
            None if sent.partition_key == "n" => HashKey::new(2),
            None => HashKey::of_partition_key(&sent.partition_key),
        };
        assert_eq!(sent.explicit_hash_key.get(), first);
    }
}
