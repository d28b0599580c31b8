//! Simulates fleets of workers, one per seed, until an invariant breaks.
//!
//! ```text
//! cargo run --release -p kcl-simulation --bin simulate -- --seeds 10000 --workers mixed
//! ```

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, ValueEnum};
use kcl_simulation::{FanOutCounts, Report, Workers, run};

/// Simulates fleets of workers under faults, and checks the invariants.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to try.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Kinds of workers in the fleets.
    #[arg(long, value_enum, default_value = "rust")]
    workers: Fleet,
    /// Print the trace of every seed, not only of those that fail.
    #[arg(long)]
    trace: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Fleet {
    Rust,
    Java,
    Mixed,
}

impl From<Fleet> for Workers {
    fn from(fleet: Fleet) -> Self {
        match fleet {
            Fleet::Rust => Self::Rust,
            Fleet::Java => Self::Java,
            Fleet::Mixed => Self::Mixed,
        }
    }
}

#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    steps: u64,
    violations: usize,
    windows: BTreeMap<&'static str, u64>,
    /// Seeds of which a worker read by fan-out.
    by_fan_out: u64,
    fan_out: FanOutCounts,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let next = AtomicU64::new(arguments.seed);
    let end = arguments.seed.saturating_add(arguments.seeds);
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = run(seed, arguments.workers.into());
                    let mut totals = totals.lock().expect("no thread panics with it");
                    show(seed, &report, arguments.trace);
                    totals.count(&report, arguments.seeds);
                }
            });
        }
    });
    let totals = totals.into_inner().expect("no thread panics with it");
    eprintln!();
    for (rule, windows) in &totals.windows {
        println!("windows that a rule of Java's leaves open: {rule}: {windows}");
    }
    if totals.by_fan_out > 0 {
        println!("seeds with fan-out: {}, {}", totals.by_fan_out, totals.fan_out);
    }
    println!("seeds={} steps={} violations={}", totals.seeds, totals.steps, totals.violations);
    if totals.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Totals {
    fn count(&mut self, report: &Report, of: u64) {
        self.seeds += 1;
        self.steps += report.steps;
        self.violations += report.violations.len();
        for (rule, windows) in &report.java_windows {
            *self.windows.entry(rule).or_default() += windows;
        }
        self.by_fan_out += u64::from(report.fan_out.subscriptions > 0);
        self.fan_out += report.fan_out;
        eprint!("\r{} of {of} seeds, {} steps", self.seeds, self.steps);
        // Progress only.
        let _ = std::io::stderr().flush();
    }
}

fn show(seed: u64, report: &Report, always: bool) {
    if !always && report.violations.is_empty() {
        return;
    }
    eprintln!();
    for line in &report.trace {
        println!("{line}");
    }
    for violation in &report.violations {
        println!("seed {seed}: {violation}");
    }
}
