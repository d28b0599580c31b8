use super::*;

#[test]
fn decimal_holds_the_longest_and_the_shortest_number() {
    assert_eq!(Decimal::new(HashKey::MIN).as_bytes(), b"0");
    assert_eq!(Decimal::new(HashKey::MAX).as_bytes(), u128::MAX.to_string().as_bytes());
}

#[test]
fn a_sealed_aggregate_holds_exactly_its_bytes() {
    for (max_size, records) in [(50_000, 1), (50_000, 50), (50_000, 10_000), (1 << 20, 10_000)] {
        let mut open = AggregateBuilder::new(max_size);
        for i in 0..records {
            if open.push(&(i % 7).to_string(), None, &[0; 100]).is_err() {
                break;
            }
        }
        let size = open.size();
        let undigested = open.seal_without_digest();
        let place = undigested.body().as_ptr();
        assert_eq!(undigested.size(), size);
        let sealed = undigested.add_digest();
        assert_eq!((sealed.bytes().len(), sealed.body().as_ptr()), (size, place));
        let buffer = sealed.into_bytes().try_into_mut().expect("no other handle");
        assert_eq!(buffer.capacity(), size);
    }
}

#[test]
fn digests_of_several_are_added_in_place() {
    let open = |records: usize| {
        let mut open = AggregateBuilder::new(50_000);
        for i in 0..records {
            open.push(&(i % 7).to_string(), None, &vec![i as u8; 100 + i]).unwrap();
        }
        open
    };
    let counts = [1, 40, 3, 40, 100, 0, 7, 1, 40, 12, 90, 100];
    let undigested = counts.map(|count| open(count).seal_without_digest());
    let places = undigested.each_ref().map(|aggregate| aggregate.body().as_ptr());
    let sealed = UndigestedAggregate::add_digests(undigested.into());
    assert!(sealed == counts.map(|count| open(count).seal()));
    assert!(sealed.iter().map(|sealed| sealed.body().as_ptr()).eq(places));
}

#[test]
fn a_digest_leaves_data_alone_that_is_in_use() {
    let mut open = AggregateBuilder::new(50_000);
    open.push("k", None, b"data").unwrap();
    let undigested = open.seal_without_digest();
    let (clone, body) = (undigested.clone(), undigested.body().to_vec());
    let sealed = undigested.add_digest();
    assert_eq!(clone.body(), body);
    assert_eq!(sealed.body(), body);
    assert!(clone.add_digest() == sealed);
}

#[test]
fn an_open_aggregate_grows_with_its_records() {
    for (max_size, record) in [(50 * 1024, 100), (1 << 20, 100), (50 * 1024, 3000), (64, 500)] {
        let mut open = AggregateBuilder::new(max_size);
        while open.push("k", None, &vec![0; record]).is_ok() {
            let (held, bytes) = (open.buf.capacity(), open.buf.len());
            assert!(
                held <= (2 * bytes).max(FIRST_RESERVE) && held <= max_size.max(open.size()),
                "{held} for {bytes} of {max_size}"
            );
        }
    }
}

#[test]
fn a_shrunk_builder_holds_what_it_has_and_goes_on() {
    let records: Vec<_> = (0..40).map(|n| (format!("key-{n}"), vec![n; 100])).collect();
    for shrunk_at in 0..records.len() {
        let [mut plain, mut shrunk] = [(); 2].map(|()| AggregateBuilder::new(50 * 1024));
        for (position, (key, data)) in records.iter().enumerate() {
            if position == shrunk_at {
                shrunk.shrink_to_fit();
                assert!(shrunk.buf.len() >= shrunk.buf.capacity() / 4 * 3);
            }
            plain.push(key, None, data).unwrap();
            shrunk.push(key, None, data).unwrap();
        }
        assert_eq!(shrunk.size(), plain.size());
        assert_eq!(shrunk.seal().bytes(), plain.seal().bytes());
    }
}
