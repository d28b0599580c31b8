//! Checks of each call of one of our processors.

use super::Oracle;

impl Oracle {
    /// Our library calls a processor.
    pub(crate) fn called(&self, id: u64, call: &str) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(processor) = state.processors.get(&id) else {
            let what = format!("{call} is called on a processor that has ended (ownership {id})");
            return state.violation(now, &what);
        };
        let (worker, shard) = (processor.worker.clone(), processor.shard.clone());
        if !processor.hold.is_held() {
            let what = format!("{worker} calls {call} for {shard} behind its fence");
            state.violation(now, &what);
        }
        self.check_parents(&mut state, now, &worker, &shard);
    }

    /// Notes that a processor failed on its batch. The batch must come again behind the record `done`, or behind a
    /// later one that the processor checkpointed.
    pub(crate) fn failed(&self, id: u64, done: Option<u64>) {
        let now = self.clock.now();
        let mut state = self.state();
        if let Some(processor) = state.processors.get_mut(&id) {
            processor.last = done;
            processor.has_failed = true;
            let what = format!("{} fails on {}", processor.worker, processor.shard);
            state.note(now, &what);
        }
    }
}
