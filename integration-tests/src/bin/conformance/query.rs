//! Query: by the sort key, page by page, and in indexes that show a part.

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, GlobalSecondaryIndex, KeySchemaElement, KeyType, LocalSecondaryIndex,
    Projection, ProjectionType, ScalarAttributeType, Select,
};

use crate::case::{Verdict, cases};
use crate::check::{Failure, refused, same, some};
use crate::dynamodb::{DynamoDb, Table, item, key, n, s};

cases! { DynamoDb, "query":
    items_come_in_the_order_of_the_sort_key,
    a_query_goes_back_if_told,
    conditions_bound_the_sort_key,
    a_prefix_bounds_a_sort_key_of_text,
    a_query_goes_on_page_by_page_either_way,
    a_filter_does_not_speak_of_the_key,
    a_query_names_its_partition,
    a_local_index_has_another_order,
    an_index_of_keys_shows_no_more,
    an_index_does_not_give_what_it_does_not_hold,
    a_starting_key_is_of_the_partition,
    a_query_counts,
}

fn number(name: &str) -> Result<AttributeDefinition, Failure> {
    let attribute = AttributeDefinition::builder().attribute_name(name);
    Ok(attribute.attribute_type(ScalarAttributeType::N).build()?)
}

fn sort(name: &str) -> Result<KeySchemaElement, Failure> {
    let key = KeySchemaElement::builder().attribute_name(name);
    Ok(key.key_type(KeyType::Range).build()?)
}

fn keys_only() -> Projection {
    let projection = Projection::builder();
    projection.projection_type(ProjectionType::KeysOnly).build()
}

/// A table with the sort key `place`, of numbers; a local index `by_age`; and a global one `of_age`
/// that holds keys only. It has the items 1 to 9 and 10 of `a`, of decreasing age, and one of `b`.
async fn filled(dynamodb: &DynamoDb) -> Result<Table, Failure> {
    let name = dynamodb.fresh_name();
    let local = LocalSecondaryIndex::builder().index_name("by_age");
    let local = local.key_schema(key("id")?).key_schema(sort("age")?);
    let global = GlobalSecondaryIndex::builder().index_name("of_age");
    let global = global.key_schema(key("age")?).projection(keys_only());
    let create = dynamodb
        .new_table(&name)?
        .key_schema(sort("place")?)
        .attribute_definitions(number("place")?)
        .attribute_definitions(number("age")?)
        .local_secondary_indexes(local.projection(keys_only()).build()?)
        .global_secondary_indexes(global.build()?);
    create.send().await?;
    let table = dynamodb.created(name).await?;
    for place in 1..=10 {
        let age = (100 - place).to_string();
        let attributes = [("place", n(&place.to_string())), ("age", n(&age)), ("x", s("y"))];
        table.put(item("a", attributes)).await?;
    }
    table.put(item("b", [("place", n("1"))])).await?;
    Ok(table)
}

fn of_a(table: &Table) -> QueryFluentBuilder {
    let query = table.client.query().table_name(&table.name);
    let query = query.key_condition_expression("id = :id");
    query.expression_attribute_values(":id", s("a"))
}

/// The numbers of an attribute of what a query finds.
async fn found(query: QueryFluentBuilder, name: &str) -> Result<Vec<i32>, Failure> {
    let items = query.send().await?.items.unwrap_or_default();
    let numbers = items.iter().filter_map(|item| item.get(name)?.as_n().ok()?.parse::<i32>().ok());
    Ok(numbers.collect())
}

async fn items_come_in_the_order_of_the_sort_key(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    let places = found(of_a(&table), "place").await?;
    same("places", places, (1..=10).collect::<Vec<_>>())
}

async fn a_query_goes_back_if_told(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    let query = of_a(&table).scan_index_forward(false).limit(3);
    same("places", found(query, "place").await?, [10, 9, 8])
}

async fn conditions_bound_the_sort_key(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    for (condition, expected) in [
        ("place = :x", &[2][..]),
        ("place < :x", &[1]),
        ("place <= :x", &[1, 2]),
        ("place > :y", &[10]),
        ("place >= :y", &[9, 10]),
        (":y < place", &[10]),
        ("place BETWEEN :x AND :y", &[2, 3, 4, 5, 6, 7, 8, 9]),
    ] {
        let query = of_a(&table).key_condition_expression(format!("id = :id AND {condition}"));
        let mut query = query;
        for (name, value) in [(":x", "2"), (":y", "9")] {
            if condition.contains(name) {
                query = query.expression_attribute_values(name, n(value));
            }
        }
        same(condition, found(query, "place").await?, expected)?;
    }
    Ok(())
}

async fn a_prefix_bounds_a_sort_key_of_text(dynamodb: DynamoDb) -> Verdict {
    let name = dynamodb.fresh_name();
    let create = dynamodb.new_table(&name)?.key_schema(sort("word")?);
    let create = create.attribute_definitions(crate::dynamodb::string("word")?);
    create.send().await?;
    let table = dynamodb.created(name).await?;
    for word in ["a", "ab", "abc", "b"] {
        table.put(item("a", [("word", s(word))])).await?;
    }
    let query = of_a(&table).key_condition_expression("id = :id AND begins_with(word, :x)");
    let query = query.expression_attribute_values(":x", s("ab"));
    same("count", query.send().await?.count, 2)
}

async fn a_query_goes_on_page_by_page_either_way(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    for forward in [true, false] {
        let (mut places, mut start) = (Vec::new(), None);
        loop {
            let query = of_a(&table).limit(4).scan_index_forward(forward);
            let page = query.set_exclusive_start_key(start).send().await?;
            let items = page.items.unwrap_or_default();
            let numbers =
                items.iter().filter_map(|item| item.get("place")?.as_n().ok()?.parse::<i32>().ok());
            places.extend(numbers);
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        let mut expected: Vec<i32> = (1..=10).collect();
        if !forward {
            expected.reverse();
        }
        same("places", places, expected)?;
    }
    Ok(())
}

async fn a_filter_does_not_speak_of_the_key(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    let query = of_a(&table).filter_expression("place > :x");
    let query = query.expression_attribute_values(":x", n("1")).send().await;
    refused("query", query, "ValidationException")
}

async fn a_query_names_its_partition(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    for condition in ["place = :id", "id > :id", "id = :id AND x = :id", "id = :id OR id = :id"] {
        let query = of_a(&table).key_condition_expression(condition).send().await;
        refused(condition, query, "ValidationException")?;
    }
    Ok(())
}

async fn a_local_index_has_another_order(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    let query = of_a(&table).index_name("by_age").consistent_read(true);
    let ages = found(query, "age").await?;
    same("ages", ages, (90..100).collect::<Vec<_>>())?;
    // What the index does not hold is fetched from the table.
    let query = of_a(&table).index_name("by_age").limit(1);
    let query = query.select(Select::AllAttributes).send().await?;
    let items = query.items.unwrap_or_default();
    same("attribute", items.first().and_then(|item| item.get("x")), Some(&s("y")))
}

async fn an_index_of_keys_shows_no_more(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    let query = table.client.query().table_name(&table.name).index_name("of_age");
    let query = query.key_condition_expression("age = :age");
    let query = query.expression_attribute_values(":age", n("95"));
    loop {
        let items = query.clone().send().await?.items.unwrap_or_default();
        match items.as_slice() {
            // The index follows its table in a moment.
            [] => tokio::time::sleep(crate::kinesis::LOOK_AGAIN).await,
            [found] => {
                return same("item", found, &item("a", [("place", n("5")), ("age", n("95"))]));
            }
            more => return Err(Failure::new(format!("{} items", more.len()))),
        }
    }
}

async fn an_index_does_not_give_what_it_does_not_hold(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    let query = || {
        let query = table.client.query().table_name(&table.name).index_name("of_age");
        let query = query.key_condition_expression("age = :age");
        query.expression_attribute_values(":age", n("95"))
    };
    let all = query().select(Select::AllAttributes).send().await;
    refused("all attributes", all, "ValidationException")?;
    let one = query().projection_expression("x").send().await;
    refused("an attribute", one, "ValidationException")
}

async fn a_starting_key_is_of_the_partition(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    let query = of_a(&table).exclusive_start_key("id", s("b"));
    let query = query.exclusive_start_key("place", n("1")).send().await;
    refused("query", query, "ValidationException")?;
    let query = of_a(&table).exclusive_start_key("id", s("a")).send().await;
    refused("half a key", query, "ValidationException")
}

async fn a_query_counts(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb).await?;
    let query = of_a(&table).select(Select::Count).limit(7).send().await?;
    same("count", query.count, 7)?;
    same("items", query.items.unwrap_or_default().len(), 0)?;
    let last = some("last key", query.last_evaluated_key)?;
    same("last key", last, item("a", [("place", n("7"))]))
}
