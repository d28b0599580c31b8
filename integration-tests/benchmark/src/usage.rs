//! What this process has used.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What a process used for a piece of work.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Used {
    /// CPU time of all threads, user and system.
    pub cpu_seconds: f64,
    /// Time from the begin to the end.
    pub wall_seconds: f64,
    /// Largest resident memory of the process up to the end.
    pub peak_resident_bytes: usize,
}

/// The begin of a piece of work.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    wall: Instant,
    cpu: f64,
}

impl Begun {
    /// The work begins.
    pub fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu_seconds() }
    }

    /// The work is done.
    ///
    /// # Errors
    /// The system has no `/proc`.
    pub fn used(self) -> Result<Used, Error> {
        Ok(Used {
            cpu_seconds: cpu_seconds() - self.cpu,
            wall_seconds: self.wall.elapsed().as_secs_f64(),
            peak_resident_bytes: peak_resident_bytes()?,
        })
    }
}

/// CPU time of this process so far, of all threads, user and system, in seconds.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory of this process now, in bytes.
///
/// # Errors
/// The system has no `/proc`.
pub fn resident_bytes() -> Result<usize, Error> {
    status("VmRSS:")
}

/// Largest resident memory of this process so far, in bytes.
///
/// # Errors
/// The system has no `/proc`.
pub fn peak_resident_bytes() -> Result<usize, Error> {
    status("VmHWM:")
}

fn status(name: &str) -> Result<usize, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("an unknown form of /proc/self/status")?.parse::<usize>()? * 1024)
}
