//! Leases of a stopped application that are reset.

use std::ops::Range;
use std::time::Duration;

use kcl::{
    BuildError, Checkpoint, ExtendedSequenceNumber, InitialPosition, LeaseAdmin, LeaseAdminError,
    ResetTo, ShardPosition, StartError,
};
use kinesis_testkit::{Fault, Service};

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{STREAM, open_shards, processing, put, split, until};

const DEADLINE: Duration = Duration::from_secs(20);

async fn admin(paused: &Paused) -> LeaseAdmin {
    paused.builder(&Probe::new(), config("admin")).lease_admin().await.unwrap()
}

async fn reset(paused: &Paused, to: ResetTo) -> Result<usize, LeaseAdminError> {
    let admin = admin(paused).await;
    admin.plan(to).await?.apply().await
}

/// Processes all records with one worker, and stops it.
async fn process(paused: &Paused, probe: &Probe) {
    let worker = paused.builder(probe, config("w")).build().await.unwrap().spawn();
    until("all records are processed", || probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
}

/// Runs a worker, and checks that it processes these records once, and no others.
async fn assert_processed_again(paused: &Paused, config: kcl::ConsumerConfig, ids: Range<u64>) {
    let again = Probe::new();
    again.acknowledged(ids.clone());
    let worker = paused.builder(&again, config).build().await.unwrap().spawn();
    until("the records are processed again", || again.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    again.assert_exact();
    assert_eq!(again.seen().len() as u64, ids.end - ids.start);
}

#[tokio::test(start_paused = true)]
async fn a_reset_to_the_trim_horizon_processes_all_shards_again_in_order() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..100).await;
    split(&paused.aws, &open_shards(&paused.aws)[0]).await;
    put(&paused.aws, &probe, 100..200).await;
    process(&paused, &probe).await;

    let admin = admin(&paused).await;
    let plan = admin.plan(ResetTo::Application(InitialPosition::TrimHorizon)).await.unwrap();
    let text = plan.to_string();
    assert_eq!(text.lines().count(), plan.changes().len());
    assert!(text.contains("shardId-000000000000: SHARD_END -> TRIM_HORIZON"), "{text}");
    let before = admin.list().await.unwrap();
    assert!(before.leases.iter().any(|lease| lease.checkpoint == Checkpoint::ShardEnd));
    assert_eq!(plan.apply().await.unwrap(), 4);
    let after = admin.list().await.unwrap();
    assert!(after.leases.iter().all(|lease| lease.checkpoint == Checkpoint::TrimHorizon));
    assert!(after.leases.iter().all(|lease| lease.owner.is_none()));
    let nothing = admin.plan(ResetTo::Application(InitialPosition::TrimHorizon)).await.unwrap();
    assert_eq!(nothing.to_string(), "no lease is to be changed");

    assert_processed_again(&paused, config("w"), 0..200).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_to_the_tip_skips_what_was_not_processed() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    process(&paused, &probe).await;
    split(&paused.aws, &open_shards(&paused.aws)[0]).await;
    put(&paused.aws, &probe, 50..100).await;
    // Times of the service are to the second, less two seconds for differences between its hosts.
    tokio::time::sleep(Duration::from_secs(5)).await;
    reset(&paused, ResetTo::Application(InitialPosition::Latest)).await.unwrap();
    let later = Probe::new();
    put(&paused.aws, &later, 100..150).await;
    process(&paused, &later).await;
    later.assert_exact();
    assert_eq!(later.seen().len(), 50, "nothing that was put before");
}

#[tokio::test(start_paused = true)]
async fn a_reset_to_a_time_counts_whatever_the_settings_of_the_workers_are() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let time = kcl::Clock::wall(&paused.clock);
    put(&paused.aws, &probe, 50..100).await;
    process(&paused, &probe).await;
    let to = ResetTo::Application(InitialPosition::AtTimestamp(time));
    assert_eq!(reset(&paused, to).await.unwrap(), 2);

    let early = time - Duration::from_secs(3600);
    let settings = config("w").with_initial_position(InitialPosition::AtTimestamp(early));
    assert_processed_again(&paused, settings, 50..100).await;
}

#[tokio::test(start_paused = true)]
async fn one_shard_goes_on_after_the_record_that_is_given() {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    process(&paused, &probe).await;
    let shard = paused.aws.records(STREAM).remove(0);
    let number = shard.records[19].sequence_number.parse().unwrap();
    let (shard_id, last) = (shard.shard_id, ExtendedSequenceNumber::new(number, 0));
    let to = ResetTo::AfterRecord { shard_id: shard_id.clone(), last };
    assert_eq!(reset(&paused, to).await.unwrap(), 1);
    assert_processed_again(&paused, config("w"), 20..50).await;

    let to = ResetTo::Shard { shard_id, position: ShardPosition::TrimHorizon };
    assert_eq!(reset(&paused, to).await.unwrap(), 1);
    assert_processed_again(&paused, config("w"), 0..50).await;
}

#[tokio::test(start_paused = true)]
async fn a_live_owner_is_named_and_no_lease_is_changed() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    let worker = paused.builder(&probe, config("w")).build().await.unwrap().spawn();
    until("all records are processed", || probe.is_settled()).await;
    let refused = reset(&paused, ResetTo::Application(InitialPosition::TrimHorizon)).await;
    let Err(LeaseAdminError::OwnerAlive { owner, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(owner, "w");
    let leases = admin(&paused).await.list().await.unwrap().leases;
    assert!(leases.iter().all(|lease| lease.owner.as_deref() == Some("w")), "{leases:?}");
    worker.shutdown(DEADLINE).await.unwrap();
    probe.assert_exact();
}

#[tokio::test(start_paused = true)]
async fn a_live_owner_whose_lease_is_at_the_position_already_is_named_too() {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    let parent = open_shards(&paused.aws).remove(0);
    let worker = paused.builder(&probe, config("w")).build().await.unwrap().spawn();
    until("all records are processed", || probe.is_settled()).await;
    split(&paused.aws, &parent).await;
    // The children have no records, so their leases stay at the trim horizon.
    until("the children are processed", || processing(&worker) == 2).await;
    let refused = reset(&paused, ResetTo::Application(InitialPosition::TrimHorizon)).await;
    assert!(matches!(refused, Err(LeaseAdminError::OwnerAlive { .. })), "{refused:?}");
    worker.shutdown(DEADLINE).await.unwrap();
    probe.assert_exact();
}

#[tokio::test(start_paused = true)]
async fn the_owner_that_was_killed_is_waited_for_and_the_next_worker_starts_at_once() {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    let worker = paused.builder(&probe, config("w")).build().await.unwrap().spawn();
    until("all records are processed", || probe.is_settled()).await;
    worker.abort();
    let _ = worker.join().await;
    let began = paused.now();
    reset(&paused, ResetTo::Application(InitialPosition::TrimHorizon)).await.unwrap();
    assert!(paused.now() - began >= Duration::from_secs(10), "the failover time");
    let began = paused.now();
    assert_processed_again(&paused, config("w"), 0..50).await;
    assert!(paused.now() - began < Duration::from_secs(8), "{:?}", paused.now() - began);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_takes_a_lease_after_the_plan_keeps_it() {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    process(&paused, &probe).await;
    let admin = admin(&paused).await;
    let plan = admin.plan(ResetTo::Application(InitialPosition::TrimHorizon)).await.unwrap();
    let worker = paused.builder(&probe, config("w2")).build().await.unwrap().spawn();
    put(&paused.aws, &probe, 50..60).await;
    until("all records are processed", || probe.is_settled()).await;
    let error = plan.apply().await.unwrap_err();
    assert!(matches!(error, LeaseAdminError::OwnerAlive { .. }), "{error:?}");
    worker.shutdown(DEADLINE).await.unwrap();
    probe.assert_exact();
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_fails_half_way_is_taken_up_again() {
    let paused = Paused::start(4).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..200).await;
    process(&paused, &probe).await;
    // The SDK's client tries three times.
    let fault = Fault::throttle().service(Service::DynamoDb).operation("PutItem").skip(2);
    let fault = paused.aws.faults().add(fault);
    let to = ResetTo::Application(InitialPosition::TrimHorizon);
    let error = reset(&paused, to.clone()).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    paused.aws.faults().remove(fault);
    assert_eq!(reset(&paused, to).await.unwrap(), 2, "two leases were reset before");
    assert_processed_again(&paused, config("w"), 0..200).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_table_there_is_nothing_to_administer() {
    let paused = Paused::start(1).await;
    let refused = paused.builder(&Probe::new(), config("admin")).lease_admin().await.unwrap_err();
    let BuildError::Start(error @ StartError::TableUnusable { .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(error.to_string().contains("billing"), "{error}");
    let dynamodb = aws_sdk_dynamodb::Client::new(&paused.aws.in_process_config());
    let tables = dynamodb.list_tables().send().await.unwrap();
    assert!(tables.table_names().is_empty(), "none was created: {tables:?}");
}
