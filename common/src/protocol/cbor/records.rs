//! Reads an answer of GetRecords in place: its records are pieces of the body.

use std::borrow::Cow;

use aws_sdk_kinesis::types::ChildShard;
use aws_smithy_schema::serde::{SerdeError, ShapeDeserializer as _};
use bytes::Bytes;

use super::reader::Reader;
use crate::protocol::records::RecordsAnswer;
use crate::record_buffer::{Piece, RecordBuffer, RecordPieces, sequence_digits};

/// Reads an answer. `None`: a part of a record is not in the body as it is, so the records must be copied.
///
/// # Errors
/// The body is no answer of GetRecords.
pub(in crate::protocol) fn read(body: &Bytes) -> Result<Option<RecordsAnswer>, SerdeError> {
    if body.len() > RecordBuffer::MAX_LEN {
        return Ok(None);
    }
    let mut answer = RecordsAnswer::default();
    let mut index = Vec::new();
    let mut is_in_place = true;
    Reader::new(body).members(|name, reader| {
        match name {
            // A member that is null is one that is not there.
            _ if reader.is_null() => reader.skip_value()?,
            "Records" => {
                index = Vec::with_capacity(reader.container_size().unwrap_or_default());
                reader.list(|reader| {
                    index.push(record(reader, &mut is_in_place)?);
                    Ok(())
                })?;
            }
            "NextShardIterator" => answer.next_shard_iterator = Some(reader.text()?.into_owned()),
            "MillisBehindLatest" => answer.millis_behind_latest = Some(reader.whole_number()?),
            "ChildShards" => {
                let mut children = Vec::new();
                reader.list(|reader| {
                    children.push(ChildShard::deserialize(reader)?);
                    Ok(())
                })?;
                answer.child_shards = Some(children);
            }
            _ => reader.skip_value()?,
        }
        Ok(())
    })?;
    answer.records = RecordBuffer::new(body.clone(), index);
    Ok(is_in_place.then_some(answer))
}

fn record(reader: &mut Reader<'_>, is_in_place: &mut bool) -> Result<RecordPieces, SerdeError> {
    let mut pieces = RecordPieces::default();
    reader.members(|name, reader| {
        match name {
            _ if reader.is_null() => reader.skip_value()?,
            "SequenceNumber" => match reader.text()? {
                // Leading zeros are left out, so that the digits are the end of the text.
                Cow::Borrowed(text) => {
                    let digits = sequence_digits(text).unwrap_or_default();
                    pieces.sequence_number = Piece::before(reader.position(), digits.len());
                }
                Cow::Owned(_) => *is_in_place = false,
            },
            "PartitionKey" => match reader.text()? {
                Cow::Borrowed(key) => {
                    pieces.partition_key = Piece::before(reader.position(), key.len());
                }
                Cow::Owned(_) => *is_in_place = false,
            },
            "Data" => match reader.data()? {
                Cow::Borrowed(data) => pieces.data = Piece::before(reader.position(), data.len()),
                Cow::Owned(_) => *is_in_place = false,
            },
            "ApproximateArrivalTimestamp" => pieces.arrived(Some(reader.time()?)),
            _ => reader.skip_value()?,
        }
        Ok(())
    })?;
    Ok(pieces)
}
