//! The lease table itself: found as it is, or created with its index.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndex,
    GlobalSecondaryIndexUpdate, IndexStatus, KeySchemaElement, KeyType, Projection, ProjectionType,
    ProvisionedThroughput, ScalarAttributeType, TableDescription, TableStatus, Tag,
};

use super::error::{CallError, classify};
use super::item::attribute as name;
use crate::config::TableConfig;

/// The index by which a worker finds its leases.
pub(crate) const INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

/// Where what is no lease is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In the lease table: applications that began with Java 3.5 or with this library.
    OneTable,
    /// In two tables beside it.
    Legacy { state: String, workers: String },
}

impl Layout {
    /// The three-table layout's names.
    pub(crate) fn legacy(application: &str) -> Self {
        Self::Legacy {
            state: format!("{application}-CoordinatorState"),
            workers: format!("{application}-WorkerMetricStats"),
        }
    }

    pub(crate) fn workers<'a>(&'a self, lease_table: &'a str) -> &'a str {
        match self {
            Self::OneTable => lease_table,
            Self::Legacy { workers, .. } => workers,
        }
    }

    pub(crate) fn worker_key(&self) -> &'static str {
        match self {
            Self::OneTable => name::KEY,
            Self::Legacy { .. } => name::LEGACY_WORKER_KEY,
        }
    }

    pub(crate) fn state<'a>(&'a self, lease_table: &'a str) -> &'a str {
        match self {
            Self::OneTable => lease_table,
            Self::Legacy { state, .. } => state,
        }
    }

    pub(crate) fn state_key(&self) -> &'static str {
        match self {
            Self::OneTable => name::KEY,
            Self::Legacy { .. } => name::LEGACY_STATE_KEY,
        }
    }
}

/// Why a table cannot serve.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TableError {
    #[error("{0}")]
    Unusable(String),
    #[error(transparent)]
    Call(#[from] CallError),
}

const FIRST_POLL: Duration = Duration::from_millis(20);
const LONGEST_POLL: Duration = Duration::from_secs(2);
/// Polls until a table (100 s) or an index (which a large table takes long to build) is given up.
const TABLE_POLLS: u32 = 60;
const INDEX_POLLS: u32 = 1800;

/// The table, or `None` if it does not exist.
pub(crate) async fn describe(
    client: &Client,
    table: &str,
) -> Result<Option<TableDescription>, TableError> {
    match client.describe_table().table_name(table).send().await {
        Ok(output) => Ok(output.table),
        Err(SdkError::ServiceError(error))
            if matches!(
                error.err(),
                DescribeTableError::ResourceNotFoundException(_)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(classify("DescribeTable", &error).into()),
    }
}

/// Whether a table and its index are there, and are not being deleted.
pub(super) fn is_whole(description: &TableDescription) -> bool {
    description.table_status() != Some(&TableStatus::Deleting)
        && index_of(description).is_some_and(|status| status != Some(&IndexStatus::Deleting))
}

/// Finds the lease table, or creates it, with its index, and waits until both can be used.
pub(crate) async fn ensure(
    client: &Client,
    table: &str,
    config: &TableConfig,
) -> Result<(), TableError> {
    if describe(client, table).await?.is_none() {
        create(client, table, config).await?;
    }
    let description = wait(client, table, TABLE_POLLS, |description| {
        description.table_status() == Some(&TableStatus::Active)
            || description.table_status() == Some(&TableStatus::Updating)
    })
    .await?;
    check_key(&description)?;
    if index_of(&description).is_none() {
        add_index(client, table, config, &description).await?;
    }
    wait(client, table, INDEX_POLLS, |description| {
        index_of(description) == Some(Some(&IndexStatus::Active))
    })
    .await?;
    Ok(())
}

fn index_of(description: &TableDescription) -> Option<Option<&IndexStatus>> {
    let mut indexes = description.global_secondary_indexes().iter();
    indexes
        .find(|index| index.index_name() == Some(INDEX))
        .map(|index| index.index_status())
}

fn check_key(description: &TableDescription) -> Result<(), TableError> {
    let schema = description.key_schema();
    match schema {
        [key] if key.attribute_name() == name::KEY && *key.key_type() == KeyType::Hash => Ok(()),
        _ => Err(TableError::Unusable(format!(
            "its key is not the single hash key {}; it is not a lease table: \
             give the application another name, or set table.name",
            name::KEY
        ))),
    }
}

async fn wait(
    client: &Client,
    table: &str,
    polls: u32,
    ready: impl Fn(&TableDescription) -> bool,
) -> Result<TableDescription, TableError> {
    let mut pause = FIRST_POLL;
    for _ in 0..polls {
        if let Some(description) = describe(client, table).await? {
            if description.table_status() == Some(&TableStatus::Deleting) {
                return Err(TableError::Unusable(
                    "it is being deleted: wait until it is gone, then start again".to_owned(),
                ));
            }
            if ready(&description) {
                return Ok(description);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_POLL);
    }
    Err(TableError::Unusable(format!(
        "it, or its index {INDEX}, did not become ACTIVE: look at it in DynamoDB, then start again"
    )))
}

async fn create(client: &Client, table: &str, config: &TableConfig) -> Result<(), TableError> {
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .set_key_schema(Some(index_key()?))
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::KeysOnly)
                .build(),
        )
        .set_provisioned_throughput(provisioned(config)?)
        .build()
        .map_err(incomplete)?;
    let answer = client
        .create_table()
        .table_name(table)
        .set_attribute_definitions(Some(attributes()?))
        .key_schema(key(name::KEY, KeyType::Hash)?)
        .global_secondary_indexes(index)
        .billing_mode(if config.provisioned.is_some() {
            BillingMode::Provisioned
        } else {
            BillingMode::PayPerRequest
        })
        .set_provisioned_throughput(provisioned(config)?)
        .deletion_protection_enabled(config.deletion_protection)
        .set_tags(tags(&config.tags)?)
        .send()
        .await;
    match answer {
        Ok(_) => Ok(()),
        // Another worker creates it at this moment, or a retry followed a lost answer.
        Err(SdkError::ServiceError(error))
            if matches!(error.err(), CreateTableError::ResourceInUseException(_)) =>
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
    // The capacity of the table, if it is provisioned, as Java sets it.
    let throughput = match description.provisioned_throughput() {
        Some(units) if units.read_capacity_units().unwrap_or(0) > 0 => Some(
            ProvisionedThroughput::builder()
                .set_read_capacity_units(units.read_capacity_units())
                .set_write_capacity_units(units.write_capacity_units())
                .build()
                .map_err(incomplete)?,
        ),
        Some(_) => None,
        None => provisioned(config)?,
    };
    let create = CreateGlobalSecondaryIndexAction::builder()
        .index_name(INDEX)
        .set_key_schema(Some(index_key()?))
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::KeysOnly)
                .build(),
        )
        .set_provisioned_throughput(throughput)
        .build()
        .map_err(incomplete)?;
    let answer = client
        .update_table()
        .table_name(table)
        .set_attribute_definitions(Some(attributes()?))
        .global_secondary_index_updates(
            GlobalSecondaryIndexUpdate::builder().create(create).build(),
        )
        .send()
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(error) => {
            // Another worker adds it at this moment.
            let now = describe(client, table).await?;
            match now.as_ref().and_then(index_of) {
                Some(_) => Ok(()),
                None => Err(classify("UpdateTable", &error).into()),
            }
        }
    }
}

fn key(attribute: &str, kind: KeyType) -> Result<KeySchemaElement, TableError> {
    KeySchemaElement::builder()
        .attribute_name(attribute)
        .key_type(kind)
        .build()
        .map_err(incomplete)
}

fn index_key() -> Result<Vec<KeySchemaElement>, TableError> {
    Ok(vec![
        key(name::OWNER, KeyType::Hash)?,
        key(name::KEY, KeyType::Range)?,
    ])
}

fn attributes() -> Result<Vec<AttributeDefinition>, TableError> {
    let text = |attribute: &str| {
        AttributeDefinition::builder()
            .attribute_name(attribute)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .map_err(incomplete)
    };
    Ok(vec![text(name::OWNER)?, text(name::KEY)?])
}

fn provisioned(config: &TableConfig) -> Result<Option<ProvisionedThroughput>, TableError> {
    let Some((read, write)) = config.provisioned else {
        return Ok(None);
    };
    let throughput = ProvisionedThroughput::builder()
        .read_capacity_units(i64::from(read))
        .write_capacity_units(i64::from(write))
        .build()
        .map_err(incomplete)?;
    Ok(Some(throughput))
}

fn tags(tags: &BTreeMap<String, String>) -> Result<Option<Vec<Tag>>, TableError> {
    if tags.is_empty() {
        return Ok(None);
    }
    let tag = |(key, value)| {
        Tag::builder()
            .key(key)
            .value(value)
            .build()
            .map_err(incomplete)
    };
    tags.iter().map(tag).collect::<Result<_, _>>().map(Some)
}

/// A request without a required field: the settings gave an empty one.
fn incomplete(error: aws_sdk_dynamodb::error::BuildError) -> TableError {
    TableError::Unusable(format!("its settings are incomplete: {error}"))
}
