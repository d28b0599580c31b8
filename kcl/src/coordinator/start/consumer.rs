//! Finds, or registers, the consumer of the stream for enhanced fan-out.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::KINESIS;
use super::failure::Failure;
use super::retry::Startup;
use crate::clock::Clock;
use crate::error::StartError;
use crate::retrieval::fan_out::consumer::{NoConsumer, StreamConsumer};

/// Refusals after which the worker polls. One alone may be a wrong answer.
const REFUSALS: u32 = 3;

/// How long, and how, the start waits for the consumer.
pub(crate) struct ConsumerStart<'a> {
    pub(crate) clock: &'a dyn Clock,
    /// The time that is left to the start.
    pub(crate) limit: Duration,
    pub(crate) seed: u64,
    /// Name or ARN of the stream, as given.
    pub(crate) stream: &'a str,
    pub(crate) falls_back: bool,
}

/// Waits until the consumer is active. Returns the reason to poll instead, if the settings say so.
pub(crate) async fn find_consumer(
    consumer: &StreamConsumer,
    start: ConsumerStart<'_>,
) -> Result<Option<String>, StartError> {
    let ConsumerStart { clock, limit, seed, stream, falls_back } = start;
    let refusals = AtomicU32::new(0);
    let mut startup = Startup::begin(clock, limit, seed);
    let step = startup.step(KINESIS, "RegisterStreamConsumer", || async {
        let error = match consumer.find().await {
            Ok(_) => return Ok(None),
            Err(error) => error,
        };
        if let NoConsumer::TooMany { .. } = error {
            let refused = refusals.fetch_add(1, Ordering::Relaxed) + 1;
            if falls_back && refused >= REFUSALS {
                return Ok(Some(error.to_string()));
            }
        }
        Err(failure(stream, error))
    });
    step.await
}

fn failure(stream: &str, error: NoConsumer) -> Failure {
    let cause = error.to_string();
    match error {
        NoConsumer::Call(error) => {
            Failure::of_call(KINESIS, &format!("the consumers of stream {stream}"), &error)
        }
        NoConsumer::NotActive { .. } => {
            Failure::not_ready(KINESIS, "DescribeStreamConsumer", cause)
        }
        NoConsumer::TooMany { .. } => Failure::not_ready(KINESIS, "RegisterStreamConsumer", cause),
        NoConsumer::NotRegistered { name } => Failure::Final(StartError::ConsumerNotFound {
            consumer: name,
            stream: stream.to_owned(),
        }),
        NoConsumer::OfAnotherStream { consumer, stream } => {
            Failure::Final(StartError::ConsumerOfAnotherStream { consumer, stream })
        }
    }
}
