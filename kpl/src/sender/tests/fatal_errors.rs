//! Answers that are final if they last: a stream that is not found, a permission that is missing.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MISSING: &str = "ResourceNotFoundException";

/// A service whose PutRecords answers with `code` in the given seconds.
fn refuses(code: &'static str, seconds: std::ops::Range<u32>) -> Arc<Scripted> {
    let refused = seconds.start * SECOND..seconds.end * SECOND;
    Scripted::new(move |passed, entries| match refused.contains(&passed) {
        true => (QUICK, Err(refused_request(code))),
        false => all_written(entries),
    })
}

fn long_lived() -> ProducerConfig {
    ProducerConfig { record_ttl: 600 * SECOND, ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_passes_fails_no_record() {
    for code in [
        MISSING,
        "AccessDeniedException",
        "KMSAccessDeniedException",
        "UnrecognizedClientException",
    ] {
        let service = refuses(code, 0..5);
        let producer = producer(service, ProducerConfig::default()).await;
        for id in 0..20 {
            let delivery = send(&producer, id << 120, "v").await;
            let receipt = delivery.await.unwrap();
            assert!(!receipt.may_be_duplicate(), "{code}");
            tokio::time::sleep(SECOND / 4).await;
        }
    }
}

/// Sends records for 8 s, and returns how they fail and after how long the last one has.
async fn fail(producer: &Producer) -> (Vec<DeliveryError>, Duration) {
    let began = clock::now();
    let mut deliveries = Vec::new();
    for id in 0..80 {
        deliveries.push(send(producer, id << 120, "v").await);
        tokio::time::sleep(SECOND / 10).await;
    }
    let mut errors = Vec::new();
    for delivery in deliveries {
        errors.push(delivery.await.unwrap_err());
    }
    (errors, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stays_missing_fails_all_that_waits_and_serves_again_once_it_is_back() {
    for describe_fails in [MISSING, "AccessDeniedException"] {
        let service = refuses(MISSING, 0..60);
        *lock(&service.describe_fails) = Some(refused_request("AccessDeniedException"));
        let producer = producer(Arc::clone(&service), long_lived()).await;
        *lock(&service.describe_fails) = Some(refused_request(describe_fails));
        let (errors, took) = fail(&producer).await;
        assert!((10 * SECOND..17 * SECOND).contains(&took), "{took:?}");
        for error in errors {
            let FailureCause::Fatal { code, .. } = error.cause() else { panic!("{error}") };
            assert!(&**code == MISSING && !error.may_have_been_written());
        }
        // Now each answer is believed.
        let began = clock::now();
        let error = send(&producer, 0, "v").await.await.unwrap_err();
        assert!(matches!(error.cause(), FailureCause::Fatal { .. }), "{error}");
        assert!(began.elapsed() < 6 * SECOND, "{:?}", began.elapsed());
        tokio::time::sleep(60 * SECOND).await;
        send(&producer, 0, "v").await.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_stays_missing_fails_all_that_waits() {
    let service = refuses("AccessDeniedException", 0..60);
    let producer = producer(service, long_lived()).await;
    let (errors, took) = fail(&producer).await;
    assert!((10 * SECOND..17 * SECOND).contains(&took), "{took:?}");
    let is_fatal = |error: &DeliveryError| matches!(error.cause(), FailureCause::Fatal { .. });
    assert!(errors.iter().all(is_fatal));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_described_is_not_believed_to_be_missing() {
    let service = refuses(MISSING, 0..40);
    let producer = producer(service, long_lived()).await;
    let receipt = send(&producer, 0, "v").await.await.unwrap();
    assert!(receipt.attempts > 10);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_expires_before_an_error_is_believed_tells_the_last_answer() {
    let service = refuses(MISSING, 0..5);
    let producer = producer(service, ProducerConfig::default()).await;
    let record = UserRecord::new("k", "v").with_time_to_live(2 * SECOND);
    let error = producer.send(record).await.unwrap().await.unwrap_err();
    let FailureCause::Expired { last, .. } = error.cause() else { panic!("{error}") };
    assert!(last.contains(MISSING) && !error.may_have_been_written());
    assert!(!error.attempts().is_empty());
    assert!(error.attempts().iter().all(|attempt| &*attempt.code == MISSING));
}

/// Two answers with a long time between them are two moments.
#[tokio::test(start_paused = true)]
async fn rare_answers_do_not_add_up() {
    let service = Scripted::new(|passed, entries| match passed.as_secs() % 30 < 2 {
        true => (QUICK, Err(refused_request("AccessDeniedException"))),
        false => all_written(entries),
    });
    let producer = producer(service, ProducerConfig::default()).await;
    for _ in 0..4 {
        let record = UserRecord::new("k", "v").with_time_to_live(SECOND);
        let error = producer.send(record).await.unwrap().await.unwrap_err();
        assert!(matches!(error.cause(), FailureCause::Expired { .. }), "{error}");
        tokio::time::sleep(29 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_ordered_mode_all_that_waits_fails_too() {
    let service = refuses("AccessDeniedException", 0..60);
    let config = ProducerConfig { ordering: RecordOrdering::PerPartitionKey, ..long_lived() };
    let producer = producer(service, config).await;
    let (errors, took) = fail(&producer).await;
    assert!((10 * SECOND..17 * SECOND).contains(&took), "{took:?}");
    assert!(errors.iter().all(|error| !error.may_have_been_written()));
    assert_eq!(producer.buffered_bytes(), 0);
}

/// A throttle shows that the stream is there and may be written to.
#[tokio::test(start_paused = true)]
async fn answers_with_throttles_between_them_are_not_believed() {
    let answers = Mutex::new(0);
    let service = Scripted::new(move |passed, entries| {
        let mut answers = lock(&answers);
        *answers += 1;
        match (passed < 40 * SECOND, *answers % 3) {
            (true, 0) => {
                let throttle = |_| refused("ProvisionedThroughputExceededException");
                (QUICK, Ok(entries.iter().map(throttle).collect()))
            }
            (true, _) => (QUICK, Err(refused_request("AccessDeniedException"))),
            (false, _) => all_written(entries),
        }
    });
    let producer = producer(service, long_lived()).await;
    let mut deliveries = Vec::new();
    for id in 0..300 {
        deliveries.push(send(&producer, id << 120, "v").await);
        tokio::time::sleep(SECOND / 10).await;
    }
    all_delivered(deliveries).await;
}

/// An account may make few calls of DescribeStreamSummary in a second.
#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_described_is_not_described_with_every_answer() {
    let service = refuses(MISSING, 0..120);
    // Without the permission at the start, only the sender describes the stream later.
    *lock(&service.describe_fails) = Some(refused_request("AccessDeniedException"));
    let producer = producer(Arc::clone(&service), long_lived()).await;
    *lock(&service.describe_fails) = Some(unreachable());
    lock(&service.describe_calls).clear();
    send(&producer, 0, "v").await.await.unwrap();
    let calls = lock(&service.describe_calls).clone();
    assert!(calls.len() > 5 && calls[0] > 10 * SECOND, "{calls:?}");
    let mut pauses = calls.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(pauses.all(|pause| pause >= 2 * SECOND), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn once_errors_are_believed_the_next_one_fails_what_waits_unsent() {
    let service = Scripted::new(|_, _| (SECOND, Err(refused_request("AccessDeniedException"))));
    let config =
        ProducerConfig { aggregation_enabled: false, max_requests_in_flight: 1, ..long_lived() };
    let producer = producer(Arc::clone(&service), config).await;
    fail(&producer).await;
    // The pause after the last failure ends.
    tokio::time::sleep(10 * SECOND).await;
    let before = service.calls().len();
    let first = send(&producer, 0, "v").await;
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(service.calls().len(), before + 1, "it is in flight");
    let waiting = send(&producer, u128::MAX, "v").await;
    let (first, waiting) = (first.await.unwrap_err(), waiting.await.unwrap_err());
    for error in [&first, &waiting] {
        assert!(matches!(error.cause(), FailureCause::Fatal { .. }), "{error}");
    }
    assert!(waiting.attempts().is_empty(), "{waiting}");
    assert_eq!(service.calls().len(), before + 1);
}

/// An aggregate that was written waits for one shard map, which was requested after it was written. Answers that come
/// later say nothing of the stream that took it.
#[tokio::test(start_paused = true)]
async fn an_aggregate_waits_for_one_shard_map_while_the_stream_is_found_now_and_then() {
    let calls = AtomicU64::new(0);
    let service =
        Scripted::new(move |_, entries| match calls.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => (QUICK, Err(refused_request(MISSING))),
            _ => all_written(entries),
        });
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    *lock(&service.list_takes) = 3 * SECOND / 10;
    let mut deliveries = Vec::new();
    for id in 0..1000 {
        deliveries.push(send(&producer, id << 118, "v").await);
        tokio::time::sleep(SECOND / 50).await;
    }
    for delivery in deliveries {
        assert!(!delivery.await.unwrap().may_be_duplicate());
    }
    assert_eq!(producer.stats().resent_for_wrong_shard, 0);
}
