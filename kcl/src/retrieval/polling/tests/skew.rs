//! Hosts whose time of day is wrong.

use super::*;

/// The host's clock is ahead (or behind) by so many seconds.
const SKEWS: [i64; 5] = [-7200, -20, 0, 20, 7200];

/// As a lease that a Java worker made: at LATEST, without a time to resume from.
#[tokio::test(start_paused = true)]
async fn latest_is_resumed_by_the_services_time_after_its_iterator_has_expired() {
    for skew in SKEWS {
        let mut paused = Paused::start().await;
        paused.clock = Arc::new(TokioClock::new().skewed(skew));
        paused.put(0..3).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut reader = paused.reader(Position::Latest).await;
        let reading = tokio::spawn(async move { reader.read(1).await });
        while paused.aws.calls("GetRecords") < 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // No read is answered until the iterator has expired.
        let cut = Fault::cut_connection().operation("GetRecords");
        let cut = paused.aws.faults().add(cut);
        tokio::time::sleep(Duration::from_secs(60)).await;
        paused.put(3..4).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        paused.aws.faults().remove(cut);
        let before = paused.clock.now();
        assert_eq!(reading.await.unwrap(), numbers(3..4), "{skew} s");
        let stood_still = paused.clock.now() - before;
        assert!(stood_still < Duration::from_secs(15), "{skew} s: {stood_still:?}");
    }
}
