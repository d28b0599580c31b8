//! Both services in a file: read at the start, written while they run and at the end.
//!
//! The file is written whole, to another name first, and takes its own in one step: a reader finds
//! the state before or the state after. What is written is one moment of both services, so that no
//! checkpoint in a table is ahead of its stream.

use std::error::Error;
use std::fs::{File, TryLockError};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dynamodb::Engine;
use crate::error::StartError;
use crate::front::Front;
use crate::kinesis::Kinesis;

/// How often a changed state is written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
const FORMAT: u32 = 1;

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    /// Whether it is the last state: nothing has been done since.
    pub(crate) complete: bool,
    pub(crate) kinesis: Kinesis,
    pub(crate) dynamodb: Engine,
}

/// The file of one [`LocalAws`](crate::LocalAws), which no other may have.
#[derive(Debug)]
pub(crate) struct DataFile {
    path: PathBuf,
    /// Locked for as long as it is open; the system unlocks it when the process ends, however it does.
    _lock: File,
}

impl DataFile {
    /// Takes the file for this process, and reads it if it is there.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Option<State>), StartError> {
        let failed = |error: Box<dyn Error + Send + Sync>| StartError::Data {
            path: path.clone(),
            source: error,
        };
        let lock = File::create(beside(&path, "lock")).map_err(|error| failed(error.into()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StartError::DataInUse { path }),
            Err(TryLockError::Error(error)) => return Err(failed(error.into())),
        }
        let state = match File::open(&path) {
            Ok(file) => Some(read(file).map_err(failed)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error.into())),
        };
        Ok((Self { path, _lock: lock }, state))
    }

    fn write(&self, state: &State) -> io::Result<()> {
        let next = beside(&self.path, "next");
        let mut writer = BufWriter::new(File::create(&next)?);
        ciborium::into_writer(state, &mut writer).map_err(io::Error::other)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        std::fs::rename(&next, &self.path)
    }
}

fn read(file: File) -> Result<State, Box<dyn Error + Send + Sync>> {
    let state: State = ciborium::from_reader(BufReader::new(file))?;
    if state.format == FORMAT {
        return Ok(state);
    }
    Err(format!("it is of format {}, this version reads {FORMAT}", state.format).into())
}

/// The file's name with another ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

impl State {
    fn of(kinesis: Kinesis, dynamodb: Engine, complete: bool) -> Self {
        Self { format: FORMAT, complete, kinesis, dynamodb }
    }

    /// One moment of both services.
    fn of_front(front: &Front, complete: bool) -> Self {
        let both = |kinesis: &mut Kinesis, _| (kinesis.clone(), front.dynamodb.snapshot());
        let (kinesis, dynamodb) = front.kinesis.with_state(both);
        Self::of(kinesis, dynamodb, complete)
    }
}

/// The thread that writes the file, until it is dropped.
#[derive(Debug)]
pub(crate) struct Saver {
    /// Dropped, it stops the thread.
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    file: Arc<Mutex<DataFile>>,
    front: Arc<Front>,
}

impl Saver {
    pub(crate) fn start(file: DataFile, front: &Arc<Front>) -> Result<Self, StartError> {
        let path = file.path.clone();
        let file = Arc::new(Mutex::new(file));
        // Before the first request: from now on the file does not hold the last state. And a file that
        // cannot be written fails the start.
        save(&file, front, false)
            .map_err(|error| StartError::Data { path, source: error.into() })?;
        let (stop, stopped) = mpsc::sync_channel(0);
        let thread = {
            let (file, front) = (Arc::clone(&file), Arc::clone(front));
            std::thread::Builder::new()
                .name("kinesis-testkit-data".to_owned())
                .spawn(move || keep(&file, &front, &stopped))
                .map_err(StartError::Runtime)?
        };
        Ok(Self { stop: Some(stop), thread: Some(thread), file, front: Arc::clone(front) })
    }

    /// Writes the state of now.
    pub(crate) fn save(&self) -> io::Result<()> {
        save(&self.file, &self.front, false)
    }

    /// Writes the last state: nothing may change it after.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(saved)) => saved,
            Some(Err(_)) => Err(io::Error::other("the thread that writes the data panicked")),
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the last state was not written to the data file");
        }
    }
}

fn save(file: &Mutex<DataFile>, front: &Front, complete: bool) -> io::Result<()> {
    // The lock first: states are written in the order in which they were taken.
    let file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.write(&State::of_front(front, complete))
}

/// Writes what changes, now and then, and all of it at the end.
fn keep(file: &Mutex<DataFile>, front: &Front, stopped: &mpsc::Receiver<()>) -> io::Result<()> {
    let mut saved = front.changes();
    while stopped.recv_timeout(SAVE_EVERY) == Err(RecvTimeoutError::Timeout) {
        let changes = front.changes();
        if changes == saved {
            continue;
        }
        match save(file, front, false) {
            Ok(()) => saved = changes,
            Err(error) => tracing::error!(%error, "the data file was not written; tried again"),
        }
    }
    save(file, front, true)
}
