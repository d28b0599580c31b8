use super::*;
use crate::retrieval::budget::MAX_PAGE_BYTES;

/// A page whose records take no more memory than the service counts.
fn observe(size: &mut PageSize, records: u64, bytes: u64) {
    size.observe(records, bytes, bytes);
}

#[test]
fn the_share_is_of_the_memory_and_the_limit_of_the_shard_is_of_the_payload() {
    let mut size = PageSize::new(10_000);
    size.observe(1_000, 1_000 * 100, 1_000 * 300);
    assert_eq!(size.limit(300_000, u64::MAX), 1_000);
    assert_eq!(size.limit(u64::MAX, 100_000), 1_000);
    assert_eq!(size.limit(300_000, 50_000), 500);
    assert_eq!(size.expected_memory(500), 150_000);
}

#[test]
fn small_records_soon_fill_the_largest_request() {
    let mut size = PageSize::new(10_000);
    assert_eq!(size.limit(MAX_PAGE_BYTES, u64::MAX), 640);
    observe(&mut size, 640, 640 * 200);
    assert_eq!(size.limit(MAX_PAGE_BYTES, u64::MAX), 10_000);
    assert_eq!(size.expected_memory(10_000), 2_000_000);
}

#[test]
fn large_records_shrink_the_request_at_once_and_small_ones_raise_it_by_halves() {
    let mut size = PageSize::new(10_000);
    observe(&mut size, 100, 100 * 200);
    observe(&mut size, 10, 10 << 20);
    assert_eq!(size.limit(MAX_PAGE_BYTES, u64::MAX), 10);
    observe(&mut size, 1000, 1000 * 200);
    assert_eq!(size.limit(MAX_PAGE_BYTES, u64::MAX), 19);
}

#[test]
fn a_record_larger_than_the_share_is_still_asked_for() {
    let mut size = PageSize::new(10);
    observe(&mut size, 1, 9 << 20);
    assert_eq!(size.limit(1 << 20, u64::MAX), 1);
}

#[test]
fn an_empty_page_says_nothing() {
    let mut size = PageSize::new(10_000);
    observe(&mut size, 0, 0);
    assert_eq!(size.limit(MAX_PAGE_BYTES, u64::MAX), 640);
}

#[test]
fn a_page_that_does_not_arrive_is_halved_down_to_one_record() {
    let mut size = PageSize::new(10_000);
    let mut limits = Vec::new();
    for _ in 0..12 {
        limits.push(size.limit(MAX_PAGE_BYTES, u64::MAX));
        size.did_not_arrive(size.limit(MAX_PAGE_BYTES, u64::MAX));
    }
    assert_eq!(limits, [640, 320, 160, 80, 40, 20, 10, 5, 2, 1, 1, 1]);
}

#[test]
fn the_limit_recovers_with_pages_that_arrive_early() {
    let timeout = Duration::from_secs(10);
    let mut size = PageSize::new(100);
    size.did_not_arrive(50);
    size.arrived(Duration::from_secs(3), timeout);
    assert_eq!(size.limit(MAX_PAGE_BYTES, u64::MAX), 25, "twice the time is not early");
    size.arrived(Duration::from_secs(2), timeout);
    assert_eq!(size.limit(MAX_PAGE_BYTES, u64::MAX), 50);
    size.arrived(Duration::from_secs(1), timeout);
    size.arrived(Duration::from_secs(1), timeout);
    assert_eq!(size.limit(MAX_PAGE_BYTES, u64::MAX), 100);
}
