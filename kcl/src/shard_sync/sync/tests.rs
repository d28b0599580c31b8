//! Coverage of the hash key space; the rest is tested against the embedded AWS, in `coordination`.

use super::*;

fn ranges(rows: &[(u128, u128)]) -> bool {
    covers_all_hash_keys(
        rows.iter()
            .map(|(a, b)| HashKeyRange::new(HashKey::new(*a), HashKey::new(*b)).unwrap()),
    )
}

#[test]
fn finds_holes_whatever_the_order_and_the_overlaps() {
    const MAX: u128 = u128::MAX;
    assert!(ranges(&[(0, MAX)]));
    assert!(ranges(&[(4, 23), (2, 3), (0, 1), (24, MAX), (6, 23)]));
    assert!(ranges(&[(0, 10), (3, 5), (11, MAX)]));
    assert!(ranges(&[(0, MAX), (5, 9)]));
    assert!(!ranges(&[(0, 1), (2, 3), (4, 23), (6, 23), (25, MAX)]));
    assert!(!ranges(&[(1, MAX)]));
    assert!(!ranges(&[(0, MAX - 1)]));
    assert!(!ranges(&[]));
}
