//! The per-record handler: keys in parallel inside a shard, with automatic checkpoints.

mod failure;
mod in_flight;
mod life;
mod pending;
mod record;
mod schedule;
mod window;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

pub(crate) use self::in_flight::{InFlight, Incoming};
use self::life::HandlerProcessor;
pub use self::pending::PendingRecord;
pub(crate) use self::pending::streamed_records;
pub use self::record::ShardRecord;
use super::{ErasedFactory, ErasedProcessor, Services, ShardContext};
use crate::config::ConsumerConfig;
use crate::error::ProcessorError;

/// A handler of the application.
pub(crate) type HandleRecord =
    dyn Fn(ShardRecord) -> BoxFuture<'static, Result<(), ProcessorError>> + Send + Sync;

/// Creates the processors that run a handler.
pub(crate) struct HandlerFactory {
    handler: Arc<HandleRecord>,
    /// The places of all shards of the worker.
    places: Arc<Semaphore>,
}

impl HandlerFactory {
    pub(crate) fn new(handler: Arc<HandleRecord>, config: &ConsumerConfig) -> Self {
        let places = config.concurrency_per_worker.min(Semaphore::MAX_PERMITS);
        Self { handler, places: Arc::new(Semaphore::new(places)) }
    }
}

impl ErasedFactory for HandlerFactory {
    fn create(&self, shard: &ShardContext, services: &Services) -> Box<dyn ErasedProcessor> {
        let (handler, places) = (Arc::clone(&self.handler), Arc::clone(&self.places));
        let in_flight = InFlight::new(handler, shard.clone(), services.clone(), places);
        Box::new(HandlerProcessor(Arc::new(in_flight)))
    }
}
