//! How many records one GetRecords call asks for.

use std::time::Duration;

/// Assumed until the first page has been seen: large enough to be useful, small enough that a
/// page of ordinary aggregates stays small.
const FIRST_GUESS: u64 = 16 << 10;
/// The service never returns more than about this in one call.
pub(crate) const MAX_PAGE_BYTES: u64 = 10 << 20;
/// A share of the worker's budget below this is not worth a call.
const MIN_PAGE_BYTES: u64 = 256 << 10;

/// Adapts the request's `Limit` so that a page has about the size wanted:
///
/// `limit = clamp(share / mean record size, 1, max_records)`, with
/// `share = clamp(budget / (2 x active shards), 256 KiB, 10 MiB)`: a shard holds one page that is
/// being processed and one that was fetched ahead. The mean is 16 KiB until a page was seen; it
/// rises to a page's mean at once and falls by halves.
///
/// A page that does not arrive within the time limit of a read is asked for with half as many records,
/// down to one. The limit doubles again with each page that takes less than a quarter of that time:
/// twice as many records then still arrive in time.
#[derive(Debug)]
pub(crate) struct PageSize {
    max_records: u32,
    /// Most records that arrive in time, as far as known.
    in_time: u32,
    mean: Option<u64>,
}

/// Bytes that one page of each of `shards` active shards may have.
pub(crate) fn share(budget: u64, shards: usize) -> u64 {
    (budget / (2 * shards.max(1) as u64)).clamp(MIN_PAGE_BYTES, MAX_PAGE_BYTES)
}

impl PageSize {
    pub(crate) fn new(max_records: u32) -> Self {
        Self { max_records, in_time: max_records, mean: None }
    }

    fn mean(&self) -> u64 {
        self.mean.unwrap_or(FIRST_GUESS).max(1)
    }

    /// Records to ask for so that the page has about `share` bytes.
    pub(crate) fn limit(&self, share: u64) -> u32 {
        u32::try_from(share / self.mean()).unwrap_or(u32::MAX).clamp(1, self.in_time)
    }

    /// Bytes that such a page will probably have.
    pub(crate) fn expected_bytes(&self, share: u64) -> u64 {
        (u64::from(self.limit(share)) * self.mean()).min(MAX_PAGE_BYTES)
    }

    /// A page of up to `asked` records did not arrive whole.
    pub(crate) fn did_not_arrive(&mut self, asked: u32) {
        self.in_time = (asked / 2).max(1);
    }

    /// A page arrived in `took`, of the time limit `timeout`.
    pub(crate) fn arrived(&mut self, took: Duration, timeout: Duration) {
        if took < timeout / 4 {
            self.in_time = self.in_time.saturating_mul(2).min(self.max_records);
        }
    }

    /// A page of `records` with `bytes` arrived.
    pub(crate) fn observe(&mut self, records: u64, bytes: u64) {
        let Some(page) = bytes.checked_div(records) else {
            return;
        };
        self.mean = Some(match self.mean {
            Some(mean) if mean > page => mean.midpoint(page),
            _ => page,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_records_soon_fill_the_largest_request() {
        let mut size = PageSize::new(10_000);
        assert_eq!(size.limit(MAX_PAGE_BYTES), 640);
        size.observe(640, 640 * 200);
        assert_eq!(size.limit(MAX_PAGE_BYTES), 10_000);
        assert_eq!(size.expected_bytes(MAX_PAGE_BYTES), 2_000_000);
    }

    #[test]
    fn large_records_shrink_the_request_at_once_and_small_ones_raise_it_by_halves() {
        let mut size = PageSize::new(10_000);
        size.observe(100, 100 * 200);
        size.observe(10, 10 << 20);
        assert_eq!(size.limit(MAX_PAGE_BYTES), 10);
        size.observe(1000, 1000 * 200);
        assert_eq!(size.limit(MAX_PAGE_BYTES), 19);
    }

    #[test]
    fn a_record_larger_than_the_share_is_still_asked_for() {
        let mut size = PageSize::new(10);
        size.observe(1, 9 << 20);
        assert_eq!(size.limit(1 << 20), 1);
    }

    #[test]
    fn an_empty_page_says_nothing() {
        let mut size = PageSize::new(10_000);
        size.observe(0, 0);
        assert_eq!(size.limit(MAX_PAGE_BYTES), 640);
    }

    #[test]
    fn a_page_that_does_not_arrive_is_halved_down_to_one_record() {
        let mut size = PageSize::new(10_000);
        let mut limits = Vec::new();
        for _ in 0..12 {
            limits.push(size.limit(MAX_PAGE_BYTES));
            size.did_not_arrive(size.limit(MAX_PAGE_BYTES));
        }
        assert_eq!(limits, [640, 320, 160, 80, 40, 20, 10, 5, 2, 1, 1, 1]);
    }

    #[test]
    fn the_limit_recovers_with_pages_that_arrive_early() {
        let timeout = Duration::from_secs(10);
        let mut size = PageSize::new(100);
        size.did_not_arrive(50);
        size.arrived(Duration::from_secs(3), timeout);
        assert_eq!(size.limit(MAX_PAGE_BYTES), 25, "twice the time is not early");
        size.arrived(Duration::from_secs(2), timeout);
        assert_eq!(size.limit(MAX_PAGE_BYTES), 50);
        size.arrived(Duration::from_secs(1), timeout);
        size.arrived(Duration::from_secs(1), timeout);
        assert_eq!(size.limit(MAX_PAGE_BYTES), 100);
    }

    #[test]
    fn shares() {
        assert_eq!(share(64 << 20, 1), MAX_PAGE_BYTES);
        assert_eq!(share(64 << 20, 8), 4 << 20);
        assert_eq!(share(64 << 20, 10_000), MIN_PAGE_BYTES);
        assert_eq!(share(64 << 20, 0), MAX_PAGE_BYTES);
    }
}
