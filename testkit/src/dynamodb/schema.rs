//! How a table and its indexes are keyed, and what its indexes hold.

use std::cmp::Ordering;
use std::sync::Arc;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::number::Number;
use super::refusal::Refusal;
use super::value::{AttributeValue, Item};

const MAX_PARTITION_KEY_BYTES: usize = 2048;
const MAX_SORT_KEY_BYTES: usize = 1024;

/// An attribute of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyAttribute {
    pub(super) name: String,
    /// `S`, `N` or `B`.
    pub(super) kind: String,
}

/// The key of a table or of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeySchema {
    pub(super) partition: KeyAttribute,
    pub(super) sort: Option<KeyAttribute>,
}

/// The value of a key's attribute. The order within a type is that of the service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum KeyValue {
    S(String),
    N(Number),
    B(Vec<u8>),
}

/// Where an item stands in a table: partitions in the order of their hash, items by sort key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) hash: u64,
    pub(super) partition: KeyValue,
    pub(super) sort: Option<KeyValue>,
}

/// Where an item stands in a table, or in an index, where the table's key tells equal ones apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) key: Key,
    pub(super) in_table: Option<Key>,
}

impl KeyValue {
    pub(super) fn of(value: &AttributeValue) -> Option<Self> {
        match value {
            AttributeValue::S(text) => Some(Self::S(text.clone())),
            AttributeValue::N(number) => Some(Self::N(*number)),
            AttributeValue::B(bytes) => Some(Self::B(bytes.clone())),
            _ => None,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::S(text) => text.as_bytes().to_vec(),
            Self::N(number) => number.to_string().into_bytes(),
            Self::B(bytes) => bytes.clone(),
        }
    }

    fn hash(&self) -> u64 {
        let digest = Md5::digest(self.bytes());
        digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
    }
}

impl Key {
    pub(super) fn new(partition: KeyValue, sort: Option<KeyValue>) -> Self {
        Self { hash: partition.hash(), partition, sort }
    }

    /// Which of so many equal parts of all hashes this key is in.
    pub(super) fn segment(&self, total: u64) -> u64 {
        let segment = (u128::from(self.hash) * u128::from(total)) >> 64;
        u64::try_from(segment).unwrap_or(0)
    }

    /// Whether two keys have the same partition.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.hash.cmp(&other.hash) == Ordering::Equal && self.partition == other.partition
    }
}

impl KeySchema {
    pub(super) fn attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attributes().any(|attribute| attribute.name == name)
    }

    /// The key of an item that is put into the table.
    pub(super) fn key_of(&self, item: &Item) -> Result<Key, Refusal> {
        for attribute in self.attributes() {
            let Some(value) = item.get(&attribute.name) else {
                return Err(Refusal::invalid(format_args!(
                    "Missing the key {} in the item",
                    attribute.name
                )));
            };
            if value.type_name() != attribute.kind {
                return Err(Refusal::invalid(format_args!(
                    "Type mismatch for key {} expected: {} actual: {}",
                    attribute.name,
                    attribute.kind,
                    value.type_name()
                )));
            }
        }
        self.checked(item)
    }

    /// The key that a request names: just the attributes of the key.
    pub(super) fn key_named(&self, key: &Item) -> Result<Key, Refusal> {
        let fits = |attribute: &KeyAttribute| {
            let value = key.get(&attribute.name);
            value.is_some_and(|value| value.type_name() == attribute.kind)
        };
        if key.len() != self.attributes().count() || !self.attributes().all(fits) {
            return Err(Refusal::validation("The provided key element does not match the schema"));
        }
        self.checked(key)
    }

    /// The key made of attributes that are there, if their sizes are allowed.
    fn checked(&self, item: &Item) -> Result<Key, Refusal> {
        for attribute in self.attributes() {
            match item.get(&attribute.name) {
                Some(AttributeValue::S(text)) if text.is_empty() => Err("string"),
                Some(AttributeValue::B(bytes)) if bytes.is_empty() => Err("binary"),
                _ => Ok(()),
            }
            .map_err(|kind| {
                Refusal::validation(format!(
                    "One or more parameter values are not valid. The AttributeValue for a key \
                     attribute cannot contain an empty {kind} value. Key: {}",
                    attribute.name
                ))
            })?;
        }
        let size =
            |attribute: &KeyAttribute| item.get(&attribute.name).map_or(0, AttributeValue::size);
        if size(&self.partition) > MAX_PARTITION_KEY_BYTES {
            return Err(Refusal::invalid(
                "Size of hashkey has exceeded the maximum size limit of2048 bytes",
            ));
        }
        if self.sort.as_ref().map_or(0, size) > MAX_SORT_KEY_BYTES {
            return Err(Refusal::invalid(
                "Aggregated size of all range keys has exceeded the size limit of 1024 bytes",
            ));
        }
        self.find(item).ok_or_else(|| Refusal::internal("a key that was checked is missing"))
    }

    /// The key of an item, if it has all of its attributes: what has none is not in an index.
    pub(super) fn find(&self, item: &Item) -> Option<Key> {
        let value = |attribute: &KeyAttribute| KeyValue::of(item.get(&attribute.name)?);
        let partition = value(&self.partition)?;
        let sort = match &self.sort {
            Some(attribute) => Some(value(attribute)?),
            None => None,
        };
        Some(Key::new(partition, sort))
    }

    pub(super) fn to_json(&self) -> Value {
        let element = |attribute: &KeyAttribute, kind: &str| json!({ "AttributeName": attribute.name, "KeyType": kind });
        let sort = self.sort.as_ref().map(|sort| element(sort, "RANGE"));
        let partition = element(&self.partition, "HASH");
        std::iter::once(partition).chain(sort).collect()
    }
}

/// What an index shows beside the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum IndexProjection {
    All,
    KeysOnly,
    Include(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum IndexKind {
    Global,
    Local,
}

/// A secondary index, as it was defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IndexDefinition {
    pub(super) name: String,
    pub(super) kind: IndexKind,
    pub(super) schema: KeySchema,
    pub(super) projection: IndexProjection,
    /// Read and write units of a global index.
    pub(super) throughput: (i64, i64),
}

impl IndexDefinition {
    /// Whether the index holds an attribute.
    pub(super) fn holds(&self, table: &KeySchema, attribute: &str) -> bool {
        let is_key = self.schema.has(attribute) || table.has(attribute);
        match &self.projection {
            IndexProjection::All => true,
            IndexProjection::KeysOnly => is_key,
            IndexProjection::Include(names) => is_key || names.iter().any(|name| name == attribute),
        }
    }

    /// The item as the index holds it.
    pub(super) fn projected(&self, table: &KeySchema, item: &Arc<Item>) -> Arc<Item> {
        if self.projection == IndexProjection::All {
            return Arc::clone(item);
        }
        let held = item.iter().filter(|(name, _)| self.holds(table, name));
        Arc::new(held.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// Refuses an item whose attribute cannot be the key of this index.
    pub(super) fn check(&self, item: &Item) -> Result<(), Refusal> {
        for KeyAttribute { name, kind } in self.schema.attributes() {
            let Some(value) = item.get(name) else {
                continue;
            };
            if value.type_name() != kind {
                return Err(Refusal::invalid(format_args!(
                    "Type mismatch for Index Key {name} Expected: {kind} Actual: {} IndexName: {}",
                    value.type_name(),
                    self.name
                )));
            }
            let empty = match value {
                AttributeValue::S(text) => text.is_empty().then_some("string"),
                AttributeValue::B(bytes) => bytes.is_empty().then_some("binary"),
                _ => None,
            };
            if let Some(empty) = empty {
                return Err(Refusal::validation(format!(
                    "One or more parameter values are not valid. A value specified for a secondary \
                     index key is not supported. The AttributeValue for a key attribute cannot \
                     contain an empty {empty} value. IndexName: {}, IndexKey: {name}",
                    self.name
                )));
            }
        }
        Ok(())
    }
}
