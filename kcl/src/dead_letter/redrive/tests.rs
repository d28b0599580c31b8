use std::time::SystemTime;

use kinesis_aggregation::{Decoded, Decoder, HashKey};
use proptest::prelude::*;

use super::*;
use crate::sequence::ExtendedSequenceNumber;

fn letter(number: usize, key: Option<u8>) -> DeadLetter {
    let position = ExtendedSequenceNumber::new(number.to_string().parse().unwrap(), 0);
    let epoch = SystemTime::UNIX_EPOCH;
    let mut letter = DeadLetter::new("app", "orders", "shardId-0", position, "data", epoch);
    letter.partition_key = key.map(|key| format!("key {key}"));
    letter
}

proptest! {
    #[test]
    fn rounds_hold_each_letter_once_and_keep_the_order_of_keys(keys in proptest::collection::vec(any::<Option<bool>>(), 0..40)) {
        let letters = keys.iter().enumerate().map(|(number, key)| letter(number, key.map(u8::from)));
        let ready: Vec<_> =
            letters.enumerate().map(|(id, letter)| Ready { id: id.to_string(), letter }).collect();
        let rounds = rounds(ready);
        let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
        for round in &rounds {
            let in_round: HashSet<_> = round.iter().map(|ready| key_of(&ready.letter)).collect();
            prop_assert_eq!(in_round.len(), round.len());
            for ready in round {
                seen.entry(key_of(&ready.letter)).or_default().push(ready.id.parse().unwrap());
            }
        }
        prop_assert!(seen.values().all(|ids| ids.is_sorted()));
        prop_assert_eq!(seen.values().map(Vec::len).sum::<usize>(), keys.len());
    }
}

#[test]
fn the_record_is_an_aggregate_of_one_with_the_number_of_redrives() {
    let mut letter = letter(1, Some(7));
    letter.explicit_hash_key = Some(HashKey::new(5));
    letter.redrives = u32::MAX - 1;
    let entry = entry(&letter);
    assert_eq!(
        (&entry.partition_key[..], entry.explicit_hash_key),
        ("key 7", Some(HashKey::new(5)))
    );
    let Ok(Decoded::Aggregate(aggregate)) = Decoder::new(0).decode(entry.data) else {
        panic!("an aggregate");
    };
    assert_eq!(aggregate.len(), 1);
    let member = aggregate.get(0).unwrap();
    assert_eq!(member.tag(REDRIVES_TAG), Some("4294967295"));
    assert_eq!((member.partition_key(), member.data()), ("key 7", &b"data"[..]));
}
