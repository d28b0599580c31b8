//! Where other emulators are known to differ.

use clap::ValueEnum;

/// An emulator whose differences are listed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emulator {
    /// npm `kinesis-local` 0.6.2.
    #[value(name = "kinesis-local-0.6.2")]
    KinesisLocal,
    /// npm `dynalite` 4.0.0.
    #[value(name = "dynalite-4.0.0")]
    Dynalite,
    /// Maven `com.amazonaws:DynamoDBLocal` 2.6.1.
    #[value(name = "dynamodb-local-2.6.1")]
    DynamoDbLocal,
    /// The crate `dynoxide-rs` 3.2.0.
    #[value(name = "dynoxide-3.2.0")]
    Dynoxide,
}

/// A case that ends otherwise on an emulator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) case: &'static str,
    /// What the emulator does instead.
    pub(crate) why: &'static str,
    pub(crate) outcome: Expected,
}

/// What is expected of a known case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It fails, and must: once it passes, the list is wrong.
    Fails,
    /// It takes too long to tell, or chance decides; it is not run.
    NotRun,
}

impl Emulator {
    pub(crate) fn differences(self) -> &'static [Known] {
        match self {
            Self::KinesisLocal => KINESIS_LOCAL,
            Self::Dynalite => DYNALITE,
            Self::DynamoDbLocal => DYNAMODB_LOCAL,
            Self::Dynoxide => DYNOXIDE,
        }
    }
}

const fn fails(case: &'static str, why: &'static str) -> Known {
    Known { case, why, outcome: Expected::Fails }
}

const fn too_slow(case: &'static str) -> Known {
    Known {
        case,
        why: "ten megabytes, or ten thousand records, take it tens of seconds",
        outcome: Expected::NotRun,
    }
}

const INVALID_ARGUMENT: &str = "InvalidArgumentException instead of ValidationException";
const NO_TRANSACTIONS: &str = "there are no transactions";
const NO_OLD_ITEM: &str = "a failed condition shows no item";
const NO_CHILDREN: &str = "a subscription does not end with its shard";

const KINESIS_LOCAL: &[Known] = &[
    fails("streams::a_name_and_the_arn_of_another_are_refused", "the ARN counts"),
    fails("streams::a_name_has_few_characters_to_choose_from", INVALID_ARGUMENT),
    fails("streams::a_stream_has_a_shard_at_least", "LimitExceededException"),
    fails("streams::an_on_demand_stream_is_not_scaled_by_hand", "it is scaled"),
    fails(
        "streams::a_stream_with_consumers_is_deleted_by_force_only",
        "it is refused, and deleted nevertheless",
    ),
    fails("retention::retention_is_a_day_at_least_and_a_year_at_most", INVALID_ARGUMENT),
    fails("retention::the_maximum_record_size_is_shown", "a summary does not show it"),
    fails("retention::the_maximum_record_size_has_bounds", INVALID_ARGUMENT),
    fails("list_shards::two_shards_halve_the_hash_keys", "the first one is smaller by one"),
    fails("filters::at_the_trim_horizon_are_the_oldest_shards", "all shards are shown"),
    fails("filters::a_filter_that_lacks_its_argument_is_refused", INVALID_ARGUMENT),
    fails("put_limits::one_more_is_none", "501 records are accepted"),
    fails("put_limits::a_batch_has_a_record_at_least", "an empty batch is accepted"),
    fails("put_limits::a_record_may_have_a_mebibyte_with_its_key", "the key does not count"),
    too_slow("put_limits::a_record_may_have_ten_mebibytes_where_allowed"),
    too_slow("put_limits::a_batch_may_have_ten_mebibytes"),
    too_slow("put_limits::a_batch_over_ten_mebibytes_is_refused"),
    fails("put_limits::a_key_has_a_character_at_least", INVALID_ARGUMENT),
    fails("put_limits::a_key_has_256_characters_at_most", INVALID_ARGUMENT),
    fails("put_limits::a_malformed_entry_refuses_its_batch", INVALID_ARGUMENT),
    fails("hash_keys::a_malformed_hash_key_is_refused", INVALID_ARGUMENT),
    fails("iterators::a_number_of_another_shard_is_refused", "it is accepted"),
    fails("iterators::a_malformed_number_is_refused", "it is accepted"),
    fails("iterators::an_unknown_kind_is_refused", "SerializationException"),
    fails("read::a_limit_has_bounds", INVALID_ARGUMENT),
    too_slow("read::a_page_has_ten_thousand_records_at_most"),
    too_slow("read::a_page_has_ten_mebibytes_at_most"),
    fails("read::a_bogus_iterator_is_refused", "an internal error without a body"),
    fails(
        "reshard::the_numbers_of_children_come_after_their_parents",
        "a shard's ending number comes before its records",
    ),
    fails("reshard::a_split_needs_a_key_inside_the_shard", "its first key is accepted"),
    fails("reshard::a_closed_shard_stays_closed", "ResourceInUseException"),
    fails("scaling::a_stream_grows_by_half_and_is_even", "shards differ in size"),
    fails("consumers::consumers_are_listed_page_by_page", "the first page has no token"),
    fails("fan_out::an_unknown_consumer_is_refused", "it is accepted"),
    fails("fan_out::a_shard_that_is_not_there_is_refused", "it is accepted"),
    fails("fan_out::a_shard_that_has_ended_names_its_children_and_ends", NO_CHILDREN),
    fails("fan_out::a_shard_that_ends_names_its_children_and_ends", NO_CHILDREN),
    fails("fan_out::a_second_subscription_within_five_seconds_is_refused", "it is accepted"),
    fails(
        "fan_out::a_second_subscription_after_five_seconds_takes_over",
        "it is refused while the first one lasts",
    ),
];

const DYNALITE: &[Known] = &[
    fails("tables::a_protected_table_is_not_deleted", "there is no protection"),
    fails("tables::a_table_may_have_a_time_to_live", "there is no time to live"),
    fails("tables::a_table_has_tags", "those of a new table are lost"),
    fails(
        "tables::a_table_may_be_recovered_to_a_point_in_time",
        "there is no point-in-time recovery",
    ),
    fails("tables::an_index_is_deleted", "it stays"),
    Known {
        case: "legacy::conditions_may_be_joined_by_or",
        why: "which of them counts depends on the order of the members",
        outcome: Expected::NotRun,
    },
    fails(
        "query::an_index_does_not_give_what_it_does_not_hold",
        "an attribute that the index does not hold is not shown",
    ),
    fails("capacity::an_index_is_paid_where_it_changes", "a total leaves indexes out"),
    fails("write_conditions::a_failed_put_shows_the_item", NO_OLD_ITEM),
    fails("write_conditions::a_failed_update_shows_the_item", NO_OLD_ITEM),
    fails("write_conditions::a_failed_delete_shows_the_item", NO_OLD_ITEM),
    fails(
        "index::a_table_is_given_an_index_later",
        "an index needs a throughput, of an on-demand table too",
    ),
    fails("transactions::all_is_written", NO_TRANSACTIONS),
    fails("transactions::or_nothing_is_with_a_reason_for_each", NO_TRANSACTIONS),
    fails("transactions::a_check_guards_the_others", NO_TRANSACTIONS),
    fails("transactions::an_item_is_written_once_in_a_transaction", NO_TRANSACTIONS),
    fails("transactions::a_token_makes_a_transaction_happen_once", NO_TRANSACTIONS),
];

const DYNAMODB_LOCAL: &[Known] = &[
    fails("tables::a_table_has_tags", "there are no tags"),
    fails(
        "tables::a_table_may_be_recovered_to_a_point_in_time",
        "there is no point-in-time recovery",
    ),
    fails("tables::a_provisioned_table_has_units", "an on-demand table may have units"),
    fails(
        "transactions::an_item_is_written_once_in_a_transaction",
        "the transaction is cancelled by its conditions first",
    ),
];

const DYNOXIDE: &[Known] = &[
    fails(
        "tables::a_table_may_be_recovered_to_a_point_in_time",
        "there is no point-in-time recovery",
    ),
    fails(
        "query::an_index_does_not_give_what_it_does_not_hold",
        "an attribute that the index does not hold is not shown",
    ),
    fails("items::an_update_that_creates_an_item_gives_no_old_one_back", "it gives the key back"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{dynamodb_cases, kinesis_cases};

    #[test]
    fn cases_have_names_of_their_own_and_differences_name_cases() {
        for (emulator, cases) in [
            (Emulator::KinesisLocal, kinesis_cases()),
            (Emulator::Dynalite, dynamodb_cases()),
            (Emulator::DynamoDbLocal, dynamodb_cases()),
            (Emulator::Dynoxide, dynamodb_cases()),
        ] {
            let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
            assert_eq!(names.len(), cases.len());
            let differences = emulator.differences();
            let listed: BTreeSet<_> = differences.iter().map(|known| known.case).collect();
            assert_eq!(listed.len(), differences.len());
            assert!(listed.is_subset(&names), "{:?}", listed.difference(&names));
        }
    }
}
