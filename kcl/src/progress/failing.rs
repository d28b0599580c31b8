//! The record on which a processor failed last.

use std::fmt;

use crate::sequence::ExtendedSequenceNumber;

/// Failed attempts to process a record, or a batch that begins with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    pub position: ExtendedSequenceNumber,
    pub failures: u32,
}

impl Failing {
    pub fn parse(text: &str) -> Option<Self> {
        let (failures, position) = text.split_once('@')?;
        let (sequence_number, sub_sequence_number) = position.split_once(':')?;
        let sub_sequence_number = sub_sequence_number.parse().ok()?;
        let position =
            ExtendedSequenceNumber::new(sequence_number.parse().ok()?, sub_sequence_number);
        Some(Self { position, failures: failures.parse().ok()? })
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExtendedSequenceNumber { sequence_number, sub_sequence_number } = &self.position;
        write!(f, "{}@{sequence_number}:{sub_sequence_number}", self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_read_back_and_another_text_is_not() {
        let position = ExtendedSequenceNumber::new("4959".parse().unwrap(), 7);
        let failing = Failing { position, failures: 3 };
        assert_eq!(failing.to_string(), "3@4959:7");
        assert_eq!(Failing::parse("3@4959:7"), Some(failing));
        for text in ["", "3", "3@4959", "@4959:7", "3@x:7", "-1@4959:7", "3@4959:7:1"] {
            assert_eq!(Failing::parse(text), None, "{text}");
        }
    }
}
