//! Fleets of workers under every fault, in one seeded, single-threaded runtime under paused time. For this
//! project's tests, not for users.
//!
//! Each worker is a complete `kcl` worker. Through [`kcl::internals`], the simulation gives it a lease table, the
//! shards of the stream, the records, a clock and executors. In a third of the fleets, all of our workers read by
//! enhanced fan-out, and in another third half of them: with the library's own code on a client of the AWS SDK, whose
//! requests the simulation answers. The others read by a source of the simulation, as if they polled.
//!
//! | fault | where |
//! |---|---|
//! | crash, with a successor of the same id or without | `scenario`: `kill` |
//! | planned stop | `scenario`: `strike` |
//! | pause, also longer than the lease | `scenario`: `suspend` |
//! | the time of day jumps | `scenario`: `strike` |
//! | requests and answers lost, late, cut, throttled; brownouts | `network`; `scenario`: `strike` |
//! | index and scans behind the table | `network`: `index_lag`, `scan_lag` |
//! | a Java leader dies: any worker's crash; between two of its writes | `scenario`: `kill`; `java_worker::leader`: `about_to_write` |
//! | a rolling deploy of the Java workers beside ours, by its shares | `rolling_deploy` |
//! | a Java leader acts on an old scan | `java_worker::leader`: `pass`; `scenario`: `misjudge` |
//! | a handoff in mid-flight, its owner or receiver dead, paused or cut off | `scenario::disturbed_handoff` |
//! | user code that fails, panics, is slow, checkpoints in two phases and after its ownership | `rust_worker::processor` |
//! | user code blocks the threads of its runtime, or that runtime ends, while coordination goes on | `scenario`: `block`, `strike` |
//! | reads that fail, are throttled or late | `rust_worker::reads` |
//! | subscriptions cut within an event, silent, ended early or with an error, taken over, not read | `fan_out::session` |
//! | requests for subscriptions refused, lost, late, throttled, also those of a dead worker | `fan_out::connection` |
//! | resharding, listings that lag | `scenario`: `strike`; `stream` |
//!
//! | invariant, after every step | where |
//! |---|---|
//! | at most one processor of a lease within its fence, among ours whatever it heard; none of ours is called behind it | `oracle`: `check_overlaps`; `oracle::calls` |
//! | none of ours processes more shards than its `max_leases` | `oracle`: `check_limit` |
//! | a checkpoint never goes back, nor past what was delivered; its writer owns the lease | `oracle::table` |
//! | records of a shard in order within an ownership, none skipped, each delivered in the end | `oracle::progress`; `scenario`: `deliver` |
//! | a worker has at most one subscription to a shard | `fan_out::connection`: `respond` |
//! | a stop ends, in time, and its report lists what the worker held | `scenario`: `stop_all`; `rust_worker::stopping` |
//! | keys in order across splits and merges: parents before children | `oracle`: `check_parents` |
//! | active leases cover the hash space; no unfinished lease is deleted, no finished one made again | `oracle`: `check_cover`; `oracle::table` |
//! | what a rule of Java's leaves open is told apart, by the rule | `oracle::excuse` |
//!
//! Simplified in fan-out: the registered consumer exists from the start and is the same for all; events have at most
//! eight Kinesis records, in JSON, and no times of arrival; a window of HTTP/2 is a number of events, and each subscription
//! has a connection of its own; another application that uses the consumer only takes subscriptions over.
//!
//! Not simulated: polling as the library does it (iterators and their expiry, retries), a stream that is deleted,
//! other positions than the trim horizon, trimmed records, compressed frames and broken aggregates, the preparation of
//! the tables and their layouts, the worker's handle, another failover time than 10 s, a recorder, subscriber or clock
//! of the user's that blocks. A call of user code that blocks its thread stops between two of its steps, not within
//! one.

#[allow(dead_code, reason = "tests of kcl use more of it")]
#[path = "../../../kcl/tests/support/clock.rs"]
mod clock;
mod cold_start;
mod fan_out;
pub mod idle;
mod java_worker;
pub mod memory;
mod network;
mod oracle;
mod process;
#[cfg(test)]
mod rolling_deploy;
mod rust_worker;
mod scenario;
mod stream;
mod world;

use std::collections::BTreeMap;

pub use cold_start::{ColdStart, cold_start};
pub use fan_out::FanOutCounts;
pub use scenario::run;

/// Which workers a fleet is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// Workers of this library only.
    Rust,
    /// Workers by the rules of the Java library.
    Java,
    /// Both.
    Mixed,
}

/// The result of one simulation.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Number of events.
    pub steps: u64,
    /// Invariants that broke.
    pub violations: Vec<String>,
    /// How often a rule of the Java library left a fault open that no worker of ours can prevent, by the
    /// rule. These are no violations.
    pub java_windows: BTreeMap<&'static str, u64>,
    /// What happened to the subscriptions of workers that read by enhanced fan-out.
    pub fan_out: FanOutCounts,
    /// Digest of the whole trace. The same seed gives the same digest.
    pub digest: u64,
    /// All events in order, each with its time in seconds.
    pub trace: Vec<String>,
}
