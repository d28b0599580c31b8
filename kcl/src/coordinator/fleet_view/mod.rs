//! What this worker knows of the fleet from its scans of the lease table.

pub(crate) mod lease_history;
pub(crate) mod lease_table;
pub(crate) mod other_processes;
pub(crate) mod workers;
