//! Events that workers of both kinds print, in one form.

use std::collections::HashMap;

use crate::consumer::Report;

/// Something that happened to a shard at a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// When, in microseconds of the epoch: every process of the machine reads the same clock.
    pub(super) at: u64,
    /// Number of the worker in its fleet.
    pub(super) worker: u32,
    /// Number of the ownership in its process.
    pub(super) ownership: u32,
    pub(super) shard: String,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A processor started.
    Began,
    /// A processor was given this record.
    Delivered(u64),
    /// The shard was read to its end.
    Ended,
    /// A processor was told to stop, while its worker still owned the lease.
    Released,
    /// A processor was told that its worker has lost the lease.
    Lost,
}

/// Which library a worker is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Java,
    Rust,
}

/// Reads the lines of one worker.
#[derive(Debug)]
pub(super) struct Lines {
    worker: u32,
    kind: Kind,
    ownerships: u32,
    /// For a Java worker, which names shards: the current ownership of each. For a worker of ours, which names
    /// ownerships: the shard of each.
    java: HashMap<String, u32>,
    rust: HashMap<u64, (u32, String)>,
}

impl Lines {
    pub(super) fn new(worker: u32, kind: Kind) -> Self {
        Self { worker, kind, ownerships: 0, java: HashMap::new(), rust: HashMap::new() }
    }

    /// `None`: a line about something else, or one that was cut off by a kill.
    pub(super) fn read(&mut self, line: &str) -> Option<Event> {
        let (at, line) = line.split_once(' ')?;
        let at = at.parse().ok()?;
        let (ownership, shard, what) = match self.kind {
            Kind::Java => self.read_java(line)?,
            Kind::Rust => self.read_rust(line)?,
        };
        Some(Event { at, worker: self.worker, ownership, shard, what })
    }

    fn read_java(&mut self, line: &str) -> Option<(u32, String, What)> {
        let mut words = line.split(' ');
        let (word, shard) = (words.next()?, words.next()?);
        let what = match word {
            "begin" => {
                words.next()?;
                self.ownerships += 1;
                self.java.insert(shard.to_owned(), self.ownerships);
                What::Began
            }
            "record" => What::Delivered(words.next()?.parse().ok()?),
            "end" => What::Ended,
            "stopping" => What::Released,
            "lost" => What::Lost,
            _ => return None,
        };
        Some((*self.java.get(shard)?, shard.to_owned(), what))
    }

    fn read_rust(&mut self, line: &str) -> Option<(u32, String, What)> {
        let (ownership, what) = match Report::from_line(line)? {
            Report::Started { ownership, shard } => {
                self.ownerships += 1;
                self.rust.insert(ownership, (self.ownerships, shard));
                (ownership, What::Began)
            }
            Report::Delivered { ownership, id, .. } => (ownership, What::Delivered(id)),
            Report::Ended { ownership } => (ownership, What::Ended),
            Report::Released { ownership } => (ownership, What::Released),
            Report::Lost { ownership } => (ownership, What::Lost),
            // The end of the whole worker, which is known already.
            Report::Health { .. } | Report::Stopped { .. } => return None,
        };
        let (ownership, shard) = self.rust.get(&ownership)?.clone();
        Some((ownership, shard, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, lines: &[&str]) -> Vec<(u64, u32, String, What)> {
        let mut reader = Lines::new(7, kind);
        let events = lines.iter().filter_map(|line| reader.read(line));
        events
            .map(|event| {
                assert_eq!(event.worker, 7);
                (event.at, event.ownership, event.shard, event.what)
            })
            .collect()
    }

    #[test]
    fn lines_of_both_kinds_say_the_same() {
        let java = [
            "1 state STARTED",
            "2 begin a TRIM_HORIZON",
            "3 record a 5",
            "4 stopping a",
            "5 begin a 49",
            "6 begin b LATEST",
            "7 end a",
            "8 lost b",
            "9 stopped",
            "10 record a",
        ];
        let rust = [
            "2 S 0 a",
            "3 D 0 5 49 0 key",
            "4 R 0",
            "5 S 1 a",
            "6 S 2 b",
            "7 E 1",
            "8 L 2",
            "10 D 1 6",
        ];
        let expected = [
            (2, 1, "a", What::Began),
            (3, 1, "a", What::Delivered(5)),
            (4, 1, "a", What::Released),
            (5, 2, "a", What::Began),
            (6, 3, "b", What::Began),
            (7, 2, "a", What::Ended),
            (8, 3, "b", What::Lost),
        ]
        .map(|(at, ownership, shard, what)| (at, ownership, shard.to_owned(), what));
        assert_eq!(read(Kind::Java, &java), expected);
        assert_eq!(read(Kind::Rust, &rust), expected);
    }
}
