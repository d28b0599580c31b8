//! Which settings are possible.

use std::fmt;
use std::time::Duration;

use super::{CheckpointPolicy, ConsumerConfig};

/// Smallest byte budget: two of the largest pages that GetRecords returns.
const MIN_BUFFERED_BYTES: usize = 20 << 20;

/// Settings that can not work together; names all problems at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// One line per problem: the setting, its value, and what it may be.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(crate) fn check(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self { problems })
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "change these settings: {}", self.problems.join("; "))
    }
}

impl std::error::Error for ConfigError {}

impl ConsumerConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`ConfigError`], which names all problems, not only the first.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check(self.problems())
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |met: bool, problem: String| {
            if !met {
                problems.push(problem);
            }
        };
        let least = |name: &str, value: Duration, least: Duration| {
            (
                value >= least,
                format!("{name} is {value:?}; it must be at least {least:?}"),
            )
        };
        let millis = Duration::from_millis;

        if let Some(worker_id) = &self.worker_id {
            require(
                !worker_id.is_empty(),
                "worker_id is empty; leave it out or name one".into(),
            );
        }
        for (met, problem) in [
            least("failover_time", self.failover_time, millis(500)),
            least(
                "idle_time_between_reads",
                self.idle_time_between_reads,
                millis(200),
            ),
            least(
                "kinesis_request_timeout",
                self.kinesis_request_timeout,
                millis(50),
            ),
            least(
                "dynamodb_request_timeout",
                self.dynamodb_request_timeout,
                millis(50),
            ),
            least(
                "parent_poll_interval",
                self.parent_poll_interval,
                millis(10),
            ),
            least("shard_sync_interval", self.shard_sync_interval, millis(100)),
            least("retry_initial_delay", self.retry_initial_delay, millis(1)),
        ] {
            require(met, problem);
        }
        require(
            self.dynamodb_request_timeout <= self.failover_time / 4,
            format!(
                "dynamodb_request_timeout is {:?}; it must be at most a quarter of failover_time ({:?}), so that a renewal can be tried again in time",
                self.dynamodb_request_timeout, self.failover_time
            ),
        );
        require(
            self.retry_max_delay >= self.retry_initial_delay,
            format!(
                "retry_max_delay is {:?}; it must be at least retry_initial_delay ({:?})",
                self.retry_max_delay, self.retry_initial_delay
            ),
        );
        require(
            self.max_leases > 0,
            "max_leases is 0; it must be at least 1".into(),
        );
        require(
            self.max_lease_table_reads > 0,
            "max_lease_table_reads is 0; it must be at least 1".into(),
        );
        require(
            (1..=10_000).contains(&self.max_records),
            format!("max_records is {}; it must be 1 to 10000", self.max_records),
        );
        require(
            self.max_buffered_bytes >= MIN_BUFFERED_BYTES,
            format!(
                "max_buffered_bytes is {}; it must be at least {MIN_BUFFERED_BYTES} (20 MiB)",
                self.max_buffered_bytes
            ),
        );
        require(
            (1 << 20..=u32::MAX as usize).contains(&self.max_decompressed_size),
            format!(
                "max_decompressed_size is {}; it must be 1 MiB to 4 GiB",
                self.max_decompressed_size
            ),
        );
        if let CheckpointPolicy::Interval(interval) = self.checkpoint {
            require(
                !interval.is_zero(),
                "checkpoint is an interval of zero; take CheckpointPolicy::AfterBatch".into(),
            );
        }
        if let Some(name) = &self.table.name {
            require(
                is_table_name(name),
                format!("table.name is {name:?}; {TABLE_NAME_RULE}"),
            );
        }
        if let Some((read, write)) = self.table.provisioned {
            require(
                read > 0 && write > 0,
                format!("table.provisioned is ({read}, {write}); both must be at least 1"),
            );
        }
        problems
    }
}

/// What DynamoDB accepts, in words.
pub(crate) const TABLE_NAME_RULE: &str =
    "a DynamoDB table name has 3 to 255 characters of a-z, A-Z, 0-9, '_', '-' and '.'";

/// Whether DynamoDB accepts `name`.
pub(crate) fn is_table_name(name: &str) -> bool {
    (3..=255).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(ConsumerConfig::default().validate(), Ok(()));
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let config = ConsumerConfig::default()
            .with_worker_id("")
            .with_failover_time(Duration::from_millis(1))
            .with_max_records(0)
            .with_max_buffered_bytes(1)
            .with_max_leases(0)
            .with_max_lease_table_reads(0)
            .with_idle_time_between_reads(Duration::from_millis(199))
            .with_retry_max_delay(Duration::ZERO)
            .with_max_decompressed_size(3)
            .with_checkpoint(CheckpointPolicy::Interval(Duration::ZERO));
        let error = config.validate().unwrap_err();
        for name in [
            "worker_id",
            "failover_time",
            "dynamodb_request_timeout",
            "max_records",
            "max_buffered_bytes",
            "max_leases",
            "max_lease_table_reads",
            "idle_time_between_reads",
            "retry_max_delay",
            "max_decompressed_size",
            "checkpoint",
        ] {
            let named = error
                .problems()
                .iter()
                .filter(|p| p.starts_with(name))
                .count();
            assert_eq!(named, 1, "{name}: {error}");
        }
        assert_eq!(error.problems().len(), 11);
    }

    #[test]
    fn table_names() {
        for (name, accepted) in [
            ("abc", true),
            ("a.b_c-9", true),
            ("ab", false),
            ("a b c", false),
        ] {
            assert_eq!(is_table_name(name), accepted, "{name}");
        }
    }
}
