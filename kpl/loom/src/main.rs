//! Runs every interleaving of the producer's two shared structures: the byte budget and the result slot of an
//! aggregate.
//!
//! `cargo run --manifest-path kpl/loom/Cargo.toml`. The modules are the producer's own source files; what they take
//! from `crate::sync` comes from loom here.

#![allow(
    dead_code,
    missing_docs,
    reason = "of the producer's modules, only what the models run is used"
)]

#[path = "../../src/buffer/budget.rs"]
mod budget;
#[path = "../../src/ack/deliveries.rs"]
mod deliveries;
#[path = "../../src/ack/delivery.rs"]
mod delivery;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/ack/failed.rs"]
mod failed;
#[path = "../../src/buffer/fair_share.rs"]
mod fair_share;
mod models;
#[path = "../../src/ack/outcomes.rs"]
mod outcomes;
#[path = "../../src/stats.rs"]
mod stats;
#[path = "../../src/buffer/tournament.rs"]
mod tournament;
#[path = "../../src/buffer/wait_index.rs"]
mod wait_index;

use self::outcomes::Outcomes;

mod sync {
    use loom::sync::atomic::Ordering;

    pub(crate) use loom::sync::atomic::AtomicBool;
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// Loom has no such cell. The flag lets it see each access.
    pub(crate) struct OnceLock<T> {
        is_set: AtomicBool,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { is_set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            self.is_set.load(Ordering::Acquire).then(|| self.value.get()).flatten()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }
    }

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("a panic ends the model")
    }
}

/// Stands still: no model looks at the time.
mod clock {
    pub(crate) use std::time::Instant;

    pub(crate) fn now() -> Instant {
        static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }
}

/// Stands in for what errors hold, and no model looks at.
mod record {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct UserRecord;

    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("invalid record")]
    pub struct InvalidRecord;
}

fn main() {
    for (name, model) in models::ALL {
        let began = std::time::Instant::now();
        loom::model(model);
        println!("{name}: every interleaving holds ({:?})", began.elapsed());
    }
}
