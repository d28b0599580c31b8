//! Writes a request by its schema. Maps and arrays have no length, but an end, as those of the AWS SDK for Java.

use std::convert::Infallible;

use aws_smithy_schema::Schema;
use aws_smithy_schema::codec::FinishSerializer;
use aws_smithy_schema::serde::{SerdeError, SerializableStruct, ShapeSerializer};
use aws_smithy_types::{BigDecimal, BigInteger, Blob, DateTime, Document};
use minicbor::Encoder;
use minicbor::data::IanaTag;
use minicbor::encode::{Error, Write};

/// The number of bytes that were written, and not the bytes.
#[derive(Debug, Default)]
pub(super) struct Length(usize);

impl Write for Length {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0 += bytes.len();
        Ok(())
    }
}

/// Writes one body, or counts its bytes.
#[derive(Debug)]
pub(in crate::protocol) struct Writer<W = Vec<u8>> {
    encoder: Encoder<W>,
    /// Whether the innermost container is a structure: values have their names in front there. Elements of lists, keys
    /// and values of maps, and the body itself have none, although schemas of elements have a name.
    is_in_struct: bool,
}

/// The length of a body, in bytes.
///
/// # Errors
/// Whatever writing the body fails with.
pub(super) fn body_len(
    schema: &Schema<'_>,
    input: &dyn SerializableStruct,
) -> Result<usize, SerdeError> {
    let mut writer = Writer::new(Length::default());
    writer.write_struct(schema, input)?;
    Ok(writer.encoder.into_writer().0)
}

impl<W: Write<Error = Infallible>> Writer<W> {
    /// Creates a writer of one body to `target`.
    pub(super) fn new(target: W) -> Self {
        Self { encoder: Encoder::new(target), is_in_struct: false }
    }

    /// Writes a value behind its name.
    fn value(
        &mut self,
        schema: &Schema<'_>,
        write: impl FnOnce(&mut Encoder<W>) -> Result<(), Error<Infallible>>,
    ) -> Result<(), SerdeError> {
        if self.is_in_struct
            && let Some(name) = schema.member_name()
        {
            self.encoder.str(name).map_err(failed)?;
        }
        write(&mut self.encoder).map_err(failed)
    }

    /// Writes what is in a container that has begun, and its end.
    fn contents(
        &mut self,
        is_struct: bool,
        write: impl FnOnce(&mut Self) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        let outer = std::mem::replace(&mut self.is_in_struct, is_struct);
        write(self)?;
        self.is_in_struct = outer;
        self.encoder.end().map_err(failed)?.ok().map_err(failed)
    }
}

/// Every write succeeds, but the type of the encoder's error does not tell so.
fn failed(error: Error<Infallible>) -> SerdeError {
    SerdeError::write_failed(error.to_string())
}

fn unsupported(kind: &str) -> SerdeError {
    SerdeError::unsupported(format!("no request of Kinesis has a {kind}"))
}

impl FinishSerializer for Writer {
    fn finish(self) -> Vec<u8> {
        self.encoder.into_writer()
    }
}

impl<W: Write<Error = Infallible>> ShapeSerializer for Writer<W> {
    fn write_struct(
        &mut self,
        schema: &Schema<'_>,
        value: &dyn SerializableStruct,
    ) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.begin_map()?.ok())?;
        self.contents(true, |writer| value.serialize_members(writer))
    }

    fn write_list(
        &mut self,
        schema: &Schema<'_>,
        write_elements: &dyn Fn(&mut dyn ShapeSerializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.begin_array()?.ok())?;
        self.contents(false, |writer| write_elements(writer))
    }

    fn write_map(
        &mut self,
        schema: &Schema<'_>,
        write_entries: &dyn Fn(&mut dyn ShapeSerializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.begin_map()?.ok())?;
        self.contents(false, |writer| write_entries(writer))
    }

    fn write_boolean(&mut self, schema: &Schema<'_>, value: bool) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.bool(value)?.ok())
    }

    fn write_byte(&mut self, schema: &Schema<'_>, value: i8) -> Result<(), SerdeError> {
        self.write_long(schema, value.into())
    }

    fn write_short(&mut self, schema: &Schema<'_>, value: i16) -> Result<(), SerdeError> {
        self.write_long(schema, value.into())
    }

    fn write_integer(&mut self, schema: &Schema<'_>, value: i32) -> Result<(), SerdeError> {
        self.write_long(schema, value.into())
    }

    fn write_long(&mut self, schema: &Schema<'_>, value: i64) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.i64(value)?.ok())
    }

    fn write_float(&mut self, schema: &Schema<'_>, value: f32) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.f32(value)?.ok())
    }

    fn write_double(&mut self, schema: &Schema<'_>, value: f64) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.f64(value)?.ok())
    }

    fn write_big_integer(&mut self, _: &Schema<'_>, _: &BigInteger) -> Result<(), SerdeError> {
        Err(unsupported("big integer"))
    }

    fn write_big_decimal(&mut self, _: &Schema<'_>, _: &BigDecimal) -> Result<(), SerdeError> {
        Err(unsupported("big decimal"))
    }

    fn write_string(&mut self, schema: &Schema<'_>, value: &str) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.str(value)?.ok())
    }

    fn write_blob(&mut self, schema: &Schema<'_>, value: Blob) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.bytes(value.as_ref())?.ok())
    }

    fn write_timestamp(&mut self, schema: &Schema<'_>, value: &DateTime) -> Result<(), SerdeError> {
        let millis = value.to_millis().map_err(|error| SerdeError::custom(error.to_string()))?;
        self.value(schema, |encoder| encoder.tag(IanaTag::Timestamp)?.i64(millis)?.ok())
    }

    fn write_document(&mut self, _: &Schema<'_>, _: &Document) -> Result<(), SerdeError> {
        Err(unsupported("document"))
    }

    fn write_null(&mut self, schema: &Schema<'_>) -> Result<(), SerdeError> {
        self.value(schema, |encoder| encoder.null()?.ok())
    }
}
