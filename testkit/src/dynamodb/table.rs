//! A table: its items, its indexes, and the one place where an item changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use super::schema::{IndexDefinition, Key, KeySchema, Place};
use super::value::{Item, MAX_ITEM_BYTES, item_size};
use crate::clock::Timestamp;

/// Items in their places. Those of an index are the whole ones of its table.
pub(super) type Entries = BTreeMap<Place, Arc<Item>>;

/// What a table is beside its items.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TableSettings {
    pub(super) on_demand: bool,
    /// When the table became on-demand, if it did later or at its creation.
    pub(super) on_demand_since: Option<Timestamp>,
    /// Read and write units.
    pub(super) throughput: (i64, i64),
    pub(super) deletion_protection: bool,
    pub(super) class: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
    /// The attribute of the time to live, while that is enabled.
    pub(super) time_to_live: Option<String>,
    /// Since when point-in-time recovery is on.
    pub(super) recovery_since: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) schema: KeySchema,
    pub(super) settings: TableSettings,
    /// In the order of their names.
    pub(super) indexes: BTreeMap<String, Index>,
    entries: Entries,
    bytes: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) definition: IndexDefinition,
    /// When it can be read.
    pub(super) active_from: Timestamp,
    entries: Entries,
}

/// A write of one item, once it has been carried out.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) old: Option<Arc<Item>>,
    pub(super) new: Option<Arc<Item>>,
}

impl Table {
    pub(super) fn new(
        name: String,
        id: String,
        created: Timestamp,
        schema: KeySchema,
        settings: TableSettings,
    ) -> Self {
        Self {
            name,
            id,
            created,
            schema,
            settings,
            indexes: BTreeMap::new(),
            entries: Entries::new(),
            bytes: 0,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Item>> {
        let place = Place { key: key.clone(), in_table: None };
        self.entries.get(&place)
    }

    /// Refuses an item that the table cannot hold.
    pub(super) fn check(&self, item: &Item, too_large: &str) -> Result<(), Refusal> {
        self.indexes.values().try_for_each(|index| index.definition.check(item))?;
        if item_size(item) > MAX_ITEM_BYTES {
            return Err(Refusal::validation(too_large));
        }
        Ok(())
    }

    /// Puts the new item in the place of the old one, or removes it: every write of an item ends
    /// here, and the indexes follow at once.
    pub(super) fn replace(&mut self, key: Key, new: Option<Arc<Item>>) -> Change {
        let place = Place { key, in_table: None };
        let old = match &new {
            Some(item) => self.entries.insert(place.clone(), Arc::clone(item)),
            None => self.entries.remove(&place),
        };
        for index in self.indexes.values_mut() {
            index.follow(&place.key, old.as_ref(), new.as_ref());
        }
        let size = |item: &Option<Arc<Item>>| item.as_deref().map_or(0, item_size);
        self.bytes = self.bytes + size(&new) - size(&old);
        Change { old, new }
    }

    /// Adds an index, filled with what the table holds.
    pub(super) fn add_index(&mut self, definition: IndexDefinition, active_from: Timestamp) {
        let mut index = Index { definition, active_from, entries: Entries::new() };
        for (place, item) in &self.entries {
            index.follow(&place.key, None, Some(item));
        }
        self.indexes.insert(index.definition.name.clone(), index);
    }

    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A table as it is kept in a file: what follows from the rest is left out.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    id: String,
    created: Timestamp,
    schema: KeySchema,
    settings: TableSettings,
    indexes: Vec<(IndexDefinition, Timestamp)>,
    items: Vec<Arc<Item>>,
}

impl From<Table> for Kept {
    fn from(table: Table) -> Self {
        let indexes = table.indexes.into_values();
        Self {
            name: table.name,
            id: table.id,
            created: table.created,
            schema: table.schema,
            settings: table.settings,
            indexes: indexes.map(|index| (index.definition, index.active_from)).collect(),
            items: table.entries.into_values().collect(),
        }
    }
}

impl From<Kept> for Table {
    fn from(kept: Kept) -> Self {
        let mut table = Self::new(kept.name, kept.id, kept.created, kept.schema, kept.settings);
        for item in kept.items {
            if let Some(key) = table.schema.find(&item) {
                table.replace(key, Some(item));
            }
        }
        for (definition, active_from) in kept.indexes {
            table.add_index(definition, active_from);
        }
        table
    }
}

impl Index {
    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    fn place(&self, key: &Key, item: &Item) -> Option<Place> {
        Some(Place { key: self.definition.schema.find(item)?, in_table: Some(key.clone()) })
    }

    fn follow(&mut self, key: &Key, old: Option<&Arc<Item>>, new: Option<&Arc<Item>>) {
        if let Some(place) = old.and_then(|old| self.place(key, old)) {
            self.entries.remove(&place);
        }
        if let Some(item) = new
            && let Some(place) = self.place(key, item)
        {
            self.entries.insert(place, Arc::clone(item));
        }
    }
}
