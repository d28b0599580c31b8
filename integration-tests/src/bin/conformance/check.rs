//! What a case says when something is not as it should be.

use std::error::Error;
use std::fmt::{self, Debug};

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

use crate::case::Verdict;

/// Why a case failed. Any error becomes one by `?`, its sources included.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            reason.push_str(": ");
            reason.push_str(&error.to_string());
            source = error.source();
        }
        Self(reason)
    }
}

/// What was found must be what was expected.
pub(crate) fn same<F: PartialEq<X> + Debug, X: Debug>(
    what: &str,
    found: F,
    expected: X,
) -> Verdict {
    if found == expected {
        return Ok(());
    }
    Err(Failure::new(short(format!("{what}: {found:?} where {expected:?} was expected"))))
}

/// It must be so.
pub(crate) fn holds(claim: &str, holds: bool) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(Failure::new(format!("not so: {claim}")))
}

/// What an answer must have.
pub(crate) fn some<T>(what: &str, value: Option<T>) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::new(format!("{what}: missing")))
}

/// It must have been refused, with this code.
pub(crate) fn refused<T: Debug, E, R>(
    what: &str,
    result: Result<T, SdkError<E, R>>,
    code: &str,
) -> Verdict
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    match result {
        Ok(answer) => Err(Failure::new(short(format!(
            "{what}: accepted where {code} was expected: {answer:?}"
        )))),
        Err(error) if error.code() == Some(code) => Ok(()),
        Err(error) => {
            let Failure(reason) = error.into();
            Err(Failure::new(short(format!("{what}: {reason} where {code} was expected"))))
        }
    }
}

/// Megabytes of data are no reason to print.
fn short(mut text: String) -> String {
    const MAX: usize = 600;
    if let Some((at, _)) = text.char_indices().nth(MAX) {
        text.truncate(at);
        text.push_str("...");
    }
    text
}
