//! Dead letters in files: one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::letter::DeadLetter;
use super::sink::{DeadLetterSink, SinkError};

const DEFAULT_MAX_FILE_BYTES: u64 = 100 << 20;
/// Bytes that are read at a time in the search for the end of the last line.
const TAIL: u64 = 64 << 10;

/// Sink that appends letters to a file as NDJSON: one JSON object per line, as [`DeadLetter::to_json`] writes it.
///
/// A letter counts as written when the file is synced to disk. If a crash cuts a line, the next write repairs the file,
/// so that each letter stands on a line of its own. Several sinks and processes of a machine may write to the same
/// file: they lock `PATH.lock` meanwhile. The lock file stays. Do not use a network file system, because many do not
/// lock.
///
/// When the file is full, it is renamed to `PATH.1`, later ones to `PATH.2` and so on, and a new one begins. The sink
/// deletes no letter.
///
/// Files are written on Tokio's threads for blocking work.
#[derive(Debug, Clone)]
pub struct FileSink {
    files: LetterFiles,
    max_file_bytes: u64,
    max_files: Option<usize>,
}

impl FileSink {
    /// Creates a sink that writes to this file. The file is created by the first write, with its directories.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let files = LetterFiles { path: path.into() };
        Self { files, max_file_bytes: DEFAULT_MAX_FILE_BYTES, max_files: None }
    }

    /// Sets the size after which the file is rotated, in bytes. Default: 100 MiB. Only a file of one write may be
    /// larger.
    #[must_use]
    pub fn with_max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    /// Sets the largest number of rotated files. Default: no limit.
    ///
    /// When there are as many and the file is full, writes fail with [`SinkError::Full`], and the shards with failing
    /// records wait, until files are redriven or moved away. Set it if the disk also serves something else.
    #[must_use]
    pub fn with_max_files(mut self, files: usize) -> Self {
        self.max_files = Some(files);
        self
    }

    /// Path of the file that is written.
    pub fn path(&self) -> &Path {
        &self.files.path
    }

    fn append(&self, lines: &[u8]) -> Result<(), SinkError> {
        let _locked = self.files.lock()?;
        let mut file = self.files.open()?;
        let size = repair(&mut file).map_err(self.files.failed("repair"))?;
        if size > 0 && size.saturating_add(lines.len() as u64) > self.max_file_bytes {
            self.rotate()?;
            file = self.files.open()?;
        }
        let written = file.write_all(lines).and_then(|()| file.sync_data());
        written.map_err(self.files.failed("write to"))
    }

    fn rotate(&self) -> Result<(), SinkError> {
        let files = self.files.rotated()?.len();
        if self.max_files.is_some_and(|max| files >= max) {
            return Err(SinkError::Full { path: self.files.shown(), files });
        }
        self.files.rotate().map(drop)
    }
}

impl DeadLetterSink for FileSink {
    type Error = SinkError;

    async fn write(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut lines = String::new();
        for letter in letters {
            lines.push_str(&letter.to_json());
            lines.push('\n');
        }
        let sink = self.clone();
        let written = tokio::task::spawn_blocking(move || sink.append(lines.as_bytes()));
        written.await.map_err(|_| SinkError::TaskEnded)?
    }
}

/// The file that is written, and those that it was renamed to.
#[derive(Debug, Clone)]
pub(super) struct LetterFiles {
    pub(super) path: PathBuf,
}

impl LetterFiles {
    /// Waits for the lock of the files. It is held until the result is dropped.
    pub(super) fn lock(&self) -> Result<File, SinkError> {
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory).map_err(self.failed("create the directory of"))?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        let lock = options.open(self.sibling("lock")).map_err(self.failed("open the lock of"))?;
        lock.lock().map_err(self.failed("lock"))?;
        Ok(lock)
    }

    /// Opens the file to append to it, and creates it if it is not there.
    fn open(&self) -> Result<File, SinkError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        match options.open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = options.create(true).open(&self.path).map_err(self.failed("create"))?;
                self.sync_directory()?;
                Ok(file)
            }
            opened => opened.map_err(self.failed("open")),
        }
    }

    /// Renames the file to the next number, and returns its new path.
    pub(super) fn rotate(&self) -> Result<PathBuf, SinkError> {
        let next = self.rotated()?.last().map_or(1, |(number, _)| number + 1);
        let path = self.sibling(&next.to_string());
        std::fs::rename(&self.path, &path).map_err(self.failed("rename"))?;
        self.sync_directory()?;
        Ok(path)
    }

    /// The rotated files with their numbers, the oldest first.
    pub(super) fn rotated(&self) -> Result<Vec<(u64, PathBuf)>, SinkError> {
        let listed = self.list().map_err(self.failed("list the files beside"))?;
        Ok(listed)
    }

    fn list(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.directory())? {
            let entry = entry?;
            let other = entry.file_name();
            let number = other.to_str().and_then(|other| other.strip_prefix(&*name));
            let number = number.and_then(|rest| rest.strip_prefix('.'));
            if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
                files.push((number, entry.path()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// The name of the file and a suffix.
    pub(super) fn sibling(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(suffix);
        path.into()
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        }
    }

    /// Makes new names of files durable. Windows does it by itself, and opens no directory.
    pub(super) fn sync_directory(&self) -> Result<(), SinkError> {
        if cfg!(windows) {
            return Ok(());
        }
        let synced = File::open(self.directory()).and_then(|directory| directory.sync_all());
        synced.map_err(self.failed("sync the directory of"))
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> SinkError {
        let path = self.shown();
        move |source| SinkError::File { action, path: path.clone(), source }
    }
}

/// Repairs the end of a file after a crash, and returns its size. A last line without its end was never confirmed. It
/// is completed if it is a whole letter, and cut otherwise, because its letter is written again.
pub(super) fn repair(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let start = last_line(file, size)?;
    if start == size {
        return Ok(size);
    }
    let mut line = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut line)?;
    if DeadLetter::from_json(&line).is_ok() {
        file.write_all(b"\n")?;
        return Ok(size + 1);
    }
    file.set_len(start)?;
    Ok(start)
}

/// Returns where the last line begins: after the last line break.
fn last_line(file: &mut File, size: u64) -> io::Result<u64> {
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(TAIL);
        let mut bytes = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        if let Some(found) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + found as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
