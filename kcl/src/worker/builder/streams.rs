//! Workers whose records come out of a stream.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::SchedulerBuilder;
use super::handler::Factory;
use crate::error::BuildError;
use crate::processor::{Offer, streamed, streamed_records};
use crate::worker::batch_stream::BatchStream;
use crate::worker::record_stream::RecordStream;
use crate::worker::worker_stream::WorkerStream;
use crate::worker_state::WorkerState;

impl SchedulerBuilder {
    /// Builds and starts a worker whose batches come out of a stream, instead of a [`processor`](Self::processor). The
    /// application acknowledges each batch. See [`BatchStream`] for the rules.
    ///
    /// Reads run on the current runtime. The coordination runs as [`Scheduler::spawn`](super::Scheduler::spawn) says.
    ///
    /// # Errors
    /// As those of [`build`](Self::build), and [`BuildError::UnusedProcessor`] if a processor or a handler was set.
    ///
    /// # Cancel safety
    /// As that of [`build`](Self::build). The worker starts at the end of the call, when nothing more is awaited.
    pub async fn consume(self) -> Result<BatchStream, BuildError> {
        let (factory, offers) = streamed(self.config.checkpoint);
        let stream = self.stream_of(Factory::Processor(Arc::new(factory)), offers).await?;
        Ok(BatchStream::new(stream))
    }

    /// Builds and starts a worker whose records come out of a stream, one by one, instead of a
    /// [`processor`](Self::processor). The application acknowledges each record. See [`RecordStream`] for the rules.
    ///
    /// Reads run on the current runtime. The coordination runs as [`Scheduler::spawn`](super::Scheduler::spawn) says.
    ///
    /// # Errors
    /// As those of [`consume`](Self::consume).
    ///
    /// # Cancel safety
    /// As that of [`consume`](Self::consume).
    pub async fn consume_records(self) -> Result<RecordStream, BuildError> {
        let (handler, offers) = streamed_records();
        let stream = self.stream_of(Factory::Handler(handler), offers).await?;
        Ok(RecordStream::new(stream))
    }

    /// Builds and starts a worker whose processors make these offers.
    async fn stream_of<T>(
        mut self,
        factory: Factory,
        offers: mpsc::Receiver<Offer<T>>,
    ) -> Result<WorkerStream<T>, BuildError> {
        if self.factory.is_some() {
            let error = BuildError::UnusedProcessor;
            self.states.enter(WorkerState::NotStarted(error.clone()));
            return Err(error);
        }
        let stop_within = self.config.failover_time;
        self.factory = Some(factory);
        let scheduler = self.build().await?;
        Ok(WorkerStream::new(offers, scheduler.spawn(), stop_within))
    }
}
