//! User code of all kinds: slow, failing, panicking, deaf to signals, late. It reports every call to the oracle.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use kcl::internals::Ownership;
use kcl::{
    CheckpointPolicy, Checkpointer, ProcessorError, ProcessorFactory, Record, RecordBatch,
    RecordProcessor, ShardContext, ShardEnd, Shutdown,
};

use crate::network::Network;
use crate::oracle::{Hold, Kind, Oracle};
use crate::process::Process;
use crate::stream;

/// What all processors of a worker share.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) oracle: Arc<Oracle>,
    pub(super) worker: String,
    /// The process of the worker, and in it the threads of user code.
    pub(super) process: Arc<Process>,
    pub(super) user_code: Arc<Process>,
    pub(super) network: Arc<Network>,
    pub(super) checkpoint: CheckpointPolicy,
}

/// What the oracle knows of a processor. It is at work until its fence falls, because user code that blocks a thread
/// hears of no loss.
struct OfOurs {
    held_lease: Ownership,
    process: Arc<Process>,
}

impl Hold for OfOurs {
    fn is_held(&self) -> bool {
        self.held_lease.is_held()
    }

    fn is_fenced(&self) -> bool {
        self.held_lease.is_fenced()
    }

    fn slept(&self) -> Duration {
        self.process.slept()
    }
}

pub(super) struct Factory {
    surroundings: Surroundings,
    random: Mutex<Rng>,
}

impl Factory {
    pub(super) fn new(surroundings: Surroundings, seed: u64) -> Self {
        Self { surroundings, random: Mutex::new(Rng::with_seed(seed)) }
    }
}

impl ProcessorFactory for Factory {
    type Processor = Processor;

    fn create(&self, shard: &ShardContext) -> Processor {
        let mut random = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            random.fork()
        };
        let around = self.surroundings.clone();
        if !around.network.is_calm() && random.u32(..30) == 0 {
            panic_quietly();
        }
        let hold = Ownership::of(shard);
        let in_process = OfOurs { held_lease: hold.clone(), process: Arc::clone(&around.process) };
        let id = around.oracle.begin(&around.worker, Kind::Rust, shard.shard_id(), in_process);
        Processor { around, id, hold, deaf: random.u32(..4) == 0, done: None, random }
    }
}

/// Panics without a message on the terminal.
fn panic_quietly() -> ! {
    std::panic::resume_unwind(Box::new("a simulated panic"))
}

pub(super) struct Processor {
    around: Surroundings,
    id: u64,
    hold: Ownership,
    /// Goes on when it is told that its lease is lost.
    deaf: bool,
    /// The last record that was processed.
    done: Option<u64>,
    random: Rng,
}

impl RecordProcessor for Processor {
    async fn initialize(&mut self, _: &ShardContext) -> Result<(), ProcessorError> {
        self.called("initialize");
        self.work().await;
        self.fail_at_times()
    }

    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        self.called("process_records");
        let before = self.done;
        let result = self.process(batch).await;
        if result.is_err() {
            // The same records come again.
            self.done = before;
            self.around.oracle.failed(self.id, before);
            if self.random.u32(..3) == 0 {
                panic_quietly();
            }
        }
        result
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        self.called("shard_ended");
        self.work().await;
        self.fail_at_times()?;
        let library_does = self.around.checkpoint != CheckpointPolicy::Manual;
        if !library_does || self.random.bool() {
            end.checkpoint().await?;
            self.fail_at_times()?;
        }
        Ok(())
    }

    async fn lease_lost(&mut self) {
        self.work().await;
        self.stops("lost");
        if !self.is_calm() && self.random.u32(..10) == 0 {
            panic_quietly();
        }
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        self.called("shutdown_requested");
        // The last checkpoint, now and then after a long time.
        if self.random.u32(..10) == 0 {
            self.sleep(1_000, 90_000).await;
        } else {
            self.work().await;
        }
        let mut said = "drained, not said";
        let fails = self.fail_draw();
        if !fails && (self.is_manual() || self.random.bool()) && self.random.u32(..4) != 0 {
            let written = last.checkpointer().checkpoint().await;
            if written.is_ok() {
                said = "drained";
            }
        }
        self.haunt(last.checkpointer());
        self.stops(said);
        if fails {
            self.fail()?;
        }
        Ok(())
    }
}

impl Processor {
    async fn process(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let fails_at = if self.fail_draw() { self.random.usize(..batch.len()) } else { usize::MAX };
        for (nth, record) in batch.records().enumerate() {
            if nth == fails_at {
                return Err("a simulated failure".into());
            }
            self.work().await;
            if !self.deaf && batch.cancellation().is_cancelled() {
                return Err("told to stop".into());
            }
            if !self.deaf && batch.shutdown_token().is_cancelled() && self.random.u32(..4) == 0 {
                return Err("asked to stop".into());
            }
            // The library may checkpoint the others when this call has returned, not before.
            if self.is_manual() {
                self.finish(&record);
                match self.random.u32(..10) {
                    // A later checkpoint covers this one if it is refused.
                    0 => drop(batch.checkpointer().checkpoint_at(&record).await),
                    1 => self.two_phases(batch.checkpointer(), &record).await,
                    _ => {}
                }
                if self.random.u32(..40) == 0 {
                    self.checkpoint_meanwhile(batch.checkpointer(), &record);
                }
            }
        }
        if !self.is_manual() {
            for record in batch {
                self.finish(&record);
            }
        } else if self.random.u32(..3) == 0 {
            batch.checkpointer().checkpoint().await?;
        }
        if self.random.u32(..20) == 0 {
            self.haunt(batch.checkpointer());
        }
        Ok(())
    }

    /// A pending checkpoint, which is committed at once, later, or never.
    async fn two_phases(&mut self, checkpointer: &Checkpointer, record: &Record<'_>) {
        let state = Bytes::from_static(b"state");
        let prepared = checkpointer.prepare_at(record, Some(state)).await;
        self.work().await;
        if let (Ok(prepared), true) = (prepared, self.random.bool()) {
            // A later checkpoint covers this one if it is refused.
            let _ = prepared.commit().await;
        }
    }

    /// Notes that a record was processed.
    fn finish(&mut self, record: &Record<'_>) {
        let at = stream::record_at(&record.position());
        if record.data() != stream::payload(at) {
            let what = format!("{} is given other data at {at}", self.around.worker);
            self.around.oracle.violation(&what);
        }
        self.around.oracle.delivered(self.id, at);
        self.done = Some(at);
    }

    fn is_manual(&self) -> bool {
        self.around.checkpoint == CheckpointPolicy::Manual
    }

    fn is_calm(&self) -> bool {
        self.around.network.is_calm()
    }

    fn called(&self, call: &'static str) {
        self.around.oracle.called(self.id, call);
    }

    /// Notes that the processor does nothing from here on.
    fn stops(&self, how: &str) {
        self.around.oracle.end(self.id, how);
    }

    /// Works for a time, which is at times too long.
    async fn work(&mut self) {
        let calm = self.is_calm();
        match self.random.u32(..2_000) {
            0..10 if !calm => self.sleep(1_000, 15_000).await,
            10 if !calm => self.sleep(15_000, 60_000).await,
            _ => self.sleep(0, 20).await,
        }
    }

    async fn sleep(&mut self, from: u64, to: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(from..to))).await;
    }

    fn fail_draw(&mut self) -> bool {
        let one_in = if self.is_calm() { 200 } else { 20 };
        self.random.u32(..one_in) == 0
    }

    fn fail(&mut self) -> Result<(), ProcessorError> {
        if self.random.u32(..3) == 0 {
            panic_quietly();
        }
        Err("a simulated failure".into())
    }

    fn fail_at_times(&mut self) -> Result<(), ProcessorError> {
        if self.fail_draw() {
            self.fail()?;
        }
        Ok(())
    }

    /// Lets another task of the user checkpoint the processed records.
    fn checkpoint_meanwhile(&mut self, checkpointer: &Checkpointer, record: &Record<'_>) {
        let (checkpointer, position) = (checkpointer.clone(), record.position());
        let later = Duration::from_millis(self.random.u64(..3_000));
        self.around.user_code.run(async move {
            tokio::time::sleep(later).await;
            let (number, sub) = (&position.sequence_number, position.sub_sequence_number);
            // It may be too late for that.
            let _ = checkpointer.checkpoint_at_position(number, sub).await;
        });
    }

    /// Keeps the checkpointer in a task of the user, which uses it when the ownership may be over.
    fn haunt(&mut self, checkpointer: &Checkpointer) {
        let (checkpointer, hold) = (checkpointer.clone(), self.hold.clone());
        let later = Duration::from_millis(self.random.u64(..30_000));
        let around = self.around.clone();
        self.around.user_code.run(async move {
            tokio::time::sleep(later).await;
            if hold.is_held() {
                return;
            }
            // The oracle judges the checkpoint where it arrives.
            let _ = checkpointer.checkpoint().await;
            // `None`: all was checkpointed, and nothing is written.
            let prepared = checkpointer.prepare(None).await;
            if prepared.is_ok_and(|prepared| prepared.position().is_some()) {
                let worker = &around.worker;
                let what = format!("{worker} writes by {checkpointer:?} after its ownership");
                around.oracle.violation(&what);
            }
        });
    }
}

/// A processor that is dropped does nothing any more. If its runtime has ended, a blocking call may go on for as
/// long as the process lives.
impl Drop for Processor {
    fn drop(&mut self) {
        if self.around.user_code.is_dead() && !self.around.process.is_dead() {
            self.around.oracle.leave_behind(self.id);
        } else {
            self.around.oracle.end(self.id, "dropped");
        }
    }
}
