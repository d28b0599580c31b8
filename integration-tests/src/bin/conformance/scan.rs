//! Scan.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;

use crate::case::{Verdict, cases};
use crate::check::{Failure, holds, refused, same, some};
use crate::dynamodb::{DynamoDb, Table, item, n, s};

cases! { DynamoDb, "scan":
    a_scan_goes_on_page_by_page,
    a_page_has_a_mebibyte_at_most,
    segments_have_every_item_once,
    a_limit_counts_before_the_filter,
    a_scan_may_only_count,
    a_segment_is_less_than_their_total,
}

async fn filled(dynamodb: &DynamoDb, items: usize, bytes: usize) -> Result<Table, Failure> {
    let table = dynamodb.table().await?;
    for nth in 0..items {
        let number = nth.to_string();
        let attributes = [("x", n(&number)), ("data", s(&"x".repeat(bytes)))];
        table.put(item(&number, attributes)).await?;
    }
    Ok(table)
}

/// The ids of all pages, and the sizes of the pages.
async fn pages(scan: ScanFluentBuilder) -> Result<(Vec<String>, Vec<usize>), Failure> {
    let (mut ids, mut sizes) = (Vec::new(), Vec::new());
    let mut start = None;
    loop {
        let page = scan.clone().set_exclusive_start_key(start).send().await?;
        sizes.push(page.items().len());
        for item in page.items() {
            ids.extend(item.get("id").and_then(|id| id.as_s().ok()).cloned());
        }
        start = page.last_evaluated_key;
        if start.is_none() {
            return Ok((ids, sizes));
        }
    }
}

fn distinct(ids: &[String]) -> usize {
    ids.iter().collect::<BTreeSet<_>>().len()
}

async fn a_scan_goes_on_page_by_page(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb, 7, 1).await?;
    let scan = dynamodb.scan().table_name(&table.name).limit(3);
    let (ids, sizes) = pages(scan).await?;
    same("items", (ids.len(), distinct(&ids)), (7, 7))?;
    same("pages", &sizes[..3], [3, 3, 1])
}

async fn a_page_has_a_mebibyte_at_most(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb, 5, 300_000).await?;
    let (ids, sizes) = pages(dynamodb.scan().table_name(&table.name)).await?;
    same("items", (ids.len(), distinct(&ids)), (5, 5))?;
    holds("there are pages", sizes.len() > 1)?;
    holds("a page has a mebibyte at most", sizes.iter().all(|size| *size <= 4))
}

async fn segments_have_every_item_once(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb, 30, 1).await?;
    let mut all = Vec::new();
    for segment in 0..4 {
        let scan = dynamodb.scan().table_name(&table.name);
        let (ids, _) = pages(scan.segment(segment).total_segments(4)).await?;
        holds("a segment has not all of them", ids.len() < 30)?;
        all.extend(ids);
    }
    same("items", (all.len(), distinct(&all)), (30, 30))
}

async fn a_limit_counts_before_the_filter(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb, 6, 1).await?;
    let scan = dynamodb.scan().table_name(&table.name).limit(4);
    let scan = scan.filter_expression("x < :x");
    let scan = scan.expression_attribute_values(":x", n("3")).send().await?;
    same("scanned", scan.scanned_count, 4)?;
    some("next key", scan.last_evaluated_key)?;
    holds("fewer are shown", scan.count < 4)
}

async fn a_scan_may_only_count(dynamodb: DynamoDb) -> Verdict {
    let table = filled(&dynamodb, 3, 1).await?;
    let scan = dynamodb.scan().table_name(&table.name);
    let scan = scan.select(aws_sdk_dynamodb::types::Select::Count).send().await?;
    same("count", (scan.count, scan.items.unwrap_or_default().len()), (3, 0))
}

async fn a_segment_is_less_than_their_total(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let scan = dynamodb.scan().table_name(&table.name);
    let scan = scan.segment(4).total_segments(4).send().await;
    refused("segment", scan, "ValidationException")
}
