//! The protobuf wire format: varints and fields, as far as an aggregate needs them.

use std::num::NonZeroU32;
use std::ops::Range;

/// Nesting allowed in unknown groups and messages: the limit of the Java and Rust parsers.
pub(crate) const MAX_DEPTH: u32 = 100;

/// The keys of the length-delimited fields 1 to 4, and of the varint fields 1 and 2.
pub(crate) const BYTES_1: u8 = 1 << 3 | 2;
pub(crate) const BYTES_2: u8 = 2 << 3 | 2;
pub(crate) const BYTES_3: u8 = 3 << 3 | 2;
pub(crate) const BYTES_4: u8 = 4 << 3 | 2;
pub(crate) const VARINT_1: u8 = 1 << 3;
pub(crate) const VARINT_2: u8 = 2 << 3;

/// Why bytes are not a protobuf `AggregatedRecord`. Says what is wrong, never what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedBody {
    /// A field ends beyond its message.
    #[error("a field ends beyond its message")]
    Truncated,
    /// A variable-length number has more than 64 bits.
    #[error("a number has more than 64 bits")]
    NumberTooLong,
    /// A field has number 0, a number out of range, or an undefined wire type.
    #[error("a field has an undefined number or type")]
    InvalidField,
    /// A group ends that did not begin, or does not end.
    #[error("a group ends where none began")]
    UnbalancedGroup,
    /// Unknown groups are nested more than 100 deep.
    #[error("groups are nested too deep")]
    TooDeep,
    /// A record lacks its partition key index or its data, or a tag its key.
    #[error("a required field is missing")]
    MissingField,
    /// A key is not UTF-8.
    #[error("a key is not UTF-8")]
    NotUtf8,
    /// The message is longer than 4 GiB.
    #[error("the message is longer than 4 GiB")]
    TooLong,
}

/// Bytes `value` takes as a varint.
pub(crate) const fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Bytes a length-delimited field of `len` bytes takes: key (one byte), length, content.
pub(crate) const fn bytes_field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A piece of the message, as offsets from its beginning.
///
/// The end is never 0, since a field's key comes before its content: so `Option<Span>` is as small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: u32,
    end: NonZeroU32,
}

impl Span {
    pub(crate) const fn range(self) -> Range<usize> {
        self.start as usize..self.end.get() as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    StartGroup,
    EndGroup,
    Fixed32,
}

/// Reads fields of one message; positions count from the beginning of the outermost one.
pub(crate) struct Reader<'a> {
    /// Up to the end of this message.
    buf: &'a [u8],
    pos: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Result<Self, MalformedBody> {
        if u32::try_from(message.len()).is_err() {
            return Err(MalformedBody::TooLong);
        }
        Ok(Self { buf: message, pos: 0, depth: MAX_DEPTH })
    }

    /// A reader for the message inside `span`, one level deeper.
    pub(crate) fn nested(&self, span: Span) -> Self {
        let Range { start, end } = span.range();
        Self { buf: &self.buf[..end], pos: start, depth: self.depth - 1 }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.pos == self.buf.len()
    }

    pub(crate) fn bytes(&self, span: Span) -> &'a [u8] {
        &self.buf[span.range()]
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, MalformedBody> {
        match self.buf.get(self.pos) {
            Some(&byte) if byte < 0x80 => {
                self.pos += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, MalformedBody> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.buf.get(self.pos).ok_or(MalformedBody::Truncated)?;
            self.pos += 1;
            // Of the tenth byte only one bit is left.
            if shift == 63 && byte > 1 {
                return Err(MalformedBody::NumberTooLong);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(MalformedBody::NumberTooLong)
    }

    /// The next field's number and wire type.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<(u32, WireType), MalformedBody> {
        let key = u32::try_from(self.varint()?).map_err(|_| MalformedBody::InvalidField)?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(MalformedBody::InvalidField),
        };
        match key >> 3 {
            0 => Err(MalformedBody::InvalidField),
            number => Ok((number, wire_type)),
        }
    }

    /// The content of a length-delimited field.
    #[inline]
    pub(crate) fn span(&mut self) -> Result<Span, MalformedBody> {
        let len = self.varint()?;
        let start = self.pos;
        self.advance(len)?;
        // Both fit: `new` refuses longer messages, and a length came before.
        let end = NonZeroU32::new(self.pos as u32).ok_or(MalformedBody::Truncated)?;
        Ok(Span { start: start as u32, end })
    }

    /// The content of a length-delimited field that must be text.
    pub(crate) fn text(&mut self) -> Result<Span, MalformedBody> {
        let span = self.span()?;
        str::from_utf8(self.bytes(span)).map_err(|_| MalformedBody::NotUtf8)?;
        Ok(span)
    }

    /// Skips the content of an unknown field.
    pub(crate) fn skip(&mut self, number: u32, wire_type: WireType) -> Result<(), MalformedBody> {
        self.skip_at(number, wire_type, self.depth)
    }

    fn skip_at(
        &mut self,
        number: u32,
        wire_type: WireType,
        depth: u32,
    ) -> Result<(), MalformedBody> {
        if depth == 0 {
            return Err(MalformedBody::TooDeep);
        }
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.advance(8),
            WireType::Fixed32 => self.advance(4),
            WireType::Bytes => self.span().map(drop),
            WireType::EndGroup => Err(MalformedBody::UnbalancedGroup),
            WireType::StartGroup => loop {
                match self.field()? {
                    (end, WireType::EndGroup) if end == number => return Ok(()),
                    (_, WireType::EndGroup) => return Err(MalformedBody::UnbalancedGroup),
                    (inner, wire_type) => self.skip_at(inner, wire_type, depth - 1)?,
                }
            },
        }
    }

    fn advance(&mut self, len: u64) -> Result<(), MalformedBody> {
        let left = self.buf.len() - self.pos;
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                self.pos += len;
                Ok(())
            }
            _ => Err(MalformedBody::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_read_back_and_have_the_stated_length(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(Reader::new(&out).unwrap().varint(), Ok(value));
            out.pop();
            prop_assert_eq!(Reader::new(&out).unwrap().varint(), Err(MalformedBody::Truncated));
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 1;
        assert_eq!(Reader::new(&bytes).unwrap().varint(), Ok(u64::MAX));
        bytes[9] = 2;
        let refused = Err(MalformedBody::NumberTooLong);
        assert_eq!(Reader::new(&bytes).unwrap().varint(), refused);
        assert_eq!(Reader::new(&[0x80; 11]).unwrap().varint(), refused);
    }
}
