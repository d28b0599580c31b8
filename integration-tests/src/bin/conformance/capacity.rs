//! What a request is told that it consumed: the price of leases.

use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};

use crate::case::{Verdict, cases};
use crate::check::{Failure, same, some};
use crate::dynamodb::{DynamoDb, Item, Table, item, n, s};

cases! { DynamoDb, "capacity":
    a_write_costs_a_unit_for_a_kilobyte,
    a_write_pays_for_the_larger_of_the_old_and_the_new,
    an_index_is_paid_where_it_changes,
    a_read_costs_a_unit_for_four_kilobytes_and_half_if_not_consistent,
    a_request_that_does_not_ask_is_not_told,
}

fn units(consumed: Option<ConsumedCapacity>) -> Result<f64, Failure> {
    some("units", some("consumed capacity", consumed)?.capacity_units)
}

/// What a put costs, indexes included.
async fn put(table: &Table, item: Item) -> Result<f64, Failure> {
    let put = table.client.put_item().table_name(&table.name);
    let put = put.set_item(Some(item));
    let put = put.return_consumed_capacity(ReturnConsumedCapacity::Total);
    units(put.send().await?.consumed_capacity)
}

async fn a_write_costs_a_unit_for_a_kilobyte(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    // Names count: `id`, `a`, and `x`.
    for (bytes, expected) in [(1, 1.0), (1024 - 4, 1.0), (1024 - 3, 2.0), (3000, 3.0)] {
        let id = bytes.to_string();
        let item = item(&id, [("x", s(&"x".repeat(bytes - (id.len() - 1))))]);
        same(&id, put(&table, item).await?, expected)?;
    }
    Ok(())
}

async fn a_write_pays_for_the_larger_of_the_old_and_the_new(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    put(&table, item("a", [("x", s(&"x".repeat(2500)))])).await?;
    same("a smaller one", put(&table, item("a", [])).await?, 3.0)?;
    let delete = dynamodb.delete_item().table_name(&table.name).key("id", s("a"));
    let delete = delete.return_consumed_capacity(ReturnConsumedCapacity::Total);
    same("a deletion", units(delete.send().await?.consumed_capacity)?, 1.0)
}

async fn an_index_is_paid_where_it_changes(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.indexed_table().await?;
    for (owner, x, expected, what) in [
        (None, "1", 1.0, "no entry"),
        (Some("w"), "1", 2.0, "a new entry"),
        (Some("w"), "1", 1.0, "nothing new"),
        (Some("w"), "2", 2.0, "an entry that changes"),
        (Some("v"), "2", 3.0, "an entry that moves"),
        (None, "2", 2.0, "an entry that goes"),
    ] {
        let mut item = item("a", [("x", n(x))]);
        item.extend(owner.map(|owner| ("owner".to_owned(), s(owner))));
        same(what, put(&table, item).await?, expected)?;
    }
    Ok(())
}

async fn a_read_costs_a_unit_for_four_kilobytes_and_half_if_not_consistent(
    dynamodb: DynamoDb,
) -> Verdict {
    let table = dynamodb.table().await?;
    put(&table, item("a", [("x", s(&"x".repeat(5000)))])).await?;
    for (id, consistent, expected) in [("a", true, 2.0), ("a", false, 1.0), ("b", true, 1.0)] {
        let get = dynamodb.get_item().table_name(&table.name).key("id", s(id));
        let get = get.consistent_read(consistent);
        let get = get.return_consumed_capacity(ReturnConsumedCapacity::Total);
        same(id, units(get.send().await?.consumed_capacity)?, expected)?;
    }
    let scan = dynamodb.scan().table_name(&table.name);
    let scan = scan.return_consumed_capacity(ReturnConsumedCapacity::Total);
    same("a scan", units(scan.send().await?.consumed_capacity)?, 1.0)
}

async fn a_request_that_does_not_ask_is_not_told(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let put = dynamodb.put_item().table_name(&table.name);
    let put = put.set_item(Some(item("a", []))).send().await?;
    same("consumed capacity", put.consumed_capacity, None)
}
