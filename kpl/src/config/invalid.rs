//! The problems of a configuration: all of them in one error.

use std::fmt;

/// A configuration with one or more problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidConfig {
    problems: Vec<(String, String)>,
}

impl InvalidConfig {
    pub(crate) fn one(field: &str, problem: String) -> Self {
        Self { problems: vec![(field.to_owned(), problem)] }
    }

    /// Field and problem, for each problem.
    pub fn problems(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.problems.iter().map(|(field, problem)| (field.as_str(), problem.as_str()))
    }

    /// The problems of all checks.
    pub(crate) fn all(checks: impl IntoIterator<Item = Result<(), Self>>) -> Result<(), Self> {
        let problems = checks.into_iter().filter_map(Result::err);
        let problems: Vec<_> = problems.flat_map(|error| error.problems).collect();
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid configuration: ")?;
        for (position, (field, problem)) in self.problems.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidConfig {}

#[derive(Default)]
pub(super) struct Problems(Vec<(String, String)>);

impl Problems {
    pub(super) fn add(&mut self, field: &str, problem: String) {
        self.0.push((field.to_owned(), problem));
    }

    pub(super) fn within(&mut self, field: &str, value: usize, least: usize, most: usize) {
        if value < least || value > most {
            self.add(field, format!("must be {least} to {most}, got {value}"));
        }
    }

    pub(super) fn into_result(self) -> Result<(), InvalidConfig> {
        if self.0.is_empty() { Ok(()) } else { Err(InvalidConfig { problems: self.0 }) }
    }
}
