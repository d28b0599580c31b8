//! The problems of a configuration: all of them in one error.

/// A configuration with one or more problems.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration: {}", self.texts())]
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
        Self::check(problems.flat_map(|error| error.problems).collect())
    }

    /// `problems`: field and problem, for each.
    pub(super) fn check(problems: Vec<(String, String)>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    fn texts(&self) -> String {
        let texts = self.problems.iter().map(|(field, problem)| format!("{field}: {problem}"));
        texts.collect::<Vec<_>>().join("; ")
    }
}
