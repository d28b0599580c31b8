//! The call that uploads metrics, as the publisher sees it.

use std::fmt;

use futures::future::BoxFuture;

use super::series::Datum;

/// A PutMetricData call that failed.
#[derive(Debug, Clone)]
pub struct UploadError {
    /// Code of the answer, or `Connection` if there was none.
    pub code: String,
    /// Text of the cause.
    pub message: String,
    /// Whether the same data would be refused again.
    pub is_refused: bool,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Makes PutMetricData calls, with the AWS SDK or scripted by a test.
pub trait Uploader: Send + Sync {
    /// Puts the data in one call.
    ///
    /// # Errors
    /// The call failed, or CloudWatch refused the data.
    fn put(&self, data: Vec<Datum>) -> BoxFuture<'static, Result<(), UploadError>>;
}
