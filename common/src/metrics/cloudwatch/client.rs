//! PutMetricData with the AWS SDK: the one module that knows its types.

use std::time::Duration;

use crate::client::behavior_version;
use crate::error_text::{Request, message_text};
use crate::metrics::{Unit, milliseconds};
use crate::retry_class::RetryClass;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::Builder;
use aws_sdk_cloudwatch::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_cloudwatch::config::timeout::TimeoutConfig;
use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, StatisticSet};
use aws_types::SdkConfig;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::histogram;
use super::series::{Datum, MAX_VALUES, Values};
use super::uploader::{UploadError, Uploader};

/// Puts the metrics of one namespace.
#[derive(Debug)]
pub struct SdkUploader {
    client: Client,
    namespace: String,
}

impl SdkUploader {
    /// Creates the client.
    ///
    /// `retry_partition`: name of the quota of retries, which all clients of that name in the process share.
    pub fn new(sdk_config: &SdkConfig, namespace: &str, retry_partition: &'static str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(Duration::from_secs(6))
            .operation_timeout(Duration::from_secs(20))
            .build();
        let config = Builder::from(sdk_config)
            .behavior_version(behavior_version())
            .retry_partition(RetryPartition::custom(retry_partition).build())
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts)
            .build();
        Self { client: Client::from_conf(config), namespace: namespace.to_owned() }
    }
}

impl Uploader for SdkUploader {
    fn put(&self, data: Vec<Datum>) -> BoxFuture<'static, Result<(), UploadError>> {
        let data = data.into_iter().flat_map(metric_data).collect();
        let request =
            self.client.put_metric_data().namespace(&self.namespace).set_metric_data(Some(data));
        async move {
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) => {
                    let code = error.code().unwrap_or("Connection").to_owned();
                    let status = error.raw_response().map(|raw| raw.status().as_u16());
                    let is_refused = status.is_some_and(|status| is_refusal(status, &code));
                    Err(UploadError {
                        code,
                        message: message_text(&error, Request::WithoutRecords),
                        is_refused,
                    })
                }
            }
        }
        .boxed()
    }
}

/// Whether an answer refuses the data. Other answers are about the caller, its rate, or the service.
fn is_refusal(status: u16, code: &str) -> bool {
    matches!(status, 400 | 413 | 422)
        && matches!(RetryClass::of(code), None | Some(RetryClass::Rejected))
}

/// Converts a datum. More than one results if it has more values than CloudWatch takes in one.
fn metric_data(datum: Datum) -> Vec<MetricDatum> {
    let Datum { series, values } = datum;
    let dimensions: Vec<_> = series
        .dimensions
        .iter()
        .map(|(name, value)| Dimension::builder().name(&**name).value(&**value).build())
        .collect();
    let empty = MetricDatum::builder()
        .metric_name(series.metric)
        .set_dimensions(Some(dimensions))
        .unit(match series.unit {
            Unit::Count => StandardUnit::Count,
            Unit::Bytes => StandardUnit::Bytes,
            Unit::Milliseconds => StandardUnit::Milliseconds,
        });
    let Values { count, sum, least, most, times } = values;
    if times.is_empty() {
        let statistics = StatisticSet::builder()
            .sample_count(count as f64)
            .sum(sum)
            .minimum(least)
            .maximum(most)
            .build();
        return vec![empty.statistic_values(statistics).build()];
    }
    let times: Vec<_> = times
        .into_iter()
        .map(|(bucket, count)| {
            let value = milliseconds(histogram::value_of(usize::from(bucket)));
            // The middle of the first or the last bucket may lie outside of the measured values.
            (value.clamp(least, most), count as f64)
        })
        .collect();
    times
        .chunks(MAX_VALUES)
        .map(|chunk| {
            let (values, counts) = chunk.iter().copied().unzip();
            empty.clone().set_values(Some(values)).set_counts(Some(counts)).build()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::series::Series;
    use super::*;

    #[test]
    fn only_what_blames_the_data_is_a_refusal() {
        for (status, code) in [
            (400, "InvalidParameterValue"),
            (400, "InvalidParameterCombination"),
            (400, "MissingParameter"),
            (400, "ValidationError"),
            (400, "ValidationException"),
            (400, "SerializationException"),
            (400, "WhateverComesNext"),
            (413, "RequestEntityTooLarge"),
            (413, "Connection"),
        ] {
            assert!(is_refusal(status, code), "{status} {code}");
        }
        for (status, code) in [
            (200, "Connection"),
            (400, "Throttling"),
            (400, "ThrottlingException"),
            (400, "ExpiredTokenException"),
            (400, "RequestExpired"),
            (400, "IncompleteSignature"),
            (400, "AccessDenied"),
            (403, "InvalidClientTokenId"),
            (403, "WhateverComesNext"),
            (404, "UnknownOperationException"),
            (408, "RequestTimeout"),
            (429, "TooManyRequestsException"),
            (500, "InternalServiceError"),
            (503, "ServiceUnavailable"),
        ] {
            assert!(!is_refusal(status, code), "{status} {code}");
        }
    }

    #[test]
    fn times_are_values_and_counts_in_data_that_cloudwatch_takes() {
        let series = Series {
            metric: "BufferingTime",
            unit: Unit::Milliseconds,
            dimensions: vec![("StreamName".into(), "s".into())],
        };
        let times = (0..290).map(|bucket| (bucket, 2)).collect();
        let values = Values { count: 580, sum: 1.0, least: 0.5, most: 1e9, times };
        let data = metric_data(Datum { series, values });
        assert_eq!(data.len(), 2);
        let all: Vec<f64> = data.iter().flat_map(|datum| datum.values()).copied().collect();
        assert_eq!(all.len(), 290);
        assert!(all.is_sorted() && all[0] == 0.5);
        for datum in &data {
            assert!(datum.values().len() <= MAX_VALUES);
            assert_eq!(datum.values().len(), datum.counts().len());
            assert_eq!(datum.unit(), Some(&StandardUnit::Milliseconds));
            assert!(datum.statistic_values().is_none());
        }
    }
}
