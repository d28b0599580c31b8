//! Compression of sealed aggregates: short jobs where the aggregate is sealed, long jobs on threads for blocking work.
//!
//! A record whose compression is not done keeps its place in its queue, and later records of the queue wait for it.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use kinesis_aggregation::{Compressor, UndigestedAggregate};
use tokio::task::JoinSet;

use crate::aggregate::data::{Data, Encoded, Shared};
use crate::clock;
use crate::config::{Compression, InvalidConfig, ProducerConfig};
use crate::sync::{Mutex, lock};
use kinesis_common::log_gate::LogGate;

/// Most aggregates that are compressed at the same time. Each takes a thread, and from level 9 on megabytes of memory.
const MOST_AT_ONCE: usize = 4;

/// Longest compression that runs on the thread of the runtime.
const LONGEST_INLINE_MICROS: usize = 500;

/// Longest time for which a turn of the sender compresses on the thread of the runtime. Further aggregates go to other
/// threads.
const MOST_INLINE_MICROS: usize = 2000;

pub(crate) struct Compressors {
    /// `None` where compression is off.
    level: Option<i32>,
    most_at_once: usize,
    /// Contexts that are not in use.
    idle: Vec<Compressor>,
    /// Jobs that wait for a thread, oldest first.
    jobs: VecDeque<Job>,
    running: JoinSet<Option<Compressor>>,
    /// Time for which this turn of the sender may still compress on its own thread.
    inline_micros: usize,
    not_compressed: Arc<LogGate>,
}

/// The compression of an aggregate, while a record waits for it.
struct Job(Weak<Mutex<Shared>>);

impl Job {
    fn is_wanted(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Compresses the aggregate. The lock is free meanwhile, because the sender reads the aggregate.
    fn run(self, compressor: Option<&mut Compressor>, log: &LogGate) {
        let encoded = self.0.upgrade().map(|shared| lock(&shared).encoded.clone());
        if let Some(Encoded::Undigested(aggregate)) = encoded
            && let Some(compressed) = run(compressor, &aggregate, log)
            && let Some(shared) = self.0.upgrade()
        {
            lock(&shared).encoded = Encoded::Final(compressed);
        }
    }
}

impl Drop for Job {
    /// Without a compressed form, also after a panic, the aggregate is sent as it is.
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            lock(&shared).is_done = true;
        }
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
            inline_micros: MOST_INLINE_MICROS,
            not_compressed: Arc::new(LogGate::default()),
        })
    }

    /// Compresses an aggregate now, or later on another thread if that takes long.
    pub(crate) fn compress(&mut self, aggregate: UndigestedAggregate) -> Data {
        let Some(level) = self.level else {
            return Encoded::Undigested(aggregate).into();
        };
        let micros = micros(level, aggregate.size());
        if micros > LONGEST_INLINE_MICROS || micros > self.inline_micros {
            let encoded = Encoded::Undigested(aggregate);
            let shared = Arc::new(Mutex::new(Shared { encoded, is_done: false }));
            self.jobs.push_back(Job(Arc::downgrade(&shared)));
            return Data::Pending { shared, since: clock::now() };
        }
        self.inline_micros -= micros;
        let mut compressor = self.idle.pop().or_else(|| Compressor::new(level).ok());
        let compressed = run(compressor.as_mut(), &aggregate, &self.not_compressed);
        self.idle.extend(compressor);
        compressed.map_or(Encoded::Undigested(aggregate), Encoded::Final).into()
    }

    /// Ends all compression. Aggregates that are sealed from now on are not sent.
    pub(crate) fn stop(&mut self) {
        self.level = None;
        self.jobs.clear();
    }

    /// Starts waiting jobs on free threads. Called once in each turn of the sender.
    pub(crate) fn start(&mut self) {
        self.inline_micros = MOST_INLINE_MICROS;
        // A busy sender does not reach `finished`.
        while let Some(done) = self.running.try_join_next() {
            self.idle.extend(done.ok().flatten());
        }
        // Also while no thread is free, because jobs that are not wanted must not pile up.
        while self.jobs.front().is_some_and(|job| !job.is_wanted()) {
            self.jobs.pop_front();
        }
        while self.running.len() < self.most_at_once
            && let Some(job) = self.jobs.pop_front()
        {
            // Its record failed, or was split.
            if !job.is_wanted() {
                continue;
            }
            let level = self.level.unwrap_or_default();
            let compressor = self.idle.pop();
            let log = Arc::clone(&self.not_compressed);
            self.running.spawn_blocking(move || {
                let mut compressor = compressor.or_else(|| Compressor::new(level).ok());
                job.run(compressor.as_mut(), &log);
                compressor
            });
        }
    }

    /// Waits until a running job ends. Returns `None` if none runs.
    pub(crate) async fn finished(&mut self) -> Option<()> {
        let compressor = self.running.join_next().await?;
        self.idle.extend(compressor.ok().flatten());
        Some(())
    }
}

/// Compresses an aggregate. Returns `None` if the result is not smaller, or if zstd fails.
fn run(
    compressor: Option<&mut Compressor>,
    aggregate: &UndigestedAggregate,
    log: &LogGate,
) -> Option<Bytes> {
    match compressor?.compress(aggregate) {
        Ok(compressed) => compressed,
        Err(error) => {
            if let Some(left_out) = log.pass(clock::now()) {
                tracing::warn!(%error, left_out, "an aggregate could not be compressed: it is sent as it is");
            }
            None
        }
    }
}

/// Estimated time of a compression, in microseconds. Measured with JSON of 200 bytes a record, on one core of a busy
/// machine.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kinesis_aggregation::AggregateBuilder;

    use super::*;

    fn compressors(level: i32) -> Compressors {
        let config =
            ProducerConfig { compression: Compression::Zstd { level }, ..Default::default() };
        Compressors::new(&config).unwrap()
    }

    fn aggregate(size: usize) -> UndigestedAggregate {
        let mut builder = AggregateBuilder::new(usize::MAX);
        for data in [vec![1; size / 2], vec![2; size / 2]] {
            builder.push("k", None, &data).unwrap();
        }
        builder.seal_without_digest()
    }

    fn is_done(data: &Data) -> bool {
        match data {
            Data::Ready(_) => true,
            Data::Pending { shared, .. } => lock(shared).is_done,
        }
    }

    #[tokio::test]
    async fn jobs_that_are_done_make_room_though_the_pipeline_is_busy() {
        let mut compressors = compressors(12);
        compressors.most_at_once = 1;
        let all: Vec<_> = (0..3).map(|_| compressors.compress(aggregate(50_000))).collect();
        // The sender never waits for a job here.
        let wait = async {
            while !all.iter().all(is_done) {
                compressors.start();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, wait).await.unwrap();
        // Nothing has looked at them yet, and the originals are gone.
        assert!(all.iter().all(|data| data.len() < 25_000));
    }

    #[tokio::test]
    async fn a_turn_compresses_little_inline() {
        let mut compressors = compressors(3);
        for _ in 0..2 {
            let all = (0..100).map(|_| compressors.compress(aggregate(40_000)));
            let inline = all.filter(|data| matches!(data, Data::Ready(_))).count();
            assert!((1..10).contains(&inline), "{inline}");
            compressors.start();
        }
    }

    #[test]
    fn jobs_of_aggregates_that_are_gone_do_not_pile_up() {
        let mut compressors = compressors(12);
        compressors.most_at_once = 0;
        for _ in 0..100 {
            drop(compressors.compress(aggregate(50_000)));
        }
        compressors.start();
        assert!(compressors.jobs.is_empty());
    }
}
