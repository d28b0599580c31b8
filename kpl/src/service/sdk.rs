//! The calls made with the AWS SDK: the one module that knows its types.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{Builder, IdentityCache};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::list_shards::builders::ListShardsFluentBuilder;
use aws_sdk_kinesis::types::{
    self, PutRecordsRequestEntry, RecordDistributionStrategy, ShardFilter, ShardFilterType,
    StreamStatus,
};
use aws_smithy_types::Blob;
use futures::FutureExt;
use futures::future::BoxFuture;
use kinesis_aggregation::{HashKey, HashKeyRange};
use kinesis_common::client::behavior_version;
use kinesis_common::error_text::{
    Cause, CredentialsProblem, Request, chain, credentials_problem, message_text, safe_message,
};
use kinesis_common::list_shards::list_shards;
use kinesis_common::protocol::{self, WireProtocol};
use kinesis_common::retry_class::RetryClass;
use kinesis_common::stream_name::StreamName;
use kinesis_common::timestamp::whole_millis;

use crate::config::ProducerConfig;
use crate::retry;
use crate::service::Shard;
use crate::service::connections::Connections;
use crate::service::{
    CallError, CallErrorKind, Entry, EntryOutcome, Listing, Service, StreamDescription,
};

/// The client's pause before its second attempt at a control call, at most. Its callers try again, with longer pauses, and
/// are to see the error soon.
const CONTROL_BACKOFF: Duration = Duration::from_millis(50);

pub(crate) struct SdkService {
    stream: StreamName,
    /// Without SDK retries: the producer retries records, not requests.
    put: Arc<Connections>,
    /// With SDK retries.
    control: Client,
    /// Of both.
    protocol: WireProtocol,
}

impl SdkService {
    pub(crate) fn new(stream: StreamName, base: Builder, config: &ProducerConfig) -> Self {
        let protocol = WireProtocol::new(config.wire);
        let base = protocol
            .install(base)
            .behavior_version(behavior_version())
            .retry_partition(RetryPartition::custom("kpl").build());
        // Each client would make a cache of its own, and each new connection ask for credentials anew.
        let base = match base.clone().build().identity_cache() {
            Some(_) => base,
            None => base.identity_cache(IdentityCache::lazy().build()),
        };
        let connecting =
            TimeoutConfig::builder().connect_timeout(config.connect_timeout).disable_read_timeout();
        let of_control = connecting
            .operation_attempt_timeout(config.request_timeout)
            .operation_timeout(config.request_timeout.saturating_mul(3));
        let put = base.clone().retry_config(RetryConfig::disabled()).build();
        let control = base
            .retry_config(
                RetryConfig::standard().with_max_attempts(3).with_initial_backoff(CONTROL_BACKOFF),
            )
            .timeout_config(of_control.build())
            .build();
        Self {
            stream,
            put: Connections::new(put, config.connect_timeout, config.connections),
            control: Client::from_conf(control),
            protocol,
        }
    }
}

impl Service for SdkService {
    fn put_records(
        &self,
        entries: Vec<Entry>,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<EntryOutcome>, CallError>> {
        let (connections, stream) = (Arc::clone(&self.put), self.stream.clone());
        let protocol = self.protocol.clone();
        async move {
            let lease = connections.lease();
            let request = lease
                .client
                .put_records()
                .set_stream_name(stream.name())
                .set_stream_arn(stream.arn());
            let count = entries.len();
            let entries = entries.into_iter().map(request_entry).collect::<Result<Vec<_>, _>>()?;
            let request = request.set_records(Some(entries));
            let call = async {
                // The copy is for the second encoding. Nearly always, the endpoint's encoding is known.
                if protocol.is_settled_for_put_records() {
                    request.send().await
                } else {
                    protocol::send(|| request.clone().send()).await
                }
            };
            let answer = tokio::time::timeout(limit, call)
                .await
                .map_err(|_| {
                    lease.replace();
                    CallError::timed_out(limit)
                })?
                .map_err(call_error)?;
            if answer.records.len() != count {
                return Err(CallError::unusable(
                    "PutRecords answered another number of records than were sent",
                ));
            }
            Ok(answer.records.into_iter().map(entry_outcome).collect())
        }
        .boxed()
    }

    fn list_shards(&self, listing: Listing) -> BoxFuture<'static, Result<Vec<Shard>, CallError>> {
        let filter = (listing == Listing::Open).then(open_shards);
        let (client, stream) = (self.control.clone(), self.stream.clone());
        async move {
            let listed = list_shards(&client, &stream, filter, ListShardsFluentBuilder::send).await;
            let shards = listed.map_err(call_error)?.into_iter().map(|shard| {
                shard_of(shard).ok_or_else(|| {
                    CallError::unusable(
                        "ListShards returned a shard whose hash-key range cannot be read",
                    )
                })
            });
            shards.collect()
        }
        .boxed()
    }

    fn describe(&self) -> BoxFuture<'static, Result<StreamDescription, CallError>> {
        let request = self
            .control
            .describe_stream_summary()
            .set_stream_name(self.stream.name())
            .set_stream_arn(self.stream.arn());
        async move {
            let answer = protocol::send(|| request.clone().send()).await.map_err(call_error)?;
            let Some(summary) = answer.stream_description_summary else {
                return Err(CallError::unusable("DescribeStreamSummary returned no summary"));
            };
            Ok(StreamDescription {
                status: summary.stream_status.as_str().to_owned(),
                is_usable: matches!(
                    summary.stream_status,
                    StreamStatus::Active | StreamStatus::Updating
                ),
                max_record_size: summary
                    .max_record_size_in_kib
                    .and_then(|kib| usize::try_from(kib).ok())
                    .filter(|kib| *kib > 0)
                    .map(|kib| kib * 1024),
                incarnation: format!(
                    "{:?} {:?}",
                    whole_millis(&summary.stream_creation_timestamp),
                    summary.stream_id
                ),
                service_places_records: summary.record_distribution_strategy
                    == Some(RecordDistributionStrategy::Auto),
            })
        }
        .boxed()
    }
}

fn request_entry(entry: Entry) -> Result<PutRecordsRequestEntry, CallError> {
    PutRecordsRequestEntry::builder()
        .data(Blob::from_maybe_shared(entry.data))
        .set_partition_key(Some(entry.partition_key.into_owned()).filter(|key| !key.is_empty()))
        .set_explicit_hash_key(entry.explicit_hash_key.map(|hash_key| hash_key.to_string()))
        .build()
        .map_err(|error| CallError::unusable(&error.to_string()))
}

fn entry_outcome(entry: types::PutRecordsResultEntry) -> EntryOutcome {
    match (entry.sequence_number, entry.shard_id, entry.error_code) {
        (Some(sequence_number), Some(shard_id), None) => {
            EntryOutcome::Written { shard_id, sequence_number }
        }
        (_, _, code) => {
            let code = code.unwrap_or_else(|| "UnusableAnswer".to_owned());
            let message = entry.error_message.unwrap_or_default();
            let message = safe_message(&code, &message, Request::WithRecords);
            EntryOutcome::Refused { code, message }
        }
    }
}

/// The filter of the shards that are open.
fn open_shards() -> ShardFilter {
    ShardFilter::builder().r#type(ShardFilterType::AtLatest).build().expect("the type is set")
}

fn shard_of(shard: types::Shard) -> Option<Shard> {
    let range = shard.hash_key_range?;
    let start: HashKey = range.starting_hash_key.parse().ok()?;
    let end: HashKey = range.ending_hash_key.parse().ok()?;
    let is_open =
        shard.sequence_number_range.is_none_or(|range| range.ending_sequence_number.is_none());
    Some(Shard { id: shard.shard_id.into(), range: HashKeyRange::new(start, end).ok()?, is_open })
}

fn call_error<E>(error: SdkError<E, HttpResponse>) -> CallError
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let kind = match (&error, status) {
        (SdkError::ServiceError(answer), Some(status))
            if answer.err().code().and_then(RetryClass::of).is_none() =>
        {
            let has_code = answer.err().code().is_some();
            CallErrorKind::Unknown { status, has_code }
        }
        // An error answer that cannot be read: a success would be one that cannot be used.
        (SdkError::ResponseError(_), Some(status)) if status >= 300 => {
            CallErrorKind::Unknown { status, has_code: false }
        }
        _ => kind_of(&error),
    };
    let code: Arc<str> = match kind {
        CallErrorKind::Service | CallErrorKind::Unknown { has_code: true, .. } => {
            error.code().unwrap_or("UnknownError").into()
        }
        CallErrorKind::Unknown { status, .. } => format!("Http{status}").into(),
        CallErrorKind::NoCredentials | CallErrorKind::CredentialsUnavailable => {
            "NoCredentials".into()
        }
        CallErrorKind::Timeout => "Timeout".into(),
        CallErrorKind::Connection => "Connection".into(),
        CallErrorKind::Unusable => "UnusableAnswer".into(),
    };
    let may_have_been_written = match (kind, status) {
        (CallErrorKind::Service | CallErrorKind::Unknown { .. }, Some(status)) => {
            retry::answer_may_follow_a_write(status, &code)
        }
        (CallErrorKind::Service | CallErrorKind::Unknown { .. }, None) => {
            retry::may_have_been_written(&code)
        }
        (CallErrorKind::NoCredentials | CallErrorKind::CredentialsUnavailable, _) => false,
        (CallErrorKind::Timeout | CallErrorKind::Connection | CallErrorKind::Unusable, _) => {
            !matches!(error, SdkError::ConstructionFailure(_)) && !never_connected(&error)
        }
    };
    let text = match kind {
        CallErrorKind::Unknown { status, has_code: false } => format!(
            "HTTP status {status} without an error code of Kinesis: the answer of a proxy, a gateway or a firewall"
        ),
        _ => message_text(&error, Request::WithRecords),
    };
    CallError {
        kind,
        code,
        message: text.as_str().into(),
        may_have_been_written,
        // Not the client's error itself: its debug output shows the request and the answer.
        source: Some(Arc::new(Cause(text.into()))),
    }
}

fn kind_of<E>(error: &SdkError<E, HttpResponse>) -> CallErrorKind
where
    E: Error + 'static,
{
    if let SdkError::ServiceError(_) = error {
        return CallErrorKind::Service;
    }
    match (credentials_problem(error), error) {
        (Some(CredentialsProblem::Missing), _) => CallErrorKind::NoCredentials,
        (Some(CredentialsProblem::Unavailable), _) => CallErrorKind::CredentialsUnavailable,
        (None, SdkError::TimeoutError(_)) => CallErrorKind::Timeout,
        (None, SdkError::DispatchFailure(failure)) if failure.is_timeout() => {
            CallErrorKind::Timeout
        }
        (None, SdkError::DispatchFailure(_)) => CallErrorKind::Connection,
        _ => CallErrorKind::Unusable,
    }
}

/// No connection was opened: the service has seen nothing of the request.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    chain(error)
        .filter_map(|cause| cause.downcast_ref::<hyper_util::client::legacy::Error>())
        .any(hyper_util::client::legacy::Error::is_connect)
}

#[cfg(test)]
mod tests {
    use aws_credential_types::provider::{ProvideCredentials, future};
    use aws_sdk_kinesis::config::{Credentials, Region};

    use super::*;

    async fn put_to(endpoint: String) -> CallError {
        let base = Builder::new()
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("a", "b", None, None, "test"))
            .endpoint_url(endpoint);
        let stream = "s".parse().unwrap();
        let service = SdkService::new(stream, base, &ProducerConfig::default());
        let entry = Entry { data: "v".into(), partition_key: "k".into(), explicit_hash_key: None };
        let limit = ProducerConfig::default().request_timeout;
        service.put_records(vec![entry], limit).await.unwrap_err()
    }

    #[tokio::test]
    async fn what_never_found_a_connection_was_not_written() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (lost, _) = tokio::join!(put_to(endpoint.clone()), async {
            // It takes the connection, and part of the request, and is gone.
            let (connection, _) = listener.accept().await.unwrap();
            connection.readable().await.unwrap();
            drop((connection, listener));
        });
        assert!(lost.may_have_been_written, "{lost:?}");
        let refused = put_to(endpoint).await;
        assert!(!refused.may_have_been_written, "{refused:?}");
        assert_eq!(&*refused.code, "Connection");
    }

    /// Counts how often credentials are asked for.
    #[derive(Debug)]
    struct Counting(Arc<std::sync::atomic::AtomicUsize>);

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            future::ProvideCredentials::ready(Ok(Credentials::new("a", "b", None, None, "test")))
        }
    }

    #[tokio::test]
    async fn all_clients_share_their_credentials() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let loads = Arc::default();
        let base = Builder::new()
            .region(Region::new("us-east-1"))
            .credentials_provider(Counting(Arc::clone(&loads)))
            .endpoint_url(endpoint);
        let config = ProducerConfig::default();
        let service = SdkService::new("s".parse().unwrap(), base, &config);
        let entry = Entry { data: "v".into(), partition_key: "k".into(), explicit_hash_key: None };
        // At the same time, so that each has a client of its own.
        let put = || service.put_records(vec![entry.clone()], config.request_timeout);
        let (first, second, third, listed) =
            tokio::join!(put(), put(), put(), service.list_shards(Listing::Open));
        for error in
            [first.unwrap_err(), second.unwrap_err(), third.unwrap_err(), listed.unwrap_err()]
        {
            assert_eq!(&*error.code, "Connection");
        }
        assert_eq!(loads.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
