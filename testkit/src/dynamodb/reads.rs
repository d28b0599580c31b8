//! GetItem, Query and Scan.

use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::capacity::Capacity;
use super::expression::{Comparator, Condition, Operand, Placeholders, Projection};
use super::legacy;
use super::refusal::Refusal;
use super::request::Request;
use super::schema::{IndexKind, Key, KeySchema, KeyValue, Place};
use super::table::{Entries, Index, Table};
use super::value::{Item, Shown, item_from_json, item_size};
use crate::clock::Timestamp;

/// Most bytes that one page reads.
const PAGE_BYTES: usize = 1 << 20;
const MAX_SEGMENTS: i64 = 1_000_000;

/// A read is charged half if it need not be consistent.
pub(super) fn read_price(request: Request<'_>) -> Result<f64, Refusal> {
    let consistent = request.flag("ConsistentRead")?.unwrap_or(false);
    Ok(if consistent { 1.0 } else { 0.5 })
}

/// The projection of a request, by an expression or by names.
pub(super) fn projection(
    request: Request<'_>,
    placeholders: &mut Placeholders,
) -> Result<Option<Projection>, Refusal> {
    match request.text("ProjectionExpression")? {
        Some(text) => Projection::parse(text, placeholders).map(Some),
        None => legacy::projection(request),
    }
}

/// An item as a projection shows it.
pub(super) fn shown(projection: Option<&Projection>, item: &Arc<Item>) -> Shown {
    match projection {
        None => Shown::Whole(Arc::clone(item)),
        Some(projection) => Shown::Part(projection.of_item(item)),
    }
}

pub(super) fn get_item(table: &Table, request: Request<'_>) -> Result<Value, Refusal> {
    const EXPRESSIONS: [&str; 1] = ["ProjectionExpression"];
    legacy::check_one_kind(request, &["AttributesToGet"], &EXPRESSIONS)?;
    let key = table.schema.key_named(&item_from_json(request.required("Key")?)?)?;
    let mut placeholders = Placeholders::read(request, &EXPRESSIONS)?;
    let projection = projection(request, &mut placeholders)?;
    placeholders.check_used()?;
    let mut capacity = Capacity::asked(request)?;
    let item = table.get(&key);
    let bytes = item.map_or(0, |item| item_size(item));
    capacity.read(&table.name, None, bytes, read_price(request)?);
    let mut answer = json!({});
    if let Some(item) = item {
        answer["Item"] = json!(shown(projection.as_ref(), item));
    }
    if let Some(capacity) = capacity.of_one() {
        answer["ConsumedCapacity"] = capacity;
    }
    Ok(answer)
}

/// A page of a query or scan.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Page {
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<Shown>>,
    count: usize,
    scanned_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_evaluated_key: Option<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Value>,
}

/// What is read: a table or one of its indexes, and how.
struct Reader<'a> {
    table: &'a Table,
    index: Option<&'a Index>,
    filter: Option<Condition>,
    projection: Option<Projection>,
    counts_only: bool,
    /// Whether a local index is read for attributes that only its table holds.
    whole_items: bool,
    limit: usize,
    price: f64,
    capacity: Capacity,
}

impl<'a> Reader<'a> {
    fn new(
        now: Timestamp,
        table: &'a Table,
        request: Request<'_>,
        filter: &str,
        placeholders: &mut Placeholders,
    ) -> Result<Self, Refusal> {
        let index = match request.text("IndexName")? {
            None => None,
            Some(name) => Some(readable_index(now, table, name, request)?),
        };
        let projection = projection(request, placeholders)?;
        let filter = match request.text("FilterExpression")? {
            Some(text) => Some(Condition::parse("FilterExpression", text, placeholders)?),
            None => legacy::condition(request, filter)?,
        };
        let mut reader = Self {
            table,
            index,
            filter,
            projection,
            counts_only: false,
            whole_items: false,
            limit: request.positive("Limit")?.unwrap_or(usize::MAX),
            price: read_price(request)?,
            capacity: Capacity::asked(request)?,
        };
        reader.select(request)?;
        Ok(reader)
    }

    /// Applies `Select`.
    fn select(&mut self, request: Request<'_>) -> Result<(), Refusal> {
        let words = [
            "DEFAULT",
            "SPECIFIC_ATTRIBUTES",
            "COUNT",
            "ALL_ATTRIBUTES",
            "ALL_PROJECTED_ATTRIBUTES",
        ];
        let select = request.choice("Select", &words)?;
        let chosen = match select {
            "COUNT" => "only the Count",
            other => other,
        };
        match (select, &self.projection) {
            ("SPECIFIC_ATTRIBUTES", None) => {
                return Err(Refusal::validation(
                    "Must specify the AttributesToGet or ProjectionExpression when choosing to get \
                     SPECIFIC_ATTRIBUTES",
                ));
            }
            ("DEFAULT" | "SPECIFIC_ATTRIBUTES", _) | (_, None) => {}
            (_, Some(_)) => {
                let member = match request.has("ProjectionExpression") {
                    true => "ProjectionExpression",
                    false => "AttributesToGet",
                };
                return Err(Refusal::validation(format!(
                    "Cannot specify the {member} when choosing to get {chosen}"
                )));
            }
        }
        self.counts_only = select == "COUNT";
        let Some(index) = self.index else {
            if select == "ALL_PROJECTED_ATTRIBUTES" {
                return Err(Refusal::invalid(
                    "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName",
                ));
            }
            return Ok(());
        };
        let definition = &index.definition;
        let held = |name: &&str| definition.holds(&self.table.schema, name);
        let projected = self.projection.iter().flat_map(Projection::attributes);
        let missing = projected.filter(|name| !held(name)).collect::<Vec<_>>();
        let all = definition.projection == super::schema::IndexProjection::All;
        match definition.kind {
            IndexKind::Local => {
                self.whole_items = select == "ALL_ATTRIBUTES" || !missing.is_empty();
            }
            IndexKind::Global if select == "ALL_ATTRIBUTES" && !all => {
                return Err(Refusal::invalid(format_args!(
                    "Select type ALL_ATTRIBUTES is not supported for global secondary index {} \
                     because its projection type is not ALL",
                    definition.name
                )));
            }
            IndexKind::Global if !missing.is_empty() => {
                return Err(Refusal::invalid(format_args!(
                    "Global secondary index {} does not project [{}]",
                    definition.name,
                    missing.join(", ")
                )));
            }
            IndexKind::Global => {}
        }
        Ok(())
    }

    fn schema(&self) -> &'a KeySchema {
        self.index.map_or(&self.table.schema, |index| &index.definition.schema)
    }

    fn entries(&self) -> &'a Entries {
        self.index.map_or(self.table.entries(), Index::entries)
    }

    /// Where a page goes on, if the request says it.
    fn start(&self, request: Request<'_>) -> Result<Option<Place>, Refusal> {
        let Some(json) = request.get("ExclusiveStartKey") else {
            return Ok(None);
        };
        let invalid = || Refusal::validation("The provided starting key is invalid");
        let given = item_from_json(json).map_err(|_| invalid())?;
        let (schema, own) = (&self.table.schema, self.schema());
        let mut all = schema.attributes().chain(own.attributes());
        let fits = all.all(|attribute| {
            let value = given.get(&attribute.name);
            value.is_some_and(|value| value.type_name() == attribute.kind)
        });
        let known = given.keys().all(|name| schema.has(name) || own.has(name));
        if !fits || !known {
            return Err(invalid());
        }
        let key = own.find(&given).ok_or_else(invalid)?;
        let in_table = match self.index {
            None => None,
            Some(_) => Some(schema.find(&given).ok_or_else(invalid)?),
        };
        Ok(Some(Place { key, in_table }))
    }

    /// The key of an item as `ExclusiveStartKey` takes it.
    fn last_key(&self, item: &Item) -> Item {
        let schemas = self.table.schema.attributes().chain(self.schema().attributes());
        let members = schemas.filter_map(|attribute| {
            let value = item.get(&attribute.name)?;
            Some((attribute.name.clone(), value.clone()))
        });
        members.collect()
    }

    /// Reads a page of these entries.
    fn page(mut self, entries: impl Iterator<Item = (&'a Place, &'a Arc<Item>)>) -> Page {
        let (mut items, mut scanned, mut count, mut bytes) = (Vec::new(), 0, 0, 0);
        let (mut last, mut more) = (None, false);
        for (_, item) in entries {
            let held = match self.index {
                Some(index) if !self.whole_items => {
                    index.definition.projected(&self.table.schema, item)
                }
                _ => Arc::clone(item),
            };
            let size = item_size(&held);
            if scanned > 0 && bytes + size > PAGE_BYTES {
                more = true;
                break;
            }
            bytes += size;
            scanned += 1;
            last = Some(item);
            if self.filter.as_ref().is_none_or(|filter| filter.holds(&held)) {
                count += 1;
                if !self.counts_only {
                    items.push(shown(self.projection.as_ref(), &held));
                }
            }
            if scanned == self.limit {
                more = true;
                break;
            }
        }
        let index = self.index.map(|index| &index.definition);
        let index = index.map(|index| (index.name.as_str(), index.kind));
        self.capacity.read(&self.table.name, index, bytes, self.price);
        Page {
            items: (!self.counts_only).then_some(items),
            count,
            scanned_count: scanned,
            last_evaluated_key: last.filter(|_| more).map(|item| self.last_key(item)),
            consumed_capacity: self.capacity.of_one(),
        }
    }
}

fn readable_index<'a>(
    now: Timestamp,
    table: &'a Table,
    name: &str,
    request: Request<'_>,
) -> Result<&'a Index, Refusal> {
    let index = table.indexes.get(name).ok_or_else(|| {
        Refusal::validation(format!("The table does not have the specified index: {name}"))
    })?;
    let global = index.definition.kind == IndexKind::Global;
    if global && request.flag("ConsistentRead")? == Some(true) {
        return Err(Refusal::validation(
            "Consistent reads are not supported on global secondary indexes",
        ));
    }
    if now < index.active_from {
        return Err(Refusal::validation(format!(
            "Cannot read from backfilling global secondary index: {name}"
        )));
    }
    Ok(index)
}

pub(super) fn scan(now: Timestamp, table: &Table, request: Request<'_>) -> Result<Page, Refusal> {
    const EXPRESSIONS: [&str; 2] = ["FilterExpression", "ProjectionExpression"];
    let legacy = ["AttributesToGet", "ScanFilter", "ConditionalOperator"];
    legacy::check_one_kind(request, &legacy, &EXPRESSIONS)?;
    let segment = segment(request)?;
    let mut placeholders = Placeholders::read(request, &EXPRESSIONS)?;
    let reader = Reader::new(now, table, request, "ScanFilter", &mut placeholders)?;
    placeholders.check_used()?;
    let start = reader.start(request)?;
    if let (Some(start), Some((segment, total))) = (&start, segment)
        && start.key.segment(total) != segment
    {
        return Err(Refusal::validation(format!(
            "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use \
             ExclusiveStartKey with correct Segment. TotalSegments: {total} Segment: {segment}"
        )));
    }
    let entries = after(reader.entries(), start, Bound::Unbounded);
    let entries = entries.filter(move |(place, _)| {
        segment.is_none_or(|(segment, total)| place.key.segment(total) == segment)
    });
    Ok(reader.page(entries))
}

/// The entries after the place where the page before ended; without one, from `first` on.
fn after<'a>(
    entries: &'a Entries,
    start: Option<Place>,
    first: Bound<Place>,
) -> impl Iterator<Item = (&'a Place, &'a Arc<Item>)> + use<'a> {
    entries.range((start.map_or(first, Bound::Excluded), Bound::Unbounded))
}

/// The segment of a scan, and how many there are.
fn segment(request: Request<'_>) -> Result<Option<(u64, u64)>, Refusal> {
    let (segment, total) = (request.integer("Segment")?, request.integer("TotalSegments")?);
    let (segment, total) = match (segment, total) {
        (None, None) => return Ok(None),
        (Some(_), None) => {
            return Err(Refusal::validation(
                "The TotalSegments parameter is required but was not present in the request when \
                 Segment parameter is present",
            ));
        }
        (None, Some(_)) => {
            return Err(Refusal::validation(
                "The Segment parameter is required but was not present in the request when \
                 parameter TotalSegments is present",
            ));
        }
        (Some(segment), Some(total)) => (segment, total),
    };
    if !(1..=MAX_SEGMENTS).contains(&total) {
        return Err(Refusal::constraint(
            &format!("'{total}'"),
            "totalSegments",
            "Member must have value less than or equal to 1000000 and greater than or equal to 1",
        ));
    }
    if segment < 0 {
        return Err(Refusal::constraint(
            &format!("'{segment}'"),
            "segment",
            "Member must have value greater than or equal to 0",
        ));
    }
    if segment >= total {
        return Err(Refusal::validation(format!(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: \
             Segment: {segment} is not less than TotalSegments: {total}"
        )));
    }
    Ok(Some((segment.unsigned_abs(), total.unsigned_abs())))
}

pub(super) fn query(now: Timestamp, table: &Table, request: Request<'_>) -> Result<Page, Refusal> {
    const EXPRESSIONS: [&str; 3] =
        ["KeyConditionExpression", "FilterExpression", "ProjectionExpression"];
    let legacy = ["KeyConditions", "QueryFilter", "AttributesToGet", "ConditionalOperator"];
    legacy::check_one_kind(request, &legacy, &EXPRESSIONS)?;
    let mut placeholders = Placeholders::read(request, &EXPRESSIONS)?;
    let reader = Reader::new(now, table, request, "QueryFilter", &mut placeholders)?;
    let condition = match request.text("KeyConditionExpression")? {
        Some(text) => Some(Condition::parse("KeyConditionExpression", text, &mut placeholders)?),
        None => legacy::key_condition(request)?,
    };
    placeholders.check_used()?;
    let condition = condition.ok_or_else(|| {
        Refusal::validation(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in the \
             request.",
        )
    })?;
    let schema = reader.schema();
    if let Some(filter) = &reader.filter {
        check_filter(schema, filter, request.has("QueryFilter"))?;
    }
    let (partition, sort) = key_conditions(schema, condition)?;
    let first = Place { key: Key::new(partition, None), in_table: None };
    let start = reader.start(request)?;
    if let Some(start) = &start
        && !start.key.is_beside(&first.key)
    {
        return Err(Refusal::validation(
            "The provided starting key is outside query boundaries based on provided conditions",
        ));
    }
    let entries = reader.entries();
    let within = |place: &Place| place.key.is_beside(&first.key);
    let matches = |item: &Item| sort.as_ref().is_none_or(|sort| sort.holds(item));
    if request.flag("ScanIndexForward")?.unwrap_or(true) {
        let entries = after(entries, start, Bound::Included(first.clone()));
        let entries = entries.take_while(|(place, _)| within(place));
        let entries = entries.filter(|(_, item)| matches(item));
        return Ok(reader.page(entries));
    }
    let entries = after(entries, None, Bound::Included(first.clone()));
    let entries = entries.take_while(|(place, _)| within(place));
    let mut entries: Vec<_> = entries
        .take_while(|(place, _)| start.as_ref().is_none_or(|start| *place < start))
        .filter(|(_, item)| matches(item))
        .collect();
    entries.reverse();
    Ok(reader.page(entries.into_iter()))
}

/// A filter sees what the key conditions leave; it cannot speak of the key.
fn check_filter(schema: &KeySchema, filter: &Condition, legacy: bool) -> Result<(), Refusal> {
    let paths = filter.paths();
    match paths.iter().find(|path| schema.has(path.attribute())) {
        None => Ok(()),
        Some(path) => Err(Refusal::validation(format!(
            "{} can only contain non-primary key attributes: Primary key attribute: {}",
            if legacy { "QueryFilter" } else { "Filter Expression" },
            path.attribute()
        ))),
    }
}

/// The partition that a query reads, and its condition on the sort key.
fn key_conditions(
    schema: &KeySchema,
    condition: Condition,
) -> Result<(KeyValue, Option<Condition>), Refusal> {
    let unsupported = || Refusal::validation("Query key condition not supported");
    let missing = |name: &str| {
        Refusal::validation(format!("Query condition missed key schema element: {name}"))
    };
    let mut parts = Vec::new();
    flatten(condition, &mut parts);
    let (mut partition, mut sort) = (None, None);
    let mut others = false;
    for part in parts {
        let (name, part) = on_attribute(part).ok_or_else(unsupported)?;
        let (attribute, slot) = match &schema.sort {
            _ if schema.partition.name == name => (&schema.partition, &mut partition),
            Some(attribute) if attribute.name == name => (attribute, &mut sort),
            _ => {
                others = true;
                continue;
            }
        };
        let fits = values_of(&part).all(|value| value.type_name() == attribute.kind);
        if !fits {
            return Err(Refusal::invalid("Condition parameter type does not match schema type"));
        }
        if slot.replace(part).is_some() {
            return Err(Refusal::validation(
                "KeyConditionExpressions must only contain one condition per key",
            ));
        }
    }
    let partition = match partition {
        Some(Condition::Compare(_, Comparator::Equal, Operand::Value(value))) => {
            KeyValue::of(&value)
        }
        Some(_) => return Err(unsupported()),
        None => return Err(missing(&schema.partition.name)),
    };
    if others {
        // The other condition is on no attribute of the key.
        return Err(match &schema.sort {
            Some(attribute) if sort.is_none() => missing(&attribute.name),
            _ => unsupported(),
        });
    }
    Ok((partition.ok_or_else(unsupported)?, sort))
}

fn flatten(condition: Condition, parts: &mut Vec<Condition>) {
    match condition {
        Condition::And(left, right) => {
            flatten(*left, parts);
            flatten(*right, parts);
        }
        other => parts.push(other),
    }
}

/// A condition of a kind that a key can have, with the attribute on its left, and its name.
fn on_attribute(condition: Condition) -> Option<(String, Condition)> {
    let condition = match condition {
        Condition::Compare(value @ Operand::Value(_), comparator, path @ Operand::Path(_)) => {
            Condition::Compare(path, comparator.reversed(), value)
        }
        other => other,
    };
    let path = match &condition {
        Condition::Compare(_, Comparator::NotEqual, _) => return None,
        Condition::Compare(Operand::Path(path), _, Operand::Value(_))
        | Condition::Between(Operand::Path(path), Operand::Value(_), Operand::Value(_))
        | Condition::BeginsWith(Operand::Path(path), Operand::Value(_)) => path,
        _ => return None,
    };
    path.is_whole_attribute().then(|| (path.attribute().to_owned(), condition.clone()))
}

fn values_of(condition: &Condition) -> impl Iterator<Item = &super::value::AttributeValue> {
    let operands = match condition {
        Condition::Compare(_, _, value) | Condition::BeginsWith(_, value) => vec![value],
        Condition::Between(_, low, high) => vec![low, high],
        _ => Vec::new(),
    };
    operands.into_iter().filter_map(|operand| match operand {
        Operand::Value(value) => Some(value),
        _ => None,
    })
}
