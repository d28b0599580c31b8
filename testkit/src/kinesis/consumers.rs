//! Consumers with fan-out: RegisterStreamConsumer, DescribeStreamConsumer, ListStreamConsumers,
//! DeregisterStreamConsumer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::limits::CallRate;
use super::page_token::{self, check_alone};
use super::shard::ShardId;
use super::stream::Stream;
use super::subscribe::Holder;
use super::tags::{Tags, check_tags};
use super::wire::{Done, EpochSeconds, StreamRef, check_name, ranged, required};
use super::{ACCOUNT, Kinesis, name_of_arn};
use crate::clock::Timestamp;

/// Most consumers a stream may have.
const MAX_CONSUMERS: usize = 20;
/// Most consumers of an account that may be `CREATING` at the same time.
const MAX_CREATING: usize = 5;
const OPERATION: &str = "ListStreamConsumers";

/// A consumer of a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    pub(crate) arn: String,
    /// Tells consumers apart that had the same ARN: it has the second of the registration only.
    pub(crate) incarnation: u64,
    pub(crate) tags: Tags,
    #[serde(skip)]
    pub(crate) subscriptions: BTreeMap<ShardId, Holder>,
    #[serde(skip)]
    pub(crate) subscribe_calls: BTreeMap<ShardId, CallRate>,
    created: Timestamp,
    active_from: Timestamp,
    gone_from: Option<Timestamp>,
}

impl Consumer {
    fn status(&self, now: Timestamp) -> &'static str {
        if self.gone_from.is_some() {
            "DELETING"
        } else if now < self.active_from {
            "CREATING"
        } else {
            "ACTIVE"
        }
    }

    pub(crate) fn check_active(&self, now: Timestamp) -> Result<(), ApiError> {
        match self.status(now) {
            "ACTIVE" => Ok(()),
            status => Err(ApiError::in_use(format!(
                "Consumer {} is not ACTIVE, instead in state {status}.",
                self.arn
            ))),
        }
    }

    pub(crate) fn is_gone(&self, now: Timestamp) -> bool {
        self.gone_from.is_some_and(|gone| gone <= now)
    }

    fn shape(&self, now: Timestamp) -> ConsumerShape {
        ConsumerShape {
            consumer_name: self.name.clone(),
            consumer_arn: self.arn.clone(),
            consumer_status: self.status(now),
            consumer_creation_timestamp: EpochSeconds(self.created),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RegisterConsumerRequest {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    tags: Option<Tags>,
}

/// A consumer by its ARN, or by its name and its stream's ARN.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConsumerRequest {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListConsumersRequest {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<EpochSeconds>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConsumerShape {
    consumer_name: String,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: String,
    consumer_status: &'static str,
    consumer_creation_timestamp: EpochSeconds,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConsumerDescription {
    #[serde(flatten)]
    consumer: ConsumerShape,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RegisterConsumerResponse {
    consumer: ConsumerShape,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeConsumerResponse {
    consumer_description: ConsumerDescription,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListConsumersResponse {
    consumers: Vec<ConsumerShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Kinesis {
    pub(crate) fn register_stream_consumer(
        &mut self,
        now: Timestamp,
        request: RegisterConsumerRequest,
    ) -> Result<RegisterConsumerResponse, ApiError> {
        self.check_registration(now)?;
        let name = required("consumerName", request.consumer_name)?;
        check_name("consumerName", &name)?;
        let tags = request.tags.unwrap_or_default();
        check_tags(&tags)?;
        let transition = self.settings.transition;
        let incarnation = self.next_incarnation();
        let arn = required("streamARN", request.stream_arn.as_deref())?;
        let stream = self.active(now, by_arn(arn))?;
        if stream.consumers.iter().any(|known| known.name == name) {
            return Err(ApiError::in_use(format!(
                "Consumer {name} of stream {} under account {ACCOUNT} already exists.",
                stream.name
            )));
        }
        if stream.consumers.len() >= MAX_CONSUMERS {
            return Err(ApiError::limit_exceeded(format!(
                "Stream {} under account {ACCOUNT} has {MAX_CONSUMERS} consumers, the most it may \
                 have.",
                stream.name
            )));
        }
        let consumer = Consumer {
            arn: format!("{}/consumer/{name}:{}", stream.arn, now.seconds()),
            name,
            incarnation,
            tags,
            subscriptions: BTreeMap::new(),
            subscribe_calls: BTreeMap::new(),
            created: now,
            active_from: now.plus(transition),
            gone_from: None,
        };
        // AWS answers before the consumer is active, and so does this, however short it takes.
        let consumer_status = "CREATING";
        let shape = ConsumerShape { consumer_status, ..consumer.shape(now) };
        stream.consumers.push(consumer);
        Ok(RegisterConsumerResponse { consumer: shape })
    }

    /// Refuses a registration that is above the limits of the account.
    fn check_registration(&mut self, now: Timestamp) -> Result<(), ApiError> {
        if !self.settings.shard_limits {
            return Ok(());
        }
        let rate = self.registrations.get_or_insert_with(|| CallRate::of_registrations(now));
        if !rate.admit(now) {
            return Err(ApiError::limit_exceeded(format!("Rate exceeded for account {ACCOUNT}.")));
        }
        let consumers = self.streams.values().flat_map(|stream| &stream.consumers);
        let creating = consumers.filter(|consumer| consumer.status(now) == "CREATING").count();
        if creating >= MAX_CREATING {
            return Err(ApiError::limit_exceeded(format!(
                "{MAX_CREATING} consumers of account {ACCOUNT} are CREATING, the most there may be."
            )));
        }
        Ok(())
    }

    pub(crate) fn describe_stream_consumer(
        &mut self,
        now: Timestamp,
        request: ConsumerRequest,
    ) -> Result<DescribeConsumerResponse, ApiError> {
        let (stream_arn, consumer) = self.named_consumer(now, &request)?;
        let consumer = consumer.shape(now);
        Ok(DescribeConsumerResponse {
            consumer_description: ConsumerDescription { consumer, stream_arn },
        })
    }

    pub(crate) fn list_stream_consumers(
        &mut self,
        now: Timestamp,
        request: ListConsumersRequest,
    ) -> Result<ListConsumersResponse, ApiError> {
        let limit = ranged("maxResults", request.max_results, 100, 1, 10_000)?;
        let arn = required("streamARN", request.stream_arn.as_deref())?;
        let place: Option<(u64, u64)> = match request.next_token.as_deref() {
            None => None,
            Some(token) => {
                let created = request.stream_creation_timestamp.is_some();
                check_alone(&[("StreamCreationTimestamp", created)])?;
                Some(page_token::decode(OPERATION, now, token)?)
            }
        };
        let stream = self.stream(now, by_arn(arn))?;
        if place.is_some_and(|(incarnation, _)| incarnation != stream.incarnation) {
            return Err(ApiError::invalid_argument(
                "NextToken was given for another stream than StreamARN names.",
            ));
        }
        let after = place.map(|(_, after)| after);
        if let Some(created) = request.stream_creation_timestamp
            && created.0.seconds() != stream.created.seconds()
        {
            return Err(ApiError::not_found(format!(
                "Stream {} was not created at the given time",
                stream.name
            )));
        }
        // In the order of registration, which is that of incarnations.
        let mut rest = stream
            .consumers
            .iter()
            .filter(|consumer| after.is_none_or(|after| consumer.incarnation > after));
        let page: Vec<&Consumer> = rest.by_ref().take(limit).collect();
        let last = page.last().filter(|_| rest.next().is_some());
        let next_token = last
            .map(|last| page_token::encode(OPERATION, now, (stream.incarnation, last.incarnation)));
        let consumers = page.iter().map(|consumer| consumer.shape(now)).collect();
        Ok(ListConsumersResponse { consumers, next_token })
    }

    pub(crate) fn deregister_stream_consumer(
        &mut self,
        now: Timestamp,
        request: ConsumerRequest,
    ) -> Result<Done, ApiError> {
        let transition = self.settings.transition;
        let (_, consumer) = self.named_consumer(now, &request)?;
        if consumer.gone_from.is_some() {
            return Err(ApiError::in_use(format!(
                "Consumer {} is being deregistered already.",
                consumer.arn
            )));
        }
        consumer.gone_from = Some(now.plus(transition));
        let arn = consumer.arn.clone();
        let name = stream_of(&arn).map(str::to_owned).unwrap_or_default();
        self.settle(now, &name);
        Ok(Done {})
    }

    /// The consumer a request names, and its stream's ARN.
    fn named_consumer(
        &mut self,
        now: Timestamp,
        request: &ConsumerRequest,
    ) -> Result<(String, &mut Consumer), ApiError> {
        let (stream_arn, name) = (request.stream_arn.as_deref(), request.consumer_name.as_deref());
        let Some(arn) = request.consumer_arn.as_deref() else {
            let (Some(stream_arn), Some(name)) = (stream_arn, name) else {
                return Err(ApiError::invalid_argument(
                    "Either ConsumerARN or both StreamARN and ConsumerName must be given.",
                ));
            };
            let stream = self.stream(now, by_arn(stream_arn))?;
            let (stream_name, arn) = (stream.name.clone(), stream.arn.clone());
            let found = stream.consumers.iter_mut().find(|known| known.name == name);
            let missing = || {
                ApiError::not_found(format!(
                    "Consumer {name} of stream {stream_name} under account {ACCOUNT} not found."
                ))
            };
            return Ok((arn, found.ok_or_else(missing)?));
        };
        let (stream, nth) = self.find_consumer(now, arn)?;
        let (own_arn, consumer) = (stream.arn.clone(), &mut stream.consumers[nth]);
        let agree = stream_arn.is_none_or(|given| name_of_arn(given) == name_of_arn(&own_arn))
            && name.is_none_or(|given| given == consumer.name);
        if agree {
            return Ok((own_arn, consumer));
        }
        Err(ApiError::invalid_argument(
            "ConsumerARN names another consumer than StreamARN and ConsumerName.",
        ))
    }

    /// The consumer with this ARN, and its stream's name.
    pub(crate) fn consumer_by_arn(
        &mut self,
        now: Timestamp,
        arn: &str,
    ) -> Result<(String, &mut Consumer), ApiError> {
        let (stream, nth) = self.find_consumer(now, arn)?;
        Ok((stream.name.clone(), &mut stream.consumers[nth]))
    }

    fn find_consumer(
        &mut self,
        now: Timestamp,
        arn: &str,
    ) -> Result<(&mut Stream, usize), ApiError> {
        let missing = || ApiError::not_found(format!("Consumer {arn} not found."));
        let name = stream_of(arn).ok_or_else(missing)?;
        let stream = StreamRef { name: Some(name), arn: None };
        let stream = self.stream(now, stream)?;
        let nth = stream.consumers.iter().position(|known| known.arn == arn);
        Ok((stream, nth.ok_or_else(missing)?))
    }
}

/// The name of the stream of a consumer's ARN.
pub(crate) fn stream_of(consumer_arn: &str) -> Option<&str> {
    let (stream_arn, _) = consumer_arn.split_once("/consumer/")?;
    name_of_arn(stream_arn)
}

fn by_arn(arn: &str) -> StreamRef<'_> {
    StreamRef { name: None, arn: Some(arn) }
}
