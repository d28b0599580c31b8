//! The registered consumer of the stream with which the worker subscribes to shards: found, or registered.

use std::sync::Arc;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ConsumerStatus;
use fastrand::Rng;
use kinesis_common::sync::Mutex;

use crate::clock::Clock;
use crate::config::FanOutConsumer;
use crate::current_stream::CurrentStream;
use crate::lease::{CallError, CallErrorKind, classify};
use crate::retrieval::shared_call::SharedCall;
use crate::retrieval::stream_check::StreamCheck;

/// Consumers that a stream may have. (50 with On-demand Advantage: then the service accepts more.)
const MAX_CONSUMERS: usize = 20;

/// The consumer of the stream.
#[derive(Debug)]
pub(crate) struct StreamConsumer {
    client: Client,
    stream: Arc<CurrentStream>,
    wanted: Wanted,
    /// The ARN that was found last.
    arn: Mutex<Option<String>>,
    finding: SharedCall<String, Arc<NoConsumer>>,
}

/// What the settings ask for.
#[derive(Debug)]
enum Wanted {
    Arn(String),
    Name { name: String, is_registered_if_missing: bool },
}

/// Why there is no consumer to subscribe as.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoConsumer {
    #[error(transparent)]
    Call(#[from] CallError),
    /// It was registered, or is being deleted, and cannot be used yet.
    #[error("consumer {name} is {status}")]
    NotActive { name: String, status: String },
    #[error("consumer {name} is not registered")]
    NotRegistered { name: String },
    /// No further consumer can be registered.
    #[error("consumer {name} cannot be registered, because the stream has {registered} consumers")]
    TooMany { name: String, registered: usize },
    #[error("consumer {consumer} is one of another stream than {stream}")]
    OfAnotherStream { consumer: String, stream: String },
}

impl StreamConsumer {
    /// `application`: the name of the consumer, if the settings give none.
    pub(crate) fn new(
        check: &StreamCheck,
        application: &str,
        wanted: &FanOutConsumer,
        clock: Arc<dyn Clock>,
        random: Rng,
    ) -> Self {
        let named = |name: &Option<String>, is_registered_if_missing| Wanted::Name {
            name: name.clone().unwrap_or_else(|| application.to_owned()),
            is_registered_if_missing,
        };
        let wanted = match wanted {
            FanOutConsumer::Arn(arn) => Wanted::Arn(arn.clone()),
            FanOutConsumer::Discover { name } => named(name, false),
            FanOutConsumer::Register { name } => named(name, true),
        };
        Self {
            client: check.client.clone(),
            stream: Arc::clone(&check.stream),
            wanted,
            arn: Mutex::new(None),
            finding: SharedCall::new(clock, random),
        }
    }

    /// Returns the ARN of the consumer. All tasks that need it at the same time share the calls that find it.
    ///
    /// # Errors
    /// There is no consumer that can be used now.
    ///
    /// # Cancel safety
    /// As [`SharedCall::ask`].
    pub(super) async fn arn(&self) -> Result<String, Arc<NoConsumer>> {
        if let Some(arn) = self.arn.lock().clone() {
            return Ok(arn);
        }
        self.finding.ask(|| async { self.find().await.map_err(Arc::new) }).await
    }

    /// Forgets the ARN, because the service does not know it.
    pub(super) fn doubt(&self, arn: &str) {
        self.arn.lock().take_if(|known| known == arn);
    }

    /// Finds the consumer, and registers it if it does not exist and the settings say so. The caller repeats this until
    /// the consumer is active.
    ///
    /// # Errors
    /// There is no consumer that can be used now.
    pub(crate) async fn find(&self) -> Result<String, NoConsumer> {
        let stream = self.stream.identity().arn;
        let arn = match &self.wanted {
            Wanted::Arn(arn) if is_consumer_of(arn, &stream) => arn.clone(),
            Wanted::Arn(consumer) => {
                return Err(NoConsumer::OfAnotherStream { consumer: consumer.clone(), stream });
            }
            Wanted::Name { name, is_registered_if_missing } => {
                match self.describe(&stream, name).await? {
                    Some(arn) => arn,
                    None if *is_registered_if_missing => self.register(&stream, name).await?,
                    None => return Err(NoConsumer::NotRegistered { name: name.clone() }),
                }
            }
        };
        *self.arn.lock() = Some(arn.clone());
        Ok(arn)
    }

    /// Returns the ARN of a consumer that is active. `None`: there is no consumer of the name.
    async fn describe(&self, stream: &str, name: &str) -> Result<Option<String>, NoConsumer> {
        let request = self.client.describe_stream_consumer().stream_arn(stream).consumer_name(name);
        let found = match request.send().await {
            Ok(output) => output.consumer_description,
            Err(error) => {
                let error = classify("DescribeStreamConsumer", &error);
                return Ok(error.unless_not_found()?);
            }
        };
        let Some(found) = found else {
            let cause = "the answer has no description".to_owned();
            let kind = CallErrorKind::Internal;
            return Err(CallError::new("DescribeStreamConsumer", kind, cause).into());
        };
        match found.consumer_status {
            ConsumerStatus::Active => Ok(Some(found.consumer_arn)),
            status => Err(not_active(name, &status)),
        }
    }

    async fn register(&self, stream: &str, name: &str) -> Result<String, NoConsumer> {
        let request = self.client.register_stream_consumer().stream_arn(stream).consumer_name(name);
        let refused = match request.send().await {
            Ok(output) => {
                tracing::info!(consumer = name, stream, "a consumer of the stream was registered");
                let registered = output.consumer;
                return match registered {
                    Some(consumer) if consumer.consumer_status == ConsumerStatus::Active => {
                        Ok(consumer.consumer_arn)
                    }
                    _ => Err(not_active(name, &ConsumerStatus::Creating)),
                };
            }
            Err(error) => classify("RegisterStreamConsumer", &error),
        };
        // The service refuses more than five calls a second, and more consumers than a stream may have, by the same
        // error.
        if refused.kind == CallErrorKind::Throttled
            && let Ok(registered) = self.count(stream).await
            && registered >= MAX_CONSUMERS
        {
            return Err(NoConsumer::TooMany { name: name.to_owned(), registered });
        }
        // Another worker may have registered it in between. The next try finds it.
        Err(refused.into())
    }

    /// Counts the consumers of the stream.
    async fn count(&self, stream: &str) -> Result<usize, CallError> {
        let (mut count, mut token) = (0, None);
        loop {
            let request = self.client.list_stream_consumers().stream_arn(stream);
            let output = request.set_next_token(token).send().await;
            let output = output.map_err(|error| classify("ListStreamConsumers", &error))?;
            count += output.consumers.unwrap_or_default().len();
            token = output.next_token;
            if token.is_none() {
                return Ok(count);
            }
        }
    }

    /// Deregisters the consumer.
    ///
    /// # Errors
    /// The call failed. A consumer that does not exist is not an error.
    pub(super) async fn deregister(&self) -> Result<(), CallError> {
        let Some(arn) = self.arn.lock().clone() else {
            return Ok(());
        };
        match self.client.deregister_stream_consumer().consumer_arn(&arn).send().await {
            Ok(_) => {
                tracing::info!(consumer = arn, "the consumer of the stream was deregistered");
                Ok(())
            }
            Err(error) => {
                let error = classify("DeregisterStreamConsumer", &error);
                error.unless_not_found::<()>().map(drop)
            }
        }
    }
}

fn not_active(name: &str, status: &ConsumerStatus) -> NoConsumer {
    NoConsumer::NotActive { name: name.to_owned(), status: status.as_str().to_owned() }
}

/// True if `consumer` is the ARN of a consumer of the stream with the ARN `stream`.
fn is_consumer_of(consumer: &str, stream: &str) -> bool {
    let rest = consumer.strip_prefix(stream);
    rest.is_some_and(|rest| rest.starts_with("/consumer/"))
}
