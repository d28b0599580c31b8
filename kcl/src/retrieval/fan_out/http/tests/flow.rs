//! Windows, and the number of connections.

use super::*;

const MEBIBYTE: usize = 1 << 20;

#[tokio::test]
async fn a_subscription_gets_its_records_while_all_others_of_its_connection_are_not_read() {
    const SHARDS: usize = 16;
    let service = Service::start(SHARDS as u32).await;
    let stream_window = 64 << 10;
    let client = service.client(Settings {
        stream_window,
        connection_window: SHARDS as u32 * stream_window,
        max_streams: SHARDS,
        ..Settings::default()
    });
    for shard in 1..SHARDS {
        for _ in 0..2 {
            service.put(shard, vec![0; MEBIBYTE - 3]).await;
        }
    }
    let mut subscriptions = service.subscribe_to_all(&client, SHARDS).await;
    for nth in 0..8 {
        service.put(0, vec![nth; MEBIBYTE - 3]).await;
        let records = next(&mut subscriptions[0]).await;
        assert_eq!(records, [Blob::new(vec![nth; MEBIBYTE - 3])]);
    }
    assert_eq!(service.aws.connections(), 1);

    // A subscription that was not read goes on as soon as it is.
    let records = next(&mut subscriptions[7]).await;
    assert_eq!(records.len(), 2);
}

#[tokio::test]
async fn subscriptions_that_were_not_read_give_the_window_back_when_they_are_dropped() {
    let mut service = Service::start(2).await;
    let stream_window = 64 << 10;
    let client = service.client(Settings {
        stream_window,
        connection_window: 2 * stream_window,
        max_streams: 2,
        ..Settings::default()
    });
    service.put(0, vec![0; MEBIBYTE - 3]).await;
    let mut read = service.subscribe(&client, 1).await;
    for nth in 0..4 {
        let unread = service.subscribe(&client, 0).await;
        service.put(1, vec![nth; MEBIBYTE - 3]).await;
        assert_eq!(next(&mut read).await.len(), 1);
        drop(unread);
        wait_until(|| service.aws.subscriptions() == 1).await;
        service.register_again().await;
    }
    assert_eq!(service.aws.connections(), 1);
}

#[tokio::test]
async fn a_connection_carries_as_many_subscriptions_as_the_server_allows() {
    const SHARDS: usize = 10;
    let service = Service::build(LocalAws::builder().max_concurrent_streams(4), 10).await;
    let client = service.client(Settings::default());
    let mut subscriptions = service.subscribe_to_all(&client, SHARDS).await;
    assert_eq!(service.aws.connections(), 3);
    for (shard, subscription) in subscriptions.iter_mut().enumerate() {
        service.put(shard, vec![shard as u8]).await;
        assert_eq!(next(subscription).await, [Blob::new([shard as u8])]);
    }
}

#[tokio::test]
async fn a_connection_carries_no_more_subscriptions_than_the_client_allows() {
    let service = Service::start(5).await;
    let client = service.client(Settings { max_streams: 2, ..Settings::default() });
    let mut subscriptions = Vec::new();
    for (shard, connections) in [1, 1, 2, 2, 3].into_iter().enumerate() {
        subscriptions.push(service.subscribe(&client, shard).await);
        assert_eq!(service.aws.connections(), connections);
    }
}

#[tokio::test]
async fn an_ended_subscription_leaves_its_place_to_another() {
    let service = Service::start(3).await;
    let client = service.client(Settings { max_streams: 2, ..Settings::default() });
    let mut kept = service.subscribe(&client, 0).await;
    let dropped = service.subscribe(&client, 1).await;
    drop(dropped);
    // The service learns of it: the stream was reset.
    wait_until(|| service.aws.subscriptions() == 1).await;
    let _another = service.subscribe(&client, 2).await;
    assert_eq!(service.aws.connections(), 1);
    service.put(0, b"undisturbed".to_vec()).await;
    assert_eq!(next(&mut kept).await, [Blob::new("undisturbed")]);
}

#[tokio::test]
async fn a_subscription_whose_call_was_cancelled_leaves_its_place_to_another() {
    let service = Service::start(2).await;
    let client = service.client(Settings { max_streams: 1, ..Settings::default() });
    let fault = kinesis_testkit::Fault::delay(PATIENCE).operation("SubscribeToShard").times(1);
    let fault = service.aws.faults().add(fault);
    let delayed = service.subscribe(&client, 0);
    let struck = wait_until(|| service.aws.faults().count(fault) == 1);
    tokio::select! {
        _ = delayed => unreachable!("it is delayed"),
        () = struck => {}
    }
    let _another = service.subscribe(&client, 1).await;
    assert_eq!(service.aws.connections(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let service = Service::start(2).await;
    let client = service.client(Settings {
        max_streams: 1,
        ping_interval: Duration::from_millis(5),
        idle_pings: 2,
        ..Settings::default()
    });
    let mut busy = service.subscribe(&client, 0).await;
    let idle = service.subscribe(&client, 1).await;
    assert_eq!(service.aws.connections(), 2);
    drop(idle);
    service.wait_for_connections(1).await;
    service.put(0, b"here".to_vec()).await;
    assert_eq!(next(&mut busy).await, [Blob::new("here")]);
}

#[tokio::test]
async fn connections_close_when_the_last_client_and_the_last_subscription_are_dropped() {
    let service = Service::start(2).await;
    let client = service.client(Settings { max_streams: 1, ..Settings::default() });
    let mut running = service.subscribe(&client, 0).await;
    drop(service.subscribe(&client, 1).await);
    assert_eq!(service.aws.connections(), 2);
    drop(client);
    service.wait_for_connections(1).await;
    service.put(0, b"still".to_vec()).await;
    assert_eq!(next(&mut running).await, [Blob::new("still")]);
    drop(running);
    service.wait_for_connections(0).await;
}

#[tokio::test]
async fn each_subscription_to_a_plain_endpoint_has_a_connection_of_its_own() {
    let service = Service::start(3).await;
    let client = service.client_at(service.aws.kinesis_url(), Settings::default());
    let mut subscriptions = service.subscribe_to_all(&client, 3).await;
    assert_eq!(service.aws.connections(), 3);
    for (shard, subscription) in subscriptions.iter_mut().enumerate() {
        service.put(shard, vec![shard as u8]).await;
        assert_eq!(next(subscription).await, [Blob::new([shard as u8])]);
    }
    drop(subscriptions.pop());
    service.wait_for_connections(2).await;
    assert_eq!(service.aws.subscriptions(), 2);
}
