//! The lease table itself: found as it is, or created with its index.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndex,
    GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection, ProjectionType,
    ProvisionedThroughput, ScalarAttributeType, TableDescription, Tag,
};

use super::error::{CallError, classify};
use super::item::attribute as name;
use super::table_check::{Index, TableKind, TableProblem, check, index_state};
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

/// Why a table cannot serve, now or at all.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TableError {
    #[error(transparent)]
    Unusable(#[from] TableProblem),
    /// It can be used soon.
    #[error("{0}")]
    NotReady(String),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Whether the table exists. If it does, it was checked and its items can be read.
pub(crate) async fn find(
    client: &Client,
    table: &str,
    kind: TableKind,
) -> Result<bool, TableError> {
    match describe(client, table).await? {
        None => Ok(false),
        Some(description) => check(&description, kind).map(|()| true),
    }
}

/// The table, or `None` if it does not exist.
pub(super) async fn describe(
    client: &Client,
    table: &str,
) -> Result<Option<TableDescription>, TableError> {
    match client.describe_table().table_name(table).send().await {
        Ok(output) => Ok(output.table),
        Err(SdkError::ServiceError(error))
            if matches!(error.err(), DescribeTableError::ResourceNotFoundException(_)) =>
        {
            Ok(None)
        }
        Err(error) => Err(classify("DescribeTable", &error).into()),
    }
}

/// Finds the lease table, or creates it, with its index. [`TableError::NotReady`] until both can be
/// used: call it again.
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
    check(&description, TableKind::Leases)?;
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

/// A table that was there a moment ago, or whose creation has begun.
async fn described(client: &Client, table: &str) -> Result<TableDescription, TableError> {
    let found = describe(client, table).await?;
    found.ok_or(TableError::NotReady("it is CREATING".to_owned()))
}

async fn create(client: &Client, table: &str, config: &TableConfig) -> Result<(), TableError> {
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .set_key_schema(Some(index_key()?))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
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
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
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
            match index_state(&described(client, table).await?) {
                Index::Missing => Err(classify("UpdateTable", &error).into()),
                Index::Changing | Index::Ready => Ok(()),
            }
        }
    }
}

fn key(attribute: &str, kind: KeyType) -> Result<KeySchemaElement, TableError> {
    KeySchemaElement::builder().attribute_name(attribute).key_type(kind).build().map_err(incomplete)
}

fn index_key() -> Result<Vec<KeySchemaElement>, TableError> {
    Ok(vec![key(name::OWNER, KeyType::Hash)?, key(name::KEY, KeyType::Range)?])
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
    let tag = |(key, value)| Tag::builder().key(key).value(value).build().map_err(incomplete);
    tags.iter().map(tag).collect::<Result<_, _>>().map(Some)
}

/// A request without a required field: the settings gave an empty one.
fn incomplete(error: aws_sdk_dynamodb::error::BuildError) -> TableError {
    TableProblem::Settings { problem: error.to_string() }.into()
}
