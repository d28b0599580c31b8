//! Records that are deleted while a reader waits.

use super::*;
use crate::health::ProblemKind;

const DAY: Duration = Duration::from_secs(86_400);

async fn gap_after(records_read: usize) -> Option<String> {
    let paused = Paused::start().await;
    put_by(&paused.client(), 0..20, 10_000).await;
    let mut reader = paused.reader(Position::TrimHorizon).await;
    reader.polling.size = PageSize::new(5);
    reader.read(records_read).await;
    // The processor does not return for so long.
    tokio::time::sleep(DAY + Duration::from_secs(60)).await;
    paused.put(20..21).await;
    assert_eq!(reader.read(1).await, numbers(20..21));
    let problems = reader.polling.status.problems();
    let gap = problems.find(ProblemKind::RecordsTrimmed, Some(SHARD));
    gap.map(|gap| gap.cause)
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_behind_for_longer_than_records_are_kept_tells_of_the_gap() {
    let gap = gap_after(10).await.unwrap();
    assert!(gap.contains("before they were read"), "{gap}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_at_the_tip_raises_no_alarm() {
    assert_eq!(gap_after(20).await, None);
}
