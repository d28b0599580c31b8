//! Settings of the way in which shards are read.

/// How the records of a shard are received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RetrievalMode {
    /// By GetRecords. All applications of the stream share five calls and 2 MB a second and shard.
    #[default]
    Polling,
    /// By enhanced fan-out (SubscribeToShard): the service sends records as they arrive, and this application has 2 MB a
    /// second and shard of its own. AWS charges for each consumer of a shard, and for the bytes.
    ///
    /// The Java KCL has it on by default.
    FanOut(FanOutConfig),
}

/// Settings of enhanced fan-out.
///
/// ```
/// use kcl::{ConsumerConfig, FanOutConfig, FanOutConsumer, RetrievalMode};
///
/// let by_arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders/consumer/billing:1700000000";
/// let fan_out = FanOutConfig::default().with_consumer(FanOutConsumer::Arn(by_arn.into()));
/// let config = ConsumerConfig::default().with_retrieval(RetrievalMode::FanOut(fan_out));
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct FanOutConfig {
    /// Registered consumer with which the workers subscribe. Default: one named after the application, which is registered
    /// if it does not exist.
    ///
    /// Each application needs a consumer of its own: two applications with one consumer end each other's subscriptions.
    pub consumer: FanOutConsumer,
    /// Whether the worker deregisters the consumer when it ends. Default `false`.
    ///
    /// Set it for jobs of one worker that run once. Any other worker of the application loses its subscriptions.
    pub deregister_on_stop: bool,
    /// Whether the worker polls if the consumer cannot be registered, because the stream has the most consumers that it may
    /// have. Default `false`: [`build`](crate::SchedulerBuilder::build) fails at its
    /// [`startup_timeout`](crate::ConsumerConfig::startup_timeout).
    ///
    /// Polling takes from the limit of all other applications that poll the stream. A worker that polls for this reason is
    /// [degraded](crate::ProblemKind::FanOutUnavailable) until it is started again, and counts the metric
    /// `FanOutFallbacks`.
    pub fall_back_to_polling: bool,
}

/// A consumer of a stream, for enhanced fan-out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum FanOutConsumer {
    /// The consumer of this name. It is registered if it does not exist, and never deregistered unless
    /// [`deregister_on_stop`](FanOutConfig::deregister_on_stop) says so.
    ///
    /// Permissions: `kinesis:RegisterStreamConsumer` and `kinesis:ListStreamConsumers` on the stream,
    /// `kinesis:DescribeStreamConsumer` and `kinesis:SubscribeToShard` on the consumer.
    Register {
        /// Name of 1 to 128 characters of a-z, A-Z, 0-9, `_`, `-` and `.`. `None`: that of the application.
        name: Option<String>,
    },
    /// The consumer of this name, which was registered by other means. The worker does not start without it.
    ///
    /// Permissions: `kinesis:DescribeStreamConsumer` and `kinesis:SubscribeToShard` on the consumer.
    Discover {
        /// Name of 1 to 128 characters of a-z, A-Z, 0-9, `_`, `-` and `.`. `None`: that of the application.
        name: Option<String>,
    },
    /// The consumer of this ARN. It is not looked up.
    ///
    /// Permission: `kinesis:SubscribeToShard` on the consumer. For a stream in another account, give the stream by its ARN,
    /// and let policies of the stream and the consumer allow the calls.
    Arn(String),
}

impl Default for FanOutConsumer {
    fn default() -> Self {
        Self::Register { name: None }
    }
}

impl FanOutConfig {
    /// What is wrong with the settings.
    pub(super) fn problem(&self) -> Option<String> {
        match &self.consumer {
            FanOutConsumer::Register { name: Some(name) }
            | FanOutConsumer::Discover { name: Some(name) } => (!is_consumer_name(name)).then(|| {
                format!(
                    "retrieval names the consumer {name:?}; a name has 1 to 128 characters of a-z, A-Z, 0-9, '_', \
                     '-' and '.'"
                )
            }),
            FanOutConsumer::Arn(arn) => (!is_consumer_arn(arn)).then(|| {
                format!(
                    "retrieval has the consumer ARN {arn:?}; at its end it must have \
                     stream/STREAM/consumer/NAME:TIMESTAMP, as RegisterStreamConsumer returned it"
                )
            }),
            _ => None,
        }
    }
}

fn is_consumer_name(name: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=128).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn is_consumer_arn(arn: &str) -> bool {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let ["arn", _, "kinesis", _, _, resource] = parts[..] else {
        return false;
    };
    let resource: Vec<_> = resource.split('/').collect();
    matches!(resource[..], ["stream", _, "consumer", consumer]
        if consumer.split_once(':').is_some_and(|(name, _)| is_consumer_name(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arns_are_checked() {
        let problem = |consumer| FanOutConfig { consumer, ..FanOutConfig::default() }.problem();
        let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";
        for (consumer, is_valid) in [
            (FanOutConsumer::default(), true),
            (FanOutConsumer::Register { name: Some("billing".into()) }, true),
            (FanOutConsumer::Register { name: Some(String::new()) }, false),
            (FanOutConsumer::Discover { name: Some("a b".into()) }, false),
            (FanOutConsumer::Discover { name: Some("x".repeat(129)) }, false),
            (FanOutConsumer::Arn(format!("{arn}/consumer/billing:1700000000")), true),
            (FanOutConsumer::Arn(arn.into()), false),
            (FanOutConsumer::Arn("billing".into()), false),
        ] {
            assert_eq!(problem(consumer.clone()).is_none(), is_valid, "{consumer:?}");
        }
    }
}
