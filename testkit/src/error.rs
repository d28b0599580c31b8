//! Errors of this crate's own functions; the services answer with AWS's.

use crate::kinesis::ApiError;

/// A [`LocalAws`](crate::LocalAws) could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No loopback port could be opened.
    #[error("could not open a loopback port: check that 127.0.0.1 is up and ports are free")]
    Bind(#[source] std::io::Error),
    /// A port that was asked for is taken.
    #[error(
        "port {port} of 127.0.0.1 is in use: stop what listens there, or take another, 0 for a free one"
    )]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// No certificate could be made for TLS.
    #[error("could not make a certificate for TLS")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The data file could not be read or written.
    #[error(
        "could not use the data file {}: check that it may be read and written, or move it away to \
         begin with nothing", path.display()
    )]
    Data {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the data file.
    #[error("the data file {} is in use: stop the process that has it", path.display())]
    DataInUse {
        /// The file.
        path: std::path::PathBuf,
    },
    /// The system gave no thread for the services.
    #[error("could not start the threads of the services: check the limits of this process")]
    Runtime(#[source] std::io::Error),
}

/// A function of [`LocalAws`](crate::LocalAws) that stands for an operation of AWS was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused with {code}: {message}")]
#[non_exhaustive]
pub struct CallError {
    /// AWS's code, such as `ResourceInUseException`.
    pub code: String,
    /// What was wrong.
    pub message: String,
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self { code: error.code.into_owned(), message: error.message }
    }
}
