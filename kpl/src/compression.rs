//! Compression of sealed aggregates: quick ones where they are sealed, long ones on threads for blocking work.
//!
//! A record whose compression is not done keeps its place in its queue, and holds back those behind it.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kinesis_aggregation::{Compressor, SealedAggregate};
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{Compression, InvalidConfig, ProducerConfig};
use crate::logs::LogGate;

/// The most that are compressed at the same time: each takes a thread, and from level 9 on megabytes of memory.
const MOST_AT_ONCE: usize = 4;

/// Compressions that take longer than this leave the thread of the runtime.
const LONGEST_INLINE_MICROS: usize = 500;

/// The compressed form of an aggregate that waits for it: `None` where that is not smaller.
pub(crate) type Pending = Arc<OnceLock<Option<Bytes>>>;

/// Data of an aggregate, and what will replace it before it is sent.
pub(crate) struct Compressed {
    pub(crate) data: Bytes,
    pub(crate) pending: Option<Pending>,
}

pub(crate) struct Compressors {
    /// `None` where compression is off.
    level: Option<i32>,
    most_at_once: usize,
    /// Contexts that are not in use.
    idle: Vec<Compressor>,
    /// What waits for a thread, oldest first.
    jobs: VecDeque<Job>,
    running: JoinSet<Option<Compressor>>,
    not_compressed: Arc<LogGate>,
}

struct Job {
    aggregate: SealedAggregate,
    result: Finish,
}

/// Where a job leaves its result. Dropped without one, as in a panic, it lets the aggregate go as it is.
struct Finish(Pending);

impl Drop for Finish {
    fn drop(&mut self) {
        let _ = self.0.set(None);
    }
}

impl Compressors {
    pub(crate) fn new(config: &ProducerConfig) -> Result<Self, InvalidConfig> {
        let (mut level, mut idle) = (None, Vec::new());
        if let Compression::Zstd { level: set } = config.compression {
            idle.push(Compressor::new(set).map_err(|error| {
                InvalidConfig::one("compression", format!("zstd cannot start: {error}"))
            })?);
            level = Some(set);
        }
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            level,
            most_at_once: threads.min(MOST_AT_ONCE),
            idle,
            jobs: VecDeque::new(),
            running: JoinSet::new(),
            not_compressed: Arc::new(LogGate::default()),
        })
    }

    /// Compresses an aggregate now, or later if that takes long.
    pub(crate) fn compress(&mut self, aggregate: SealedAggregate) -> Compressed {
        let data = aggregate.bytes().clone();
        let Some(level) = self.level else {
            return Compressed {
                data,
                pending: None,
            };
        };
        if micros(level, data.len()) > LONGEST_INLINE_MICROS {
            let pending = Pending::default();
            let result = Finish(Arc::clone(&pending));
            self.jobs.push_back(Job { aggregate, result });
            return Compressed {
                data,
                pending: Some(pending),
            };
        }
        let mut compressor = self.idle.pop().or_else(|| Compressor::new(level).ok());
        let compressed = run(compressor.as_mut(), &aggregate, &self.not_compressed);
        self.idle.extend(compressor);
        Compressed {
            data: compressed.unwrap_or(data),
            pending: None,
        }
    }

    /// Gives what waits to threads, as far as there are any.
    pub(crate) fn start(&mut self) {
        while self.running.len() < self.most_at_once
            && let Some(Job { aggregate, result }) = self.jobs.pop_front()
        {
            // Its record failed, or its members went separate ways.
            if Arc::strong_count(&result.0) == 1 {
                continue;
            }
            let level = self.level.unwrap_or_default();
            let compressor = self.idle.pop();
            let log = Arc::clone(&self.not_compressed);
            self.running.spawn_blocking(move || {
                let mut compressor = compressor.or_else(|| Compressor::new(level).ok());
                let _ = result.0.set(run(compressor.as_mut(), &aggregate, &log));
                compressor
            });
        }
    }

    /// Waits for one that runs. `None` when none does.
    pub(crate) async fn finished(&mut self) -> Option<()> {
        let compressor = self.running.join_next().await?;
        self.idle.extend(compressor.ok().flatten());
        Some(())
    }
}

/// The compressed form, where it is smaller and zstd works.
fn run(
    compressor: Option<&mut Compressor>,
    aggregate: &SealedAggregate,
    log: &LogGate,
) -> Option<Bytes> {
    match compressor?.compress(aggregate) {
        Ok(compressed) => compressed,
        Err(error) => {
            if let Some(left_out) = log.pass(clock::now()) {
                tracing::warn!(%error, left_out, "an aggregate could not be compressed: it goes out as it is");
            }
            None
        }
    }
}

/// About how long compression takes, in microseconds: measured with JSON of 200 bytes a record, on one core of a busy machine.
fn micros(level: i32, bytes: usize) -> usize {
    let micros_per_kib = match level {
        ..=2 => 5,
        3..=4 => 10,
        5..=6 => 20,
        7..=11 => 45,
        12..=14 => 100,
        15..=16 => 400,
        17.. => 1000,
    };
    bytes.saturating_mul(micros_per_kib) / 1024
}
