//! Batch calls with their own retries: each entry is accepted at the end, or has an error.

use std::future::Future;
use std::time::Duration;

use fastrand::Rng;
use kinesis_common::backoff::BackoffSchedule;
use kinesis_common::clock::random_seed;
use kinesis_common::retry_class::RetryClass;

/// Attempts of an entry. The worker calls a sink again after that.
const ATTEMPTS: u32 = 6;
/// Pauses between attempts.
const PAUSES: BackoffSchedule =
    BackoffSchedule::new(Duration::from_millis(100), Duration::from_secs(3));
/// Time limit for opening a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of each call.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Entries that a batch call takes.
pub(super) trait Batches {
    /// Number of entries. They are numbered from 0.
    fn len(&self) -> usize;

    /// Size of an entry, as the service counts it.
    fn size(&self, index: usize) -> usize;

    fn limits(&self) -> Limits;

    /// Sends these entries in one call, and returns those that were not accepted.
    fn send(&self, request: &[usize]) -> impl Future<Output = Vec<Failure>> + Send;
}

/// Limits of a batch call.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Largest number of entries.
    pub(super) entries: usize,
    /// Largest size of all entries, in bytes.
    pub(super) bytes: usize,
    /// An entry over this size is sent alone, because a refusal of it concerns the whole call.
    pub(super) alone_over: usize,
}

/// An entry that was not accepted.
pub(super) struct Failure {
    pub(super) index: usize,
    pub(super) text: String,
    pub(super) is_retryable: bool,
}

/// Sends all entries, and those again that failed. Returns the last error of each entry that was not accepted, in
/// order.
///
/// # Cancel safety
/// Any part of the entries may have been accepted.
pub(super) async fn send_all(batches: &(impl Batches + Sync)) -> Vec<(usize, String)> {
    let mut random = Rng::with_seed(random_seed());
    let mut pending: Vec<usize> = (0..batches.len()).collect();
    let mut given_up = Vec::new();
    for attempt in 1.. {
        let mut failed = Vec::new();
        for request in requests(&pending, |index| batches.size(index), batches.limits()) {
            for failure in batches.send(request).await {
                if attempt == ATTEMPTS || !failure.is_retryable {
                    given_up.push((failure.index, failure.text));
                } else {
                    failed.push(failure.index);
                }
            }
        }
        if failed.is_empty() {
            break;
        }
        pending = failed;
        tokio::time::sleep(PAUSES.delay(attempt, &mut random)).await;
    }
    given_up.sort_unstable();
    given_up
}

/// Divides entries into calls.
fn requests(indexes: &[usize], size: impl Fn(usize) -> usize, limits: Limits) -> Vec<&[usize]> {
    let mut requests = Vec::new();
    let (mut start, mut bytes, mut has_large) = (0, 0, false);
    for (end, index) in indexes.iter().enumerate() {
        let size = size(*index);
        let is_large = size > limits.alone_over;
        let is_full = end - start == limits.entries || bytes + size > limits.bytes;
        if end > start && (is_full || is_large || has_large) {
            requests.push(&indexes[start..end]);
            (start, bytes) = (end, 0);
        }
        bytes += size;
        has_large = is_large;
    }
    if start < indexes.len() {
        requests.push(&indexes[start..]);
    }
    requests
}

/// Whether a later attempt may succeed without a change by an operator.
pub(super) fn is_retryable(code: Option<&str>) -> bool {
    !matches!(
        code.and_then(RetryClass::of),
        Some(
            RetryClass::Rejected
                | RetryClass::AccessDenied
                | RetryClass::CredentialsRefused
                | RetryClass::KmsKeyUnusable
                | RetryClass::NotFound
                | RetryClass::Unsupported
        )
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { entries: 500, bytes: 10 << 20, alone_over: 1 << 20 };

    #[test]
    fn a_call_has_at_most_500_entries_and_10_mib() {
        let indexes: Vec<_> = (0..1001).collect();
        let lengths = |size| {
            let requests = requests(&indexes, |_| size, LIMITS);
            requests.iter().map(|request| request.len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(10), [500, 500, 1]);
        assert_eq!(lengths(1 << 20)[..2], [10, 10]);
        assert_eq!(lengths((1 << 20) + 1).len(), 1001);
        assert!(requests(&[], |_| 1, LIMITS).is_empty());
    }

    #[test]
    fn a_large_entry_is_sent_alone() {
        let sizes = [5, 2 << 20, 5, 5];
        let requests = requests(&[0, 1, 2, 3], |index| sizes[index], LIMITS);
        assert_eq!(requests, [&[0][..], &[1], &[2, 3]]);
    }

    proptest! {
        #[test]
        fn calls_hold_each_entry_once_and_in_order(sizes in proptest::collection::vec(0usize..3_000_000, 0..60)) {
            let indexes: Vec<_> = (0..sizes.len()).collect();
            let requests = requests(&indexes, |index| sizes[index], LIMITS);
            prop_assert_eq!(requests.concat(), &indexes[..]);
            for request in requests {
                let bytes: usize = request.iter().map(|index| sizes[*index]).sum();
                prop_assert!(!request.is_empty() && bytes <= LIMITS.bytes);
            }
        }
    }

    #[test]
    fn what_an_operator_must_change_is_not_retried() {
        for code in ["AccessDeniedException", "ResourceNotFoundException", "ValidationException"] {
            assert!(!is_retryable(Some(code)), "{code}");
        }
        for code in ["ProvisionedThroughputExceededException", "InternalFailure", "SomethingNew"] {
            assert!(is_retryable(Some(code)), "{code}");
        }
        assert!(is_retryable(None));
    }

    /// Accepts an entry after as many failures as planned. `None`: refuses it for good.
    struct Planned {
        failures: Vec<Option<u32>>,
        sent: Mutex<HashMap<usize, u32>>,
    }

    impl Batches for Planned {
        fn len(&self) -> usize {
            self.failures.len()
        }

        fn size(&self, _: usize) -> usize {
            1
        }

        fn limits(&self) -> Limits {
            Limits { entries: 2, bytes: 100, alone_over: 100 }
        }

        async fn send(&self, request: &[usize]) -> Vec<Failure> {
            let mut sent = self.sent.lock().unwrap();
            let mut failed = Vec::new();
            for index in request {
                let times = sent.entry(*index).or_default();
                *times += 1;
                if self.failures[*index].is_none_or(|failures| *times <= failures) {
                    let is_retryable = self.failures[*index].is_some();
                    failed.push(Failure {
                        index: *index,
                        text: format!("no {times}"),
                        is_retryable,
                    });
                }
            }
            failed
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_failed_entries_are_sent_again_and_each_has_a_result() {
        let failures = vec![Some(0), Some(2), None, Some(ATTEMPTS), Some(ATTEMPTS - 1)];
        let planned = Planned { failures, sent: Mutex::default() };
        let failed = send_all(&planned).await;
        assert_eq!(failed, [(2, "no 1".to_owned()), (3, format!("no {ATTEMPTS}"))]);
        let sent = planned.sent.lock().unwrap();
        assert_eq!([0, 1, 2, 3, 4].map(|index| sent[&index]), [1, 3, 1, ATTEMPTS, ATTEMPTS]);
    }
}
