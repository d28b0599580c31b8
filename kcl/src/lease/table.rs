//! Finds or creates the lease table with its index.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndex,
    GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection, ProjectionType,
    ProvisionedThroughput, ScalarAttributeType, TableDescription, Tag,
};

use super::error::{CallError, classify};
use super::item::attribute as name;
use super::table_check::{Index, TableProblem, check, index_state};
use crate::config::TableConfig;

/// The index from which a worker reads the keys of its leases.
pub(crate) const INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

/// The place of the items that are no leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The lease table, for applications that began with Java 3.5 or with this library.
    OneTable,
    /// Two tables beside the lease table.
    Legacy { state: String, workers: String },
}

impl Layout {
    /// The layout of three tables.
    pub(crate) fn legacy(application: &str) -> Self {
        Self::Legacy {
            state: format!("{application}-CoordinatorState"),
            workers: format!("{application}-WorkerMetricStats"),
        }
    }

    /// The table of the workers' rows, and its hash key.
    pub(crate) fn workers<'a>(&'a self, lease_table: &'a str) -> (&'a str, &'static str) {
        match self {
            Self::OneTable => (lease_table, name::KEY),
            Self::Legacy { workers, .. } => (workers, name::LEGACY_WORKER_KEY),
        }
    }

    /// The table of the migration state and the leader's lock, and its hash key.
    pub(crate) fn state<'a>(&'a self, lease_table: &'a str) -> (&'a str, &'static str) {
        match self {
            Self::OneTable => (lease_table, name::KEY),
            Self::Legacy { state, .. } => (state, name::LEGACY_STATE_KEY),
        }
    }
}

/// Reason why a table cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TableError {
    #[error(transparent)]
    Unusable(#[from] TableProblem),
    /// The table can be used soon.
    #[error("{0}")]
    NotReady(String),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Returns true if the table exists. Then it was checked to have this hash key, and its items can be read.
pub(crate) async fn find(
    client: &Client,
    (table, hash_key): (&str, &str),
) -> Result<bool, TableError> {
    match describe(client, table).await? {
        None => Ok(false),
        Some(description) => check(&description, hash_key).map(|()| true),
    }
}

/// Describes the table. `None`: it does not exist.
pub(super) async fn describe(
    client: &Client,
    table: &str,
) -> Result<Option<TableDescription>, CallError> {
    match client.describe_table().table_name(table).send().await {
        Ok(output) => Ok(output.table),
        Err(error) => classify("DescribeTable", &error).unless_not_found(),
    }
}

/// Finds the lease table, or creates it, with its index. Returns [`TableError::NotReady`] until both can be used. Then the
/// caller calls again.
pub(crate) async fn ensure(
    client: &Client,
    table: &str,
    config: &TableConfig,
) -> Result<(), TableError> {
    let description = match describe(client, table).await? {
        Some(description) => description,
        None => {
            create(client, table, config).await?;
            described(client, table).await?
        }
    };
    check(&description, name::KEY)?;
    let mut index = index_state(&description);
    if index == Index::Missing {
        add_index(client, table, config, &description).await?;
        index = index_state(&described(client, table).await?);
    }
    match index {
        Index::Ready => Ok(()),
        Index::Missing | Index::Changing => {
            let text = format!("its index {INDEX} is being built");
            Err(TableError::NotReady(text))
        }
    }
}

/// Describes a table that existed a moment ago, or whose creation has begun.
async fn described(client: &Client, table: &str) -> Result<TableDescription, TableError> {
    let found = describe(client, table).await?;
    found.ok_or(TableError::NotReady("it is CREATING".to_owned()))
}

async fn create(client: &Client, table: &str, config: &TableConfig) -> Result<(), TableError> {
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .set_key_schema(Some(index_key()))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .set_provisioned_throughput(provisioned(config))
        .build()
        .expect(COMPLETE);
    let tag = |(key, value)| Tag::builder().key(key).value(value).build().expect(COMPLETE);
    let tags: Vec<Tag> = config.tags.iter().map(tag).collect();
    let answer = client
        .create_table()
        .table_name(table)
        .set_attribute_definitions(Some(attributes()))
        .key_schema(key(name::KEY, KeyType::Hash))
        .global_secondary_indexes(index)
        .billing_mode(if config.provisioned.is_some() {
            BillingMode::Provisioned
        } else {
            BillingMode::PayPerRequest
        })
        .set_provisioned_throughput(provisioned(config))
        .deletion_protection_enabled(config.deletion_protection)
        .set_tags((!tags.is_empty()).then_some(tags))
        .send()
        .await;
    match answer {
        Ok(_) => Ok(()),
        // Another worker creates the table at this moment, or a retry followed a lost answer.
        Err(error)
            if error
                .as_service_error()
                .is_some_and(CreateTableError::is_resource_in_use_exception) =>
        {
            Ok(())
        }
        Err(error) => Err(classify("CreateTable", &error).into()),
    }
}

async fn add_index(
    client: &Client,
    table: &str,
    config: &TableConfig,
    description: &TableDescription,
) -> Result<(), TableError> {
    // As in the Java library: if the table is provisioned, the index gets its capacity.
    let throughput = match description.provisioned_throughput() {
        Some(units) => match (units.read_capacity_units(), units.write_capacity_units()) {
            (Some(read), Some(write)) if read > 0 => Some(capacity(read, write)),
            _ => None,
        },
        None => provisioned(config),
    };
    let create = CreateGlobalSecondaryIndexAction::builder()
        .index_name(INDEX)
        .set_key_schema(Some(index_key()))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .set_provisioned_throughput(throughput)
        .build()
        .expect(COMPLETE);
    let answer = client
        .update_table()
        .table_name(table)
        .set_attribute_definitions(Some(attributes()))
        .global_secondary_index_updates(
            GlobalSecondaryIndexUpdate::builder().create(create).build(),
        )
        .send()
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(error) => {
            // Another worker may add the index at this moment.
            match index_state(&described(client, table).await?) {
                Index::Missing => Err(classify("UpdateTable", &error).into()),
                Index::Changing | Index::Ready => Ok(()),
            }
        }
    }
}

const COMPLETE: &str = "all required fields are set";

fn key(attribute: &str, kind: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(attribute).key_type(kind).build().expect(COMPLETE)
}

fn index_key() -> Vec<KeySchemaElement> {
    vec![key(name::OWNER, KeyType::Hash), key(name::KEY, KeyType::Range)]
}

fn attributes() -> Vec<AttributeDefinition> {
    let text = |attribute| {
        let definition = AttributeDefinition::builder().attribute_name(attribute);
        definition.attribute_type(ScalarAttributeType::S).build().expect(COMPLETE)
    };
    vec![text(name::OWNER), text(name::KEY)]
}

fn provisioned(config: &TableConfig) -> Option<ProvisionedThroughput> {
    config.provisioned.map(|(read, write)| capacity(read.into(), write.into()))
}

fn capacity(read: i64, write: i64) -> ProvisionedThroughput {
    let throughput = ProvisionedThroughput::builder().read_capacity_units(read);
    throughput.write_capacity_units(write).build().expect(COMPLETE)
}
