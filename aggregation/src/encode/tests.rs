use super::*;

#[test]
fn decimal_holds_the_longest_and_the_shortest_number() {
    assert_eq!(Decimal::new(HashKey::MIN).as_bytes(), b"0");
    assert_eq!(
        Decimal::new(HashKey::MAX).as_bytes(),
        u128::MAX.to_string().as_bytes()
    );
}
