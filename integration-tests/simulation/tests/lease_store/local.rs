//! The cases on the leases of a worker without a lease table. It has no network that could fail, no index that could be
//! behind, and no items of other writers.

use std::time::Duration;

use kcl::internals::{Item, LeaseStore, LocalLeaseStore, encode};

use super::{Subject, Trouble, conformance};

struct Local(LocalLeaseStore);

impl Local {
    fn new() -> Self {
        Self(LocalLeaseStore::new(1))
    }
}

impl Subject for Local {
    fn store(&self) -> &dyn LeaseStore {
        &self.0
    }

    async fn put_item(&self, key: &str, _: Item) {
        panic!("{key}: only this store writes its items");
    }

    async fn item(&self, key: &str) -> Option<Item> {
        self.0.get(key).await.unwrap().as_ref().map(encode)
    }

    fn trouble(&self, trouble: Trouble, _: u64) {
        panic!("no {trouble:?} between this store and its items");
    }

    fn heal(&self) -> u64 {
        0
    }

    fn pass(&self, _: Duration) {}
}

conformance! { Local::new();
    ownership::a_created_lease_is_read_back_equal_and_not_created_again,
    ownership::renewals_prove_ownership_and_notice_handoffs_and_takers,
    ownership::checkpoints_need_the_counter_and_the_processing_owner,
    ownership::a_move_writes_the_whole_position_on_the_condition_of_a_checkpoint,
    ownership::taking_needs_the_lease_as_it_was_seen,
    ownership::assigning_needs_the_owners_and_completes_a_handoff,
    ownership::evicting_frees_the_lease_or_leaves_it_to_the_next_owner,
    ownership::facts_about_the_shard_leave_the_counter_and_need_the_lease,
    ownership::a_lease_of_a_former_stream_is_replaced_with_its_owner_and_counter_as_known,
    ownership::deleting_needs_the_checkpoint,
    reading::a_large_table_is_read_whole_in_one_segment_and_in_many,
    reading::the_index_names_the_leases_of_an_owner,
}
