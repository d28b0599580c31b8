use super::*;

fn at(sequence_number: u64, sub: u64) -> ExtendedSequenceNumber {
    ExtendedSequenceNumber::new(sequence_number.to_string().parse().unwrap(), sub)
}

#[test]
fn nothing_delivered_nothing_admitted() {
    let progress = Progress::new(Checkpoint::TrimHorizon);
    assert!(progress.admit(&at(1, 0)).is_err());
    assert_eq!(progress.unwritten(), None);
}

#[test]
fn between_the_last_checkpoint_and_the_last_delivered() {
    let mut progress = Progress::new(Checkpoint::At(at(5, 1)));
    progress.delivered(Some(at(9, 2)));
    for (to, admitted) in [
        (at(5, 0), None),
        (at(5, 1), Some(false)),
        (at(5, 2), Some(true)),
        (at(7, 0), Some(true)),
        (at(9, 2), Some(true)),
        (at(9, 3), None),
        (at(10, 0), None),
    ] {
        match admitted {
            Some(write) => assert_eq!(progress.admit(&to).unwrap(), write, "{to}"),
            None => assert!(
                matches!(progress.admit(&to), Err(CheckpointError::OutOfRange { .. })),
                "{to}"
            ),
        }
    }
    assert_eq!(progress.unwritten(), Some(at(9, 2)));
    progress.found(&Checkpoint::At(at(9, 2)), Duration::ZERO);
    assert!(!progress.admit(&at(9, 2)).unwrap());
    assert!(progress.admit(&at(9, 1)).is_err());
    assert_eq!(progress.unwritten(), None);
}

#[test]
fn a_refusal_names_the_range_that_may_be_checkpointed() {
    let refused = |progress: &Progress, to| match progress.admit(&to) {
        Err(CheckpointError::OutOfRange { lowest, highest, .. }) => (*lowest, *highest),
        other => panic!("{other:?}"),
    };
    let [two, five, nine] = [2, 5, 9].map(|number| Checkpoint::At(at(number, 0)));
    let mut progress = Progress::new(two.clone());
    progress.delivered(Some(at(5, 0)));
    assert_eq!(refused(&progress, at(6, 0)), (two, five));
    // The checkpoint in force may lie after the last record delivered.
    progress.found(&nine, Duration::ZERO);
    assert_eq!(refused(&progress, at(3, 0)), (nine.clone(), nine));
}

#[test]
fn a_failed_batch_is_not_covered_by_all_that_was_delivered() {
    let mut progress = Progress::new(Checkpoint::TrimHorizon);
    progress.delivered(Some(at(6, 0)));
    progress.delivered(Some(at(3, 0)));
    assert_eq!(progress.unwritten(), Some(at(3, 0)));
    progress.delivered(Some(at(6, 0)));
    assert!(progress.admit(&at(4, 0)).unwrap());
    progress.found(&Checkpoint::At(at(4, 0)), Duration::ZERO);
    progress.delivered(Some(at(3, 0)));
    assert_eq!(progress.unwritten(), None, "its own checkpoint is further");
    assert!(progress.admit(&at(5, 0)).is_err());
}

#[test]
fn an_older_checkpoint_takes_nothing_back() {
    let mut progress = Progress::new(Checkpoint::TrimHorizon);
    progress.delivered(Some(at(9, 0)));
    progress.found(&Checkpoint::At(at(9, 0)), Duration::ZERO);
    progress.found(&Checkpoint::At(at(7, 0)), Duration::ZERO);
    assert_eq!(progress.checkpointed(), Some(at(9, 0)));
    assert_eq!(progress.unwritten(), None);
    assert!(progress.admit(&at(8, 0)).is_err());
}

#[test]
fn after_the_end_nothing_more() {
    let mut progress = Progress::new(Checkpoint::TrimHorizon);
    progress.delivered(Some(at(3, 0)));
    progress.found(&Checkpoint::ShardEnd, Duration::ZERO);
    assert!(progress.has_ended());
    assert!(progress.admit(&at(3, 0)).is_err());
    assert_eq!(progress.unwritten(), None);
}

#[test]
fn a_renewal_carries_only_what_is_further_than_the_checkpoint() {
    for (checkpoint, processed, carried) in [
        (Checkpoint::TrimHorizon, at(5, 2), true),
        (Checkpoint::Latest, at(5, 2), true),
        (Checkpoint::AtTimestamp, at(5, 2), true),
        (Checkpoint::At(at(4, 9)), at(5, 2), true),
        (Checkpoint::At(at(5, 1)), at(5, 2), true),
        (Checkpoint::At(at(5, 2)), at(5, 2), false),
        (Checkpoint::At(at(5, 3)), at(5, 2), false),
        (Checkpoint::At(at(6, 0)), at(5, 2), false),
        (Checkpoint::ShardEnd, at(5, 2), false),
    ] {
        let mut progress = Progress::new(Checkpoint::TrimHorizon);
        progress.delivered(Some(processed.clone()));
        assert_eq!(progress.to_carry(&checkpoint, false), None, "not offered");
        progress.offer_to_renewal();
        let expected = carried.then_some(Checkpoint::At(processed));
        assert_eq!(progress.to_carry(&checkpoint, false), expected, "{checkpoint:?}");
        assert_eq!(progress.to_carry(&checkpoint, true), None, "one is pending");
    }
}

fn number(number: u64) -> SequenceNumber {
    number.to_string().parse().unwrap()
}

const REACHED: SystemTime = SystemTime::UNIX_EPOCH;

/// The tip was reached, and `fetched` is the last record that was fetched.
fn at_tip(checkpoint: Checkpoint, fetched: Option<u64>) -> Progress {
    let mut progress = Progress::new(checkpoint);
    assert_eq!(progress.read_to(), None, "nothing is read yet");
    progress.tip = Some(Tip { reached: REACHED, fetched: fetched.map(number), was_open: true });
    progress
}

#[test]
fn a_shard_is_read_to_its_tip_when_all_that_was_fetched_is_checkpointed() {
    assert_eq!(at_tip(Checkpoint::TrimHorizon, None).read_to(), Some(REACHED));
    let mut progress = at_tip(Checkpoint::At(at(5, 0)), None);
    assert_eq!(progress.read_to(), Some(REACHED));
    progress.tip = Some(Tip { reached: REACHED, fetched: Some(number(9)), was_open: true });
    assert_eq!(progress.read_to(), None, "fetched, and not delivered");
    progress.delivered(Some(at(9, 3)));
    progress.page_processed(Some((number(9), None)));
    progress.found(&Checkpoint::At(at(9, 2)), Duration::ZERO);
    assert_eq!(progress.read_to(), None, "checkpointed in part");
    progress.found(&Checkpoint::At(at(9, 3)), Duration::ZERO);
    assert_eq!(progress.read_to(), Some(REACHED));
}

#[test]
fn a_page_of_which_an_earlier_owner_processed_a_part_counts_when_the_rest_is_processed() {
    // The checkpoint is within the aggregate, whose other members were fetched again.
    let mut progress = at_tip(Checkpoint::At(at(9, 2)), Some(9));
    assert_eq!(progress.read_to(), None);
    progress.delivered(Some(at(9, 9)));
    progress.page_processed(Some((number(9), None)));
    progress.found(&Checkpoint::At(at(9, 8)), Duration::ZERO);
    assert_eq!(progress.read_to(), None);
    progress.found(&Checkpoint::At(at(9, 9)), Duration::ZERO);
    assert_eq!(progress.read_to(), Some(REACHED));
}

#[test]
fn a_page_of_which_nothing_is_delivered_counts_with_the_records_before_it() {
    let mut progress = at_tip(Checkpoint::TrimHorizon, Some(9));
    assert_eq!(progress.read_to(), None);
    // All of the page was dropped.
    progress.page_processed(Some((number(9), None)));
    assert_eq!(progress.read_to(), Some(REACHED));
    // A later page, whose last record was dropped: those before it must be checkpointed.
    progress.tip = Some(Tip { reached: REACHED, fetched: Some(number(12)), was_open: true });
    assert_eq!(progress.read_to(), None);
    progress.delivered(Some(at(11, 2)));
    progress.page_processed(Some((number(12), None)));
    assert_eq!(progress.read_to(), None);
    progress.found(&Checkpoint::At(at(11, 1)), Duration::ZERO);
    assert_eq!(progress.read_to(), None);
    progress.found(&Checkpoint::At(at(11, 2)), Duration::ZERO);
    assert_eq!(progress.read_to(), Some(REACHED));
    // The last page of a shard may have no records.
    progress.page_processed(None);
    assert_eq!(progress.read_to(), Some(REACHED));
}

#[test]
fn the_age_of_the_checkpoint_begins_anew_when_it_moves() {
    let secs = Duration::from_secs;
    let mut progress = Progress::new(Checkpoint::TrimHorizon);
    assert_eq!(progress.since_checkpoint(secs(9)), None);
    progress.found(&Checkpoint::TrimHorizon, secs(10));
    progress.found(&Checkpoint::TrimHorizon, secs(15));
    assert_eq!(progress.since_checkpoint(secs(17)), Some(secs(7)));
    progress.found(&Checkpoint::At(at(4, 0)), secs(18));
    progress.found(&Checkpoint::At(at(3, 0)), secs(20));
    assert_eq!(progress.since_checkpoint(secs(21)), Some(secs(3)));
}

/// The answer with the last records of a closed shard may not tell that the shard has ended. Its children have records from
/// before the time of that answer.
#[test]
fn a_shard_is_processed_up_to_a_time_only_if_it_was_open_then() {
    for (was_open, fetched, passed, processed_to) in [
        (true, None, None, Some((REACHED, None))),
        (true, Some(9), Some(9), Some((REACHED, Some(9)))),
        (true, Some(9), Some(8), None),
        (true, Some(9), None, None),
        (false, Some(9), Some(9), None),
        (false, None, None, None),
    ] {
        let mut progress = Progress::new(Checkpoint::TrimHorizon);
        progress.tip = Some(Tip { reached: REACHED, fetched: fetched.map(number), was_open });
        progress.page_processed(passed.map(|passed| (number(passed), None)));
        let found = progress.processed_to().map(|(time, passed)| (time, passed.cloned()));
        let expected = processed_to.map(|(time, passed)| (time, passed.map(number)));
        assert_eq!(found, expected, "{was_open} {fetched:?} {passed:?}");
    }
}

/// The answer to a move was lost, and the shard is read on before the position that was written.
#[test]
fn records_before_the_position_of_the_lease_are_not_checkpointed() {
    let mut progress = Progress::new(Checkpoint::Before(number(20)));
    progress.delivered(Some(ExtendedSequenceNumber::new(number(9), 0)));
    assert_eq!(progress.unwritten(), None);
    progress.delivered(Some(ExtendedSequenceNumber::new(number(20), 0)));
    assert_eq!(progress.unwritten(), Some(ExtendedSequenceNumber::new(number(20), 0)));
}
