//! Compares an existing table with the table that is needed: pure.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, GlobalSecondaryIndexDescription, IndexStatus, KeySchemaElement, KeyType,
    TableDescription, TableStatus,
};

use super::item::attribute as name;
use super::table::{INDEX, TableError};

/// Reason why an existing table cannot be used, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableProblem {
    /// The table has another primary key, so it belongs to something else.
    #[error(
        "its primary key is {found}, not {wanted}, so it belongs to something else: \
         give the application another name, or set table.name"
    )]
    Key {
        /// The attributes of the key with their types, hash key first.
        found: String,
        /// The key that is needed.
        wanted: String,
    },
    /// The table has an index of the name that is needed, with another key.
    #[error(
        "its index {index} has the key {found}, not {wanted}: \
         delete the index, and the next start creates it"
    )]
    Index {
        /// The name of the index.
        index: &'static str,
        /// The attributes of the key with their types, hash key first.
        found: String,
        /// The key that is needed.
        wanted: String,
    },
    /// DynamoDB does not read or write items of the table.
    #[error("it is {status}: {what_to_do}")]
    Status {
        /// The status, as DynamoDB names it.
        status: String,
        /// The remedy.
        what_to_do: &'static str,
    },
    /// The table has the key of a lease table, but holds other items.
    #[error(
        "it holds no leases, and its item {key:?} is no lease: its attribute {attribute} {problem}; \
         give the application another name, set table.name, or delete the item"
    )]
    ForeignItem {
        /// The key of the item.
        key: String,
        /// The attribute that a lease cannot have.
        attribute: &'static str,
        /// The fault of the attribute.
        problem: &'static str,
    },
    /// A table that an older fleet keeps beside its lease table does not exist.
    #[error(
        "it is missing, although the fleet keeps its state in tables of its own: \
         start a Java worker, which creates it"
    )]
    Missing,
}

/// Checks the description of a table that should have this hash key. The lease table, by its hash key, also needs its
/// index.
///
/// The billing mode does not matter. Neither does the projection of the index, because a query asks for keys only.
pub(super) fn check(table: &TableDescription, key: &str) -> Result<(), TableError> {
    let types = table.attribute_definitions();
    let (found, wanted) = (key_of(table.key_schema(), types), hash_key(key));
    if found != wanted {
        return Err(TableProblem::Key { found, wanted }.into());
    }
    if key == name::KEY
        && let Some(index) = index(table)
    {
        let found = key_of(index.key_schema(), types);
        let wanted = format!("{} and {} (S)", hash_key(name::OWNER), name::KEY);
        if found != wanted {
            let index = INDEX;
            return Err(TableProblem::Index { index, found, wanted }.into());
        }
    }
    let (status, what_to_do) = match table.table_status() {
        Some(TableStatus::Active | TableStatus::Updating) => return Ok(()),
        Some(TableStatus::Creating) | None => {
            return Err(TableError::NotReady("it is CREATING".to_owned()));
        }
        // Soon, the table is gone and can be created.
        Some(TableStatus::Deleting) => {
            return Err(TableError::NotReady("it is DELETING".to_owned()));
        }
        Some(status @ (TableStatus::Archiving | TableStatus::Archived)) => {
            (status, "restore it from its backup and set table.name, or delete it and start again")
        }
        Some(status @ TableStatus::InaccessibleEncryptionCredentials) => {
            (status, "make its KMS key usable again, then start again")
        }
        Some(status) => (status, "make it ACTIVE, then start again"),
    };
    Err(TableProblem::Status { status: status.as_str().to_owned(), what_to_do }.into())
}

/// State of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Missing,
    /// The index is being built or deleted.
    Changing,
    Ready,
}

pub(super) fn index_state(table: &TableDescription) -> Index {
    match index(table).map(|index| index.index_status()) {
        None => Index::Missing,
        // An index can be read while it is updated.
        Some(Some(IndexStatus::Active | IndexStatus::Updating)) => Index::Ready,
        Some(_) => Index::Changing,
    }
}

/// Whether a table and its index exist and are not being deleted.
pub(super) fn is_whole(table: &TableDescription) -> bool {
    let deleting = Some(&IndexStatus::Deleting);
    table.table_status() != Some(&TableStatus::Deleting)
        && index(table).is_some_and(|index| index.index_status() != deleting)
}

fn index(table: &TableDescription) -> Option<&GlobalSecondaryIndexDescription> {
    let mut indexes = table.global_secondary_indexes().iter();
    indexes.find(|index| index.index_name() == Some(INDEX))
}

fn hash_key(attribute: &str) -> String {
    format!("{attribute} (S)")
}

/// The attributes of a key with their types, hash key first.
fn key_of(schema: &[KeySchemaElement], types: &[AttributeDefinition]) -> String {
    let of_kind = |kind: KeyType| {
        let elements = schema.iter();
        elements.filter(move |element| *element.key_type() == kind)
    };
    let attributes = of_kind(KeyType::Hash).chain(of_kind(KeyType::Range));
    let attributes = attributes.map(|element| {
        let name = element.attribute_name();
        let known = types.iter().find(|known| known.attribute_name() == name);
        let kind = known.map_or("?", |known| known.attribute_type().as_str());
        format!("{name} ({kind})")
    });
    attributes.collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{Projection, ProjectionType, ScalarAttributeType};

    use super::*;

    fn schema(key: &[&str]) -> Vec<KeySchemaElement> {
        let kinds = [KeyType::Hash, KeyType::Range];
        let element = |(name, kind): (&&str, KeyType)| {
            let element = KeySchemaElement::builder().attribute_name(*name);
            element.key_type(kind).build().unwrap()
        };
        key.iter().zip(kinds).map(element).collect()
    }

    fn table(key: &[&str], status: TableStatus, numbers: &[&str]) -> TableDescription {
        let names = ["leaseKey", "leaseOwner", "key", "wid", "orderId", "created"];
        let types = names.map(|name| {
            let kind = match numbers.contains(&name) {
                true => ScalarAttributeType::N,
                false => ScalarAttributeType::S,
            };
            let attribute = AttributeDefinition::builder().attribute_name(name);
            attribute.attribute_type(kind).build().unwrap()
        });
        TableDescription::builder()
            .set_key_schema(Some(schema(key)))
            .set_attribute_definitions(Some(types.into()))
            .table_status(status)
            .build()
    }

    fn with_index(
        key: &[&str],
        projection: ProjectionType,
        status: IndexStatus,
    ) -> TableDescription {
        let index = GlobalSecondaryIndexDescription::builder()
            .index_name(INDEX)
            .set_key_schema(Some(schema(key)))
            .projection(Projection::builder().projection_type(projection).build())
            .index_status(status)
            .build();
        let mut table = table(&["leaseKey"], TableStatus::Active, &[]);
        table.global_secondary_indexes = Some(vec![index]);
        table
    }

    fn problem(table: &TableDescription, key: &str) -> String {
        check(table, key).unwrap_err().to_string()
    }

    #[test]
    fn another_key_is_reported_with_its_types() {
        let [leases, state, workers] = [name::KEY, name::LEGACY_STATE_KEY, name::LEGACY_WORKER_KEY];
        let active = |key: &[&str], numbers: &[&str]| table(key, TableStatus::Active, numbers);
        for (wanted, key, numbers, found) in [
            (leases, &["orderId"][..], &[][..], Some("orderId (S), not leaseKey (S)")),
            (leases, &["leaseKey"], &["leaseKey"], Some("leaseKey (N), not leaseKey (S)")),
            (
                leases,
                &["leaseKey", "created"],
                &["created"],
                Some("leaseKey (S) and created (N), not leaseKey (S)"),
            ),
            (leases, &["leaseKey"], &[], None),
            (state, &["leaseKey"], &[], Some("leaseKey (S), not key (S)")),
            (state, &["key"], &[], None),
            (workers, &["key"], &[], Some("key (S), not wid (S)")),
            (workers, &["wid"], &[], None),
        ] {
            let told = check(&active(key, numbers), wanted).err().map(|e| e.to_string());
            match found {
                None => assert_eq!(told, None),
                Some(found) => {
                    let told = told.unwrap();
                    assert!(told.contains(&format!("its primary key is {found}")), "{told}");
                }
            }
        }
    }

    #[test]
    fn each_status_is_usable_or_waited_for_or_reported() {
        let told = |status| check(&table(&["leaseKey"], status, &[]), name::KEY);
        for usable in [TableStatus::Active, TableStatus::Updating] {
            assert!(told(usable).is_ok());
        }
        for passing in [TableStatus::Creating, TableStatus::Deleting] {
            assert!(matches!(told(passing), Err(TableError::NotReady(_))));
        }
        for status in [
            TableStatus::Archiving,
            TableStatus::Archived,
            TableStatus::InaccessibleEncryptionCredentials,
            TableStatus::ReplicationNotAuthorized,
        ] {
            let text = told(status.clone()).unwrap_err().to_string();
            assert!(text.starts_with(&format!("it is {status}: ")), "{text}");
        }
    }

    #[test]
    fn the_index_may_project_more_but_not_by_another_key() {
        for projection in [ProjectionType::KeysOnly, ProjectionType::All, ProjectionType::Include] {
            let table = with_index(&["leaseOwner", "leaseKey"], projection, IndexStatus::Active);
            assert!(check(&table, name::KEY).is_ok());
            assert_eq!(index_state(&table), Index::Ready);
        }
        for (key, found) in [
            (&["leaseOwner"][..], "leaseOwner (S)"),
            (&["leaseKey", "leaseOwner"], "leaseKey (S) and leaseOwner (S)"),
        ] {
            let table = with_index(key, ProjectionType::KeysOnly, IndexStatus::Active);
            let text = problem(&table, name::KEY);
            assert!(text.contains(&format!("{INDEX} has the key {found}, not")), "{text}");
        }
        for status in [IndexStatus::Creating, IndexStatus::Deleting] {
            let key = ["leaseOwner", "leaseKey"];
            let table = with_index(&key, ProjectionType::KeysOnly, status);
            assert_eq!(index_state(&table), Index::Changing);
        }
        let none = table(&["leaseKey"], TableStatus::Active, &[]);
        assert_eq!(index_state(&none), Index::Missing);
    }
}
