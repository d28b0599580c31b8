//! Throttles of a shard and of the stream, and refusals that concern every record.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const FULL: &str = "ProvisionedThroughputExceededException";

fn refused_with(code: &str, message: &str) -> EntryOutcome {
    EntryOutcome::Refused { code: code.to_owned(), message: message.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_record_fails_at_once_where_that_is_asked_for() {
    for is_whole in [false, true] {
        let service = Scripted::new(move |_, entries| {
            let reply = if is_whole {
                Err(CallError {
                    kind: CallErrorKind::Service,
                    code: FULL.into(),
                    message: "Rate exceeded".into(),
                    may_have_been_written: false,
                    source: None,
                })
            } else {
                Ok(entries
                    .iter()
                    .map(|entry| match shard_of(entry) {
                        "low" => refused_with(FULL, "Rate exceeded for shard low in stream s"),
                        _ => written(entry),
                    })
                    .collect())
            };
            (QUICK, reply)
        });
        let config = ProducerConfig { fail_if_throttled: true, ..Default::default() };
        let producer = producer(Arc::clone(&service), config).await;
        let began = clock::now();
        let low = send(&producer, 0, "a").await;
        let high = send(&producer, u128::MAX, "b").await;
        let error = low.await.unwrap_err();
        assert!(
            matches!(error.cause(), FailureCause::Throttled { code, .. } if &**code == FULL),
            "{error}"
        );
        assert!(error.is_retryable() && !error.may_have_been_written());
        assert_eq!(error.attempts().len(), 1);
        assert_eq!(high.await.is_ok(), !is_whole);
        assert!(began.elapsed() < SECOND);
        assert_eq!(producer.buffered_bytes(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn throttles_of_a_whole_request_count_for_each_of_its_records() {
    for code in [FULL, "LimitExceededException", "ThrottlingException", "KMSThrottlingException"] {
        let service = Scripted::new(move |passed, entries| {
            if passed < 2 * SECOND {
                (QUICK, Err(refused_request(code)))
            } else {
                all_written(entries)
            }
        });
        let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
        let low = send(&producer, 0, "a").await;
        let high = send(&producer, u128::MAX, "b").await;
        let attempts = low.await.unwrap().attempts + high.await.unwrap().attempts;
        let refused = u64::from(attempts) - 2;
        assert!(refused > 2);
        assert_eq!(producer.stats().throttled, refused, "{code}");
    }
    // Another failure is no throttle.
    let service = Scripted::new(|passed, entries| {
        if passed < SECOND {
            (QUICK, Err(refused_request("InternalFailure")))
        } else {
            all_written(entries)
        }
    });
    let producer = producer(service, ProducerConfig::default()).await;
    send(&producer, 0, "a").await.await.unwrap();
    assert_eq!(producer.stats().throttled, 0);
}

/// After ten seconds of throttles, then a few mebibytes that the shard accepts at once: how long these take, and the
/// rate of the shard.
async fn recovery_after(message: &'static str) -> (Duration, f64) {
    let service = Scripted::new(move |passed, entries| {
        if passed < 10 * SECOND {
            let outcome = |_: &Entry| refused_with(FULL, message);
            (QUICK, Ok(entries.iter().map(outcome).collect()))
        } else {
            all_written(entries)
        }
    });
    let producer = producer(service, ProducerConfig::default()).await;
    let first = send(&producer, 0, "first").await;
    tokio::time::sleep(10 * SECOND).await;
    first.await.unwrap();
    let began = clock::now();
    let mut deliveries = Vec::new();
    for _ in 0..64 {
        deliveries.push(send(&producer, 0, &"x".repeat(60_000)).await);
    }
    all_delivered(deliveries).await;
    let shards = producer.hot_spots().shards;
    let low = shards.iter().find(|load| &*load.shard_id == "low").unwrap();
    (began.elapsed(), low.rate)
}

#[tokio::test(start_paused = true)]
async fn only_a_throttle_of_the_shard_cuts_its_rate() {
    let of_shard = "Rate exceeded for shard low in stream s under account 1.";
    let (recovery, rate) = recovery_after(of_shard).await;
    assert!(rate < 1.2, "{rate}");
    assert!(recovery < 5 * SECOND, "{recovery:?}");
    let (recovery, rate) = recovery_after("Rate exceeded for stream s under account 1.").await;
    assert_eq!(rate, 1.5);
    assert!(recovery < 2 * SECOND, "{recovery:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_refuses_every_record_of_the_stream_pauses_the_calls() {
    for (code, is_fatal) in [("KMSDisabledException", true), ("KMSThrottlingException", false)] {
        let service = Scripted::new(move |_, entries| {
            let outcome = |_: &Entry| refused_with(code, "scripted");
            (QUICK, Ok(entries.iter().map(outcome).collect()))
        });
        let config = ProducerConfig {
            record_max_buffered_time: Duration::ZERO,
            record_ttl: 20 * SECOND,
            ..Default::default()
        };
        let producer = producer(Arc::clone(&service), config).await;
        for error in errors_of_20_seconds(&producer).await {
            let cause = error.cause();
            if is_fatal {
                assert!(matches!(cause, FailureCause::Fatal { .. }), "{error}");
            } else {
                assert!(matches!(cause, FailureCause::Expired { .. }), "{error}");
            }
            assert!(!error.may_have_been_written());
        }
        let calls = service.calls().len();
        assert!((2..60).contains(&calls), "{code}: {calls} calls in 20 s");
    }
}

#[tokio::test(start_paused = true)]
async fn aggregates_stay_open_until_the_stream_takes_some_again() {
    let seen = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let refused = Arc::clone(&seen);
    let service = Scripted::new(move |passed, entries| {
        let outcome = |entry: &Entry| match shard_of(entry) {
            "low" if passed < 10 * SECOND => {
                lock(&refused).insert(entry.data.clone());
                refused_with(FULL, "Rate exceeded for stream s under account 1.")
            }
            _ => written(entry),
        };
        // Back-offs end while other records of the queue are in flight.
        (SECOND / 2, Ok(entries.iter().map(outcome).collect()))
    });
    let producer = producer(service, ProducerConfig::default()).await;
    let mut deliveries = Vec::new();
    for id in 0..200 {
        deliveries.push(send(&producer, 0, &id.to_string()).await);
        // Answers that are no throttles: the endpoint does not pause.
        deliveries.push(send(&producer, u128::MAX, "v").await);
        tokio::time::sleep(SECOND / 20).await;
    }
    all_delivered(deliveries).await;
    let refused = lock(&seen).len();
    // Those of the half second before the first answer.
    assert!(refused <= 6, "{refused} Kinesis records were sealed");
}

#[tokio::test(start_paused = true)]
async fn what_is_collected_expires_on_time() {
    let service =
        Scripted::new(|_, entries| (100 * SECOND, Ok(entries.iter().map(written).collect())));
    let config = ProducerConfig { max_requests_in_flight: 1, ..Default::default() };
    let producer = producer(service, config).await;
    let first = send(&producer, 0, "a").await;
    tokio::time::sleep(SECOND).await;
    let began = clock::now();
    let late = send(&producer, u128::MAX, "b").await;
    let error = late.await.unwrap_err();
    assert!(matches!(error.cause(), FailureCause::Expired { .. }));
    assert!(began.elapsed() < 32 * SECOND, "{:?}", began.elapsed());
    first.await.unwrap();
}
