//! What `kpl` and `kcl` both need of AWS, of the clock and of chance.
//!
//! This crate is an implementation detail of those two crates. Its API has no stability: any release may
//! change or remove any part of it. Depend on `kpl` or `kcl` instead.

pub mod backoff;
pub mod client;
pub mod clock;
pub mod error_text;
#[cfg(feature = "serde")]
pub mod human_duration;
pub mod list_shards;
pub mod log_gate;
pub mod metrics;
pub mod panic_message;
pub mod protocol;
pub mod record_buffer;
pub mod retry_class;
pub mod stream_name;
pub mod sync;
pub mod timestamp;
