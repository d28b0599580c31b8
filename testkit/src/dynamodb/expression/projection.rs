//! Projections: the parts of an item that a read shows.

use std::collections::BTreeMap;

use super::super::refusal::Refusal;
use super::super::value::{AttributeValue, Item};
use super::parser::Parser;
use super::path::{Path, Step, check_distinct};
use super::placeholders::Placeholders;

/// The paths that are shown.
#[derive(Debug, Clone)]
pub(crate) struct Projection {
    paths: Vec<Path>,
    tree: Node,
}

/// What is shown of one value: all of it if nothing inside is named.
#[derive(Debug, Clone, Default)]
struct Node {
    names: BTreeMap<String, Self>,
    indices: BTreeMap<usize, Self>,
}

impl Projection {
    pub(crate) fn parse(text: &str, placeholders: &mut Placeholders) -> Result<Self, Refusal> {
        const KIND: &str = "ProjectionExpression";
        let mut parser = Parser::new(KIND, text, placeholders)?;
        let paths = parser.paths()?;
        parser.end()?;
        check_distinct(KIND, paths.iter())?;
        Ok(Self::of(paths))
    }

    pub(crate) fn of(paths: Vec<Path>) -> Self {
        let mut tree = Node::default();
        for path in &paths {
            let mut node = tree.names.entry(path.name.clone()).or_default();
            for step in &path.steps {
                node = match step {
                    Step::Name(name) => node.names.entry(name.clone()).or_default(),
                    Step::Index(index) => node.indices.entry(*index).or_default(),
                };
            }
        }
        Self { paths, tree }
    }

    /// The attributes it shows, in whole or in part.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(Path::attribute)
    }

    pub(crate) fn of_item(&self, item: &Item) -> Item {
        self.tree.of_map(item)
    }
}

impl Node {
    fn of_map(&self, members: &Item) -> Item {
        let shown = self.names.iter().filter_map(|(name, node)| {
            let value = node.of_value(members.get(name)?)?;
            Some((name.clone(), value))
        });
        shown.collect()
    }

    fn of_value(&self, value: &AttributeValue) -> Option<AttributeValue> {
        if self.names.is_empty() && self.indices.is_empty() {
            return Some(value.clone());
        }
        match value {
            AttributeValue::M(members) => {
                let shown = self.of_map(members);
                (!shown.is_empty()).then_some(AttributeValue::M(shown))
            }
            AttributeValue::L(members) => {
                let shown = self
                    .indices
                    .iter()
                    .filter_map(|(index, node)| node.of_value(members.get(*index)?));
                let shown: Vec<_> = shown.collect();
                (!shown.is_empty()).then_some(AttributeValue::L(shown))
            }
            _ => None,
        }
    }
}
