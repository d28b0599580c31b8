//! Fleets of workers in one seeded, single-threaded runtime under paused time, with everything going
//! wrong that can: for this project's tests, not for users. It lives here, behind a feature, because
//! what it judges is private: opened to another crate, all of coordination would have to be public.

mod java_worker;
mod network;
mod oracle;
mod process;
mod rust_worker;
mod scenario;
mod stream;
mod world;

pub use scenario::run;

/// Which workers a fleet is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// Ours only.
    Rust,
    /// Workers that keep the rules of the Java library, as far as these go.
    Java,
    /// Both.
    Mixed,
}

/// What one simulation came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Things that happened.
    pub steps: u64,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// What a rule of Java's leaves open and nobody can prevent; the trace names the rule. Not violations.
    pub java_windows: u64,
    /// Of the whole trace: the same for the same seed.
    pub digest: u64,
    /// All that happened, in order, with the time in seconds.
    pub trace: Vec<String>,
}
