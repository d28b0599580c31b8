//! Reading a `.properties` file of the KPL.

mod options;
mod syntax;

use super::{InvalidConfig, ProducerConfig};
#[cfg(feature = "cloudwatch")]
use crate::config::CloudWatchConfig;

/// What a `.properties` file of the KPL says; from [`ProducerConfig::from_properties`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KplProperties {
    /// The settings; what the file does not name has the KPL's default.
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
    /// What in the file has no effect by itself, in its order: worth a look, and a line in the log.
    pub notes: Vec<PropertyNote>,
}

/// A key of a `.properties` file that has no effect by itself, or another than in the KPL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PropertyNote {
    /// The key.
    pub key: String,
    /// Why, and what to do instead.
    pub note: String,
}

impl std::fmt::Display for PropertyNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.note)
    }
}

impl ProducerConfig {
    /// Reads the text of a KPL `.properties` file, as `KinesisProducerConfiguration.fromPropertiesFile` does: the same keys,
    /// ranges and defaults. [`parity`](crate::parity) says what became of each option.
    ///
    /// Options that the KPL has and this producer has no use for are told in the notes, as are unknown keys; of a key that
    /// comes twice, the last counts. No value is repeated in a note: it may be a password.
    ///
    /// # Errors
    /// [`InvalidConfig`], with all problems at once: by the KPL's name what is not in the KPL's range, by ours what does not
    /// fit together.
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
