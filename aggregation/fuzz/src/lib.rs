//! The bodies of the fuzz targets, which `cargo test` runs too.

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

pub use fuzz_bodies::{decode, frame, round_trip};
