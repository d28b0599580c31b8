//! The scenes of the two fleets.

use std::time::Duration;

use super::event::Kind::{Java, Rust};
use super::fleet::{Fleet, SHARDS};
use super::judge::Judgement;
use super::seen::State;
use super::worker::Tools;
use crate::Error;

/// Java workers run, ours join and leave: handoffs both ways, a split, a planned stop.
pub(super) async fn java_first(tools: &Tools, limit: Duration) -> Result<Judgement, Error> {
    let mut fleet = Fleet::new(tools, "java-first", "polling", limit).await?;
    fleet.scene("a Java worker starts");
    let java_1 = fleet.start(Java, "java-1")?;
    fleet
        .reach("java-1 leads and runs every shard", |state| {
            state.runs("java-1") == SHARDS && leads(state, "java-1")
        })
        .await?;

    fleet.scene("a Rust worker joins: the Java leader hands it shards");
    let rust_1 = fleet.start(Rust, "rust-1")?;
    let shards = fleet.open_shards().await?;
    fleet
        .reach("both run half", |state| {
            state.all_run(&shards, &["java-1", "rust-1"])
                && state.runs("rust-1") == SHARDS / 2
                && state.handed_over("java-1", "rust-1")
        })
        .await?;

    fleet.scene("a shard of each splits");
    for worker in ["java-1", "rust-1"] {
        let shard = fleet.seen.state().shards_of(worker).pop();
        fleet.split(&shard.ok_or("it runs no shard")?).await?;
    }
    let shards = fleet.open_shards().await?;
    fleet.reach("every child runs", |state| state.all_run(&shards, &["java-1", "rust-1"])).await?;

    fleet.scene("the shards of the Rust worker become heavy, a second Java worker joins");
    fleet.seen.update(|state| {
        state.heavy = state.shards_of("rust-1").into_iter().collect();
    });
    let java_2 = fleet.start(Java, "java-2")?;
    fleet
        .reach("the Java leader has moved shards away from the Rust worker", |state| {
            state.all_run(&shards, &["java-1", "java-2", "rust-1"])
                && state.runs("java-2") > 0
                && (state.handed_over("rust-1", "java-1") || state.handed_over("rust-1", "java-2"))
        })
        .await?;

    // The leader asked for each shard that the worker gave up.
    nothing_logged(&fleet, "rust-1", "to balance the fleet")?;

    fleet.scene("the Rust worker gets SIGTERM");
    rust_1.terminate().await?;
    fleet.reach("it has stopped", |_| true).await?;
    fleet
        .reach("the Java workers run its shards", |state| {
            state.all_run(&shards, &["java-1", "java-2"])
        })
        .await?;
    fleet.finish(vec![java_2, java_1]).await
}

/// Our workers make the table, a Java worker joins and leads; then one after the other is killed.
pub(super) async fn rust_first(tools: &Tools, limit: Duration) -> Result<Judgement, Error> {
    let mut fleet = Fleet::new(tools, "rust-first", "default", limit).await?;
    let shards = fleet.open_shards().await?;
    fleet.scene("two Rust workers start");
    let rust_1 = fleet.start(Rust, "rust-1")?;
    let rust_2 = fleet.start(Rust, "rust-2")?;
    fleet
        .reach("each runs half", |state| {
            state.all_run(&shards, &["rust-1", "rust-2"]) && state.runs("rust-1") == SHARDS / 2
        })
        .await?;
    let mode = fleet.table().mode;
    if mode.as_deref() != Some("CLIENT_VERSION_3X") || fleet.has_old_tables().await? {
        return Err(format!("a new application is in mode {mode:?}, or on several tables").into());
    }

    fleet.scene("a Java worker joins the table that Rust workers made");
    let java_1 = fleet.start(Java, "java-1")?;
    fleet
        .reach("it leads, was handed a shard and reads it", |state| {
            let mut givers = ["rust-1", "rust-2"].iter();
            leads(state, "java-1")
                && state.reads("java-1")
                && givers.any(|giver| state.handed_over(giver, "java-1"))
                && state.all_run(&shards, &["java-1", "rust-1", "rust-2"])
        })
        .await?;
    nothing_logged(&fleet, "java-1", " ERROR ")?;

    fleet.scene("both Rust workers are killed");
    rust_1.kill().await?;
    rust_2.kill().await?;
    fleet
        .reach("the Java worker runs every shard", |state| state.all_run(&shards, &["java-1"]))
        .await?;

    fleet.scene("a Rust worker and a second Java worker join");
    let rust_3 = fleet.start(Rust, "rust-3")?;
    let java_2 = fleet.start(Java, "java-2")?;
    fleet
        .reach("each of the three reads a shard", |state| {
            let workers = ["java-1", "java-2", "rust-3"];
            state.all_run(&shards, &workers) && workers.iter().all(|worker| state.reads(worker))
        })
        .await?;

    fleet.scene("the Java worker that does not lead is killed");
    java_2.kill().await?;
    fleet.reach("its shards run", |state| state.all_run(&shards, &["java-1", "rust-3"])).await?;

    fleet.scene("the Java worker that leads is killed");
    java_1.kill().await?;
    fleet
        .reach("the Rust worker runs every shard", |state| state.all_run(&shards, &["rust-3"]))
        .await?;
    fleet.finish(vec![rust_3]).await
}

fn leads(state: &State, worker: &str) -> bool {
    state.table.leader.as_deref() == Some(worker)
}

fn nothing_logged(fleet: &Fleet, worker: &str, what: &str) -> Result<(), Error> {
    let lines = fleet.logged(worker, what)?;
    if lines.is_empty() {
        Ok(())
    } else {
        Err(format!("{worker} says: {}", lines.join("; ")).into())
    }
}
