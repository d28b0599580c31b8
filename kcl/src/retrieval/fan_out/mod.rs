//! Reads shards by enhanced fan-out: the service sends the records of a shard as they arrive.
//!
//! The worker subscribes to each shard with a [consumer] that is registered with the stream. A [source] holds one
//! [subscription] at a time.

pub(crate) mod consumer;
mod gate;
pub(crate) mod http;
mod source;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use self::consumer::StreamConsumer;
use self::gate::SubscribeGate;
use self::source::FanOutSource;
use super::stream_check::StreamCheck;
use super::{Retrieval, ShardSource, Start};
use crate::clock::Clock;
use crate::config::{ConsumerConfig, FanOutConfig};

/// Reads shards with SubscribeToShard.
#[derive(Debug)]
pub(crate) struct FanOutRetrieval {
    /// Its calls are attempted once, and its connections are made for many subscriptions.
    client: Client,
    check: Arc<StreamCheck>,
    consumer: Arc<StreamConsumer>,
    gate: Arc<SubscribeGate>,
    config: Arc<ConsumerConfig>,
    clock: Arc<dyn Clock>,
    deregister_on_stop: bool,
}

impl FanOutRetrieval {
    /// `random`: for the times of subscriptions.
    pub(crate) fn new(
        client: &Client,
        check: StreamCheck,
        consumer: StreamConsumer,
        settings: &FanOutConfig,
        config: Arc<ConsumerConfig>,
        clock: Arc<dyn Clock>,
        random: Rng,
    ) -> Self {
        Self {
            client: client.clone(),
            check: Arc::new(check),
            consumer: Arc::new(consumer),
            gate: Arc::new(SubscribeGate::new(Arc::clone(&clock), random)),
            config,
            clock,
            deregister_on_stop: settings.deregister_on_stop,
        }
    }
}

impl Retrieval for FanOutRetrieval {
    fn open(&self, start: Start) -> Box<dyn ShardSource> {
        Box::new(FanOutSource::new(self, start))
    }

    fn stopped(&self, limit: Duration) -> BoxFuture<'_, ()> {
        async move {
            if !self.deregister_on_stop {
                return;
            }
            let done = tokio::time::timeout(limit, self.consumer.deregister()).await;
            let cause = match done {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the service did not answer in time".to_owned(),
            };
            tracing::warn!(cause, "the consumer of the stream could not be deregistered");
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
