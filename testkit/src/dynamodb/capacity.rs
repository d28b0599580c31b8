//! Capacity units, as a request is told that it consumed them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::refusal::Refusal;
use super::request::Request;
use super::schema::IndexKind;
use super::table::{Change, Table};
use super::value::{Item, item_size};

const WRITE_UNIT: usize = 1024;
const READ_UNIT: usize = 4096;

/// What a request wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    None,
    Total,
    Indexes,
}

/// The units of one request, by table.
#[derive(Debug)]
pub(super) struct Capacity {
    detail: Detail,
    tables: BTreeMap<String, Units>,
}

#[derive(Debug, Default)]
struct Units {
    table: f64,
    global: BTreeMap<String, f64>,
    local: BTreeMap<String, f64>,
}

impl Capacity {
    pub(super) fn asked(request: Request<'_>) -> Result<Self, Refusal> {
        let words = ["NONE", "INDEXES", "TOTAL"];
        let detail = match request.choice("ReturnConsumedCapacity", &words)? {
            "INDEXES" => Detail::Indexes,
            "TOTAL" => Detail::Total,
            _ => Detail::None,
        };
        Ok(Self { detail, tables: BTreeMap::new() })
    }

    /// Counts a write. A transaction pays twice.
    pub(super) fn write(&mut self, table: &Table, change: &Change, times: f64) {
        if self.detail == Detail::None {
            return;
        }
        let size = |item: &Option<Arc<Item>>| item.as_deref().map_or(0, item_size);
        let bytes = size(&change.old).max(size(&change.new));
        let units = self.tables.entry(table.name.clone()).or_default();
        units.table += write_units(bytes.max(1)) * times;
        for (name, index) in &table.indexes {
            let definition = &index.definition;
            let held = |item: &Option<Arc<Item>>| {
                let item = item.as_ref()?;
                let key = definition.schema.find(item)?;
                Some((key, definition.projected(&table.schema, item)))
            };
            let written = match (held(&change.old), held(&change.new)) {
                (None, None) => 0.0,
                (Some((_, item)), None) | (None, Some((_, item))) => write_units(item_size(&item)),
                // Nothing that the index shows has changed.
                (Some(old), Some(new)) if old == new => 0.0,
                (Some((old_key, old)), Some((new_key, new))) if old_key == new_key => {
                    write_units(item_size(&old).max(item_size(&new)))
                }
                // The entry moves: one is removed, and one is written.
                (Some((_, old)), Some((_, new))) => {
                    write_units(item_size(&old)) + write_units(item_size(&new))
                }
            };
            let units = match definition.kind {
                IndexKind::Global => &mut units.global,
                IndexKind::Local => &mut units.local,
            };
            if written > 0.0 {
                *units.entry(name.clone()).or_default() += written * times;
            }
        }
    }

    /// Counts a read of so many bytes, of a table or of one of its indexes.
    pub(super) fn read(
        &mut self,
        table: &str,
        index: Option<(&str, IndexKind)>,
        bytes: usize,
        times: f64,
    ) {
        let read = bytes.max(1).div_ceil(READ_UNIT) as f64 * times;
        let units = self.tables.entry(table.to_owned()).or_default();
        match index {
            None => units.table += read,
            Some((name, IndexKind::Global)) => {
                *units.global.entry(name.to_owned()).or_default() += read;
            }
            Some((name, IndexKind::Local)) => {
                *units.local.entry(name.to_owned()).or_default() += read;
            }
        }
    }

    /// The `ConsumedCapacity` of a request for one table, if it asked.
    pub(super) fn of_one(&self) -> Option<Value> {
        let (name, units) = self.tables.iter().next()?;
        self.shown(name, units)
    }

    /// The `ConsumedCapacity` of a request for several tables, if it asked.
    pub(super) fn of_each(&self) -> Option<Value> {
        let each = self.tables.iter().map(|(name, units)| self.shown(name, units));
        each.collect::<Option<Value>>().filter(|_| self.detail != Detail::None)
    }

    fn shown(&self, name: &str, units: &Units) -> Option<Value> {
        let sum = |units: &BTreeMap<String, f64>| units.values().sum::<f64>();
        let total = units.table + sum(&units.global) + sum(&units.local);
        let mut shown = json!({ "TableName": name, "CapacityUnits": total });
        match self.detail {
            Detail::None => return None,
            Detail::Total => {}
            Detail::Indexes => {
                shown["Table"] = json!({ "CapacityUnits": units.table });
                for (member, units) in [
                    ("GlobalSecondaryIndexes", &units.global),
                    ("LocalSecondaryIndexes", &units.local),
                ] {
                    let each = units.iter();
                    let each =
                        each.map(|(name, units)| (name.clone(), json!({ "CapacityUnits": units })));
                    let each: Map<_, _> = each.collect();
                    if !each.is_empty() {
                        shown[member] = Value::Object(each);
                    }
                }
            }
        }
        Some(shown)
    }
}

fn write_units(bytes: usize) -> f64 {
    bytes.div_ceil(WRITE_UNIT) as f64
}
