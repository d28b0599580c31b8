//! One line a case, and how it all ended.

use std::process::ExitCode;

use crate::case::{Case, Outcome};
use crate::known::{Expected, Known};

/// Counts outcomes as they come, and prints them.
pub(crate) struct Report {
    known: Vec<Known>,
    passed: usize,
    failed: usize,
    differing: usize,
}

impl Report {
    pub(crate) fn new(known: Vec<Known>) -> Self {
        Self { known, passed: 0, failed: 0, differing: 0 }
    }

    /// Whether a case is to be run; says so if not.
    pub(crate) fn asks_for(&self, case: &Case) -> bool {
        let mut known = self.known.iter();
        let not_run =
            known.find(|known| known.case == case.name && known.outcome == Expected::NotRun);
        if let Some(known) = not_run {
            println!("not run           {}: {}", case.name, known.why);
        }
        not_run.is_none()
    }

    pub(crate) fn add(&mut self, Outcome { name, verdict }: Outcome) {
        let known = self.known.iter().find(|known| known.case == name);
        match (verdict, known) {
            (Ok(()), None) => {
                self.passed += 1;
                println!("passed            {name}");
            }
            (Err(reason), None) => {
                self.failed += 1;
                println!("FAILED            {name}: {reason}");
            }
            (Err(reason), Some(known)) => {
                self.differing += 1;
                println!("known difference  {name}: {} ({reason})", known.why);
            }
            (Ok(()), Some(known)) => {
                self.failed += 1;
                println!(
                    "FAILED            {name}: passes, but is listed as a known difference: {}",
                    known.why
                );
            }
        }
    }

    /// The last lines, and the exit status. A run of nothing is no success.
    pub(crate) fn conclude(self) -> ExitCode {
        if self.differing > 0 {
            println!("{} known differences", self.differing);
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
