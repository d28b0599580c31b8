//! What a start refuses, and what it leaves alone.

use super::*;

async fn refused(parts: CoordinatorParts) -> StartError {
    Coordinator::prepare(parts).await.map(drop).unwrap_err()
}

#[tokio::test]
async fn a_stream_that_does_not_exist_is_named() {
    let aws = LocalAws::start().await.unwrap();
    let error = refused(parts(&aws, "w1", config())).await;
    assert!(
        matches!(&error, StartError::StreamNotFound { stream } if stream == STREAM),
        "{error:?}"
    );
    let tables = aws.dynamodb().list_tables().send().await.unwrap();
    assert!(tables.table_names().is_empty(), "nothing was created");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_named_within_the_time_limit() {
    let aws = aws(1).await;
    // Accepts connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let config = config()
        .with_dynamodb_request_timeout(Duration::from_millis(200))
        .with_startup_timeout(Duration::from_secs(1));
    let mut parts = parts(&aws, "w1", config);
    let dynamodb = parts.dynamodb.as_ref().unwrap().config().to_builder().endpoint_url(url).build();
    parts.dynamodb = Some(aws_sdk_dynamodb::Client::from_conf(dynamodb));
    let error = refused(parts).await;
    assert!(matches!(error, StartError::NoAnswer { service: "DynamoDB", .. }), "{error:?}");
}

#[tokio::test]
async fn missing_credentials_and_missing_permission_are_told_apart() {
    let aws = aws(1).await;
    let mut without = parts(&aws, "w1", config());
    let config_without = aws_sdk_kinesis::Config::builder()
        .behavior_version(aws_sdk_kinesis::config::BehaviorVersion::v2026_01_12())
        .region(aws_sdk_kinesis::config::Region::new("us-east-1"))
        .endpoint_url(aws.kinesis_url())
        .build();
    without.kinesis = aws_sdk_kinesis::Client::from_conf(config_without);
    let error = refused(without).await;
    assert!(matches!(error, StartError::NoCredentials { service: "Kinesis", .. }), "{error:?}");

    let denied = Fault::refuse("AccessDeniedException").service(Service::DynamoDb);
    aws.faults().add(denied.operation("DescribeTable"));
    let error = refused(parts(&aws, "w1", config())).await;
    assert!(
        matches!(
            &error,
            StartError::AccessDenied { action, resource, .. }
                if action == "dynamodb:DescribeTable" && resource == "table billing"
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_table_of_another_stream_or_of_an_earlier_one_is_refused() {
    let aws = aws(1).await;
    Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    aws.create_stream("payments", 1).await.unwrap();
    let other =
        CoordinatorParts { stream: "payments".parse().unwrap(), ..parts(&aws, "w1", config()) };
    let error = refused(other).await;
    assert!(matches!(error, StartError::TableOfAnotherStream { .. }), "{error:?}");

    let lease = leases(&aws).await.into_values().next().unwrap();
    let mut identity = lease.stream.clone().unwrap();
    identity.created -= 1000;
    store(&aws).write(&lease, LeaseWrite::Delete).await.unwrap();
    let renamed = Lease { stream: Some(identity), ..lease };
    store(&aws).write(&renamed, LeaseWrite::Create).await.unwrap();
    let error = refused(parts(&aws, "w1", config())).await;
    assert!(matches!(error, StartError::StreamRecreated { .. }), "{error:?}");
}

#[tokio::test]
async fn the_table_of_an_application_on_several_streams_is_refused() {
    let aws = aws(1).await;
    ensure_table(&aws.dynamodb(), APP, &TableConfig::default()).await.unwrap();
    put_state(&aws, APP, "leaseKey", "CLIENT_VERSION_3X").await;
    let several = "123456789012:payments:1700000000";
    let mut lease = Lease::new(format!("{several}:shardId-000000000000"), Checkpoint::TrimHorizon);
    let name = AttributeValue::S(several.into());
    lease.other.insert("streamName".into(), name);
    store(&aws).write(&lease, LeaseWrite::Create).await.unwrap();
    let error = refused(parts(&aws, "w1", config())).await;
    assert!(
        matches!(&error, StartError::MultiStreamTable { table, found } if table == APP && found == several),
        "{error:?}"
    );
    let after = aws.dynamodb().scan().table_name(APP).send().await.unwrap();
    assert_eq!(after.count(), 2, "nothing was written");
}

pub(super) async fn put_state(aws: &LocalAws, table: &str, hash_key: &str, state: &str) {
    let text = |text: &str| AttributeValue::S(text.into());
    aws.dynamodb()
        .put_item()
        .table_name(table)
        .item(hash_key, text("Migration3.0"))
        .item("cv", text(state))
        .item("entityType", text("CLIENT_VERSION_MIGRATION"))
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn fleets_of_other_generations_are_left_alone() {
    let aws = aws(1).await;
    ensure_table(&aws.dynamodb(), APP, &TableConfig::default()).await.unwrap();
    for (state, accepted) in [
        ("CLIENT_VERSION_2X", false),
        ("CLIENT_VERSION_UPGRADE_FROM_2X", false),
        ("CLIENT_VERSION_9X", false),
        ("CLIENT_VERSION_3X_WITH_ROLLBACK", true),
    ] {
        put_state(&aws, APP, "leaseKey", state).await;
        let result = Coordinator::prepare(parts(&aws, "w1", config())).await.map(drop);
        match result {
            Ok(()) => assert!(accepted, "{state}"),
            Err(StartError::UnsupportedFleet { state: found, .. }) => {
                assert!(!accepted && found == state, "{found}");
                assert!(leases(&aws).await.is_empty(), "nothing was written");
            }
            Err(other) => panic!("{state}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn leases_without_a_state_mean_a_fleet_of_2x_and_nothing_is_written() {
    let aws = aws(1).await;
    ensure_table(&aws.dynamodb(), APP, &TableConfig::default()).await.unwrap();
    let lease = Lease::new("shardId-000000000000", Checkpoint::TrimHorizon);
    store(&aws).write(&lease, LeaseWrite::Create).await.unwrap();
    let before = aws.dynamodb().scan().table_name(APP).send().await.unwrap().count();
    let error = refused(parts(&aws, "w1", config())).await;
    assert!(matches!(error, StartError::UnsupportedFleet { .. }), "{error:?}");
    let after = aws.dynamodb().scan().table_name(APP).send().await.unwrap().count();
    assert_eq!((before, after), (1, 1));
}

pub(super) async fn keyed_table(aws: &LocalAws, table: &str, key: &str) {
    use aws_sdk_dynamodb::types as t;
    let attribute = t::AttributeDefinition::builder().attribute_name(key);
    let schema = t::KeySchemaElement::builder().attribute_name(key).key_type(t::KeyType::Hash);
    aws.dynamodb()
        .create_table()
        .table_name(table)
        .attribute_definitions(attribute.attribute_type(t::ScalarAttributeType::S).build().unwrap())
        .key_schema(schema.build().unwrap())
        .billing_mode(t::BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_fleet_with_its_old_tables_keeps_them() {
    let aws = aws(2).await;
    keyed_table(&aws, "billing-CoordinatorState", "key").await;
    let error = refused(parts(&aws, "w1", config())).await;
    assert!(matches!(error, StartError::TableUnusable { .. }), "a table is missing: {error:?}");
    keyed_table(&aws, "billing-WorkerMetricStats", "wid").await;
    put_state(&aws, "billing-CoordinatorState", "key", "CLIENT_VERSION_3X").await;
    let worker = Worker::start(&aws, "w1", config()).await;
    worker.holds(2).await;
    let table = aws.dynamodb().scan().table_name(APP).send().await.unwrap();
    for item in table.items() {
        assert!(item["leaseKey"].as_s().unwrap().starts_with("shardId-"), "{item:?}");
        assert!(!item.contains_key("entityType"));
    }
    let rows = aws.dynamodb().scan().table_name("billing-WorkerMetricStats").send().await.unwrap();
    assert_eq!(rows.count(), 1);
    worker.shutdown().await;
}

#[tokio::test]
async fn while_a_fleet_moves_to_one_table_its_leader_is_found_in_the_old_one() {
    let aws = aws(1).await;
    let old = "billing-CoordinatorState";
    keyed_table(&aws, old, "key").await;
    let put = async |table: &str, item: &[(&str, &str)]| {
        let item = item
            .iter()
            .map(|(name, value)| ((*name).to_owned(), AttributeValue::S((*value).to_owned())));
        let put = aws.dynamodb().put_item().table_name(table);
        put.set_item(Some(item.collect())).send().await.unwrap();
    };
    let pending = "TABLE_MIGRATION_STATUS_PENDING";
    put(old, &[("key", "TableMigration3.5"), ("tm", pending)]).await;
    let lock = |key, owner| {
        [
            (key, "Leader"),
            ("entityType", "LEADER"),
            ("ownerName", owner),
            ("recordVersionNumber", "1"),
            ("leaseDuration", "120000"),
        ]
    };
    put(old, &lock("key", "java")).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let leader = async || {
        let snapshot = coordinator.scanner.scan(true).await.unwrap();
        snapshot.leader.as_ref().map(|lock| lock.owner.clone())
    };
    assert_eq!(leader().await.as_deref(), Some("java"));
    // The move is complete: the old item may stay behind.
    put(APP, &lock("leaseKey", "next")).await;
    assert_eq!(leader().await.as_deref(), Some("next"));
}
