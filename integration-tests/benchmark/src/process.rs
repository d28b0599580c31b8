//! The roles of a benchmark, each a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The environment variable that holds the role of a process, in JSON.
const ROLE: &str = "BENCHMARK_ROLE";

/// Where a server answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its URL.
    pub url: String,
    /// The certificate to trust, as PEM. `None`: it answers without TLS.
    pub certificate: Option<String>,
}

/// The role of this process; `None` in the process that measures.
pub(crate) fn role<R: DeserializeOwned>() -> Result<Option<R>, Error> {
    let role = std::env::var(ROLE).ok();
    Ok(role.as_deref().map(serde_json::from_str).transpose()?)
}

/// Runs this program as `role`, to its end, and returns what it [reported](report).
///
/// # Errors
/// The process cannot be started, fails, or reports something else.
pub fn run<F: DeserializeOwned>(role: &impl Serialize) -> Result<F, Error> {
    finish(role, start(role, None)?)
}

/// As [`run`], in a process that trusts the certificate of a file, as those of the system. Its SDK clients need no HTTP
/// client for that. So each has its own connections, as the clients of an application.
///
/// # Errors
/// Those of [`run`].
pub fn run_trusting<F: DeserializeOwned>(
    certificate: &Path,
    role: &impl Serialize,
) -> Result<F, Error> {
    finish(role, start(role, Some(certificate))?)
}

fn finish<F: DeserializeOwned>(role: &impl Serialize, mut child: Child) -> Result<F, Error> {
    let mut reported = String::new();
    child.stdout.take().ok_or("no output")?.read_to_string(&mut reported)?;
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{} ended with {status}", serde_json::to_string(role)?).into());
    }
    Ok(serde_json::from_str(&reported)?)
}

/// Reports the figures of this process, or the endpoint of this server, to the process that started it.
///
/// # Errors
/// The figures cannot be written as JSON.
pub fn report(figures: &impl Serialize) -> Result<(), Error> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(())
}

fn start(role: &impl Serialize, certificate: Option<&Path>) -> Result<Child, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, serde_json::to_string(role)?).stdout(Stdio::piped());
    // The variable of OpenSSL, which the SDK's own HTTP client honours.
    command.envs(certificate.map(|file| ("SSL_CERT_FILE", file)));
    Ok(command.spawn()?)
}

/// A server's process. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    endpoint: Endpoint,
}

impl Server {
    /// Starts this program as `role`, and waits for the [`Endpoint`] that it [reports](report).
    ///
    /// # Errors
    /// The process cannot be started, or ends.
    pub fn start(role: &impl Serialize) -> Result<Self, Error> {
        let mut child = start(role, None)?;
        let mut reported = String::new();
        let read = BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut reported);
        // Killed when dropped, also if it did not report.
        let mut server =
            Self { child, endpoint: Endpoint { url: String::new(), certificate: None } };
        read?;
        server.endpoint = serde_json::from_str(&reported)?;
        Ok(server)
    }

    /// Where it answers.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Its process, for measures from outside.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
