//! Validation of the settings.

use std::time::{Duration, SystemTime};

use super::{
    CheckpointPolicy, ConsumerConfig, LONGEST, LONGEST_IN_WORDS, RetrievalMode, StreamPosition,
    Until,
};

const MIB: usize = 1 << 20;

/// The first second after the year 9999, since the epoch. RFC 3339 has four digits for the year.
const YEAR_10_000: u64 = 253_402_300_800;

/// Error of invalid settings. It names all problems at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("change these settings: {}", .problems.join("; "))]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// One line per problem: the setting, its value, and the values that are possible.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// `problems`: at least one.
    pub(crate) fn new(problems: Vec<String>) -> Self {
        Self { problems }
    }

    pub(crate) fn check(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self::new(problems)) }
    }
}

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
        let millis = Duration::from_millis;

        if let Some(worker_id) = &self.worker_id {
            require(
                (1..=LONGEST_WORKER_ID).contains(&worker_id.len()),
                format!(
                    "worker_id has {} bytes; it must have 1 to {LONGEST_WORKER_ID}: leave it out or name one",
                    worker_id.len()
                ),
            );
        }
        require(
            self.initial_position.times().all(is_timestamp),
            "initial_position is a time that no record can have; it must be at 1970-01-01 or later, \
             and in the year 9999 at most"
                .into(),
        );
        if let Some(Until::Timestamp(time)) = self.until {
            require(
                is_timestamp(time),
                "until is a time that no record can have; it must be at 1970-01-01 or later, and in the year \
                 9999 at most"
                    .into(),
            );
            if let StreamPosition::AtTimestamp(start) = self.initial_position.of_others() {
                require(
                    start < time,
                    "until is a time before initial_position; it must be at a later time, or no record is read"
                        .into(),
                );
            }
        }
        if let RetrievalMode::FanOut(fan_out) = &self.retrieval
            && let Some(problem) = fan_out.problem()
        {
            require(false, problem);
        }
        for problem in self.failure_policy.problems() {
            require(false, problem);
        }
        let slow_call = self.log_warning_for_task_after.unwrap_or(LONGEST);
        for (name, value, least) in [
            ("failover_time", self.failover_time, millis(500)),
            ("idle_time_between_reads", self.idle_time_between_reads, millis(200)),
            ("kinesis_request_timeout", self.kinesis_request_timeout, millis(50)),
            ("parent_poll_interval", self.parent_poll_interval, millis(10)),
            ("startup_timeout", self.startup_timeout, millis(100)),
            ("shard_sync_interval", self.shard_sync_interval, millis(100)),
            ("retry_initial_delay", self.retry_initial_delay, millis(1)),
            ("retry_max_delay", self.retry_max_delay, Duration::ZERO),
            ("log_warning_for_task_after", slow_call, millis(1)),
        ] {
            require(value >= least, format!("{name} is {value:?}; it must be at least {least:?}"));
            require(
                value <= LONGEST,
                format!("{name} is {value:?}; it must be at most {LONGEST_IN_WORDS}"),
            );
        }
        if let Some(timeout) = self.dynamodb_request_timeout {
            require(
                timeout >= millis(50),
                format!("dynamodb_request_timeout is {timeout:?}; it must be at least 50ms"),
            );
            require(
                timeout <= self.failover_time / 4,
                format!(
                    "dynamodb_request_timeout is {timeout:?}; it must be at most a quarter of failover_time ({:?}), \
                     so that a renewal can be tried again in time: leave it out to follow failover_time",
                    self.failover_time
                ),
            );
        }
        require(
            self.retry_max_delay >= self.retry_initial_delay,
            format!(
                "retry_max_delay is {:?}; it must be at least retry_initial_delay ({:?})",
                self.retry_max_delay, self.retry_initial_delay
            ),
        );
        let most = usize::MAX;
        for (name, value, allowed, rule) in [
            ("max_leases", self.max_leases, 1..=most, "at least 1"),
            ("max_lease_table_reads", self.max_lease_table_reads as usize, 1..=most, "at least 1"),
            ("max_records", self.max_records as usize, 1..=10_000, "1 to 10000"),
            ("concurrency_per_shard", self.concurrency_per_shard, 1..=most, "at least 1"),
            ("concurrency_per_worker", self.concurrency_per_worker, 1..=most, "at least 1"),
            ("max_window_records", self.max_window_records, 1..=most, "at least 1"),
            ("max_window_bytes", self.max_window_bytes, 1..=most, "at least 1"),
            // Two of the largest pages that GetRecords returns.
            (
                "max_buffered_bytes",
                self.max_buffered_bytes,
                20 * MIB..=most,
                "at least 20971520 (20 MiB)",
            ),
            (
                "max_decompressed_size",
                self.max_decompressed_size,
                MIB..=4096 * MIB - 1,
                "1 MiB to 4 GiB",
            ),
        ] {
            require(allowed.contains(&value), format!("{name} is {value}; it must be {rule}"));
        }
        if let CheckpointPolicy::Interval(interval) = self.checkpoint {
            require(
                !interval.is_zero(),
                "checkpoint is an interval of zero; it must be at least 1ns: for one after each batch, \
                 take CheckpointPolicy::AfterBatch"
                    .into(),
            );
            require(
                interval <= LONGEST,
                format!(
                    "checkpoint is an interval of {interval:?}; it must be at most {LONGEST_IN_WORDS}: \
                     for none at all, take CheckpointPolicy::Manual"
                ),
            );
        }
        if let Some(name) = &self.table.name {
            require(is_table_name(name), format!("table.name is {name:?}; {TABLE_NAME_RULE}"));
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

/// Longest worker id, in bytes. DynamoDB would allow a longer key.
const LONGEST_WORKER_ID: usize = 1024;

/// True if a record can have arrived at this time, and RFC 3339 can express it.
pub(super) fn is_timestamp(time: SystemTime) -> bool {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.is_ok_and(|since| since.as_secs() < YEAR_10_000)
}

/// The rule of DynamoDB for table names, in words.
const TABLE_NAME_RULE: &str =
    "a DynamoDB table name has 3 to 255 characters of a-z, A-Z, 0-9, '_', '-' and '.'";

/// True if DynamoDB accepts `name`.
fn is_table_name(name: &str) -> bool {
    (3..=255).contains(&name.len()) && has_table_characters(name)
}

fn has_table_characters(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Longest application name. Each start looks for the tables of older Java workers, which are named after the
/// application. The longest of these names is `APPLICATION-WorkerMetricStats`.
const LONGEST_APPLICATION: usize = 255 - "-WorkerMetricStats".len();

/// Returns what is wrong with the name of an application, and what to do. `names_the_table`: the lease table has no
/// name of its own.
pub(crate) fn application_problem(application: &str, names_the_table: bool) -> Option<String> {
    if application.is_empty() {
        return Some("application is empty; name it".into());
    }
    if application.len() > LONGEST_APPLICATION || !has_table_characters(application) {
        let start: String = application.chars().take(LONGEST_APPLICATION + 1).collect();
        return Some(format!(
            "application is {start:?} ({} bytes); it must have 1 to {LONGEST_APPLICATION} characters of \
             a-z, A-Z, 0-9, '_', '-' and '.', because tables are named after it",
            application.len()
        ));
    }
    (names_the_table && !is_table_name(application)).then(|| {
        format!(
            "application is {application:?} and names the lease table; {TABLE_NAME_RULE}, \
             or set table.name"
        )
    })
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
            .with_dynamodb_request_timeout(Duration::from_millis(50))
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
            let named = error.problems().iter().filter(|p| p.starts_with(name)).count();
            assert_eq!(named, 1, "{name}: {error}");
        }
        assert_eq!(error.problems().len(), 11);
    }

    #[test]
    fn the_time_limit_of_dynamodb_follows_the_failover_time() {
        let timeout = |config: &ConsumerConfig| config.dynamodb_attempt_timeout();
        let config = ConsumerConfig::default();
        assert_eq!(timeout(&config), Duration::from_secs(2));
        let config = config.with_failover_time(Duration::from_secs(2));
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(timeout(&config), Duration::from_millis(500));
        let config = config.with_dynamodb_request_timeout(Duration::from_millis(501));
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("dynamodb_request_timeout is 501ms"), "{error}");
        assert!(error.contains("leave it out to follow failover_time"), "{error}");
    }

    #[test]
    fn settings_for_tests_are_valid() {
        assert_eq!(ConsumerConfig::for_tests().validate(), Ok(()));
    }

    #[test]
    fn table_names() {
        for (name, accepted) in [("abc", true), ("a.b_c-9", true), ("ab", false), ("a b c", false)]
        {
            assert_eq!(is_table_name(name), accepted, "{name}");
        }
    }

    #[test]
    fn tables_can_be_named_after_an_application() {
        let longest = "x".repeat(237);
        for (name, own_table, accepted) in [
            ("billing", false, true),
            ("a", true, true),
            ("a", false, false),
            (&longest, false, true),
            (&format!("{longest}x"), false, false),
            (&format!("{longest}x"), true, false),
            ("a/b", true, false),
            ("billing\n", true, false),
            ("größe", true, false),
            ("", true, false),
        ] {
            let problem = application_problem(name, !own_table);
            assert_eq!(problem.is_none(), accepted, "{problem:?}");
            assert!(problem.is_none_or(|p| p.starts_with("application is ")));
        }
    }
}
