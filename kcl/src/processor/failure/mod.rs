//! Records on which the processor fails: what follows a failure, and where records go that are given up.

mod batch_failures;
mod given_up;
mod policy;

pub use self::batch_failures::BatchFailures;
pub use self::given_up::SkippedRecords;
pub(crate) use self::given_up::{GivenUp, Origin, Sinks, Unprocessed};
pub use self::policy::GiveUpReason;
pub(crate) use self::policy::{AfterFailure, Failures, after_failure};
