//! Mixed fleets: the published Java KCL and our workers under one application name, as processes, on
//! the embedded AWS, while records come in.

mod event;
mod fleet;
mod judge;
mod scenes;
mod seen;
mod table;
mod worker;
mod writer;

use std::time::Duration;

use judge::Judgement;
pub use worker::Tools;

use crate::Error;

/// The results of all fleets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Records that were acknowledged.
    pub records: u64,
    /// Of these, never seen by a processor.
    pub lost: u64,
    /// Records that came too early or too late, within an ownership or for their key.
    pub out_of_order: u64,
    /// Records that a processor got after another had begun on the same shard.
    pub overlapping: u64,
    /// Processors that began before the shard's parents had ended.
    pub children_before_parents: u64,
    /// Records that came in the name of another shard, or that this run did not write.
    pub misplaced: u64,
    /// Records that came again, as they may after a kill.
    pub redelivered: u64,
    /// How often a shard went from one worker to another.
    pub changes_of_hands: u64,
}

impl Outcome {
    fn add(&mut self, judged: &Judgement) {
        self.records += judged.verdict.acknowledged;
        self.lost += judged.verdict.lost;
        self.out_of_order += judged.verdict.out_of_order;
        self.overlapping += judged.overlapping;
        self.children_before_parents += judged.early;
        self.misplaced += judged.misplaced;
        self.redelivered += judged.verdict.redelivered;
        self.changes_of_hands += judged.changes.len() as u64;
    }

    /// True if nothing is wrong.
    pub fn is_good(&self) -> bool {
        let wrong = [
            self.lost,
            self.out_of_order,
            self.overlapping,
            self.children_before_parents,
            self.misplaced,
        ];
        self.records > 0 && wrong == [0; 5]
    }
}

/// Runs both fleets at the same time; gives up after `limit`.
pub async fn run(tools: &Tools, limit: Duration) -> Result<Outcome, Error> {
    std::fs::create_dir_all(&tools.logs)?;
    let (java_first, rust_first) = tokio::try_join!(
        Box::pin(scenes::java_first(tools, limit)),
        Box::pin(scenes::rust_first(tools, limit)),
    )?;
    let mut outcome = Outcome::default();
    outcome.add(&java_first);
    outcome.add(&rust_first);
    Ok(outcome)
}
