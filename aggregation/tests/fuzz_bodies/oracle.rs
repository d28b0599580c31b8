//! The format as `prost` reads and writes it: another implementation to agree with.

use bytes::Bytes;
use kinesis_aggregation::{Aggregate, Decoded, Decoder, DefectKind, HashKey, PlainReason};
use md5::{Digest, Md5};
use prost::Message;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    pub partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<Record>,
}

/// `prost` does not insist on required fields, so they are optional here and looked at afterwards.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Record {
    #[prost(uint64, optional, tag = "1")]
    pub partition_key_index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    pub tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Tag {
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// A user record, as given to an encoder.
pub type Given = (String, Option<u128>, Vec<u8>);

/// The message the KPL would build of these records.
pub fn message(records: &[Given]) -> AggregatedRecord {
    let mut message = AggregatedRecord::default();
    for (partition_key, explicit_hash_key, data) in records {
        let explicit = explicit_hash_key.map(|key| key.to_string());
        message.records.push(Record {
            partition_key_index: Some(row(&mut message.partition_key_table, partition_key)),
            explicit_hash_key_index: explicit
                .map(|key| row(&mut message.explicit_hash_key_table, &key)),
            data: Some(data.clone()),
            tags: Vec::new(),
        });
    }
    message
}

fn row(table: &mut Vec<String>, key: &str) -> u64 {
    let row = table.iter().position(|other| other == key).unwrap_or_else(|| {
        table.push(key.to_owned());
        table.len() - 1
    });
    row as u64
}

/// The KPL's frame around a body, whatever is in it.
pub fn kpl_frame(body: &[u8]) -> Bytes {
    [&[0xf3, 0x89, 0x9a, 0xc2], body, &Md5::digest(body)[..]].concat().into()
}

/// Decodes without a compressed frame in play.
pub fn decode(data: Bytes) -> Decoded {
    Decoder::new(0).decode(data).expect("only compressed frames give errors")
}

/// What decoding a message must give.
#[derive(Default)]
struct Expected {
    members: Vec<Given>,
    /// What is wrong with the first broken member.
    defect: Option<DefectKind>,
    /// Indexes of the members whose explicit hash key is no number.
    invalid_hash_keys: Vec<u64>,
}

fn expected(message: &AggregatedRecord) -> Expected {
    let mut expected = Expected::default();
    for record in &message.records {
        let partition_key = record
            .partition_key_index
            .and_then(|index| message.partition_key_table.get(usize::try_from(index).ok()?));
        let Some(partition_key) = partition_key else {
            expected.defect = Some(DefectKind::PartitionKeyOutOfTable);
            break;
        };
        let explicit = match record.explicit_hash_key_index {
            None => None,
            Some(index) => {
                let row = usize::try_from(index).unwrap_or(usize::MAX);
                let Some(text) = message.explicit_hash_key_table.get(row) else {
                    expected.defect = Some(DefectKind::ExplicitHashKeyOutOfTable);
                    break;
                };
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse::<u128>() {
                    Ok(key) if digits => Some(key),
                    _ => {
                        let index = expected.members.len() as u64;
                        expected.invalid_hash_keys.push(index);
                        None
                    }
                }
            }
        };
        let data = record.data.clone().unwrap_or_default();
        let given = (partition_key.clone(), explicit, data);
        expected.members.push(given);
    }
    expected
}

/// The members of a decoded aggregate, by every way of access.
pub fn members(aggregate: &Aggregate) -> Vec<Given> {
    assert_eq!(aggregate.iter().len(), aggregate.len());
    assert_eq!(aggregate.is_empty(), aggregate.iter().next().is_none());
    assert!(aggregate.get(aggregate.len()).is_none());
    let member = |index: usize| {
        let member = aggregate.get(index).expect("within the length");
        assert_eq!(member.index(), index as u64);
        assert_eq!(member.data_bytes(), member.data());
        let explicit = member.explicit_hash_key();
        let of_key = || HashKey::of_partition_key(member.partition_key());
        assert_eq!(member.hash_key(), explicit.unwrap_or_else(of_key));
        (member.partition_key().to_owned(), explicit.map(HashKey::get), member.data().to_vec())
    };
    let hash_keys: Vec<_> = aggregate.iter().map(|member| member.hash_key()).collect();
    assert_eq!(aggregate.hash_keys(), hash_keys);
    (0..aggregate.len()).map(member).collect()
}

/// Decodes `body` in the KPL's frame and holds the result to that of `prost`.
pub fn check_body(body: &[u8]) {
    let framed = kpl_frame(body);
    let ours = decode(framed.clone());
    let complete = |message: &AggregatedRecord| {
        message.records.iter().all(|record| {
            record.partition_key_index.is_some()
                && record.data.is_some()
                && record.tags.iter().all(|tag| tag.key.is_some())
        })
    };
    match (AggregatedRecord::decode(body), ours) {
        (_, Decoded::Plain(data, reason)) if body.is_empty() => {
            assert_eq!((data, reason), (framed, PlainReason::TooShort));
        }
        // Known number, other type: an unknown field to us and to the Java parser.
        (Err(error), _) if error.to_string().contains("invalid wire type: ") => {}
        (Ok(message), Decoded::Aggregate(aggregate)) if complete(&message) => {
            let expected = expected(&message);
            let sent = message.records.len() as u64;
            assert_eq!(members(&aggregate), expected.members);
            let kind = aggregate.defect().map(|defect| defect.kind());
            assert_eq!(kind, expected.defect);
            if let Some(defect) = aggregate.defect() {
                assert_eq!(defect.index(), expected.members.len() as u64);
                assert_eq!(defect.index() + defect.dropped(), sent);
            }
            let invalid = &expected.invalid_hash_keys;
            assert_eq!(aggregate.invalid_hash_keys(), invalid.len() as u64);
            match (aggregate.strict_defect(), invalid.first()) {
                (Some(strict), Some(&first)) => {
                    assert_eq!(strict.kind(), DefectKind::InvalidExplicitHashKey);
                    assert_eq!(strict.index(), first);
                    assert_eq!(strict.index() + strict.dropped(), sent);
                }
                (strict, first) => {
                    assert_eq!((strict, first), (aggregate.defect(), None));
                }
            }
        }
        (Ok(message), Decoded::Plain(data, PlainReason::Malformed(_))) if !complete(&message) => {
            assert_eq!(data, framed);
        }
        (Err(_), Decoded::Plain(data, PlainReason::Malformed(_))) => assert_eq!(data, framed),
        (theirs, ours) => panic!("prost: {}, here: {ours:?}", theirs.is_ok()),
    }
}
