//! What this process has used.

use rustix::time::{ClockId, clock_gettime};

use crate::Error;

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
