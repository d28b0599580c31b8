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
    let mut names = Names::default();
    let mut is_in_place = true;
    Reader::new(body).members(|name, reader| {
        match name {
            // A member that is null is one that is not there.
            _ if reader.is_null() => reader.skip_value()?,
            "Records" => {
                index = Vec::with_capacity(reader.container_size().unwrap_or_default());
                reader.list(|reader| {
                    index.push(record(reader, &mut names, &mut is_in_place)?);
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

/// Members of a record.
#[derive(Clone, Copy)]
enum Member {
    SequenceNumber,
    PartitionKey,
    Data,
    Arrival,
    Other,
}

impl Member {
    fn of(name: &str) -> Self {
        match name {
            "SequenceNumber" => Self::SequenceNumber,
            "PartitionKey" => Self::PartitionKey,
            "Data" => Self::Data,
            "ApproximateArrivalTimestamp" => Self::Arrival,
            _ => Self::Other,
        }
    }
}

/// The names of the members of the last record, as they are in the body. All records of an answer have the same names in
/// the same order, as a rule. A name that is the same bytes as in the last record is not decoded again, because all names
/// together are longer than the rest of a small record.
#[derive(Default)]
struct Names<'a>([Option<(&'a [u8], Member)>; 8]);

impl<'a> Names<'a> {
    /// Reads the name of the member at this place of a record.
    fn read(&mut self, place: usize, reader: &mut Reader<'a>) -> Result<Member, SerdeError> {
        let known = self.0.get_mut(place);
        if let Some(Some((name, member))) = &known
            && reader.pass(name)
        {
            return Ok(*member);
        }
        let start = reader.position();
        let member = Member::of(&reader.text()?);
        if let Some(known) = known {
            *known = Some((reader.read_since(start), member));
        }
        Ok(member)
    }
}

fn record<'a>(
    reader: &mut Reader<'a>,
    names: &mut Names<'a>,
    is_in_place: &mut bool,
) -> Result<RecordPieces, SerdeError> {
    let mut pieces = RecordPieces::default();
    let mut place = 0;
    reader.map(|reader| {
        let member = names.read(place, reader)?;
        place += 1;
        match member {
            _ if reader.is_null() => reader.skip_value()?,
            Member::SequenceNumber => match reader.text()? {
                // Leading zeros are left out, so that the digits are the end of the text.
                Cow::Borrowed(text) => {
                    let digits = sequence_digits(text).unwrap_or_default();
                    pieces.sequence_number = Piece::before(reader.position(), digits.len());
                }
                Cow::Owned(_) => *is_in_place = false,
            },
            Member::PartitionKey => match reader.text()? {
                Cow::Borrowed(key) => {
                    pieces.partition_key = Piece::before(reader.position(), key.len());
                }
                Cow::Owned(_) => *is_in_place = false,
            },
            Member::Data => match reader.data()? {
                Cow::Borrowed(data) => pieces.data = Piece::before(reader.position(), data.len()),
                Cow::Owned(_) => *is_in_place = false,
            },
            Member::Arrival => pieces.arrived(Some(reader.time()?)),
            Member::Other => reader.skip_value()?,
        }
        Ok(())
    })?;
    Ok(pieces)
}
