use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::sequence::ExtendedSequenceNumber;

/// A directory that is removed with its files.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kcl-file-sink-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A sink in a directory that is not there yet.
    fn sink(&self) -> FileSink {
        FileSink::new(self.0.join("new").join("letters.ndjson"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn letter(number: u64) -> DeadLetter {
    let position = ExtendedSequenceNumber::new(number.to_string().parse().unwrap(), 0);
    let data = format!("line\nbreak {number}");
    DeadLetter::new("app", "orders", "shardId-0", position, data, SystemTime::UNIX_EPOCH)
}

/// The letters of a file.
fn letters_of(path: &Path) -> Vec<DeadLetter> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| DeadLetter::from_json(line.as_bytes()).unwrap()).collect()
}

#[tokio::test]
async fn letters_stand_on_a_line_each_and_survive_a_new_sink() {
    let directory = Directory::new();
    let sink = directory.sink();
    sink.write(&[letter(1), letter(2)]).await.unwrap();
    directory.sink().write(&[letter(3)]).await.unwrap();
    sink.write(&[]).await.unwrap();
    assert_eq!(letters_of(sink.path()), [letter(1), letter(2), letter(3)]);
}

#[tokio::test]
async fn a_full_file_is_rotated_and_nothing_is_deleted() {
    let directory = Directory::new();
    let sink = directory.sink().with_max_file_bytes(1);
    for number in 1..=12 {
        sink.write(&[letter(number)]).await.unwrap();
    }
    let rotated = sink.files.rotated().unwrap();
    let numbers: Vec<_> = rotated.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<_>>());
    for (number, path) in rotated {
        assert_eq!(letters_of(&path), [letter(number)]);
    }
    assert_eq!(letters_of(sink.path()), [letter(12)]);
}

#[tokio::test]
async fn a_sink_with_all_its_files_fails_until_there_is_room() {
    let directory = Directory::new();
    let sink = directory.sink().with_max_file_bytes(1).with_max_files(1);
    sink.write(&[letter(1)]).await.unwrap();
    sink.write(&[letter(2)]).await.unwrap();
    let error = sink.write(&[letter(3)]).await.unwrap_err();
    assert!(matches!(error, SinkError::Full { files: 1, .. }), "{error}");
    assert!(error.to_string().contains("letters.ndjson"), "{error}");

    std::fs::remove_file(sink.files.sibling("1")).unwrap();
    sink.write(&[letter(3)]).await.unwrap();
    assert_eq!(letters_of(sink.path()), [letter(3)]);
}

#[tokio::test]
async fn other_files_beside_are_no_rotated_ones() {
    let directory = Directory::new();
    let sink = directory.sink().with_max_file_bytes(1);
    sink.write(&[letter(1)]).await.unwrap();
    for name in ["other.1", "letters.ndjson.7.gz", "letters.ndjson1", "letters.ndjson.x"] {
        std::fs::write(sink.path().with_file_name(name), "").unwrap();
    }
    std::fs::write(sink.files.sibling("7"), "").unwrap();
    sink.write(&[letter(2)]).await.unwrap();
    assert_eq!(letters_of(&sink.files.sibling("8")), [letter(1)]);
}

#[tokio::test]
async fn a_whole_last_line_is_completed() {
    let directory = Directory::new();
    let sink = directory.sink();
    sink.write(&[letter(1)]).await.unwrap();
    let text = std::fs::read_to_string(sink.path()).unwrap();
    std::fs::write(sink.path(), text.trim_end()).unwrap();
    sink.write(&[letter(2)]).await.unwrap();
    assert_eq!(letters_of(sink.path()), [letter(1), letter(2)]);
}

#[tokio::test]
async fn a_torn_line_longer_than_one_read_is_cut() {
    let directory = Directory::new();
    let sink = directory.sink();
    let mut large = letter(2);
    large.payload = Some(vec![b'x'; 3 * TAIL as usize].into());
    sink.write(&[letter(1), large]).await.unwrap();
    let file = OpenOptions::new().write(true).open(sink.path()).unwrap();
    file.set_len(file.metadata().unwrap().len() - 5).unwrap();
    sink.write(&[letter(3)]).await.unwrap();
    assert_eq!(letters_of(sink.path()), [letter(1), letter(3)]);
}

#[tokio::test]
async fn writers_of_one_file_wait_for_each_other() {
    let directory = Directory::new();
    let sink = directory.sink().with_max_file_bytes(500);
    let writes = (0..20).map(|number| {
        let sink = sink.clone();
        async move { sink.write(&[letter(number)]).await }
    });
    futures::future::try_join_all(writes).await.unwrap();
    let mut files: Vec<_> =
        sink.files.rotated().unwrap().into_iter().map(|(_, path)| path).collect();
    files.push(sink.path().to_owned());
    let mut written: Vec<u64> = files
        .iter()
        .flat_map(|path| letters_of(path))
        .map(|letter| letter.position.sequence_number.as_str().parse().unwrap())
        .collect();
    written.sort_unstable();
    assert_eq!(written, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_error_names_the_file_and_the_operation() {
    let directory = Directory::new();
    let sink = directory.sink();
    std::fs::create_dir_all(sink.path()).unwrap();
    let error = sink.write(&[letter(1)]).await.unwrap_err();
    assert!(matches!(error, SinkError::File { action: "open", .. }), "{error}");
    assert!(error.to_string().contains("letters.ndjson"), "{error}");
    // The same sink works once the cause is gone.
    std::fs::remove_dir(sink.path()).unwrap();
    sink.write(&[letter(1)]).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_cannot_take_the_letters_is_an_error() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let directory = Directory::new();
    let sink = directory.sink();
    std::fs::create_dir_all(sink.path().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", sink.path()).unwrap();
    let error = sink.write(&[letter(1)]).await.unwrap_err();
    assert!(matches!(error, SinkError::File { action: "write to", .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A crash leaves any part of a write. What was confirmed before stays, and the repeated write is whole.
    #[test]
    fn no_crash_loses_a_confirmed_letter(confirmed in 0u64..3, torn in 1u64..4, part in 0.0..1.0f64) {
        let directory = Directory::new();
        let sink = directory.sink();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first: Vec<_> = (0..confirmed).map(letter).collect();
        runtime.block_on(sink.write(&first)).unwrap();
        let before = std::fs::metadata(sink.path()).map_or(0, |file| file.len());
        let again: Vec<_> = (confirmed..confirmed + torn).map(letter).collect();
        runtime.block_on(sink.write(&again)).unwrap();
        let file = OpenOptions::new().write(true).open(sink.path()).unwrap();
        let after = file.metadata().unwrap().len();
        file.set_len(before + ((after - before) as f64 * part) as u64).unwrap();

        runtime.block_on(sink.write(&again)).unwrap();
        let letters = letters_of(sink.path());
        prop_assert_eq!(&letters[..first.len()], &first[..]);
        prop_assert_eq!(&letters[letters.len() - again.len()..], &again[..]);
        for letter in &letters {
            prop_assert!(first.contains(letter) || again.contains(letter));
        }
    }
}
