//! What a stop leaves in the table, and what a start makes of it.

use super::*;

#[tokio::test]
async fn several_leases_are_handed_over_evenly_and_one_pending_to_the_leaver_stays_pending() {
    let aws = aws(6).await;
    let workers = [
        Worker::start(&aws, "w1", config()).await,
        Worker::start(&aws, "w2", config()).await,
        Worker::start(&aws, "w3", config()).await,
    ];
    until("2 each", async || {
        workers
            .iter()
            .all(|worker| worker.held().len() == 2)
            .then_some(())
    })
    .await;
    // Somebody drains a lease for the worker that is about to leave.
    let mut lease = Lease::new("shardId-x", Checkpoint::TrimHorizon);
    lease.owner = Some("w3".into());
    lease.checkpoint_owner = Some("w9".into());
    store(&aws).create(&lease).await.unwrap();
    let [first, second, third] = workers;
    third.shutdown().await;
    until("3 each", async || {
        (first.held().len() == 3 && second.held().len() == 3).then_some(())
    })
    .await;
    let found = leases(&aws).await;
    let pending = &found["shardId-x"];
    if pending.counter == 0 {
        assert_eq!(
            pending.checkpoint_owner.as_deref(),
            Some("w9"),
            "not evicted"
        );
    }
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn a_restart_under_the_same_id_goes_on_at_once_with_what_it_kept() {
    let aws = aws(2).await;
    // Far longer than the test: nothing expires.
    let config = config().with_failover_time(Duration::from_secs(3600));
    let config = config.with_on_stop(OnStop::Keep).with_worker_id("w1");
    let first = Worker::start(&aws, "w1", config.clone()).await;
    until("2 leases", async || (first.held().len() == 2).then_some(())).await;
    first.shutdown().await;
    assert!(
        leases(&aws)
            .await
            .values()
            .all(|lease| lease.owner.as_deref() == Some("w1"))
    );
    let again = Worker::start(&aws, "w1", config).await;
    until("2 leases again", async || {
        (again.held().len() == 2).then_some(())
    })
    .await;
    again.shutdown().await;
}

#[tokio::test]
async fn only_the_first_look_of_a_configured_id_resumes_without_a_wait() {
    for (configured, first_look_fails, resumes) in [
        (true, false, true),
        (true, true, false),
        (false, false, false),
    ] {
        let aws = aws(1).await;
        // Far longer than the test: nothing expires.
        let mut config = config().with_failover_time(Duration::from_secs(3600));
        config.worker_id = configured.then(|| "w1".to_owned());
        let coordinator = Coordinator::prepare(parts(&aws, "w1", config))
            .await
            .unwrap();
        let shared = &coordinator.shared;
        let free = leases(&aws).await.into_values().next().unwrap();
        let assigned = shared.store.assign(&free, "w1", false).await.unwrap();
        assert_eq!(assigned.applied().unwrap().counter, 1);

        let (deliveries, mut tenures) = mpsc::channel(QUEUE);
        let mut looks = Looks::new(shared);
        if first_look_fails {
            let cut = Fault::cut_connection().service(Service::DynamoDb);
            let fault = aws.faults().add(cut.operation("Scan"));
            look_and_act(shared, &mut looks, &deliveries)
                .await
                .unwrap_err();
            aws.faults().remove(fault);
        }
        look_and_act(shared, &mut looks, &deliveries).await.unwrap();
        assert_eq!(
            tenures.try_recv().is_ok(),
            resumes,
            "{configured} {first_look_fails}"
        );
        let counter = leases(&aws).await[&free.key].counter;
        assert_eq!(counter, if resumes { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_leaving_worker_awaits_the_row_that_it_writes_and_spares_a_later_one() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = Arc::clone(&coordinator.shared);
    let delay = Fault::delay(Duration::from_millis(200)).service(Service::DynamoDb);
    let delay = aws.faults().add(delay.operation("UpdateItem").times(1));
    let report = {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { worker_metrics::report(&shared).await })
    };
    until("the row is being written", async || {
        (aws.faults().count(delay) == 1).then_some(())
    })
    .await;
    shared.leaving.cancel();
    report.await.unwrap();
    let rows = async || store(&aws).list(true).await.unwrap().workers;
    let [row] = &rows().await[..] else {
        panic!("the write was dropped")
    };
    // The next process under this id.
    let later = row.last_update + 1;
    store(&aws).put_worker("w1", later).await.unwrap();
    worker_metrics::withdraw(&shared).await;
    assert_eq!(rows().await.len(), 1);

    store(&aws).put_worker("w1", row.last_update).await.unwrap();
    worker_metrics::withdraw(&shared).await;
    assert!(rows().await.is_empty());
}

#[tokio::test]
async fn a_leaving_worker_removes_its_row_though_the_last_write_was_not_done() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = Arc::clone(&coordinator.shared);
    let rows = async || store(&aws).list(true).await.unwrap().workers;
    let last_attempt = shared.epoch_seconds();
    *shared.row_written() =
        worker_metrics::RowWritten::new(Some(last_attempt), Some(last_attempt - 30));
    store(&aws)
        .put_worker("w1", last_attempt - 30)
        .await
        .unwrap();
    worker_metrics::withdraw(&shared).await;
    assert!(rows().await.is_empty(), "the row of the write before");
}

#[tokio::test]
async fn an_aborted_processors_lease_is_not_given_back_at_the_stop() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let mut incoming = coordinator.start();
    let tenure = incoming.recv().await.unwrap();
    coordinator.leave().await;
    tenure.end(TenureEnd::Aborted).await;
    // Answered when its writer is gone.
    tenure.end(TenureEnd::Lost).await;
    coordinator.stop().await;
    let lease = &leases(&aws).await[tenure.shard_id()];
    assert_eq!(lease.owner.as_deref(), Some("w1"), "it expires");
}
