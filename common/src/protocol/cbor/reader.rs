//! Reads an answer by its schema.
//!
//! `minicbor` reads the items. Emulators write some of them differently from Kinesis: with and without lengths, numbers
//! as floats, and timestamps in several ways. All of these are understood.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use aws_smithy_schema::Schema;
use aws_smithy_schema::serde::{SerdeError, ShapeDeserializer, capped_container_size};
use aws_smithy_types::{BigDecimal, BigInteger, Blob, DateTime, Document};
use minicbor::Decoder;
use minicbor::data::{IanaTag, Tag, Type};
use minicbor::decode::Error;

/// Reads one body.
#[derive(Debug)]
pub(in crate::protocol) struct Reader<'a> {
    decoder: Decoder<'a>,
    /// Containers around the next item.
    depth: u32,
}

/// Code and message of an error.
#[derive(Debug, Default)]
pub(super) struct ErrorEnvelope {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(body), depth: 0 }
    }

    /// Reads the body of an error.
    pub(super) fn error_envelope(&mut self) -> Result<ErrorEnvelope, SerdeError> {
        let mut envelope = ErrorEnvelope::default();
        self.members(|name, reader| {
            let place = match name {
                "__type" | "code" => &mut envelope.code,
                "message" | "Message" | "errorMessage" => &mut envelope.message,
                _ => return reader.skip_value(),
            };
            match reader.kind()? {
                Type::String | Type::StringIndef => *place = Some(reader.text()?.into_owned()),
                // An error may have a member of such a name that is no text.
                _ => reader.skip_value()?,
            }
            Ok(())
        })?;
        Ok(envelope)
    }

    /// Reads a map, whose keys are text.
    pub(super) fn members(
        &mut self,
        mut read: impl FnMut(&str, &mut Self) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.map(|reader| {
            let name = reader.text()?;
            read(&name, reader)
        })
    }

    /// Reads a map. `read`: reads a key and its value.
    pub(super) fn map(
        &mut self,
        read: impl FnMut(&mut Self) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        let length = self.decoder.map().map_err(failed)?;
        self.items(length, read)
    }

    /// Reads an array.
    pub(super) fn list(
        &mut self,
        read: impl FnMut(&mut Self) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        let length = self.decoder.array().map_err(failed)?;
        self.items(length, read)
    }

    /// Reads the items of a container that has begun. `length`: how many there are, or `None` if they have an end.
    fn items(
        &mut self,
        mut length: Option<u64>,
        mut read: impl FnMut(&mut Self) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.depth += 1;
        loop {
            match &mut length {
                Some(0) => break,
                Some(left) => *left -= 1,
                None if self.kind()? == Type::Break => {
                    self.skip_value()?;
                    break;
                }
                None => {}
            }
            read(self)?;
        }
        self.depth -= 1;
        // The first half of an answer with garbage behind must not be taken for an answer.
        if self.depth == 0 && self.decoder.position() != self.decoder.input().len() {
            return Err(SerdeError::invalid_input("bytes after the end of the answer"));
        }
        Ok(())
    }

    fn kind(&self) -> Result<Type, SerdeError> {
        self.decoder.datatype().map_err(failed)
    }

    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, SerdeError> {
        let start = self.decoder.position();
        match self.decoder.str() {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(error) => {
                self.decoder.set_position(start);
                if self.kind()? != Type::StringIndef {
                    return Err(failed(error));
                }
                let pieces = self.decoder.str_iter().map_err(failed)?;
                pieces.collect::<Result<String, _>>().map(Cow::Owned).map_err(failed)
            }
        }
    }

    pub(super) fn data(&mut self) -> Result<Cow<'a, [u8]>, SerdeError> {
        let start = self.decoder.position();
        let error = match self.decoder.bytes() {
            Ok(data) => return Ok(Cow::Borrowed(data)),
            Err(error) => error,
        };
        self.decoder.set_position(start);
        match self.kind()? {
            // A server that keeps what it got in JSON may answer in CBOR with the same base64.
            Type::String | Type::StringIndef => {
                aws_smithy_types::base64::decode(self.text()?.as_ref())
                    .map(Cow::Owned)
                    .map_err(|error| SerdeError::invalid_input(error.to_string()))
            }
            Type::BytesIndef => {
                let pieces = self.decoder.bytes_iter().map_err(failed)?;
                let pieces = pieces.collect::<Result<Vec<_>, _>>().map_err(failed)?;
                Ok(Cow::Owned(pieces.concat()))
            }
            _ => Err(failed(error)),
        }
    }

    /// Reads a point in time, in milliseconds since 1970.
    pub(super) fn time(&mut self) -> Result<i64, SerdeError> {
        if self.kind()? == Type::Tag
            && self.decoder.tag().map_err(failed)? != Tag::from(IanaTag::Timestamp)
        {
            return Err(SerdeError::timestamp_parse_failed("the tag is not that of a time"));
        }
        if is_float(self.kind()?) {
            return millis(self.decoder.f64().map_err(failed)?, true);
        }
        let number = self.decoder.i64().map_err(failed)?;
        // Kinesis writes nothing else.
        if IN_MILLIS.contains(&number) { Ok(number) } else { millis(number as f64, false) }
    }

    /// Passes over the next item if it has exactly these bytes, which are those of one item.
    pub(super) fn pass(&mut self, item: &[u8]) -> bool {
        let start = self.decoder.position();
        let rest = self.decoder.input().get(start..);
        let is_next = rest.is_some_and(|rest| rest.starts_with(item));
        if is_next {
            self.decoder.set_position(start + item.len());
        }
        is_next
    }

    /// The bytes that were read from `start` on.
    pub(super) fn read_since(&self, start: usize) -> &'a [u8] {
        &self.decoder.input()[start..self.decoder.position()]
    }

    /// Bytes of the body that were read.
    pub(super) fn position(&self) -> usize {
        self.decoder.position()
    }

    pub(super) fn whole_number<N: TryFrom<i64>>(&mut self) -> Result<N, SerdeError> {
        let number = if is_float(self.kind()?) {
            // The largest range in which each whole number is a float.
            const LARGEST: f64 = (1_u64 << 53) as f64;
            let number = self.decoder.f64().map_err(failed)?;
            if number.fract() != 0.0 || number.abs() > LARGEST {
                return Err(SerdeError::type_mismatch("expected a whole number"));
            }
            number as i64
        } else {
            self.decoder.i64().map_err(failed)?
        };
        N::try_from(number).map_err(|_| SerdeError::type_mismatch("a number out of range"))
    }

    fn number(&mut self) -> Result<f64, SerdeError> {
        if is_float(self.kind()?) {
            self.decoder.f64().map_err(failed)
        } else {
            self.decoder.i64().map(|number| number as f64).map_err(failed)
        }
    }
}

fn is_float(kind: Type) -> bool {
    matches!(kind, Type::F16 | Type::F32 | Type::F64)
}

fn failed(error: Error) -> SerdeError {
    SerdeError::invalid_input(error.to_string())
}

fn unsupported(kind: &str) -> SerdeError {
    SerdeError::unsupported(format!("no answer of Kinesis has a {kind}"))
}

/// Whole numbers that are milliseconds for sure: 1973 to 33658.
const IN_MILLIS: RangeInclusive<i64> = 100_000_000_000..=1_000_000_000_000_000;

/// The point in time that a number stands for, in milliseconds since 1970.
///
/// Kinesis writes whole milliseconds. Emulators also write seconds, with and without a fraction. The size tells them
/// apart: as milliseconds, the seconds of today are a time in January 1970, and as seconds, the milliseconds of today
/// are a time tens of thousands of years ahead.
fn millis(number: f64, is_float: bool) -> Result<i64, SerdeError> {
    /// The year 5138 in seconds, March 1973 in milliseconds.
    const LATEST_SECOND: f64 = 1e11;
    /// September 2001 in seconds. Whole numbers below are milliseconds: tests have clocks that start at zero.
    const EARLIEST_SECOND: f64 = 1e9;
    /// More than any calendar has.
    const LATEST_MILLI: f64 = 1e15;
    let size = number.abs();
    let is_seconds = size < LATEST_SECOND && (is_float || size >= EARLIEST_SECOND);
    let millis = if is_seconds { number * 1000.0 } else { number };
    // False for what is not a number, too.
    if millis.abs() <= LATEST_MILLI {
        Ok(millis.round() as i64)
    } else {
        Err(SerdeError::timestamp_parse_failed("the number is no time"))
    }
}

impl ShapeDeserializer for Reader<'_> {
    fn read_struct(
        &mut self,
        schema: &Schema<'_>,
        consumer: &mut dyn FnMut(&Schema<'_>, &mut dyn ShapeDeserializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        // An error may have its code in the header, and no body.
        if self.decoder.input().is_empty() {
            return Ok(());
        }
        self.members(|name, reader| match schema.member_schema(name) {
            // A member that is null is one that is not there.
            Some(member) if !reader.is_null() => consumer(member, reader),
            _ => reader.skip_value(),
        })
    }

    fn read_list(
        &mut self,
        _: &Schema<'_>,
        consumer: &mut dyn FnMut(&mut dyn ShapeDeserializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.list(|reader| consumer(reader))
    }

    fn read_map(
        &mut self,
        _: &Schema<'_>,
        consumer: &mut dyn FnMut(String, &mut dyn ShapeDeserializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.members(|name, reader| consumer(name.to_owned(), reader))
    }

    fn read_boolean(&mut self, _: &Schema<'_>) -> Result<bool, SerdeError> {
        self.decoder.bool().map_err(failed)
    }

    fn read_byte(&mut self, _: &Schema<'_>) -> Result<i8, SerdeError> {
        self.whole_number()
    }

    fn read_short(&mut self, _: &Schema<'_>) -> Result<i16, SerdeError> {
        self.whole_number()
    }

    fn read_integer(&mut self, _: &Schema<'_>) -> Result<i32, SerdeError> {
        self.whole_number()
    }

    fn read_long(&mut self, _: &Schema<'_>) -> Result<i64, SerdeError> {
        self.whole_number()
    }

    fn read_float(&mut self, _: &Schema<'_>) -> Result<f32, SerdeError> {
        self.number().map(|number| number as f32)
    }

    fn read_double(&mut self, _: &Schema<'_>) -> Result<f64, SerdeError> {
        self.number()
    }

    fn read_big_integer(&mut self, _: &Schema<'_>) -> Result<BigInteger, SerdeError> {
        Err(unsupported("big integer"))
    }

    fn read_big_decimal(&mut self, _: &Schema<'_>) -> Result<BigDecimal, SerdeError> {
        Err(unsupported("big decimal"))
    }

    fn read_string(&mut self, _: &Schema<'_>) -> Result<String, SerdeError> {
        self.text().map(Cow::into_owned)
    }

    fn read_blob(&mut self, _: &Schema<'_>) -> Result<Blob, SerdeError> {
        self.data().map(|data| Blob::new(data.into_owned()))
    }

    fn read_timestamp(&mut self, _: &Schema<'_>) -> Result<DateTime, SerdeError> {
        self.time().map(DateTime::from_millis)
    }

    fn read_document(&mut self, _: &Schema<'_>) -> Result<Document, SerdeError> {
        Err(unsupported("document"))
    }

    fn is_null(&self) -> bool {
        matches!(self.decoder.datatype(), Ok(Type::Null | Type::Undefined))
    }

    fn read_null(&mut self) -> Result<(), SerdeError> {
        self.skip_value()
    }

    fn skip_value(&mut self) -> Result<(), SerdeError> {
        self.decoder.skip().map_err(failed)
    }

    fn container_size(&self) -> Option<usize> {
        let mut next = self.decoder.clone();
        let length = match next.datatype().ok()? {
            Type::Array => next.array().ok()??,
            Type::Map => next.map().ok()??,
            _ => return None,
        };
        // An item has a byte at least, so that a length that lies reserves little memory.
        let rest = self.decoder.input().len().saturating_sub(next.position());
        Some(capped_container_size(usize::try_from(length).unwrap_or(usize::MAX).min(rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_number_tells_milliseconds_from_seconds() {
        const MILLIS: i64 = 1_767_225_600_123;
        for (number, is_float, expected) in [
            (MILLIS as f64, false, MILLIS),
            (MILLIS as f64, true, MILLIS),
            (1_767_225_600.123, true, MILLIS),
            (1_767_225_600.0, false, 1_767_225_600_000),
            // A clock of a test.
            (0.0, false, 0),
            (1_000.0, false, 1_000),
            (1_000.0, true, 1_000_000),
            (-1.5, true, -1_500),
        ] {
            assert_eq!(millis(number, is_float).unwrap(), expected, "{number} {is_float}");
        }
        for number in [f64::NAN, f64::INFINITY, f64::MAX, -f64::MAX, 1e16] {
            assert!(millis(number, true).is_err(), "{number}");
            assert!(millis(number, false).is_err(), "{number}");
        }
    }
}
