//! The partition key of a record.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A partition key: text that is owned, shared, or borrowed.
///
/// [`Record::new`](crate::Record::new) takes whatever converts into it. In a [`UserRecord`](crate::UserRecord), a key
/// that many records have costs no copy as an `Arc<str>` or a `&'static str`.
///
/// ```
/// use std::sync::Arc;
/// use kpl::UserRecord;
///
/// let shared: Arc<str> = "customer-7".into();
/// for order in ["first", "second"] {
///     let record = UserRecord::new(Arc::clone(&shared), order);
///     assert_eq!(record.partition_key(), "customer-7");
/// }
/// let fixed = UserRecord::new("all", "order"); // of the program itself
/// let owned = UserRecord::new(format!("customer-{}", 8), "order");
/// # drop((fixed, owned));
/// ```
#[derive(Clone)]
pub struct PartitionKey<'a>(Text<'a>);

#[derive(Clone)]
enum Text<'a> {
    Owned(String),
    Shared(Arc<str>),
    Borrowed(&'a str),
}

impl PartitionKey<'_> {
    pub(crate) const EMPTY: Self = Self(Text::Borrowed(""));

    /// Copies the text if it is borrowed.
    pub(crate) fn into_owned(self) -> PartitionKey<'static> {
        match self.0 {
            Text::Owned(text) => text.into(),
            Text::Shared(text) => text.into(),
            Text::Borrowed(text) => text.to_owned().into(),
        }
    }
}

impl PartitionKey<'static> {
    /// The text, copied only where it is shared.
    pub(crate) fn into_text(self) -> Cow<'static, str> {
        match self.0 {
            Text::Owned(text) => text.into(),
            Text::Shared(text) => text.as_ref().to_owned().into(),
            Text::Borrowed(text) => text.into(),
        }
    }
}

impl Deref for PartitionKey<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Text::Owned(text) => text,
            Text::Shared(text) => text,
            Text::Borrowed(text) => text,
        }
    }
}

impl From<String> for PartitionKey<'_> {
    fn from(text: String) -> Self {
        Self(Text::Owned(text))
    }
}

impl<'a> From<&'a String> for PartitionKey<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

impl From<Box<str>> for PartitionKey<'_> {
    fn from(text: Box<str>) -> Self {
        text.into_string().into()
    }
}

impl From<Arc<str>> for PartitionKey<'_> {
    fn from(text: Arc<str>) -> Self {
        Self(Text::Shared(text))
    }
}

impl<'a> From<&'a str> for PartitionKey<'a> {
    fn from(text: &'a str) -> Self {
        Self(Text::Borrowed(text))
    }
}

impl<'a> From<Cow<'a, str>> for PartitionKey<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl PartialEq for PartitionKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PartitionKey<'_> {}

impl fmt::Debug for PartitionKey<'_> {
    /// Never shows the key, which must not land in logs: only its length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionKey").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::UserRecord;

    #[test]
    fn a_key_is_the_same_however_it_is_held() {
        let shared: Arc<str> = "key".into();
        let owned = "key".to_owned();
        let keys: [PartitionKey<'_>; 6] = [
            "key".into(),
            (&owned).into(),
            owned.clone().into(),
            Arc::clone(&shared).into(),
            Box::<str>::from("key").into(),
            Cow::Borrowed("key").into(),
        ];
        for key in &keys {
            assert_eq!((key, &**key), (&keys[0], "key"));
            assert_eq!(key.clone().into_owned().into_text(), "key");
            assert_eq!(format!("{key:?}"), "PartitionKey { len: 3 }");
        }
        let record = UserRecord::new(Arc::clone(&shared), "v");
        assert!(std::ptr::eq(record.partition_key(), &*shared), "not copied");
        assert_eq!(size_of::<PartitionKey<'_>>(), size_of::<String>());
    }
}
