//! The data of a record.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use bytes::{Bytes, BytesMut};

/// The data of a record: bytes that are owned, shared, or borrowed.
///
/// [`Record::new`](crate::Record::new) takes whatever converts into it. A [`UserRecord`](crate::UserRecord) borrows only
/// from the program itself.
///
/// ```
/// use bytes::Bytes;
/// use kpl::{Record, UserRecord};
///
/// let owned = UserRecord::new("customer-7", vec![1, 2, 3]);
/// let shared = UserRecord::new("customer-7", Bytes::from(vec![1, 2, 3]));
/// let line = format!("{} {}", "customer-7", "order");
/// let borrowed = Record::new(&line[..10], &line[11..]);
/// assert_eq!(borrowed.data(), b"order");
/// # drop((owned, shared));
/// ```
#[derive(Clone)]
pub struct RecordData<'a>(Source<'a>);

#[derive(Clone)]
enum Source<'a> {
    Owned(Bytes),
    Borrowed(&'a [u8]),
}

impl RecordData<'_> {
    pub(crate) const EMPTY: Self = Self(Source::Borrowed(&[]));

    /// Copies the bytes if they are borrowed.
    pub(crate) fn into_owned(self) -> RecordData<'static> {
        match self.0 {
            Source::Owned(bytes) => bytes.into(),
            Source::Borrowed(bytes) => Bytes::copy_from_slice(bytes).into(),
        }
    }
}

impl RecordData<'static> {
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Source::Owned(bytes) => bytes,
            Source::Borrowed(bytes) => Bytes::from_static(bytes),
        }
    }
}

impl Deref for RecordData<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Owned(bytes) => bytes,
            Source::Borrowed(bytes) => bytes,
        }
    }
}

impl From<Bytes> for RecordData<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Owned(bytes))
    }
}

impl From<BytesMut> for RecordData<'_> {
    fn from(bytes: BytesMut) -> Self {
        bytes.freeze().into()
    }
}

impl From<Vec<u8>> for RecordData<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Box<[u8]>> for RecordData<'_> {
    fn from(bytes: Box<[u8]>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for RecordData<'_> {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl<'a> From<&'a [u8]> for RecordData<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Source::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for RecordData<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl<'a> From<&'a Vec<u8>> for RecordData<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl<'a> From<&'a Bytes> for RecordData<'a> {
    fn from(bytes: &'a Bytes) -> Self {
        bytes.as_ref().into()
    }
}

impl<'a> From<&'a str> for RecordData<'a> {
    fn from(text: &'a str) -> Self {
        text.as_bytes().into()
    }
}

impl<'a> From<&'a String> for RecordData<'a> {
    fn from(text: &'a String) -> Self {
        text.as_bytes().into()
    }
}

impl<'a> From<Cow<'a, [u8]>> for RecordData<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => bytes.into(),
            Cow::Owned(bytes) => bytes.into(),
        }
    }
}

impl<'a> From<Cow<'a, str>> for RecordData<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl PartialEq for RecordData<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for RecordData<'_> {}

impl fmt::Debug for RecordData<'_> {
    /// Never shows the data, which must not land in logs: only its length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordData").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::UserRecord;

    #[test]
    fn data_is_the_same_however_it_is_held() {
        let owned = vec![b'd', b'a', b't', b'a'];
        let shared = Bytes::from(owned.clone());
        let text = "data".to_owned();
        let all: [RecordData<'_>; 11] = [
            b"data".into(),
            "data".into(),
            (&owned).into(),
            (&shared).into(),
            (&text).into(),
            owned.clone().into(),
            owned.clone().into_boxed_slice().into(),
            text.clone().into(),
            BytesMut::from("data").into(),
            Cow::Borrowed("data").into(),
            Cow::<[u8]>::Owned(owned.clone()).into(),
        ];
        for data in all {
            assert_eq!((&data, &*data), (&RecordData::from("data"), b"data".as_slice()));
            assert_eq!(format!("{data:?}"), "RecordData { len: 4 }");
            assert_eq!(data.into_owned().into_bytes(), "data");
        }
        let record = UserRecord::new("k", shared.clone());
        assert!(std::ptr::eq(record.data(), &*shared), "not copied");
        assert!(std::ptr::eq(&*record.into_data(), &*shared), "not copied");
        assert_eq!(size_of::<RecordData<'_>>(), size_of::<Bytes>());
    }
}
