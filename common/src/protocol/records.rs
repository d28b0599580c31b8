//! Reads the answer of GetRecords into one buffer, in place of the SDK's records with their many allocations.

use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use aws_sdk_kinesis::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::operation::get_records::{GetRecords, GetRecordsOutput};
use aws_sdk_kinesis::types::{ChildShard, Record};
use aws_smithy_runtime_api::client::interceptors::context::{Error, Output};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin as _;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_schema::protocol::SharedClientProtocol;
use aws_smithy_schema::serde::{SerdeError, ShapeDeserializer};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::config_bag::FrozenLayer;
use bytes::Bytes;

use super::cbor::{self, is_cbor};
use crate::record_buffer::{RecordBuffer, RecordBufferBuilder};
use crate::timestamp::whole_millis;

/// Longest body that is copied, in bytes. A short body may be a small part of the connection's read buffer, which it
/// would keep.
const COPIED: usize = 64 << 10;

/// The SDK's own configuration of the operation. It reads the errors.
static OF_SDK: LazyLock<FrozenLayer> =
    LazyLock::new(|| GetRecords::new().config().expect("each operation has a configuration"));

/// The answer of GetRecords.
#[derive(Debug, Default)]
pub struct RecordsAnswer {
    /// The records.
    pub records: RecordBuffer,
    /// The iterator of the next page. `None`: the shard has ended.
    pub next_shard_iterator: Option<String>,
    /// Time by which the answer is behind the tip of the shard.
    pub millis_behind_latest: Option<i64>,
    /// The children of a shard that has ended.
    pub child_shards: Option<Vec<ChildShard>>,
}

/// An interceptor that reads the answer of one call of GetRecords into one buffer. The output that the SDK returns for
/// the call is then empty. Errors are as without it.
#[derive(Debug, Clone, Default)]
pub struct ReadRecords(Arc<Mutex<Option<RecordsAnswer>>>);

impl ReadRecords {
    /// Returns the answer of a call that succeeded.
    pub fn take(&self) -> RecordsAnswer {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.unwrap_or_default()
    }

    fn read(&self, response: &HttpResponse, config: &ConfigBag) -> Result<(), SerdeError> {
        let protocol = config.load::<SharedClientProtocol>();
        let protocol = protocol.ok_or_else(|| SerdeError::custom("there is no protocol"))?;
        let body = response.body();
        let in_place = match body.bytes() {
            Some(bytes) if cbor::is_id(protocol.protocol_id()) && is_cbor(bytes) => {
                cbor::read_records(&shared(body))?
            }
            _ => None,
        };
        let answer = match in_place {
            Some(answer) => answer,
            None => {
                let schema = GetRecordsOutput::SCHEMA;
                let mut reader = protocol.deserialize_response(response, schema, config)?;
                // Base64 takes a third more than the data, and names take room, too.
                copied(&mut *reader, body.bytes().unwrap_or_default().len() / 4 * 3)?
            }
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        Ok(())
    }
}

impl Intercept for ReadRecords {
    fn name(&self) -> &'static str {
        "ReadRecords"
    }

    fn read_before_deserialization(
        &self,
        _: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let deserializer = SharedResponseDeserializer::new(self.clone());
        config.interceptor_state().store_put(deserializer);
        Ok(())
    }
}

impl DeserializeResponse for ReadRecords {
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        config: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        if !response.status().is_success() {
            let of_sdk = OF_SDK.load::<SharedResponseDeserializer>();
            let of_sdk = of_sdk.expect("each operation has a deserializer");
            return of_sdk.deserialize_nonstreaming_with_config(response, config);
        }
        let failed = |error| OrchestratorError::other(BoxError::from(error));
        self.read(response, config).map_err(failed)?;
        let empty = GetRecordsOutput::builder().set_records(Some(Vec::new()));
        Ok(Output::erase(empty.build().expect("it has all required members")))
    }
}

/// The bytes of a body that was read completely, without a copy unless it is short.
fn shared(body: &SdkBody) -> Bytes {
    let bytes = body.bytes().unwrap_or_default();
    if bytes.len() > COPIED
        && let Some(clone) = body.try_clone()
    {
        // The clone has all bytes in one piece, which is there at once.
        let mut stream = ByteStream::new(clone);
        let next = pin!(stream.next());
        if let Poll::Ready(Some(Ok(all))) = next.poll(&mut Context::from_waker(Waker::noop()))
            && all.len() == bytes.len()
        {
            return all;
        }
    }
    Bytes::copy_from_slice(bytes)
}

/// Reads an answer in any encoding, and copies its records. `capacity`: bytes that the records have at most, probably.
pub(super) fn copied(
    deserializer: &mut dyn ShapeDeserializer,
    capacity: usize,
) -> Result<RecordsAnswer, SerdeError> {
    let mut answer = RecordsAnswer::default();
    let mut records = RecordBufferBuilder::default();
    deserializer.read_struct(GetRecordsOutput::SCHEMA, &mut |member, deserializer| {
        match member.member_name() {
            _ if deserializer.is_null() => deserializer.read_null()?,
            Some("Records") => {
                records = RecordBufferBuilder::with_capacity(capacity);
                deserializer.read_list(member, &mut |deserializer| {
                    add(&Record::deserialize(deserializer)?, &mut records)
                })?;
            }
            Some("NextShardIterator") => {
                answer.next_shard_iterator = Some(deserializer.read_string(member)?);
            }
            Some("MillisBehindLatest") => {
                answer.millis_behind_latest = Some(deserializer.read_long(member)?);
            }
            Some("ChildShards") => {
                let mut children = Vec::new();
                deserializer.read_list(member, &mut |deserializer| {
                    children.push(ChildShard::deserialize(deserializer)?);
                    Ok(())
                })?;
                answer.child_shards = Some(children);
            }
            _ => deserializer.skip_value()?,
        }
        Ok(())
    })?;
    answer.records = records.build();
    Ok(answer)
}

fn add(record: &Record, records: &mut RecordBufferBuilder) -> Result<(), SerdeError> {
    let arrival = record.approximate_arrival_timestamp().and_then(whole_millis);
    records
        .push(record.sequence_number(), record.partition_key(), record.data().as_ref(), arrival)
        .map_err(|error| SerdeError::invalid_input(error.to_string()))
}
