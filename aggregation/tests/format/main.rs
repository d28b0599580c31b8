//! The format as a whole: against the KPL's own bytes, against `prost`, case by case, and under
//! random and damaged input.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../fuzz_bodies/mod.rs"]
mod fuzz_bodies;

mod compressed_frame;
mod deaggregation;
mod encoding;
mod fuzz;
mod golden;
mod properties;
