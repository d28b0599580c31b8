//! A DynamoDB to ask, and tables that only one case knows.

use std::collections::HashMap;
use std::ops::Deref;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement,
    KeyType, Projection, ProjectionType, ScalarAttributeType, TableStatus,
};
use aws_types::SdkConfig;

use crate::check::{Failure, some};
use crate::kinesis::{LOOK_AGAIN, Names};

pub(crate) type Item = HashMap<String, AttributeValue>;

/// A DynamoDB, as one case sees it; it is a client of the SDK above all.
#[derive(Debug, Clone)]
pub(crate) struct DynamoDb {
    client: Client,
    names: Names,
}

impl Deref for DynamoDb {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DynamoDb {
    pub(crate) fn new(config: &SdkConfig, case: usize) -> Self {
        Self { client: Client::new(config), names: Names::of(case) }
    }

    /// A name no one has used, that is cleaned up after the case.
    pub(crate) fn fresh_name(&self) -> String {
        self.names.fresh()
    }

    /// A table of its own with the key `id`, to be sent.
    pub(crate) fn new_table(&self, name: &str) -> Result<CreateTableFluentBuilder, Failure> {
        let create = self.create_table().table_name(name);
        let create = create.billing_mode(BillingMode::PayPerRequest);
        Ok(create.attribute_definitions(string("id")?).key_schema(key("id")?))
    }

    /// A table of its own with the key `id`, once it is active.
    pub(crate) async fn table(&self) -> Result<Table, Failure> {
        let name = self.fresh_name();
        self.new_table(&name)?.send().await?;
        self.created(name).await
    }

    /// As `table`, with an index `by_owner` of everything.
    pub(crate) async fn indexed_table(&self) -> Result<Table, Failure> {
        let name = self.fresh_name();
        let index = GlobalSecondaryIndex::builder().index_name("by_owner");
        let index = index.key_schema(key("owner")?).projection(everything());
        let create = self.new_table(&name)?.attribute_definitions(string("owner")?);
        create.global_secondary_indexes(index.build()?).send().await?;
        self.created(name).await
    }

    /// The table that has been created under this name, once it is active.
    pub(crate) async fn created(&self, name: String) -> Result<Table, Failure> {
        loop {
            let described = self.describe_table().table_name(&name).send().await?;
            let table = some("table", described.table)?;
            if table.table_status == Some(TableStatus::Active) {
                let client = self.client.clone();
                return Ok(Table { client, name });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub(crate) async fn clean_up(&self) {
        for name in self.names.taken() {
            let unprotect = self.update_table().table_name(&name);
            // It may never have been created, or be deleted already.
            let _ = unprotect.deletion_protection_enabled(false).send().await;
            let _ = self.delete_table().table_name(name).send().await;
        }
    }
}

/// A table that only this case knows; items have the key `id`.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) client: Client,
    pub(crate) name: String,
}

impl Table {
    pub(crate) async fn put(&self, item: Item) -> Result<(), Failure> {
        let put = self.client.put_item().table_name(&self.name);
        put.set_item(Some(item)).send().await?;
        Ok(())
    }

    /// The item as it is now.
    pub(crate) async fn get(&self, id: &str) -> Result<Option<Item>, Failure> {
        let get = self.client.get_item().table_name(&self.name);
        let get = get.key("id", s(id)).consistent_read(true);
        Ok(get.send().await?.item)
    }

    /// An attribute of an item as it is now.
    pub(crate) async fn value(&self, id: &str, name: &str) -> Result<AttributeValue, Failure> {
        let item = self.get(id).await?;
        some(name, some(id, item)?.remove(name))
    }
}

pub(crate) fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn n(number: &str) -> AttributeValue {
    AttributeValue::N(number.to_owned())
}

/// An item with this id and these attributes.
pub(crate) fn item<const N: usize>(id: &str, attributes: [(&str, AttributeValue); N]) -> Item {
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
    let id = ("id".to_owned(), s(id));
    attributes.into_iter().chain([id]).collect()
}

pub(crate) fn string(name: &str) -> Result<AttributeDefinition, Failure> {
    let attribute = AttributeDefinition::builder().attribute_name(name);
    Ok(attribute.attribute_type(ScalarAttributeType::S).build()?)
}

pub(crate) fn key(name: &str) -> Result<KeySchemaElement, Failure> {
    let key = KeySchemaElement::builder().attribute_name(name);
    Ok(key.key_type(KeyType::Hash).build()?)
}

pub(crate) fn everything() -> Projection {
    Projection::builder().projection_type(ProjectionType::All).build()
}
