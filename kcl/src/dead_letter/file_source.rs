//! Dead letters read back from files.

use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, ErrorKind, Write as _};
use std::path::PathBuf;

use super::file::{LetterFiles, repair};
use super::sink::SinkError;
use super::source::{DeadLetterSource, StoredLetter};

/// Bytes that are read at a time, at most one line more.
const BATCH_BYTES: usize = 4 << 20;
/// Letters that are read at a time.
const BATCH_LETTERS: usize = 500;

/// The letters that a [`FileSink`](crate::FileSink) wrote, the oldest first.
///
/// Workers may write to the file meanwhile: the first read rotates it, and later letters are left for the next redrive.
/// One redrive at a time may read the files. When all letters of a file were read, the file is replaced by one with the
/// letters that stay, or deleted if there are none. If the process ends before that, the next redrive reads the whole
/// file again.
#[derive(Debug)]
pub struct FileSource {
    files: LetterFiles,
    /// `None`: nothing was read yet, or a task took it and did not come back.
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    /// Excludes other redrives.
    _lock: File,
    left: VecDeque<PathBuf>,
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    lines: BufReader<File>,
    /// Lines that were read.
    line: u64,
    /// Lines that were redriven.
    removed: HashSet<u64>,
}

impl FileSource {
    /// Creates a source of the letters of a [`FileSink`](crate::FileSink) with this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { files: LetterFiles { path: path.into() }, reading: None }
    }
}

impl DeadLetterSource for FileSource {
    type Error = SinkError;

    async fn read(&mut self) -> Result<Vec<StoredLetter>, SinkError> {
        let (files, reading) = (self.files.clone(), self.reading.take());
        let task = tokio::task::spawn_blocking(move || {
            let mut reading = match reading {
                Some(reading) => reading,
                None => begin(&files)?,
            };
            let letters = reading.next().map_err(files.failed("read the letters of"))?;
            Ok((reading, letters))
        });
        let (reading, letters) = task.await.map_err(|_| SinkError::TaskEnded)??;
        self.reading = Some(reading);
        Ok(letters)
    }

    async fn remove(&mut self, ids: &[String]) -> Result<(), SinkError> {
        if let Some(open) = self.reading.as_mut().and_then(|reading| reading.open.as_mut()) {
            open.removed.extend(ids.iter().filter_map(|id| id.parse::<u64>().ok()));
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), SinkError> {
        let Some(reading) = self.reading.take() else { return Ok(()) };
        let files = self.files.clone();
        let task = tokio::task::spawn_blocking(move || {
            let settled = reading.open.map_or(Ok(()), OpenFile::settle);
            settled.map_err(files.failed("remove letters of"))
        });
        task.await.map_err(|_| SinkError::TaskEnded)?
    }
}

/// Excludes other redrives, and rotates the file that sinks write.
fn begin(files: &LetterFiles) -> Result<Reading, SinkError> {
    let locked = files.lock()?;
    let lock = OpenOptions::new().create(true).append(true).open(files.sibling("redrive.lock"));
    let lock = lock.map_err(files.failed("open the redrive lock of"))?;
    lock.try_lock().map_err(|error| files.failed("lock for a redrive")(error.into()))?;
    match OpenOptions::new().read(true).append(true).open(&files.path) {
        Ok(mut file) => {
            if repair(&mut file).map_err(files.failed("repair"))? > 0 {
                files.rotate()?;
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(files.failed("open")(error)),
    }
    let left = files.rotated()?.into_iter().map(|(_, path)| path).collect();
    drop(locked);
    Ok(Reading { _lock: lock, left, open: None })
}

impl Reading {
    fn next(&mut self) -> io::Result<Vec<StoredLetter>> {
        loop {
            if let Some(open) = &mut self.open {
                let letters = open.next()?;
                if !letters.is_empty() {
                    return Ok(letters);
                }
            }
            if let Some(open) = self.open.take() {
                open.settle()?;
            }
            let Some(path) = self.left.pop_front() else { return Ok(Vec::new()) };
            let lines = BufReader::new(File::open(&path)?);
            self.open = Some(OpenFile { path, lines, line: 0, removed: HashSet::new() });
        }
    }
}

impl OpenFile {
    fn next(&mut self) -> io::Result<Vec<StoredLetter>> {
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && letters.len() < BATCH_LETTERS {
            let mut line = Vec::new();
            if self.lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            bytes += line.len();
            letters.push(StoredLetter::from_json(self.line.to_string(), &line));
            self.line += 1;
        }
        Ok(letters)
    }

    /// Replaces the file by one without the lines that were redriven.
    fn settle(self) -> io::Result<()> {
        if self.removed.is_empty() {
            return Ok(());
        }
        let mut kept_path = self.path.clone().into_os_string();
        kept_path.push(".tmp");
        let mut kept = BufWriter::new(File::create(&kept_path)?);
        let mut is_empty = true;
        let mut lines = BufReader::new(File::open(&self.path)?);
        for number in 0.. {
            let mut line = Vec::new();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if !self.removed.contains(&number) {
                kept.write_all(&line)?;
                is_empty = false;
            }
        }
        kept.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        if is_empty {
            std::fs::remove_file(&self.path)?;
            return std::fs::remove_file(kept_path);
        }
        std::fs::rename(kept_path, &self.path)
    }
}

#[cfg(test)]
mod tests;
