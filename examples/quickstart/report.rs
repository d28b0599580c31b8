//! The table and the line at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use kinesis_testkit::Verdict;

use crate::tally::Share;

/// The figures of the last line.
pub(crate) struct Summary {
    pub(crate) verdict: Verdict,
    pub(crate) kinesis_records: u64,
    pub(crate) put_records_calls: u64,
    pub(crate) elapsed: Duration,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let v = &self.verdict;
        write!(
            f,
            "produced={} consumed={} lost={} duplicates={} out_of_order={} kinesis_records={} \
             put_records_calls={} seconds={:.1}",
            v.acknowledged,
            v.delivered,
            v.lost,
            v.redelivered + v.written_twice,
            v.out_of_order,
            self.kinesis_records,
            self.put_records_calls,
            self.elapsed.as_secs_f64(),
        )
    }
}

/// A row per worker and shard.
pub(crate) fn table(shares: &BTreeMap<(u16, String), Share>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["worker", "shard", "records", "KiB", "batches", "ended"]);
    for ((worker, shard), share) in shares {
        table.add_row([
            format!("worker-{worker}"),
            shard.clone(),
            share.records.to_string(),
            (share.bytes / 1024).to_string(),
            share.batches.to_string(),
            if share.ended { "yes" } else { "" }.to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Why the run failed; empty if it did not.
pub(crate) fn faults(
    summary: &Summary,
    shares: &BTreeMap<(u16, String), Share>,
    workers: u16,
    failed: u64,
) -> Vec<String> {
    let v = &summary.verdict;
    let mut faults = Vec::new();
    if failed > 0 {
        faults.push(format!("{failed} records were not accepted by the stream"));
    }
    if v.lost > 0 {
        faults.push(format!("{} acknowledged records were never seen", v.lost));
    }
    if v.out_of_order > 0 {
        faults.push(format!("{} records came out of order", v.out_of_order));
    }
    for worker in 1..=workers {
        let seen: u64 =
            shares.iter().filter(|((w, _), _)| *w == worker).map(|(_, s)| s.records).sum();
        if seen == 0 {
            faults.push(format!("worker-{worker} processed nothing"));
        }
    }
    faults
}
