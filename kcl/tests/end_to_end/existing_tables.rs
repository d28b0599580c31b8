//! Tables that are there before the first worker: each is used, or refused by a text that names what
//! is different about it.

use std::time::Duration;

use aws_sdk_dynamodb::types as t;
use kcl::{BuildError, StartError, TableProblem};
use kinesis_testkit::LocalAws;

use crate::probe::Probe;
use crate::setup::{APPLICATION, aws, builder, config, processing, scheduler, until};

const INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

fn schema(key: &[&str]) -> Vec<t::KeySchemaElement> {
    let kinds = [t::KeyType::Hash, t::KeyType::Range];
    let elements = key.iter().zip(kinds).map(|(name, kind)| {
        let element = t::KeySchemaElement::builder().attribute_name(*name);
        element.key_type(kind).build().unwrap()
    });
    elements.collect()
}

fn index(key: &[&str], projection: t::Projection) -> t::GlobalSecondaryIndex {
    t::GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .set_key_schema(Some(schema(key)))
        .projection(projection)
        .build()
        .unwrap()
}

fn all() -> t::Projection {
    let all = t::Projection::builder().projection_type(t::ProjectionType::All);
    all.build()
}

async fn create(
    aws: &LocalAws,
    table: &str,
    key: &[&str],
    kind: t::ScalarAttributeType,
    index: Option<t::GlobalSecondaryIndex>,
) {
    let of_index = index.iter().flat_map(|index| index.key_schema());
    let mut names: Vec<String> = of_index
        .map(|element| element.attribute_name().to_owned())
        .chain(key.iter().map(|name| (*name).to_owned()))
        .collect();
    names.sort();
    names.dedup();
    let attributes = names.iter().map(|name| {
        let attribute = t::AttributeDefinition::builder().attribute_name(name);
        attribute.attribute_type(kind.clone()).build().unwrap()
    });
    aws.dynamodb()
        .create_table()
        .table_name(table)
        .set_attribute_definitions(Some(attributes.collect()))
        .set_key_schema(Some(schema(key)))
        .set_global_secondary_indexes(index.map(|index| vec![index]))
        .billing_mode(t::BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
}

async fn problem(aws: &LocalAws) -> (String, TableProblem) {
    let build = builder(aws, &Probe::new(), config("w")).build().await;
    match build.map(drop).unwrap_err() {
        BuildError::Start(StartError::TableUnusable { table, problem }) => (table, problem),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_key_of_something_else() {
    for (key, kind, found) in [
        (&["orderId"][..], t::ScalarAttributeType::S, "orderId (S)"),
        (&["leaseKey"], t::ScalarAttributeType::N, "leaseKey (N)"),
        (&["leaseKey", "created"], t::ScalarAttributeType::S, "leaseKey (S) and created (S)"),
    ] {
        let aws = aws(1).await;
        create(&aws, APPLICATION, key, kind, None).await;
        let (table, told) = problem(&aws).await;
        assert_eq!(
            (table.as_str(), told.to_string()),
            (
                APPLICATION,
                format!(
                    "its primary key is {found}, not leaseKey (S), so it belongs to something else: \
                     give the application another name, or set table.name"
                )
            )
        );
        assert_eq!(aws.calls("UpdateTable") + aws.calls("GetItem") + aws.calls("Scan"), 0);
    }
}

#[tokio::test]
async fn an_index_of_the_name_with_another_key() {
    let aws = aws(1).await;
    let index = index(&["leaseOwner"], all());
    create(&aws, APPLICATION, &["leaseKey"], t::ScalarAttributeType::S, Some(index)).await;
    let (_, told) = problem(&aws).await;
    assert_eq!(
        told.to_string(),
        format!(
            "its index {INDEX} has the key leaseOwner (S), not leaseOwner (S) and leaseKey (S): \
             delete the index, and the next start creates it"
        )
    );
}

#[tokio::test]
async fn the_tables_of_an_older_fleet_with_another_key() {
    let text = t::ScalarAttributeType::S;
    let state = "billing-CoordinatorState";
    let aws = aws(1).await;
    create(&aws, state, &["leaseKey"], text.clone(), None).await;
    let (table, told) = problem(&aws).await;
    assert_eq!(table, state);
    assert!(told.to_string().contains("leaseKey (S), not key (S)"), "{told}");

    let aws = crate::setup::aws(1).await;
    create(&aws, state, &["key"], text.clone(), None).await;
    let (table, told) = problem(&aws).await;
    assert_eq!((table.as_str(), told), ("billing-WorkerMetricStats", TableProblem::Missing));
    create(&aws, "billing-WorkerMetricStats", &["key"], text, None).await;
    let (_, told) = problem(&aws).await;
    assert!(told.to_string().contains("key (S), not wid (S)"), "{told}");
}

#[tokio::test]
async fn an_item_that_is_no_lease_is_not_a_fleet_of_2x() {
    let aws = aws(1).await;
    create(&aws, APPLICATION, &["leaseKey"], t::ScalarAttributeType::S, None).await;
    let text = |text: &str| t::AttributeValue::S(text.into());
    let put = aws.dynamodb().put_item().table_name(APPLICATION);
    put.item("leaseKey", text("order-7")).item("total", text("3.50")).send().await.unwrap();
    let (table, told) = problem(&aws).await;
    assert_eq!(table, APPLICATION);
    assert_eq!(
        told.to_string(),
        "it holds no leases, and its item \"order-7\" is no lease: its attribute checkpoint is missing; \
         give the application another name, set table.name, or delete the item"
    );
    let left = aws.dynamodb().scan().table_name(APPLICATION).send().await;
    assert_eq!(left.unwrap().count(), 1, "nothing was written");
}

#[tokio::test]
async fn another_projection_billing_mode_or_no_index_is_used() {
    let include = t::Projection::builder()
        .projection_type(t::ProjectionType::Include)
        .non_key_attributes("checkpoint")
        .build();
    let key = ["leaseOwner", "leaseKey"];
    for index in [None, Some(index(&key, all())), Some(index(&key, include))] {
        let aws = aws(1).await;
        create(&aws, APPLICATION, &["leaseKey"], t::ScalarAttributeType::S, index).await;
        // The settings ask for another billing mode than the table has.
        let mut table = kcl::TableConfig::default();
        table.provisioned = Some((5, 5));
        let config = config("w").with_table(table);
        let worker = scheduler(&aws, &Probe::new(), config).await.spawn();
        until("a shard", || processing(&worker) == 1).await;
        worker.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}
