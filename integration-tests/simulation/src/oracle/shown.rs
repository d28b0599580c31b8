//! Changes of leases, as the trace shows them.

use std::fmt;

use kcl::internals::Lease;

/// A change of a lease, in a few words.
pub(super) struct Shown<'a>(
    pub(super) &'a str,
    pub(super) Option<&'a Lease>,
    pub(super) Option<&'a Lease>,
);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, before, after) = self;
        let owners = |lease: &Lease| {
            let owner = lease.owner.as_deref().unwrap_or("-").to_owned();
            match &lease.checkpoint_owner {
                Some(former) => format!("{former}>{owner}"),
                None => owner,
            }
        };
        match (before, after) {
            (None, Some(after)) => write!(f, "{key} created at {}", after.checkpoint),
            (_, None) => write!(f, "{key} deleted"),
            (Some(before), Some(after)) => {
                write!(f, "{key} #{} {}", after.counter, owners(after))?;
                if owners(before) != owners(after) {
                    write!(f, " (was {})", owners(before))?;
                }
                if before.checkpoint != after.checkpoint {
                    write!(f, " at {}", after.checkpoint)?;
                }
                if let Some(pending) = &after.pending
                    && before.pending != after.pending
                {
                    write!(f, " prepared at {}", pending.checkpoint)?;
                }
                Ok(())
            }
        }
    }
}
