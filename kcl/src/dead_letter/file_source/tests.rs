use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use super::*;
use crate::dead_letter::{DeadLetter, DeadLetterSink as _, FileSink};
use crate::sequence::ExtendedSequenceNumber;

/// A sink in a directory that is removed with its files.
struct Sink(FileSink);

impl Sink {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kcl-file-source-{}-{number}", std::process::id());
        Self(FileSink::new(std::env::temp_dir().join(name).join("letters")).with_max_file_bytes(1))
    }

    async fn write(&self, number: u64) {
        self.0.write(&[letter(number)]).await.unwrap();
    }

    fn source(&self) -> FileSource {
        FileSource::new(self.0.path())
    }

    fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.0.path().parent().unwrap()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.ends_with("lock")).collect();
        names.sort();
        names
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.path().parent().unwrap());
    }
}

fn letter(number: u64) -> DeadLetter {
    let position = ExtendedSequenceNumber::new(number.to_string().parse().unwrap(), 0);
    DeadLetter::new("app", "orders", "shardId-0", position, "data", SystemTime::UNIX_EPOCH)
}

fn number_of(stored: &StoredLetter) -> u64 {
    let letter = stored.letter.as_ref().unwrap();
    letter.position.sequence_number.as_str().parse().unwrap()
}

/// Reads all letters, and removes those that `remove` chooses.
async fn read(source: &mut FileSource, remove: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut read = Vec::new();
    loop {
        let letters = source.read().await.unwrap();
        if letters.is_empty() {
            source.finish().await.unwrap();
            return read;
        }
        let done = letters.iter().filter(|stored| remove(number_of(stored)));
        let done: Vec<_> = done.map(|stored| stored.id.clone()).collect();
        source.remove(&done).await.unwrap();
        read.extend(letters.iter().map(number_of));
    }
}

#[tokio::test]
async fn letters_of_all_files_come_in_order_and_only_the_removed_ones_go() {
    let sink = Sink::new();
    for number in 1..=12 {
        sink.write(number).await;
    }
    let all: Vec<_> = (1..=12).collect();
    assert_eq!(read(&mut sink.source(), |number| number % 2 == 0).await, all);
    assert_eq!(read(&mut sink.source(), |_| true).await, [1, 3, 5, 7, 9, 11]);
    assert_eq!(sink.names(), Vec::<String>::new());
    assert!(read(&mut sink.source(), |_| true).await.is_empty());
}

#[tokio::test]
async fn a_part_of_a_file_stays() {
    let sink = Sink::new();
    sink.0.write(&[letter(1), letter(2), letter(3)]).await.unwrap();
    assert_eq!(read(&mut sink.source(), |number| number == 2).await, [1, 2, 3]);
    assert_eq!(read(&mut sink.source(), |_| false).await, [1, 3]);
    assert_eq!(sink.names(), ["letters.1"]);
}

#[tokio::test]
async fn what_is_written_meanwhile_is_left_for_the_next_run() {
    let sink = Sink::new();
    sink.write(1).await;
    let mut source = sink.source();
    assert_eq!(source.read().await.unwrap().len(), 1);
    sink.write(2).await;
    source.remove(&["0".into()]).await.unwrap();
    assert!(source.read().await.unwrap().is_empty());
    source.finish().await.unwrap();
    assert_eq!(read(&mut sink.source(), |_| true).await, [2]);
}

#[tokio::test]
async fn a_run_that_ends_early_keeps_its_removals() {
    let sink = Sink::new();
    sink.0.write(&[letter(1), letter(2)]).await.unwrap();
    let mut source = sink.source();
    let letters = source.read().await.unwrap();
    source.remove(&[letters[0].id.clone()]).await.unwrap();
    source.finish().await.unwrap();
    assert_eq!(read(&mut sink.source(), |_| true).await, [2]);
}

#[tokio::test]
async fn a_run_that_is_dropped_loses_no_letter() {
    let sink = Sink::new();
    sink.0.write(&[letter(1), letter(2)]).await.unwrap();
    let mut source = sink.source();
    source.read().await.unwrap();
    source.remove(&["0".into()]).await.unwrap();
    drop(source);
    assert_eq!(read(&mut sink.source(), |_| true).await, [1, 2]);
}

#[tokio::test]
async fn two_runs_at_a_time_are_refused() {
    let sink = Sink::new();
    sink.write(1).await;
    let mut first = sink.source();
    first.read().await.unwrap();
    let error = sink.source().read().await.unwrap_err();
    assert!(matches!(error, SinkError::File { action: "lock for a redrive", .. }), "{error}");
    first.finish().await.unwrap();
    assert_eq!(sink.source().read().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_line_that_is_no_letter_is_reported_and_kept() {
    let sink = Sink::new();
    std::fs::create_dir_all(sink.0.path().parent().unwrap()).unwrap();
    std::fs::write(sink.0.path(), format!("no letter\n{}\n", letter(1).to_json())).unwrap();
    let mut source = sink.source();
    let letters = source.read().await.unwrap();
    assert!(letters[0].letter.is_err());
    assert_eq!(number_of(&letters[1]), 1);
    source.remove(&[letters[1].id.clone()]).await.unwrap();
    source.finish().await.unwrap();
    let kept = sink.0.path().with_file_name("letters.1");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "no letter\n");
}

#[tokio::test]
async fn a_large_file_is_read_in_parts() {
    let sink = Sink::new();
    let letters: Vec<_> = (0..1200).map(letter).collect();
    sink.0.write(&letters).await.unwrap();
    let mut source = sink.source();
    assert_eq!(source.read().await.unwrap().len(), BATCH_LETTERS);
    source.finish().await.unwrap();
    assert_eq!(read(&mut sink.source(), |_| true).await, (0..1200).collect::<Vec<_>>());
    assert_eq!(sink.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_path_without_files_has_no_letters() {
    let sink = Sink::new();
    assert!(sink.source().read().await.unwrap().is_empty());
}
