use super::*;

#[test]
fn decimal_holds_the_longest_and_the_shortest_number() {
    assert_eq!(Decimal::new(HashKey::MIN).as_bytes(), b"0");
    assert_eq!(
        Decimal::new(HashKey::MAX).as_bytes(),
        u128::MAX.to_string().as_bytes()
    );
}

#[test]
fn a_sealed_aggregate_holds_at_most_twice_its_bytes() {
    for (max_size, records) in [
        (50_000, 1),
        (50_000, 50),
        (50_000, 10_000),
        (1 << 20, 10_000),
    ] {
        let mut open = AggregateBuilder::new(max_size);
        for i in 0..records {
            if open.push(&(i % 7).to_string(), None, &[0; 100]).is_err() {
                break;
            }
        }
        let sealed = open.seal();
        let len = sealed.bytes().len();
        let buffer = sealed.into_bytes().try_into_mut().expect("no other handle");
        assert!(
            buffer.capacity() <= 2 * len,
            "{} for {len}",
            buffer.capacity()
        );
    }
}

#[test]
fn nothing_is_allocated_twice_below_the_size_reserved_at_once() {
    let mut open = AggregateBuilder::new(RESERVE_AT_ONCE);
    open.push("k", None, b"").unwrap();
    let at = open.buf.as_ptr();
    while open.push("k", None, &[0; 100]).is_ok() {}
    let open_at = open.buf.as_ptr();
    let sealed = open.seal();
    assert_eq!(open_at, at);
    let whole = at as usize..at as usize + RESERVE_AT_ONCE * 4 / 3 + KPL_MAGIC.len();
    assert!(whole.contains(&(sealed.bytes().as_ptr() as usize)));
}

#[test]
fn a_shrunk_builder_holds_what_it_has_and_goes_on() {
    let records: Vec<_> = (0..40)
        .map(|n| (format!("key-{n}"), vec![n; 100]))
        .collect();
    for shrunk_at in 0..records.len() {
        let [mut plain, mut shrunk] = [(); 2].map(|()| AggregateBuilder::new(50 * 1024));
        for (position, (key, data)) in records.iter().enumerate() {
            if position == shrunk_at {
                shrunk.shrink_to_fit();
                assert!(shrunk.is_empty() || shrunk.buf.capacity() == shrunk.size());
            }
            plain.push(key, None, data).unwrap();
            shrunk.push(key, None, data).unwrap();
        }
        assert_eq!(shrunk.size(), plain.size());
        assert_eq!(shrunk.seal().bytes(), plain.seal().bytes());
    }
}
