//! The largest record the stream takes, which may change while the producer runs.

use super::*;
use crate::error::{ReserveError, SendError};

const MIB: usize = 1 << 20;

fn large() -> UserRecord {
    UserRecord::new("k", vec![0; 3 * MIB])
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_changes_holds_from_the_next_refresh_on() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    let is_refused = || {
        let sent = producer.try_send(large());
        let reserved = producer.reserve(3 * MIB).now_or_never();
        let is_refused = matches!(sent, Err(SendError::TooLarge { limit: MIB, .. }));
        let reserved = reserved.expect("there is room");
        assert_eq!(is_refused, matches!(reserved, Err(ReserveError::TooLarge { limit: MIB, .. })));
        is_refused
    };
    assert!(is_refused());
    *lock(&service.max_record_size) = Some(10 * MIB);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(!is_refused());
    // A description without the size changes nothing.
    *lock(&service.max_record_size) = None;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(!is_refused());
    *lock(&service.max_record_size) = Some(MIB);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(is_refused());
    assert_eq!(producer.close(Duration::from_secs(60)).await.delivered, 2);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_not_describe_the_stream_sends_what_the_settings_say() {
    for (stream, setting, limit) in [
        (None, None, MIB),
        (None, Some(4 * MIB), 4 * MIB),
        // The size that the stream names counts.
        (Some(2 * MIB), Some(4 * MIB), 2 * MIB),
        (Some(8 * MIB), None, 8 * MIB),
    ] {
        let service = Scripted::new(|_, entries| all_written(entries));
        *lock(&service.max_record_size) = stream;
        if stream.is_none() {
            *lock(&service.describe_fails) = Some(refused_request("AccessDeniedException"));
        }
        let config = ProducerConfig { max_record_size: setting, ..Default::default() };
        let producer = producer(service, config).await;
        let record = |bytes| UserRecord::new("k", vec![0; bytes - 1]);
        producer.send(record(limit)).await.unwrap().await.unwrap();
        let refused = producer.send(record(limit + 1)).await.unwrap_err();
        assert!(matches!(refused, SendError::TooLarge { limit: told, .. } if told == limit));
    }
}
