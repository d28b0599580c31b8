//! A record processor and a shard with nothing to do, for tests of what is around them.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kcl::internals::{PageSender, ShardSource};
use kcl::{ProcessorError, RecordBatch, RecordProcessor, ShardEnd, Shutdown, WorkerError};

/// Does nothing, and writes no checkpoint.
#[derive(Debug)]
pub struct IdleProcessor;

impl RecordProcessor for IdleProcessor {
    async fn process_records(&mut self, _: RecordBatch<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }

    async fn shard_ended(&mut self, _: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }

    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// Reads a shard that gets no records: no page ever arrives.
#[derive(Debug)]
pub struct SilentShard;

impl ShardSource for SilentShard {
    fn run(self: Box<Self>, _: PageSender) -> BoxFuture<'static, Result<(), WorkerError>> {
        std::future::pending().boxed()
    }
}
