//! Publishing the metrics to Amazon CloudWatch, as the KPL does.

mod client;
mod publisher;
mod series;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use aws_types::SdkConfig;
use futures::future::BoxFuture;

use self::client::SdkUploader;
pub(crate) use self::publisher::Publisher;
pub(crate) use self::series::Collected;
pub(crate) use self::series::Datum;
use crate::config::CloudWatchConfig;

/// The settings and the client of the publisher.
pub(crate) struct CloudWatch {
    pub(crate) config: CloudWatchConfig,
    pub(crate) uploader: Arc<dyn Uploader>,
}

impl CloudWatch {
    pub(crate) fn new(sdk_config: &SdkConfig, config: CloudWatchConfig) -> Self {
        let uploader = Arc::new(SdkUploader::new(sdk_config, &config.namespace));
        Self { config, uploader }
    }
}

/// A PutMetricData call that failed.
#[derive(Debug, Clone)]
pub(crate) struct UploadError {
    pub(crate) code: String,
    pub(crate) message: String,
    /// Whether the same data would be refused again.
    pub(crate) is_refused: bool,
}

/// Makes PutMetricData calls, with the AWS SDK or scripted by a test.
pub(crate) trait Uploader: Send + Sync {
    fn put(&self, data: Vec<Datum>) -> BoxFuture<'static, Result<(), UploadError>>;
}
