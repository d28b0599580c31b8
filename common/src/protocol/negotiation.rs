//! Which encoding a request is sent in.
//!
//! * Each operation begins with CBOR. Its first success that is answered in CBOR proves CBOR for it: from then on a
//!   refusal is for what the request holds.
//! * Before that, an answer by which a server may refuse an encoding puts the operation on trial: its next request is
//!   sent in JSON.
//! * If a request on trial succeeds, or if a request in CBOR is answered in JSON, the endpoint speaks JSON. From then
//!   on the requests of all operations are sent in JSON.
//! * If a request on trial is refused the same way, the encoding was not the reason. The trial ends.
//! * A request in CBOR that is refused while another one has found JSON is sent again in JSON, too.
//! * A read is sent again in JSON also after the proof, if its refusal names the encoding.
//!
//! CBOR is proven for each operation by itself, because a server may read CBOR without the bytes or the times that an
//! operation has in it. A read may have a time in one request and none in another, so one success proves less for it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// An operation that is sent in CBOR. All others keep the protocol of the SDK: SubscribeToShard, whose events the AWS
/// SDK for Java also reads as JSON, and those that neither `kpl` nor `kcl` calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation(u8);

/// The position of an operation is its bit in a set of operations.
const OPERATIONS: [&str; 8] = [
    "PutRecords",
    "PutRecord",
    "GetRecords",
    "GetShardIterator",
    "ListShards",
    "DescribeStream",
    "DescribeStreamSummary",
    "DescribeStreamConsumer",
];

impl Operation {
    pub(super) const PUT_RECORDS: Self = Self(0);

    /// `None`: the operation keeps the protocol of the SDK.
    pub(super) fn of(name: &str) -> Option<Self> {
        let position = OPERATIONS.iter().position(|operation| *operation == name)?;
        Some(Self(u8::try_from(position).expect("there are eight operations")))
    }

    fn name(self) -> &'static str {
        OPERATIONS[usize::from(self.0)]
    }

    fn bit(self) -> u8 {
        1 << self.0
    }

    /// Whether the operation writes records. A refusal may be for what is in them.
    fn is_write(self) -> bool {
        self.name().starts_with("Put")
    }
}

/// An encoding of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Cbor,
    Json,
}

/// What is known about an endpoint.
#[derive(Debug)]
pub(super) struct Negotiation {
    may_fall_back: bool,
    speaks_json: AtomicBool,
    /// Operations that succeeded in CBOR.
    proven: AtomicU8,
    /// Operations whose next request is sent in JSON.
    on_trial: AtomicU8,
}

impl Negotiation {
    /// CBOR, and JSON if the endpoint does not accept it.
    pub(super) fn with_fallback() -> Self {
        Self {
            may_fall_back: true,
            speaks_json: AtomicBool::new(false),
            proven: AtomicU8::new(0),
            on_trial: AtomicU8::new(0),
        }
    }

    /// CBOR in any case.
    pub(super) fn without_fallback() -> Self {
        Self { may_fall_back: false, ..Self::with_fallback() }
    }

    /// The encoding of the next request.
    pub(super) fn encoding(&self, operation: Operation) -> Encoding {
        if self.speaks_json.load(Ordering::Relaxed) || self.is_on_trial(operation) {
            Encoding::Json
        } else {
            Encoding::Cbor
        }
    }

    /// Whether no answer can change the encoding of the operation any more.
    pub(super) fn is_settled(&self, operation: Operation) -> bool {
        !self.may_fall_back || self.speaks_json.load(Ordering::Relaxed) || self.is_proven(operation)
    }

    fn is_proven(&self, operation: Operation) -> bool {
        self.proven.load(Ordering::Relaxed) & operation.bit() != 0
    }

    /// A request succeeded, and both it and its answer were in CBOR.
    pub(super) fn succeeded_in_cbor(&self, operation: Operation) {
        // Almost always known. A write would take the cache line from the other threads.
        if !self.is_settled(operation) {
            self.proven.fetch_or(operation.bit(), Ordering::Relaxed);
            self.end_trial(operation);
        }
    }

    /// A request in CBOR was answered in JSON, or a request on trial succeeded.
    pub(super) fn found_json(&self, operation: Operation) {
        if self.may_fall_back && !self.speaks_json.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                operation = operation.name(),
                "the endpoint does not accept CBOR: requests to Kinesis are sent in JSON from now on; with the \
                 setting `wire` at `json` they are from the start"
            );
        }
    }

    /// A request in CBOR failed with this HTTP status and error code. Returns whether it was refused for its encoding
    /// and can be sent again at once, in JSON.
    pub(super) fn failed_in_cbor(
        &self,
        operation: Operation,
        status: u16,
        code: Option<&str>,
    ) -> bool {
        let Some(refusal) = Refusal::of(status, code).filter(|_| self.may_fall_back) else {
            return false;
        };
        // Another request found JSON since this one was sent.
        if self.speaks_json.load(Ordering::Relaxed) {
            return refusal == Refusal::Certain;
        }
        if self.is_proven(operation) {
            return refusal == Refusal::Certain
                && !operation.is_write()
                && (status == 415 || code.is_some());
        }
        self.on_trial.fetch_or(operation.bit(), Ordering::Relaxed);
        refusal == Refusal::Certain
    }

    /// Whether the next request of the operation finds out if the endpoint speaks JSON.
    pub(super) fn is_on_trial(&self, operation: Operation) -> bool {
        // A refusal may begin a trial while a success proves CBOR. The proof counts.
        self.on_trial.load(Ordering::Relaxed) & operation.bit() != 0 && !self.is_proven(operation)
    }

    /// A request on trial failed with this HTTP status and error code.
    pub(super) fn failed_on_trial(&self, operation: Operation, status: u16, code: Option<&str>) {
        // Any other failure says nothing about the encoding: the next request is one in JSON, too.
        if Refusal::of(status, code).is_some() {
            self.end_trial(operation);
        }
    }

    fn end_trial(&self, operation: Operation) {
        self.on_trial.fetch_and(!operation.bit(), Ordering::Relaxed);
    }
}

/// An answer by which a server may refuse an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The request had no effect.
    Certain,
    /// The server failed, perhaps on the encoding. The request may have had an effect, so the caller decides about
    /// the next attempt as after any failure of the service.
    Possible,
}

impl Refusal {
    fn of(status: u16, code: Option<&str>) -> Option<Self> {
        match (status, code) {
            (415, _) => Some(Self::Certain),
            (400..=499, Some("SerializationException" | "UnknownOperationException")) => {
                Some(Self::Certain)
            }
            // Without an error code of Kinesis: a server that finds the handler by the content type.
            (400 | 404 | 405 | 406, None) => Some(Self::Certain),
            (500 | 501, None) => Some(Self::Possible),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Operation = Operation::PUT_RECORDS;

    fn get() -> Operation {
        Operation::of("GetRecords").unwrap()
    }

    fn put_record() -> Operation {
        Operation::of("PutRecord").unwrap()
    }

    #[test]
    fn operations_are_those_of_the_list() {
        assert_eq!(Operation::of("PutRecords"), Some(PUT));
        assert_eq!(Operation::of("DescribeStreamConsumer"), Some(Operation(7)));
        for other in ["SubscribeToShard", "CreateStream", "", "putrecords"] {
            assert_eq!(Operation::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_refused_operation_is_tried_in_json() {
        for (status, code, is_certain) in [
            (415, None, true),
            (415, Some("UnsupportedMediaType"), true),
            (400, Some("SerializationException"), true),
            (400, Some("UnknownOperationException"), true),
            (404, Some("UnknownOperationException"), true),
            (400, None, true),
            (404, None, true),
            (500, None, false),
        ] {
            let negotiation = Negotiation::with_fallback();
            assert_eq!(
                negotiation.failed_in_cbor(PUT, status, code),
                is_certain,
                "{status} {code:?}"
            );
            assert_eq!(negotiation.encoding(PUT), Encoding::Json, "{status} {code:?}");
            assert_eq!(negotiation.encoding(get()), Encoding::Cbor);
            assert!(!negotiation.is_settled(PUT));
            negotiation.found_json(PUT);
            assert_eq!(negotiation.encoding(get()), Encoding::Json);
            assert!(negotiation.is_settled(PUT) && negotiation.is_settled(get()));
        }
    }

    #[test]
    fn other_failures_say_nothing_about_the_encoding() {
        for (status, code) in [
            (400, Some("ProvisionedThroughputExceededException")),
            (400, Some("ValidationException")),
            (400, Some("ResourceNotFoundException")),
            (403, None),
            (413, None),
            (429, None),
            (500, Some("InternalFailure")),
            (502, None),
            (503, None),
        ] {
            let negotiation = Negotiation::with_fallback();
            assert!(!negotiation.failed_in_cbor(PUT, status, code), "{status} {code:?}");
            assert_eq!(negotiation.encoding(PUT), Encoding::Cbor, "{status} {code:?}");
        }
    }

    #[test]
    fn a_proven_operation_stays_in_cbor_and_others_can_be_refused() {
        let negotiation = Negotiation::with_fallback();
        negotiation.succeeded_in_cbor(get());
        // A read of another shape may be refused for it. A code that says nothing of the encoding does not count.
        assert!(negotiation.failed_in_cbor(get(), 400, Some("SerializationException")));
        assert!(!negotiation.failed_in_cbor(get(), 400, None));
        assert_eq!(negotiation.encoding(get()), Encoding::Cbor);
        negotiation.succeeded_in_cbor(put_record());
        assert!(!negotiation.failed_in_cbor(put_record(), 400, Some("SerializationException")));
        assert!(negotiation.failed_in_cbor(PUT, 400, Some("SerializationException")));
        assert_eq!(negotiation.encoding(PUT), Encoding::Json);
    }

    #[test]
    fn what_is_refused_after_another_request_found_json_is_sent_again() {
        let negotiation = Negotiation::with_fallback();
        assert!(negotiation.failed_in_cbor(PUT, 400, Some("SerializationException")));
        negotiation.found_json(PUT);
        // Both were in flight in CBOR meanwhile.
        assert!(negotiation.failed_in_cbor(PUT, 400, Some("SerializationException")));
        assert!(negotiation.failed_in_cbor(get(), 415, None));
        assert!(!negotiation.failed_in_cbor(PUT, 400, Some("ValidationException")));
        assert!(!negotiation.failed_in_cbor(PUT, 500, None), "it may have been written");
    }

    #[test]
    fn a_proof_outlives_a_trial_that_begins_beside_it() {
        let negotiation = Negotiation::with_fallback();
        assert!(negotiation.failed_in_cbor(PUT, 400, None));
        negotiation.proven.fetch_or(PUT.bit(), Ordering::Relaxed);
        assert!(!negotiation.is_on_trial(PUT));
        assert_eq!(negotiation.encoding(PUT), Encoding::Cbor);
    }

    #[test]
    fn a_trial_ends_with_a_refusal_of_json_and_with_nothing_else() {
        let negotiation = Negotiation::with_fallback();
        assert!(negotiation.failed_in_cbor(PUT, 400, Some("SerializationException")));
        negotiation.failed_on_trial(PUT, 400, Some("ProvisionedThroughputExceededException"));
        assert_eq!(negotiation.encoding(PUT), Encoding::Json);
        negotiation.failed_on_trial(PUT, 400, Some("SerializationException"));
        assert_eq!(negotiation.encoding(PUT), Encoding::Cbor);
    }

    #[test]
    fn a_success_in_cbor_beside_a_trial_ends_it() {
        let negotiation = Negotiation::with_fallback();
        assert!(negotiation.failed_in_cbor(PUT, 400, None));
        negotiation.succeeded_in_cbor(PUT);
        assert_eq!(negotiation.encoding(PUT), Encoding::Cbor);
    }

    #[test]
    fn without_fallback_nothing_changes_the_encoding() {
        let negotiation = Negotiation::without_fallback();
        assert!(negotiation.is_settled(PUT));
        assert!(!negotiation.failed_in_cbor(PUT, 415, None));
        negotiation.found_json(PUT);
        assert_eq!(negotiation.encoding(PUT), Encoding::Cbor);
    }
}
