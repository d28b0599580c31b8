//! What an attribute can be.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::case::{Verdict, cases};
use crate::check::{refused, same};
use crate::dynamodb::{DynamoDb, Item, item, n, s};

cases! { DynamoDb, "values":
    values_of_every_kind_come_back_as_they_were_put,
    a_set_comes_back_with_its_members,
    a_number_has_38_digits,
    a_number_has_no_39th_digit,
    a_number_is_a_number,
    a_set_is_not_empty,
    a_set_has_no_member_twice,
    an_item_has_400_kilobytes_at_most,
}

async fn values_of_every_kind_come_back_as_they_were_put(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let bytes: Vec<u8> = (0..=255).collect();
    let nested = Item::from([("deep".to_owned(), AttributeValue::L(vec![s("x"), n("1")]))]);
    let put = item(
        "a",
        [
            ("string", s("with \"quotes\" and ü")),
            ("empty", s("")),
            ("number", n("-17.25")),
            ("binary", AttributeValue::B(Blob::new(bytes))),
            ("boolean", AttributeValue::Bool(true)),
            ("null", AttributeValue::Null(true)),
            ("list", AttributeValue::L(vec![s("x"), AttributeValue::L(Vec::new())])),
            ("map", AttributeValue::M(nested)),
        ],
    );
    table.put(put.clone()).await?;
    same("item", table.get("a").await?, Some(put))
}

async fn a_set_comes_back_with_its_members(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let members = |texts: [&str; 3]| texts.map(str::to_owned).to_vec();
    let put = item(
        "a",
        [
            ("strings", AttributeValue::Ss(members(["b", "a", "c"]))),
            ("numbers", AttributeValue::Ns(members(["3", "1", "2"]))),
            ("binaries", AttributeValue::Bs(vec![Blob::new("x")])),
        ],
    );
    table.put(put).await?;
    // A set has no order.
    let strings = table.value("a", "strings").await?;
    let mut strings = strings.as_ss().cloned().unwrap_or_default();
    strings.sort();
    same("strings", strings, members(["a", "b", "c"]))?;
    let numbers = table.value("a", "numbers").await?;
    let mut numbers = numbers.as_ns().cloned().unwrap_or_default();
    numbers.sort();
    same("numbers", numbers, members(["1", "2", "3"]))?;
    let binaries = table.value("a", "binaries").await?;
    same("binaries", binaries, AttributeValue::Bs(vec![Blob::new("x")]))
}

async fn a_number_has_38_digits(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let digits = "12345678901234567890123456789012345678";
    table.put(item("a", [("number", n(digits))])).await?;
    same("number", table.value("a", "number").await?, n(digits))
}

async fn refused_value(dynamodb: &DynamoDb, value: AttributeValue) -> Verdict {
    let table = dynamodb.table().await?;
    let put = dynamodb.put_item().table_name(&table.name);
    let put = put.set_item(Some(item("a", [("value", value)])));
    refused("put", put.send().await, "ValidationException")
}

async fn a_number_has_no_39th_digit(dynamodb: DynamoDb) -> Verdict {
    let digits = "123456789012345678901234567890123456789";
    refused_value(&dynamodb, n(digits)).await
}

async fn a_number_is_a_number(dynamodb: DynamoDb) -> Verdict {
    refused_value(&dynamodb, n("many")).await
}

async fn a_set_is_not_empty(dynamodb: DynamoDb) -> Verdict {
    refused_value(&dynamodb, AttributeValue::Ss(Vec::new())).await
}

async fn a_set_has_no_member_twice(dynamodb: DynamoDb) -> Verdict {
    let twice = vec!["a".to_owned(), "a".to_owned()];
    refused_value(&dynamodb, AttributeValue::Ss(twice)).await
}

async fn an_item_has_400_kilobytes_at_most(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    // Names count: `id`, `a`, and `x`.
    let fits = "x".repeat(400 * 1024 - 4);
    table.put(item("a", [("x", s(&fits))])).await?;
    let put = dynamodb.put_item().table_name(&table.name);
    let over = item("a", [("x", s(&(fits + "x")))]);
    let put = put.set_item(Some(over)).send().await;
    refused("a byte more", put, "ValidationException")
}
