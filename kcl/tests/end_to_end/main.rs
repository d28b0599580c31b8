//! Whole workers against an embedded AWS, with ids as oracle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acquired;
mod activity;
mod admin;
mod auto;
mod blocked;
mod brownout;
mod build_errors;
#[path = "../support/clock.rs"]
mod clock;
mod cold_start;
mod control;
mod cost;
mod delivery;
mod error_texts;
mod existence;
mod existing_tables;
mod failure_policy;
mod failures;
mod fan_out;
mod fleet;
mod fleet_mode;
mod keyed;
mod logs;
mod max_leases;
mod outage;
mod paused;
mod planned_stop;
mod positions;
mod probe;
mod progress;
mod reads;
mod recreated;
mod replay;
mod resharding;
mod same_id;
mod setup;
mod silent_stop;
mod skew;
mod streamed;
mod streamed_records;
mod stuck;
mod telling;
mod trimmed;
mod wire;
