//! The producer on the embedded AWS: real SDK, real sockets, the stream's content as the oracle.

#![allow(clippy::unwrap_used, reason = "a test")]

mod auto_distribution;
mod bad_input;
mod clock_skew;
mod connections;
mod delivery;
mod fairness;
mod lifecycle;
mod memory;
mod ordered;
mod proxy;
mod reader;
mod reshard;
mod send_all;
mod start;
mod wire;
