//! Why a lease was lost, for the log.

use std::fmt;
use std::time::Duration;

use crate::lease::model::Lease;

/// What ended an ownership that the worker did not end itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// It was not renewed before its local deadline.
    Expired {
        /// Time since the last renewal.
        after: Duration,
        /// Why renewals failed.
        cause: Option<String>,
    },
    /// Another worker has it.
    TakenBy(String),
    /// Another process of the same worker id has it.
    AnotherProcess,
    /// It has no owner any more.
    Released,
    /// Its item is gone.
    Deleted,
    /// Another write moved its counter.
    Moved,
}

impl Loss {
    /// By the item that was found in place of the one that this worker wrote. `None`: there is none.
    pub(super) fn by(me: &str, process: u64, seen: Option<&Lease>) -> Self {
        let Some(seen) = seen else {
            return Self::Deleted;
        };
        match seen.actual_owner() {
            None => Self::Released,
            Some(owner) if owner != me => Self::TakenBy(owner.to_owned()),
            Some(_) if seen.is_anothers(process) => Self::AnotherProcess,
            Some(_) => Self::Moved,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { after, cause } => {
                write!(f, "it expired, not renewed for {after:.1?}")?;
                match cause {
                    Some(cause) => write!(f, ", since renewals failed: {cause}"),
                    None => Ok(()),
                }
            }
            Self::TakenBy(worker) => write!(f, "worker {worker} has it now"),
            Self::AnotherProcess => f.write_str("another process of this worker id has it now"),
            Self::Released => f.write_str("it was released by another worker"),
            Self::Deleted => f.write_str("its item was deleted"),
            Self::Moved => f.write_str("another writer moved its counter"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::lease::model::Stamp;

    #[test]
    fn the_item_that_was_found_tells() {
        let found = |owner: Option<&str>, process| Lease {
            owner: owner.map(str::to_owned),
            counter: 5,
            stamp: Some(Stamp::after(4, process)),
            ..Lease::new("a", Checkpoint::TrimHorizon)
        };
        for (seen, expected) in [
            (None, Loss::Deleted),
            (Some(found(None, 1)), Loss::Released),
            (Some(found(Some("w2"), 2)), Loss::TakenBy("w2".into())),
            (Some(found(Some("me"), 2)), Loss::AnotherProcess),
            (Some(found(Some("me"), 1)), Loss::Moved),
        ] {
            assert_eq!(Loss::by("me", 1, seen.as_ref()), expected);
        }
    }
}
