//! The conformance suite of lease stores. Each case runs on the table in memory, and on DynamoDB.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dynamodb;
#[path = "../../../../kcl/tests/golden/reader.rs"]
mod golden;
mod local;
mod memory;
mod ownership;
mod reading;
mod replay;
mod trouble;

use std::time::Duration;

use kcl::internals::{Item, Lease, LeaseStore, LeaseWrite, Outcome, OwnerReport};
use kcl::{Checkpoint, ExtendedSequenceNumber};

/// A fault between a store and its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Writes are done, and the connection breaks before the answer.
    AnswersLost,
    /// The same for puts of whole items.
    PutAnswersLost,
    Throttled,
    /// Writes do not arrive.
    Cut,
    /// Failed conditions come without the item.
    OldItemHidden,
    IndexBehind(Duration),
}

/// A store on a table of its own, under the control of a test.
trait Subject {
    fn store(&self) -> &dyn LeaseStore;

    /// Puts an item without the store.
    async fn put_item(&self, key: &str, item: Item);

    /// The item as the table holds it.
    async fn item(&self, key: &str) -> Option<Item>;

    /// Adds trouble, for the next `times` attempts that it concerns.
    fn trouble(&self, trouble: Trouble, times: u64);

    /// Ends all trouble. Returns how often it struck since the last call.
    fn heal(&self) -> u64;

    /// Lets time pass for the index.
    fn pass(&self, time: Duration);
}

/// A lease of `owner`.
async fn owned(store: &dyn LeaseStore, key: &str, owner: &str) -> Lease {
    let lease = Lease::new(key, Checkpoint::TrimHorizon);
    store.write(&lease, LeaseWrite::Create).await.unwrap();
    applied(store.write(&lease, take(owner)).await.unwrap())
}

#[track_caller]
fn applied(outcome: Outcome) -> Lease {
    match outcome {
        Outcome::Applied(lease) => lease,
        other => panic!("not applied: {other:?}"),
    }
}

#[track_caller]
fn applied_before(outcome: Outcome) -> Lease {
    match outcome {
        Outcome::AppliedBefore(lease) => lease,
        other => panic!("a write whose answer was lost was called a loss: {other:?}"),
    }
}

#[track_caller]
fn refused(outcome: Outcome) -> Lease {
    match outcome {
        Outcome::ConditionFailed(Some(lease)) => lease,
        other => panic!("not refused: {other:?}"),
    }
}

fn at(sequence: &str, sub: u64) -> Checkpoint {
    Checkpoint::At(ExtendedSequenceNumber::new(sequence.parse().unwrap(), sub))
}

fn renew(owner: &str) -> LeaseWrite {
    LeaseWrite::Renew { owner: owner.into(), report: OwnerReport::default() }
}

fn checkpoint(owner: &str, checkpoint: Checkpoint) -> LeaseWrite {
    LeaseWrite::Checkpoint {
        owner: owner.into(),
        checkpoint,
        pending: None,
        report: OwnerReport::default(),
    }
}

fn take(owner: &str) -> LeaseWrite {
    LeaseWrite::Take { owner: owner.into() }
}

fn assign(to: &str, released: bool) -> LeaseWrite {
    LeaseWrite::Assign { to: to.into(), released }
}

fn start_handoff(to: &str) -> LeaseWrite {
    LeaseWrite::StartHandoff { to: to.into() }
}

/// Makes a test of each case, on `$subject`: an expression of a [`Subject`].
macro_rules! conformance {
    ($subject:expr) => {
        conformance! { $subject;
            ownership::a_created_lease_is_read_back_equal_and_not_created_again,
            ownership::renewals_prove_ownership_and_notice_handoffs_and_takers,
            ownership::checkpoints_need_the_counter_and_the_processing_owner,
            ownership::a_move_writes_the_whole_position_on_the_condition_of_a_checkpoint,
            ownership::taking_needs_the_lease_as_it_was_seen,
            ownership::assigning_needs_the_owners_and_completes_a_handoff,
            ownership::evicting_frees_the_lease_or_leaves_it_to_the_next_owner,
            ownership::facts_about_the_shard_leave_the_counter_and_need_the_lease,
            ownership::a_note_of_reading_is_dropped_once_another_library_has_owned_the_lease,
            ownership::a_lease_of_a_former_stream_is_replaced_with_its_owner_and_counter_as_known,
            ownership::deleting_needs_the_checkpoint,
            ownership::the_leaders_lock_changes_hands_only_as_it_was_seen,
            reading::lists_leases_and_workers_and_skips_what_it_cannot_read,
            reading::a_large_table_is_read_whole_in_one_segment_and_in_many,
            reading::a_corrupt_item_stops_only_what_needs_it,
            reading::golden_items_are_read_and_written_back_as_java_left_them,
            reading::the_index_names_the_leases_of_an_owner,
            reading::the_index_may_be_behind_and_reads_are_not,
            trouble::a_lost_answer_is_read_back_and_is_no_loss,
            trouble::a_lost_answer_and_another_taker_is_a_loss,
            trouble::a_throttled_table_is_retried_then_reported,
            trouble::a_failed_condition_without_the_item_is_read,
            replay::every_golden_write_of_a_lease_does_what_ours_does,
        }
    };
    ($subject:expr; $($file:ident::$case:ident,)*) => {$(
        #[tokio::test]
        async fn $case() {
            crate::$file::$case(&$subject).await;
        }
    )*};
}
use conformance;
