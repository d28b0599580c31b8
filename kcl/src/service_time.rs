//! The service's time of day, learned from the `Date` of its answers. The clock of this host may be wrong by
//! hours.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_types::date_time::{DateTime, Format};
use kinesis_common::sync::Mutex;

use crate::clock::Clock;

/// Largest difference between the clocks of two hosts of the service. One host writes the `Date` of an answer,
/// another one stamps the arrival of a record.
pub(crate) const HOST_SKEW: Duration = Duration::from_secs(2);

/// Largest difference from the service's time at which the clock of this host counts as right. A `Date` has whole
/// seconds, and is received after it was written.
const TRUSTED: Duration = Duration::from_secs(5);

/// The `Date` of the first answer to one call. A `Date` has whole seconds, rounded down.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnswerDate(Arc<Mutex<Option<SystemTime>>>);

impl AnswerDate {
    /// A time before which no record arrives that is put after the answer: the start of the answer's second,
    /// less [`HOST_SKEW`]. `None`: the answer had no `Date`.
    pub(crate) fn no_later_than_answer(&self) -> Option<SystemTime> {
        self.date()?.checked_sub(HOST_SKEW)
    }

    /// The time of the answer by the service's clock, to the second.
    pub(crate) fn date(&self) -> Option<SystemTime> {
        *self.0.lock()
    }
}

impl Intercept for AnswerDate {
    fn name(&self) -> &'static str {
        "AnswerDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = date_of(context);
        let mut first = self.0.lock();
        *first = first.or(date);
        Ok(())
    }
}

/// The service's time of day, also between answers. Clones share what they have learned.
#[derive(Debug, Clone)]
pub(crate) struct ServiceClock {
    clock: Arc<dyn Clock>,
    /// The latest `Date`, and when it was received by the monotonic clock.
    latest: Arc<Mutex<Option<(SystemTime, Duration)>>>,
}

impl ServiceClock {
    /// Creates a clock that shows the host's time of day until it has seen an answer.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, latest: Arc::default() }
    }

    /// Returns a client like this one, from whose answers the clock learns the time.
    pub(crate) fn told_by(&self, client: &aws_sdk_dynamodb::Client) -> aws_sdk_dynamodb::Client {
        let config = client.config().to_builder().interceptor(self.clone());
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// Returns a client of Kinesis like this one, from whose answers the clock learns the time.
    pub(crate) fn told_by_kinesis(
        &self,
        client: &aws_sdk_kinesis::Client,
    ) -> aws_sdk_kinesis::Client {
        let config = client.config().to_builder().interceptor(self.clone());
        aws_sdk_kinesis::Client::from_conf(config.build())
    }

    /// The service's time, to about a second: the latest `Date` and the time that has passed since. Before the
    /// first answer, it is the host's time of day.
    pub(crate) fn now(&self) -> SystemTime {
        let latest = *self.latest.lock();
        match latest {
            Some((date, received)) => date + self.clock.now().saturating_sub(received),
            None => self.clock.wall(),
        }
    }

    /// The time of day, to the millisecond if the host's clock is right: the host's time of day. If it differs by more
    /// than [`TRUSTED`] from the service's time, that counts instead, which is exact to about a second.
    pub(crate) fn exact_now(&self) -> SystemTime {
        let (host, service) = (self.clock.wall(), self.now());
        let differs = host.duration_since(service).unwrap_or_else(|error| error.duration());
        if differs > TRUSTED { service } else { host }
    }

    pub(crate) fn epoch_seconds(&self) -> u64 {
        self.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn learn(&self, date: SystemTime) {
        let received = self.clock.now();
        *self.latest.lock() = Some((date, received));
    }
}

impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = date_of(context) {
            self.learn(date);
        }
        Ok(())
    }
}

fn date_of(context: &BeforeDeserializationInterceptorContextRef<'_>) -> Option<SystemTime> {
    let text = context.response().headers().get("date")?;
    let date = DateTime::from_str(text, Format::HttpDate).ok()?;
    let seconds = u64::try_from(date.secs()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    #[tokio::test(start_paused = true)]
    async fn the_latest_date_counts_and_time_passes_on_from_it() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let host = TokioClock::starting_at(noon - Duration::from_secs(7200));
        let service = ServiceClock::new(Arc::new(host));
        assert_eq!(service.now(), noon - Duration::from_secs(7200));
        service.learn(noon);
        assert_eq!(service.now(), noon);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(service.epoch_seconds(), 1_800_000_030);
        service.learn(noon + Duration::from_secs(31));
        assert_eq!(service.epoch_seconds(), 1_800_000_031);
    }

    #[tokio::test(start_paused = true)]
    async fn the_exact_time_is_the_hosts_unless_the_service_shows_that_it_is_wrong() {
        let host = TokioClock::new();
        let service = ServiceClock::new(Arc::new(host));
        assert_eq!(service.exact_now(), host.wall(), "no answer yet");
        for (off, is_trusted) in [(0, true), (4, true), (6, false), (7200, false)] {
            let off = Duration::from_secs(off);
            for date in [host.wall() - off, host.wall() + off] {
                service.learn(date);
                let expected = if is_trusted { host.wall() } else { date };
                assert_eq!(service.exact_now(), expected, "{off:?}");
            }
        }
    }
}
