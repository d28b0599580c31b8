//! The partition key of a record.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A partition key: text that is owned, shared, or part of the program.
///
/// [`UserRecord::new`](crate::UserRecord::new) takes whatever converts into it. A key that many records have costs no
/// copy as an `Arc<str>` or a `&'static str`; other borrowed text must be copied into a `String`.
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
pub struct PartitionKey(Text);

#[derive(Clone)]
enum Text {
    Owned(String),
    Shared(Arc<str>),
    Static(&'static str),
}

impl PartitionKey {
    /// The text, copied only where it is shared.
    pub(crate) fn into_text(self) -> Cow<'static, str> {
        match self.0 {
            Text::Owned(text) => text.into(),
            Text::Shared(text) => text.as_ref().to_owned().into(),
            Text::Static(text) => text.into(),
        }
    }
}

impl Deref for PartitionKey {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Text::Owned(text) => text,
            Text::Shared(text) => text,
            Text::Static(text) => text,
        }
    }
}

impl From<String> for PartitionKey {
    fn from(text: String) -> Self {
        Self(Text::Owned(text))
    }
}

impl From<&String> for PartitionKey {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<Box<str>> for PartitionKey {
    fn from(text: Box<str>) -> Self {
        text.into_string().into()
    }
}

impl From<Arc<str>> for PartitionKey {
    fn from(text: Arc<str>) -> Self {
        Self(Text::Shared(text))
    }
}

impl From<&'static str> for PartitionKey {
    fn from(text: &'static str) -> Self {
        Self(Text::Static(text))
    }
}

impl From<Cow<'static, str>> for PartitionKey {
    fn from(text: Cow<'static, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl PartialEq for PartitionKey {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PartitionKey {}

impl fmt::Debug for PartitionKey {
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
        let keys: [PartitionKey; 6] = [
            "key".into(),
            (&owned).into(),
            owned.into(),
            Arc::clone(&shared).into(),
            Box::<str>::from("key").into(),
            Cow::Borrowed("key").into(),
        ];
        for key in &keys {
            assert_eq!((key, &**key), (&keys[0], "key"));
            assert_eq!(key.clone().into_text(), "key");
            assert_eq!(format!("{key:?}"), "PartitionKey { len: 3 }");
        }
        let record = UserRecord::new(Arc::clone(&shared), "v");
        assert!(std::ptr::eq(record.partition_key(), &*shared), "not copied");
        assert_eq!(size_of::<PartitionKey>(), size_of::<String>());
    }
}
