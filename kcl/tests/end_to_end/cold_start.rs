//! Workers that start together on a stream without leases. A tenth of what the program `cold-start`
//! measures.

use std::time::Duration;

use crate::probe::Probe;
use crate::setup::{aws, config, processing, scheduler, until};

const SHARDS: u32 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_start_together_write_each_lease_once_and_share_the_shards() {
    let aws = aws(SHARDS).await;
    let start = async |worker: &str| {
        // A stall of the machine expires no lease.
        let config = config(worker).with_failover_time(Duration::from_secs(10));
        scheduler(&aws, &Probe::new(), config).await.spawn()
    };
    let (a, b, c) = tokio::join!(start("a"), start("b"), start("c"));
    let workers = [a, b, c];
    let puts = aws.calls("PutItem");
    assert!(puts < u64::from(SHARDS) * 12 / 10, "{puts} puts");
    until("all shards", || {
        let counts = workers.iter().map(processing);
        counts.sum::<usize>() == SHARDS as usize
    })
    .await;
    for worker in workers {
        worker.shutdown(Duration::from_secs(30)).await.unwrap();
    }
}
