//! The golden items, the corruptions, and round trips.

use proptest::prelude::*;

use super::*;
use crate::lease::golden::golden;

#[test]
fn golden_leases_decode_and_encode_back_to_the_same_item() {
    let mut leases = 0;
    for (version, table, item) in golden() {
        let is_lease =
            table == "lease" && item[name::KEY].as_s().is_ok_and(|key| key.starts_with("shardId-"));
        if is_lease {
            let TableItem::Lease(lease) = decode(item.clone()).unwrap() else {
                panic!("{version}: not read as a lease: {item:?}");
            };
            assert!(lease.other.is_empty(), "{version}: unknown attributes: {:?}", lease.other);
            assert_eq!(encode(&lease), item, "{version}");
            leases += 1;
        }
    }
    assert_eq!(leases, 34, "the golden files hold 17 leases each");
}

#[test]
fn golden_items_that_are_no_leases_are_told_apart() {
    let (mut workers, mut leaders, mut others) = (Vec::new(), Vec::new(), 0);
    for (version, _, item) in golden() {
        match decode(item).unwrap() {
            TableItem::Lease(_) => {}
            TableItem::Worker(row) => workers.push((version, row.worker, row.last_update)),
            TableItem::Leader(lock) => leaders.push((version, lock.owner, lock.duration)),
            TableItem::Other => others += 1,
        }
    }
    assert_eq!(
        workers,
        [("3.4.2", "w1".into(), 1_795_250_341), ("3.5.1", "w1".into(), 1_795_250_260)]
    );
    let lasts = Duration::from_secs(120);
    assert_eq!(
        leaders,
        [("3.4.2", "w1".into(), lasts), ("3.5.1", "w1".into(), lasts)],
        "in the table of its own, and among the leases"
    );
    assert_eq!(others, 2, "Migration3.0, in both files");
}

#[test]
fn a_lock_without_an_owner_names_no_leader() {
    let lock = |change: &[(&str, &str)]| {
        let mut item: Item = [
            (name::KEY, "Leader"),
            (name::ENTITY_TYPE, ENTITY_LEADER),
            (name::LOCK_OWNER, "w1"),
            (name::LOCK_VERSION, "v"),
            (name::LOCK_DURATION, "1500"),
        ]
        .map(|(name, value)| (name.to_owned(), text(value)))
        .into();
        for (name, value) in change {
            item.insert((*name).to_owned(), text(*value));
        }
        decode(item).unwrap()
    };
    let held = LeaderLock {
        owner: "w1".into(),
        version: "v".into(),
        duration: Duration::from_millis(1500),
        is_starter: false,
    };
    assert_eq!(lock(&[]), TableItem::Leader(held));
    assert_eq!(lock(&[(name::LOCK_RELEASED, "1")]), TableItem::Other);
    assert_eq!(lock(&[(name::LOCK_DURATION, "long")]), TableItem::Other);
}

#[test]
fn a_golden_handoff_is_read_as_one() {
    let mut seen = 0;
    for (_, _, item) in golden() {
        if !item.contains_key(name::CHECKPOINT_OWNER) {
            continue;
        }
        let TableItem::Lease(lease) = decode(item).unwrap() else { panic!("not a lease") };
        assert_eq!(lease.owner.as_deref(), Some("w2"));
        assert_eq!(lease.actual_owner(), Some("w1"));
        assert!(lease.is_handoff_pending() && lease.is_owned_by("w1") && !lease.is_owned_by("w2"));
        seen += 1;
    }
    assert_eq!(seen, 2);
}

fn sample() -> Lease {
    let mut lease = Lease::new("shardId-7", Checkpoint::parse("123", 4).unwrap());
    lease.owner = Some("w2".into());
    lease.checkpoint_owner = Some("w1".into());
    lease.counter = u64::MAX;
    lease.pending = Some(PendingCheckpoint {
        checkpoint: Checkpoint::parse("130", 1).unwrap(),
        state: Some(Bytes::from_static(b"\x00state")),
    });
    lease.owner_switches = 3;
    lease.parents = ["shardId-1".to_owned(), "shardId-2".to_owned()].into();
    lease.children = ["shardId-9".to_owned()].into();
    lease.hash_key_range = Some(HashKeyRange::FULL);
    lease.throughput = Some(4.25);
    lease.resume_from = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_250_247_905));
    lease.stream = Some(StreamIdentity {
        arn: "arn:aws:kinesis:us-east-1:000000000000:stream/a@b".into(),
        created: 17,
    });
    lease.released_at = Some(5);
    lease.stamp = Some(Stamp::after(4, 0xab));
    lease.other.insert("later".into(), AttributeValue::Bool(true));
    lease
}

#[test]
fn every_attribute_survives_a_round_trip() {
    let lease = sample();
    assert_eq!(decode(encode(&lease)), Ok(TableItem::Lease(Box::new(lease))));
}

/// The Java library reads an item of this form, and drops no user record of the Kinesis record: it keeps those whose
/// sub-sequence number is above -1.
#[test]
fn a_lease_before_a_record_holds_its_number_and_minus_one() {
    let lease = Lease::new("shardId-0", Checkpoint::Before("42".parse().unwrap()));
    let item = encode(&lease);
    assert_eq!(item["checkpoint"], text("42"));
    assert_eq!(item["checkpointSubSequenceNumber"], AttributeValue::N("-1".into()));
    assert_eq!(decode(item), Ok(TableItem::Lease(Box::new(lease))));
}

#[test]
fn a_lease_after_all_of_a_record_holds_the_largest_number_that_java_reads() {
    let item = encode(&Lease::new("shardId-0", Checkpoint::after_all_of("42".parse().unwrap())));
    let sub = item["checkpointSubSequenceNumber"].as_n().unwrap();
    assert_eq!(sub.parse::<i64>(), Ok(i64::MAX), "a Long in Java");
}

#[test]
fn an_unassigned_lease_has_no_owner_attribute_and_no_empty_sets() {
    let item = encode(&Lease::new("shardId-0", Checkpoint::TrimHorizon));
    let mut names: Vec<_> = item.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "checkpoint",
            "checkpointSubSequenceNumber",
            "entityType",
            "leaseCounter",
            "leaseKey",
            "ownerSwitchesSinceCheckpoint"
        ]
    );
}

#[test]
fn each_corruption_names_the_key_and_the_attribute() {
    let bad_values = [
        (name::OWNER, text("")),
        (name::OWNER, AttributeValue::Null(true)),
        (name::COUNTER, text("1")),
        (name::COUNTER, AttributeValue::N("-1".into())),
        (name::COUNTER, AttributeValue::N("1.5".into())),
        (name::CHECKPOINT, text("SOMEWHERE")),
        (name::CHECKPOINT, number(7)),
        (name::CHECKPOINT_SUB, text("0")),
        (name::PENDING, text("-4")),
        (name::PENDING_STATE, text("state")),
        (name::OWNER_SWITCHES, text("x")),
        (name::PARENTS, text("shardId-1")),
        (name::CHILDREN, AttributeValue::L(vec![text("shardId-1")])),
        (name::START, text("x")),
        (name::END, text("340282366920938463463374607431768211456")),
        (name::THROUGHPUT, AttributeValue::N("many".into())),
        (name::RESUME_FROM, text("now")),
        (name::STREAM, text("no-creation-time")),
    ];
    for (attribute, bad) in bad_values {
        let mut item = encode(&sample());
        item.insert(attribute.to_owned(), bad.clone());
        let error = decode(item).unwrap_err();
        assert_eq!((error.key.as_str(), error.attribute), ("shardId-7", attribute), "{bad:?}");
        assert!(error.to_string().contains("shardId-7"));
    }
    for attribute in [
        name::COUNTER,
        name::CHECKPOINT,
        name::CHECKPOINT_SUB,
        name::OWNER_SWITCHES,
        name::START,
        name::END,
    ] {
        let mut item = encode(&sample());
        item.remove(attribute);
        assert_eq!(decode(item).unwrap_err().attribute, attribute);
    }
}

#[test]
fn an_unreadable_attribute_that_only_shortens_a_wait_does_not_corrupt_a_lease() {
    let stamped = Lease { stamp: Some(Stamp::after(6, 0xab)), ..sample() };
    for bad in [text("7@ab@later"), text("7"), text(""), number(7), AttributeValue::Null(true)] {
        let mut item = encode(&stamped);
        item.insert(name::STAMP.to_owned(), bad.clone());
        item.insert(name::RELEASED_AT.to_owned(), bad.clone());
        let read = Lease {
            stamp: Some(Stamp::unreadable(stamped.counter)),
            released_at: (bad == number(7)).then_some(7),
            ..stamped.clone()
        };
        assert_eq!(decode(item), Ok(TableItem::Lease(Box::new(read.clone()))));
        assert!(read.is_anothers(0xab) && !read.is_stamped());
        let again = decode(encode(&read));
        assert_eq!(again, Ok(TableItem::Lease(Box::new(read))));
    }
}

#[test]
fn the_number_that_java_writes_as_pending_state_is_tolerated() {
    let mut item = encode(&sample());
    item.insert(name::PENDING_STATE.to_owned(), number(4));
    let TableItem::Lease(lease) = decode(item).unwrap() else { panic!("not a lease") };
    assert_eq!(lease.pending.unwrap().state, None);
}

#[test]
fn throughput_has_at_most_six_decimals_halves_up() {
    for (value, expected) in [
        (0.0, "0"),
        (5.0, "5"),
        (4.737568, "4.737568"),
        (0.07111, "0.07111"),
        (0.0078125, "0.007813"),
        (0.1234564999, "0.123456"),
        (1.9999999, "2"),
        (1e-9, "0"),
        (f64::NAN, "0"),
        (f64::INFINITY, "0"),
    ] {
        assert_eq!(six_decimals(value), expected, "{value}");
    }
}

proptest! {
    #[test]
    fn decoding_never_panics(
        key in "[a-zA-Z0-9-]{0,12}",
        entity in proptest::option::of("LEASE|LEADER|X"),
        counter in "[-0-9.e]{0,6}",
        checkpoint in "SHARD_END|LATEST|[0-9]{0,60}|[a-z]{1,4}",
    ) {
        let mut item = Item::new();
        item.insert(name::KEY.into(), text(key));
        item.insert(name::COUNTER.into(), AttributeValue::N(counter));
        item.insert(name::CHECKPOINT.into(), text(checkpoint));
        if let Some(entity) = entity {
            item.insert(name::ENTITY_TYPE.into(), text(entity));
        }
        let _ = decode(item);
    }

    #[test]
    fn throughput_is_within_half_a_millionth(value in 0.0f64..1e6) {
        let text = six_decimals(value);
        let back: f64 = text.parse().unwrap();
        // The difference of two such numbers is rounded, too.
        let most = 0.5e-6 + value * f64::EPSILON;
        prop_assert!((back - value).abs() <= most, "{} -> {}", value, text);
        prop_assert!(text.split_once('.').is_none_or(|(_, fraction)| fraction.len() <= 6));
    }
}
