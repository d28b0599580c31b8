//! A processor that reports all it sees.

use std::sync::{Arc, Mutex};

use kcl::{
    CheckpointError, ProcessorError, Record, RecordBatch, RecordProcessor, ShardContext, ShardEnd,
    Shutdown,
};
use kinesis_testkit::{Delivery, Ledger, Position, Verdict};

use crate::setup::id_of;

/// What a processor was told besides records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Initialize,
    ShardEnded,
    LeaseLost,
    ShutdownRequested,
    /// It does not return from process_records.
    Waiting,
    /// It was cancelled during process_records, and its checkpoint refused.
    Fenced,
}

/// One record that a processor was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) worker: String,
    /// Number of the processor.
    pub(crate) ownership: u64,
    pub(crate) shard: String,
    pub(crate) sub_sequence_number: u64,
    pub(crate) key: Option<String>,
    pub(crate) data: Vec<u8>,
    pub(crate) frame_error: bool,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    seen: Vec<Seen>,
    calls: Vec<(String, String, Call)>,
    ownerships: u64,
}

/// What a processor does with a batch before it reports it.
pub(crate) enum Deed {
    Take,
    Fail,
    FailWith(ProcessorError),
    Panic,
    /// Never return.
    Hang,
    /// Wait until the call is cancelled, then try to checkpoint.
    UntilFenced,
    /// Wait until the shard is to be given up, then return an error.
    FailAtStop,
    /// Wait until the shard is to be given up, then panic.
    PanicAtStop,
}

type Script = dyn Fn(&str, &RecordBatch<'_>) -> Deed + Send + Sync;

/// Collects what all processors of a test see.
#[derive(Clone)]
pub(crate) struct Probe {
    state: Arc<Mutex<State>>,
    script: Arc<Script>,
    checkpoints: bool,
}

impl Probe {
    /// Checkpoints after each batch, at shard end and at shutdown.
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), script: Arc::new(|_, _| Deed::Take), checkpoints: true }
    }

    /// Leaves the checkpoints to the library, but for those that only the processor can write.
    pub(crate) fn without_checkpoints(mut self) -> Self {
        self.checkpoints = false;
        self
    }

    /// Lets `script` decide, by shard id and batch, what the processor does with each batch.
    pub(crate) fn script(
        mut self,
        script: impl Fn(&str, &RecordBatch<'_>) -> Deed + Send + Sync + 'static,
    ) -> Self {
        self.script = Arc::new(script);
        self
    }

    pub(crate) fn factory(&self) -> impl Fn(&ShardContext) -> Processor + Send + Sync + 'static {
        let probe = self.clone();
        move |shard| Processor {
            probe: probe.clone(),
            worker: shard.worker_id().to_owned(),
            shard: shard.shard_id().to_owned(),
            ownership: probe.new_ownership(),
        }
    }

    /// The number of the next processor.
    pub(crate) fn new_ownership(&self) -> u64 {
        self.with(|state| {
            state.ownerships += 1;
            state.ownerships
        })
    }

    /// Reports records that a processor was given.
    pub(crate) fn took<'a>(
        &self,
        worker: &str,
        ownership: u64,
        shard: &str,
        records: impl IntoIterator<Item = Record<'a>>,
    ) {
        self.with(|state| {
            for record in records {
                state.seen.push(Seen {
                    worker: worker.to_owned(),
                    ownership,
                    shard: shard.to_owned(),
                    sub_sequence_number: record.sub_sequence_number(),
                    key: record.partition_key().map(str::to_owned),
                    data: record.data().to_vec(),
                    frame_error: record.frame_error().is_some(),
                });
                let Some(id) = id_of(record.data()) else {
                    continue;
                };
                state.ledger.delivered(Delivery {
                    ownership,
                    id,
                    // Without a key there is no order to check: each such record is its own key.
                    key: record.partition_key().unwrap_or(record.sequence_number().as_str()),
                    position: Position {
                        sequence_number: record.sequence_number().to_string(),
                        sub_sequence_number: record.sub_sequence_number(),
                    },
                });
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }

    pub(crate) fn acknowledged(&self, ids: impl Iterator<Item = u64>) {
        self.with(|state| ids.for_each(|id| state.ledger.acknowledged(id)));
    }

    /// Every acknowledged record was seen.
    pub(crate) fn is_settled(&self) -> bool {
        self.with(|state| state.ledger.is_settled())
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.with(|state| state.ledger.verdict())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.with(|state| state.seen.clone())
    }

    /// Shards for which this call was made, in order.
    pub(crate) fn calls(&self, call: Call) -> Vec<String> {
        self.with(|state| {
            let calls = state.calls.iter().filter(|(_, _, made)| *made == call);
            calls.map(|(_, shard, _)| shard.clone()).collect()
        })
    }

    /// Workers that have seen a record.
    pub(crate) fn workers(&self) -> Vec<String> {
        let mut workers: Vec<_> = self.seen().into_iter().map(|seen| seen.worker).collect();
        workers.sort();
        workers.dedup();
        workers
    }

    /// Nothing lost, nothing twice, nothing out of order.
    pub(crate) fn assert_exact(&self) {
        let verdict = self.verdict();
        assert_eq!(
            (verdict.lost, verdict.redelivered, verdict.out_of_order),
            (0, 0, 0),
            "{verdict:?}"
        );
    }
}

pub(crate) struct Processor {
    probe: Probe,
    worker: String,
    shard: String,
    ownership: u64,
}

impl Processor {
    fn called(&self, call: Call) {
        let entry = (self.worker.clone(), self.shard.clone(), call);
        self.probe.with(|state| state.calls.push(entry));
    }
}

impl RecordProcessor for Processor {
    async fn initialize(&mut self, _shard: &ShardContext) -> Result<(), ProcessorError> {
        self.called(Call::Initialize);
        Ok(())
    }

    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        match (self.probe.script)(&self.shard, &batch) {
            Deed::Take => {}
            Deed::Fail => return Err("told to fail".into()),
            Deed::FailWith(error) => return Err(error),
            Deed::Panic => panic!("told to panic"),
            Deed::Hang => {
                self.called(Call::Waiting);
                std::future::pending().await
            }
            deed @ (Deed::FailAtStop | Deed::PanicAtStop) => {
                self.called(Call::Waiting);
                batch.shutdown_token().cancelled().await;
                assert!(matches!(deed, Deed::FailAtStop), "told to panic");
                return Err("told to fail".into());
            }
            Deed::UntilFenced => {
                self.called(Call::Waiting);
                batch.cancellation().cancelled().await;
                let refused = batch.checkpointer().checkpoint().await;
                assert!(matches!(refused, Err(CheckpointError::LeaseLost { .. })), "{refused:?}");
                self.called(Call::Fenced);
                return Ok(());
            }
        }
        assert_eq!(batch.records().count(), batch.len());
        self.probe.took(&self.worker, self.ownership, &self.shard, batch.records());
        if self.probe.checkpoints {
            batch.checkpointer().checkpoint().await?;
        }
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        self.called(Call::ShardEnded);
        if self.probe.checkpoints {
            end.checkpoint().await?;
        }
        Ok(())
    }

    async fn lease_lost(&mut self) {
        self.called(Call::LeaseLost);
    }

    async fn shutdown_requested(&mut self, shutdown: Shutdown<'_>) -> Result<(), ProcessorError> {
        self.called(Call::ShutdownRequested);
        if self.probe.checkpoints {
            shutdown.checkpointer().checkpoint().await?;
        }
        Ok(())
    }
}
