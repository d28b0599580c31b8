//! The data of a Kinesis record, from its sealing to its request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kinesis_aggregation::{Aggregate, Decoded, Decoder, UndigestedAggregate};

use crate::clock::Instant;
use crate::sync::{Mutex, lock};

/// Largest size of a decompressed aggregate: the largest record and its wrapper.
const MAX_DECOMPRESSED: usize = 16 * 1024 * 1024;

/// Longest time for which an aggregate waits for its compression. A job of 1 MiB may take a second at the highest
/// levels.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The data of a Kinesis record.
pub(crate) enum Data {
    Ready(Encoded),
    /// An aggregate that a job compresses. If it is dropped, the job is skipped.
    Pending {
        shared: Arc<Mutex<Shared>>,
        since: Instant,
    },
}

#[derive(Clone)]
pub(crate) enum Encoded {
    /// The bytes that are sent.
    Final(Bytes),
    /// An aggregate that gets its digest when its first request is built, together with the others of the request.
    Undigested(UndigestedAggregate),
}

/// An aggregate that the sender and a job share.
pub(crate) struct Shared {
    /// The compressed form replaces the other one.
    pub(crate) encoded: Encoded,
    /// Whether the job has ended.
    pub(crate) is_done: bool,
}

impl Data {
    /// The bytes to send of each record of a request. Adds the digests that are missing: once for each aggregate, however
    /// often it is sent.
    pub(crate) fn finish_all<'a>(all: impl Iterator<Item = &'a mut Self>) -> Vec<Bytes> {
        let (mut bytes, mut undigested, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for data in all {
            let encoded = data.encoded();
            // The only handle of the data, so that the digest is added in place.
            *data = Encoded::Final(Bytes::new()).into();
            match encoded {
                Encoded::Final(sent) => {
                    *data = Encoded::Final(sent.clone()).into();
                    bytes.push(sent);
                }
                Encoded::Undigested(aggregate) => {
                    undigested.push(aggregate);
                    places.push((bytes.len(), data));
                    bytes.push(Bytes::new());
                }
            }
        }
        let sealed = UndigestedAggregate::add_digests(undigested);
        for ((place, data), sealed) in places.into_iter().zip(sealed) {
            bytes[place] = sealed.into_bytes();
            *data = Encoded::Final(bytes[place].clone()).into();
        }
        bytes
    }

    /// Current form. That of a pending aggregate may be compressed or not.
    pub(crate) fn encoded(&self) -> Encoded {
        match self {
            Self::Ready(encoded) => encoded.clone(),
            Self::Pending { shared, .. } => lock(shared).encoded.clone(),
        }
    }

    /// Number of bytes to send, as it is now.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ready(encoded) => encoded.len(),
            Self::Pending { shared, .. } => lock(shared).encoded.len(),
        }
    }

    /// Copies bytes that are a slice of a larger buffer, so that they do not keep it in memory.
    pub(crate) fn copy_out(&mut self) {
        if let Self::Ready(Encoded::Final(bytes)) = self {
            *bytes = Bytes::copy_from_slice(bytes);
        }
    }

    /// Whether the data can be sent. An aggregate waits for its compression for half of its time to live, at most
    /// [`LONGEST_WAIT`]. Then it is sent as it is.
    pub(crate) fn is_ready(&mut self, expires: Instant, now: Instant) -> bool {
        let Self::Pending { shared, since } = self else {
            return true;
        };
        let half = expires.saturating_duration_since(*since) / 2;
        let is_overdue = *since + half.min(LONGEST_WAIT) <= now;
        if !lock(shared).is_done && !is_overdue {
            return false;
        }
        *self = self.encoded().into();
        true
    }
}

impl From<Encoded> for Data {
    fn from(encoded: Encoded) -> Self {
        Self::Ready(encoded)
    }
}

impl Encoded {
    fn len(&self) -> usize {
        match self {
            Self::Final(bytes) => bytes.len(),
            Self::Undigested(aggregate) => aggregate.size(),
        }
    }

    /// The members of an aggregate, without copying their data.
    pub(crate) fn members(&self) -> Aggregate {
        let bytes = match self {
            Self::Final(bytes) => bytes.clone(),
            Self::Undigested(aggregate) => return aggregate.decode(),
        };
        match Decoder::new(MAX_DECOMPRESSED).decode(bytes) {
            Ok(Decoded::Aggregate(aggregate)) => aggregate,
            other => {
                unreachable!("this producer sealed the frame, so it can be read: {:?}", other.err())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use kinesis_aggregation::AggregateBuilder;

    use super::*;

    fn aggregate(records: usize) -> AggregateBuilder {
        let mut builder = AggregateBuilder::new(usize::MAX);
        for record in 0..records {
            builder.push("k", None, &[record as u8; 50]).unwrap();
        }
        builder
    }

    fn undigested(records: usize) -> Encoded {
        Encoded::Undigested(aggregate(records).seal_without_digest())
    }

    fn finish(data: &mut Data) -> Bytes {
        Data::finish_all(iter::once(data)).remove(0)
    }

    #[test]
    fn digests_are_added_to_all_that_need_one_and_once() {
        let compressed = Bytes::from_static(b"compressed");
        let mut all: Vec<Data> = (1..30)
            .flat_map(|records| [undigested(records), Encoded::Final(compressed.clone())])
            .map(Data::from)
            .collect();
        let lengths: Vec<_> = all.iter().map(Data::len).collect();
        let sent = Data::finish_all(all.iter_mut());
        let expected: Vec<_> = (1..30)
            .flat_map(|records| [aggregate(records).seal().into_bytes(), compressed.clone()])
            .collect();
        assert_eq!(sent, expected);
        assert!(sent.iter().map(Bytes::len).eq(lengths));
        assert!(all.iter().all(|data| matches!(data, Data::Ready(Encoded::Final(_)))));
        let again = Data::finish_all(all.iter_mut());
        assert_eq!(again, expected);
        let places = |sent: &[Bytes]| sent.iter().map(|sent| sent.as_ptr()).collect::<Vec<_>>();
        assert_eq!(places(&again), places(&sent));
    }

    #[test]
    fn a_digest_takes_no_memory_of_its_own() {
        let Encoded::Undigested(aggregate) = undigested(5) else { unreachable!() };
        let place = aggregate.body().as_ptr();
        let mut data = Data::from(Encoded::Undigested(aggregate));
        let sent = finish(&mut data);
        assert_eq!(sent[4..].as_ptr(), place);
        drop(data);
        let buffer = sent.try_into_mut().unwrap();
        assert_eq!(buffer.capacity(), buffer.len());
    }

    #[test]
    fn an_overdue_aggregate_is_whole_while_its_job_still_reads_it() {
        let shared = Arc::new(Mutex::new(Shared { encoded: undigested(5), is_done: false }));
        let job = lock(&shared).encoded.clone();
        let since = crate::clock::now();
        let mut data = Data::Pending { shared, since };
        let expires = since + Duration::from_secs(2);
        assert!(!data.is_ready(expires, since));
        assert!(data.is_ready(expires, since + Duration::from_secs(1)));
        assert_eq!(finish(&mut data), aggregate(5).seal().into_bytes());
        assert_eq!(job.members().len(), 5);
    }

    #[test]
    fn members_are_read_with_and_without_a_digest() {
        let mut data = Data::from(undigested(5));
        let members = |data: &Data| {
            let members = data.encoded().members();
            members.iter().map(|member| member.data_bytes()).collect::<Vec<_>>()
        };
        let before = members(&data);
        finish(&mut data);
        assert_eq!(before.len(), 5);
        assert_eq!(members(&data), before);
    }
}
