//! Items are put, read, updated and deleted.

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, ReturnValue, WriteRequest};

use crate::case::{Verdict, cases};
use crate::check::{refused, same};
use crate::dynamodb::{DynamoDb, item, n, s};

cases! { DynamoDb, "items":
    an_item_that_is_not_there_is_none,
    a_put_replaces_the_whole_item,
    a_put_gives_the_old_item_back,
    an_item_has_its_key,
    an_update_sets_and_removes,
    an_update_creates_what_is_missing,
    an_update_counts,
    an_update_gives_old_or_new_back,
    an_update_that_creates_an_item_gives_no_old_one_back,
    an_update_does_not_touch_the_key,
    a_delete_gives_the_old_item_back,
    a_delete_of_nothing_succeeds,
    a_projection_shows_a_part,
    a_batch_is_written_and_read,
    a_batch_has_an_item_once,
    a_batch_is_written_whole_or_not_at_all,
    an_update_reaches_into_documents,
    an_update_works_on_sets,
    a_path_that_is_not_there_is_refused,
    a_placeholder_is_used,
    an_update_changes_a_value_once,
}

async fn an_item_that_is_not_there_is_none(dynamodb: DynamoDb) -> Verdict {
    same("item", dynamodb.table().await?.get("a").await?, None)
}

async fn a_put_replaces_the_whole_item(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("old", s("x"))])).await?;
    table.put(item("a", [("new", s("y"))])).await?;
    same("item", table.get("a").await?, Some(item("a", [("new", s("y"))])))
}

async fn a_put_gives_the_old_item_back(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let old = item("a", [("old", s("x"))]);
    table.put(old.clone()).await?;
    let put = dynamodb.put_item().table_name(&table.name);
    let put = put.set_item(Some(item("a", []))).return_values(ReturnValue::AllOld);
    same("old item", put.send().await?.attributes, Some(old))
}

async fn an_item_has_its_key(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let put = dynamodb.put_item().table_name(&table.name).item("x", s("y"));
    refused("put", put.send().await, "ValidationException")?;
    let get = dynamodb.get_item().table_name(&table.name).key("id", n("1"));
    refused("get", get.send().await, "ValidationException")
}

async fn an_update_sets_and_removes(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("stays", s("x")), ("goes", s("y"))])).await?;
    let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
    let update = update.update_expression("SET #new = :new REMOVE goes");
    let update = update.expression_attribute_names("#new", "new");
    update.expression_attribute_values(":new", s("z")).send().await?;
    let expected = item("a", [("stays", s("x")), ("new", s("z"))]);
    same("item", table.get("a").await?, Some(expected))
}

async fn an_update_creates_what_is_missing(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
    let update = update.update_expression("SET x = if_not_exists(x, :x)");
    update.expression_attribute_values(":x", n("7")).send().await?;
    same("item", table.get("a").await?, Some(item("a", [("x", n("7"))])))
}

async fn an_update_counts(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    for expression in ["SET x = x + :n", "ADD x :n"] {
        let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
        let update = update.update_expression(expression);
        update.expression_attribute_values(":n", n("5")).send().await?;
    }
    same("count", table.value("a", "x").await?, n("11"))
}

async fn an_update_gives_old_or_new_back(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1")), ("y", n("2"))])).await?;
    let changed = |x: &str| Some([("x".to_owned(), n(x))].into());
    for (asked, x, expected) in [
        (ReturnValue::AllNew, "10", Some(item("a", [("x", n("10")), ("y", n("2"))]))),
        (ReturnValue::AllOld, "11", Some(item("a", [("x", n("10")), ("y", n("2"))]))),
        (ReturnValue::UpdatedNew, "12", changed("12")),
        (ReturnValue::UpdatedOld, "13", changed("12")),
        (ReturnValue::None, "14", None),
    ] {
        let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
        let update = update.update_expression("SET x = :x").return_values(asked.clone());
        let update = update.expression_attribute_values(":x", n(x)).send().await?;
        same(asked.as_str(), update.attributes, expected)?;
    }
    Ok(())
}

async fn an_update_that_creates_an_item_gives_no_old_one_back(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
    let update = update.update_expression("SET x = :x").return_values(ReturnValue::AllOld);
    let update = update.expression_attribute_values(":x", n("1"));
    same("old item", update.send().await?.attributes, None)
}

async fn an_update_does_not_touch_the_key(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
    let update = update.update_expression("SET id = :id");
    let update = update.expression_attribute_values(":id", s("b"));
    refused("update", update.send().await, "ValidationException")
}

async fn a_delete_gives_the_old_item_back(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let old = item("a", [("x", AttributeValue::Bool(false))]);
    table.put(old.clone()).await?;
    let delete = dynamodb.delete_item().table_name(&table.name).key("id", s("a"));
    let delete = delete.return_values(ReturnValue::AllOld).send().await?;
    same("old item", delete.attributes, Some(old))?;
    same("item", table.get("a").await?, None)
}

async fn a_delete_of_nothing_succeeds(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let delete = dynamodb.delete_item().table_name(&table.name).key("id", s("a"));
    let delete = delete.return_values(ReturnValue::AllOld).send().await?;
    same("old item", delete.attributes, None)
}

async fn a_projection_shows_a_part(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1")), ("y", n("2"))])).await?;
    let get = dynamodb.get_item().table_name(&table.name).key("id", s("a"));
    let get = get.projection_expression("y, never").send().await?;
    same("item", get.item, Some([("y".to_owned(), n("2"))].into()))
}

async fn a_batch_is_written_and_read(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let ids = ["a", "b", "c"];
    let put = |id| {
        let put = PutRequest::builder().set_item(Some(item(id, [])));
        Ok(WriteRequest::builder().put_request(put.build()?).build())
    };
    let puts = ids.into_iter().map(put).collect::<Result<Vec<_>, crate::check::Failure>>()?;
    let batch = dynamodb.batch_write_item().request_items(&table.name, puts);
    let left = batch.send().await?.unprocessed_items.unwrap_or_default();
    same("left", left.len(), 0)?;
    for id in ids {
        same(id, table.get(id).await?, Some(item(id, [])))?;
    }
    Ok(())
}

fn to_put(id: &str) -> Result<WriteRequest, crate::check::Failure> {
    let put = PutRequest::builder().set_item(Some(item(id, []))).build()?;
    Ok(WriteRequest::builder().put_request(put).build())
}

async fn a_batch_has_an_item_once(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let twice = vec![to_put("a")?, to_put("a")?];
    let write = dynamodb.batch_write_item().request_items(&table.name, twice);
    refused("write", write.send().await, "ValidationException")
}

async fn a_batch_is_written_whole_or_not_at_all(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let keyless = PutRequest::builder().item("x", s("y")).build()?;
    let keyless = WriteRequest::builder().put_request(keyless).build();
    let write = dynamodb.batch_write_item();
    let write = write.request_items(&table.name, vec![to_put("a")?, keyless]);
    refused("write", write.send().await, "ValidationException")?;
    same("item", table.get("a").await?, None)
}

async fn an_update_reaches_into_documents(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let list = AttributeValue::L(vec![n("1"), n("2")]);
    let document = AttributeValue::M([("deep".to_owned(), n("3"))].into());
    table.put(item("a", [("things", list), ("doc", document)])).await?;
    let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
    let update = update.update_expression(
        "SET doc.deep = doc.deep + :one, doc.more = :one, things[7] = :one REMOVE things[0]",
    );
    update.expression_attribute_values(":one", n("1")).send().await?;
    let list = AttributeValue::L(vec![n("2"), n("1")]);
    same("list", table.value("a", "things").await?, list)?;
    let members = [("deep", n("4")), ("more", n("1"))];
    let members = members.map(|(name, value)| (name.to_owned(), value));
    same("map", table.value("a", "doc").await?, AttributeValue::M(members.into()))
}

async fn an_update_works_on_sets(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let set = |members: &[&str]| {
        AttributeValue::Ss(members.iter().map(|member| (*member).to_owned()).collect())
    };
    table.put(item("a", [("members", set(&["a", "b"]))])).await?;
    let update = |expression: &str, members: &[&str]| {
        let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
        let update = update.update_expression(expression);
        update.expression_attribute_values(":m", set(members)).send()
    };
    update("ADD #m :m".replace("#m", "members").as_str(), &["c"]).await?;
    update("DELETE members :m", &["a", "b"]).await?;
    same("one is left", table.value("a", "members").await?, set(&["c"]))?;
    update("DELETE members :m", &["c"]).await?;
    same("none is left", table.get("a").await?, Some(item("a", [])))
}

async fn a_path_that_is_not_there_is_refused(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    for expression in ["SET y.z = :v", "SET x = y + :v", "SET x = :v + id"] {
        let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
        let update = update.update_expression(expression);
        let update = update.expression_attribute_values(":v", n("1")).send().await;
        refused(expression, update, "ValidationException")?;
    }
    same("item", table.get("a").await?, Some(item("a", [("x", n("1"))])))
}

async fn a_placeholder_is_used(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let update = |expression: &str| {
        let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
        let update = update.update_expression(expression);
        update.expression_attribute_values(":v", n("1")).send()
    };
    update("SET x = :v").await?;
    refused("unused", update("REMOVE x").await, "ValidationException")?;
    refused("undefined", update("SET x = :v, y = :w").await, "ValidationException")
}

async fn an_update_changes_a_value_once(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
    let update = update.update_expression("SET x = :v REMOVE x");
    let update = update.expression_attribute_values(":v", n("1")).send().await;
    refused("update", update, "ValidationException")
}
