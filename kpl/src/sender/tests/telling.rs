//! What the log says of lost records.

use super::measures::Log;
use super::*;

#[tokio::test(start_paused = true)]
async fn every_lost_record_is_in_the_count_of_some_line() {
    let lines = Log::default();
    let _guards = lines.listen();
    let service = Scripted::new(|passed, entries| {
        let code = match passed < Duration::from_secs(100) {
            true => "InternalFailure",
            false => "ValidationException",
        };
        (QUICK, Ok(entries.iter().map(|_| refused(code)).collect()))
    });
    let config = ProducerConfig {
        aggregation_enabled: false,
        record_ttl: Duration::from_secs(2),
        ..Default::default()
    };
    let producer = producer(service, config).await;
    for round in 0..300_u32 {
        drop(send(&producer, u128::from(round) << 120, "v").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The last ones are logged although nothing more happens.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let expired = lines.user_records("records expired");
    assert_eq!(expired.iter().sum::<u64>(), 300, "{expired:?}");
    assert!(expired.len() < 7, "{expired:?}");
    assert_eq!(producer.stats().user_records_expired, 300);

    tokio::time::sleep(Duration::from_secs(60)).await;
    for _ in 0..20 {
        drop(send(&producer, 0, "v").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    producer.close(Duration::from_secs(1)).await;
    let failed = lines.user_records("records failed");
    assert_eq!(failed.iter().sum::<u64>(), 20, "{failed:?}");
    let stats = producer.stats();
    assert_eq!((stats.user_records_expired, stats.user_records_failed), (300, 320));
}
