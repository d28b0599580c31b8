//! Streams whose record distribution strategy is `AUTO`: the service places records, also those without a key.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamMode, StreamModeDetails};
use kcl::{
    Clock as _, ConsumerConfig, FanOutConfig, InitialPosition, RetrievalMode, Scheduler,
    ShardPosition, ShardPositions, StreamPosition, Until,
};
use kinesis_testkit::LocalAws;
use tokio::runtime::Handle;

use crate::clock::TokioClock;
use crate::keyed::Desk;
use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{PATIENCE, STREAM, id_of, payload, until};

/// An `AUTO` stream with four shards.
async fn auto() -> Paused {
    let clock = TokioClock::new();
    let services = kinesis_testkit::TokioClock::starting_at(clock.wall());
    let aws = LocalAws::builder().clock(services).build().await.unwrap();
    let client = Client::new(&aws.in_process_config());
    let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand);
    let create = client.create_stream().stream_name(STREAM);
    create.stream_mode_details(mode.build().unwrap()).send().await.unwrap();
    let summary = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let update = client
        .update_stream_record_distribution_strategy()
        .stream_arn(summary.stream_description_summary.unwrap().stream_arn)
        .record_distribution_strategy(RecordDistributionStrategy::Auto);
    update.send().await.unwrap();
    Paused { aws, clock }
}

fn key(id: u64) -> Option<String> {
    id.is_multiple_of(3).then(|| format!("key-{id}"))
}

/// Puts records, two thirds of them without a key.
async fn put(paused: &Paused, probe: &Probe, ids: std::ops::Range<u64>) {
    let client = Client::new(&paused.aws.in_process_config());
    for id in ids {
        let request = client.put_record().stream_name(STREAM).data(Blob::new(payload(id)));
        request.set_partition_key(key(id)).send().await.unwrap();
        probe.acknowledged(id..id + 1);
    }
}

fn assert_keys(probe: &Probe) {
    probe.assert_exact();
    for seen in probe.seen() {
        assert_eq!(seen.key, key(id_of(&seen.data).unwrap()));
    }
}

fn fan_out() -> RetrievalMode {
    RetrievalMode::FanOut(FanOutConfig::default())
}

#[tokio::test(start_paused = true)]
async fn records_without_a_key_are_delivered_in_order_with_the_others() {
    for mode in [RetrievalMode::Polling, fan_out()] {
        let paused = auto().await;
        let probe = Probe::new();
        put(&paused, &probe, 0..40).await;
        let config = config("w1").with_retrieval(mode);
        let worker = paused.builder(&probe, config).build().await.unwrap().spawn();
        until("all records", || probe.is_settled()).await;
        put(&paused, &probe, 40..80).await;
        until("the later records", || probe.is_settled()).await;
        assert_keys(&probe);
        worker.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_takes_all_records_without_a_key_in_parallel() {
    let (paused, desk) = (auto().await, Desk::new());
    put(&paused, &desk.probe, 0..40).await;
    desk.keep(0..40);
    let builder = paused.builder(&desk.probe, config("w1").with_concurrency_per_shard(40));
    let worker = desk.handle_for(builder).build().await.unwrap().spawn();
    until("all in hand", || desk.in_hand().len() == 40).await;
    desk.release_all();
    until("all records", || desk.probe.is_settled()).await;
    worker.shutdown(PATIENCE).await.unwrap();
    desk.assert_exact();
}

#[tokio::test(start_paused = true)]
async fn every_position_and_a_seek_work_on_them() {
    for mode in [RetrievalMode::Polling, fan_out()] {
        for position in [
            InitialPosition::Latest,
            InitialPosition::AtTimestamp(TokioClock::new().wall() + Duration::from_secs(60)),
        ] {
            let paused = auto().await;
            put(&paused, &Probe::new(), 0..40).await;
            tokio::time::sleep(Duration::from_secs(65)).await;
            let probe = Probe::new();
            let config =
                config("w1").with_retrieval(mode.clone()).with_initial_position(position.clone());
            let built = paused.builder(&probe, config).build().await.unwrap();
            put(&paused, &probe, 40..80).await;
            let worker = built.spawn();
            until("the later records", || probe.is_settled()).await;
            assert_eq!(probe.seen().len(), 40, "{mode:?} {position:?}");
            assert_keys(&probe);
            // All records of one shard, again.
            let shard = paused.aws.records(STREAM).swap_remove(0);
            worker.seek(&shard.shard_id, ShardPosition::TrimHorizon, false).await.unwrap();
            let all = 40 + shard.records.len();
            until("one shard again", || probe.seen().len() == all).await;
            worker.shutdown(PATIENCE).await.unwrap();
        }

        let paused = auto().await;
        put(&paused, &Probe::new(), 0..40).await;
        let shard = paused.aws.records(STREAM).swap_remove(0);
        let third = shard.records[2].sequence_number.to_string().parse().unwrap();
        let positions = ShardPositions::new(StreamPosition::Latest)
            .with(&shard.shard_id, ShardPosition::AtSequenceNumber(third));
        let config = config("w1")
            .with_retrieval(mode.clone())
            .with_initial_position(InitialPosition::PerShard(positions));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let probe = Probe::new();
        let worker = paused.builder(&probe, config).build().await.unwrap().spawn();
        let rest = shard.records.len() - 2;
        until("the rest of one shard", || probe.seen().len() == rest).await;
        assert_keys(&probe);
        worker.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bounded_replay_delivers_them_with_a_lease_table_and_without() {
    for mode in [RetrievalMode::Polling, fan_out()] {
        let paused = auto().await;
        let probe = Probe::new();
        put(&paused, &probe, 0..40).await;
        let replay =
            |config: ConsumerConfig| config.with_retrieval(mode.clone()).with_until(Until::Tip);
        let config = replay(config("w1"));
        let worker = paused.builder(&probe, config.clone()).build().await.unwrap().spawn();
        let report = worker.join().await.unwrap().replay.unwrap();
        assert!(report.is_complete, "{report}");
        assert_keys(&probe);

        let again = Probe::new();
        (0..40).for_each(|id| again.acknowledged(id..id + 1));
        let standalone = Scheduler::standalone(STREAM, &paused.aws.in_process_config())
            .processor(again.factory())
            .config(config)
            .coordination_on(Handle::current())
            .clock(std::sync::Arc::new(paused.clock));
        let worker = standalone.build().await.unwrap().spawn();
        let report = worker.join().await.unwrap().replay.unwrap();
        assert!(report.is_complete, "{report}");
        assert!(again.is_settled());
        assert_keys(&again);
    }
}
