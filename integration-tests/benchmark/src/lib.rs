//! What the benchmarks share.
//!
//! A benchmark compares sides, such as a library and the bare loop that is its floor. Each side, and each server, is a
//! process of its own: the same program once more, with a role ([`program`], [`process`]). A side measures its own CPU
//! time and memory ([`usage`]) and reports its figures to the first process, which prints ([`comparison`]) and draws ([`plot`]) them.
//!
//! The servers answer over TLS ([`server`]) and keep nothing, so that they cost little beside the sides.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

pub mod comparison;
pub mod plot;
pub mod process;
pub mod sdk;
pub mod server;
pub mod statistics;
pub mod stream;
pub mod usage;

use std::process::ExitCode;

use clap::Parser;
use serde::de::DeserializeOwned;

/// Any error. A benchmark prints it and ends.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs a benchmark: as the role that the process was started with, or, without one, as the process that measures.
///
/// A role runs on a runtime with two threads. `measure` starts the roles by [`process::run`] and
/// [`process::Server::start`].
pub fn program<R: DeserializeOwned, A: Parser>(
    play: impl AsyncFnOnce(R) -> Result<(), Error>,
    measure: impl FnOnce(A) -> Result<(), Error>,
) -> ExitCode {
    let done = match process::role() {
        Ok(Some(role)) => runtime().and_then(|runtime| runtime.block_on(play(role))),
        Ok(None) => measure(A::parse()),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).enable_all().build()?)
}
