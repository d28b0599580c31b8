//! The producer: sends every line, collects every receipt.

use std::collections::HashMap;
use std::sync::Arc;

use indicatif::ProgressBar;
use kpl::{Delivery, DeliveryError, Producer, Record};
use tokio::sync::mpsc;

use crate::input::{self, Line};
use crate::tally::Tally;
use crate::target::Error;

/// Most receipts that are awaited at a time. The producer's own bound is in bytes.
const OPEN_RECEIPTS: usize = 100_000;

/// The outcome of the records that were sent.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<DeliveryError>,
    /// Records by the shard that took them.
    pub(crate) by_shard: HashMap<String, u64>,
}

impl Produced {
    /// Adds the outcome of a later part of the run.
    pub(crate) fn merge(&mut self, later: Self) {
        self.failed += later.failed;
        if self.first_failure.is_none() {
            self.first_failure = later.first_failure;
        }
        for (shard, count) in later.by_shard {
            *self.by_shard.entry(shard).or_default() += count;
        }
    }
}

/// Sends records `ids`, cycling through `lines`, and waits for all their receipts.
pub(crate) async fn produce(
    producer: &Producer,
    run: &str,
    lines: &[Line],
    ids: std::ops::Range<u64>,
    tally: &Arc<Tally>,
    bar: &ProgressBar,
) -> Result<Produced, Error> {
    let (open, receipts) = mpsc::channel(OPEN_RECEIPTS);
    let collector = tokio::spawn(collect(receipts, Arc::clone(tally), bar.clone()));
    for id in ids {
        let line = &lines[(id % lines.len() as u64) as usize];
        let record = Record::new(&line.key, input::payload(run, id, &line.text));
        open.send((id, producer.send(record).await?)).await?;
    }
    drop(open);
    // Open aggregates would otherwise wait for more records.
    producer.flush().await;
    Ok(collector.await?)
}

async fn collect(
    mut receipts: mpsc::Receiver<(u64, Delivery)>,
    tally: Arc<Tally>,
    bar: ProgressBar,
) -> Produced {
    let mut produced = Produced::default();
    while let Some((id, delivery)) = receipts.recv().await {
        match delivery.await {
            Ok(receipt) => {
                tally.acknowledged(id);
                match produced.by_shard.get_mut(&*receipt.shard_id) {
                    Some(count) => *count += 1,
                    None => drop(produced.by_shard.insert(receipt.shard_id.to_string(), 1)),
                }
                bar.inc(1);
            }
            Err(error) => {
                produced.failed += 1;
                produced.first_failure.get_or_insert(error);
            }
        }
    }
    produced
}
