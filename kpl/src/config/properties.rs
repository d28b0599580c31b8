//! Reading a `.properties` file of the KPL.

mod options;
mod syntax;

use super::{InvalidConfig, ProducerConfig};
#[cfg(feature = "cloudwatch")]
use crate::config::CloudWatchConfig;

/// The content of a KPL `.properties` file; from [`ProducerConfig::from_properties`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KplProperties {
    /// The settings. Options that the file does not name have the KPL's default.
    pub config: ProducerConfig,
    /// `Region`: for the `SdkConfig`.
    pub region: Option<String>,
    /// `KinesisEndpoint` and `KinesisPort` as a URL: for the `SdkConfig`.
    pub kinesis_endpoint_url: Option<String>,
    /// `CloudwatchEndpoint` and `CloudwatchPort` as a URL: for the `SdkConfig` of
    /// [`ProducerBuilder::cloudwatch`](crate::ProducerBuilder).
    pub cloudwatch_endpoint_url: Option<String>,
    /// The options of the metrics. Feature `cloudwatch`.
    #[cfg(feature = "cloudwatch")]
    pub cloudwatch: CloudWatchConfig,
    /// Keys that have no effect, or another one than in the KPL, in the order of the file. Log them.
    pub notes: Vec<PropertyNote>,
}

/// A key of a `.properties` file that has no effect, or another one than in the KPL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PropertyNote {
    /// The key.
    pub key: String,
    /// The reason, and what to do instead.
    pub note: String,
}

impl std::fmt::Display for PropertyNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.note)
    }
}

impl ProducerConfig {
    /// Reads the text of a KPL `.properties` file, as `KinesisProducerConfiguration.fromPropertiesFile` does: the same
    /// keys, ranges and defaults. [`parity`](crate::parity) lists each option.
    ///
    /// The notes name options without a meaning here, and unknown keys. If a key occurs twice, the last value counts.
    /// Notes contain no values, because a value may be a password.
    ///
    /// # Errors
    /// [`InvalidConfig`], with all problems at once. A value outside of the KPL's range is named by the option of the
    /// KPL, and values that do not fit together by the settings of [`ProducerConfig`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use kpl::ProducerConfig;
    ///
    /// let file = "
    ///     ## of the order service
    ///     RecordMaxBufferedTime = 50
    ///     Region = eu-central-1
    ///     ThreadingModel = POOLED
    /// ";
    /// let read = ProducerConfig::from_properties(file)?;
    /// assert_eq!(read.config.record_max_buffered_time, Duration::from_millis(50));
    /// assert_eq!(read.region.as_deref(), Some("eu-central-1"));
    /// assert_eq!(read.notes[0].key, "ThreadingModel");
    /// # Ok::<(), kpl::InvalidConfig>(())
    /// ```
    pub fn from_properties(text: &str) -> Result<KplProperties, InvalidConfig> {
        options::read(&syntax::parse(text))
    }
}

#[cfg(test)]
mod tests;
