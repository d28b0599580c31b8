//! The golden writes of the Java library beside ours, on many states of an item. Where ours is done, Java's is done, and
//! both leave the same item. Where only Java's is done, ours asks for the owner, too, and Java's only for the
//! counter.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeAction, AttributeValue, AttributeValueUpdate, ExpectedAttributeValue,
};
use kcl::Checkpoint;
use kcl::internals::{
    Item, Lease, LeaseStore, LeaseWrite, Outcome, OwnerReport, ShardFacts, TableItem,
    attribute as name, decode, encode, open_lease_table, text,
};
use kinesis_aggregation::HashKeyRange;
use kinesis_testkit::LocalAws;
use serde_json::Value;

use super::golden::{attribute_value, item, requests};
use super::{Subject, assign, at, checkpoint, start_handoff};

const JAVA: &str = "java";
const ME: &str = "w1";

/// Sets have no order.
pub(super) fn sorted(mut item: Item) -> Item {
    for value in item.values_mut() {
        if let AttributeValue::Ss(set) = value {
            set.sort();
        }
    }
    item
}

/// One of our writes, with what its caller knows of the lease.
#[derive(Debug)]
struct Ours {
    known: Lease,
    write: LeaseWrite,
}

impl Ours {
    /// The write of a golden request. `None` if the request is not about a lease.
    fn of(operation: &str, body: &Value) -> Option<Self> {
        if operation == "PutItem" {
            return match decode(item(&body["Item"])) {
                Ok(TableItem::Lease(known)) => {
                    Some(Self { known: *known, write: LeaseWrite::Create })
                }
                _ => None,
            };
        }
        let key = body["Key"][name::KEY]["S"].as_str()?;
        if !key.starts_with("shardId-") {
            return None;
        }
        let mut known = Lease::new(key, Checkpoint::TrimHorizon);
        if operation == "DeleteItem" {
            return Some(Self { known, write: LeaseWrite::Delete });
        }
        let (updates, expected) = (body.get("AttributeUpdates")?, &body["Expected"]);
        let update = |attribute: &str| updates.get(attribute).map(|update| &update["Value"]);
        let texts = |value: Option<&Value>| Some(value?["S"].as_str()?.to_owned());
        let expects = |attribute: &str| texts(expected.get(attribute).map(|e| &e["Value"]));
        let number = |value: Option<&Value>| value.and_then(|v| v["N"].as_str()?.parse().ok());
        let counter = expected.get(name::COUNTER).map(|e| &e["Value"]);
        known.owner = expects(name::OWNER);
        known.checkpoint_owner = expects(name::CHECKPOINT_OWNER);
        known.counter = number(counter).unwrap_or_default();
        if let Some(children) = update(name::CHILDREN) {
            let AttributeValue::Ss(children) = attribute_value(children) else {
                panic!("{children}")
            };
            let write = LeaseWrite::SetFacts(ShardFacts::Children(children));
            return Some(Self { known, write });
        }
        if let Some(sequence) = texts(update(name::CHECKPOINT)) {
            known.owner = Some(ME.to_owned());
            let sub = number(update(name::CHECKPOINT_SUB)).unwrap();
            let to = match sequence.as_str() {
                "TRIM_HORIZON" => Checkpoint::TrimHorizon,
                "SHARD_END" => Checkpoint::ShardEnd,
                number => at(number, sub),
            };
            return Some(Self { known, write: checkpoint(ME, to) });
        }
        let starts_handoff = update(name::CHECKPOINT_OWNER).is_some_and(|owner| !owner.is_null());
        let write = match texts(update(name::OWNER)) {
            Some(to) if starts_handoff => start_handoff(&to),
            Some(to) => assign(&to, false),
            None => {
                let in_handoff = expected.get(name::CHECKPOINT_OWNER).is_none();
                (known.owner, known.checkpoint_owner) = if in_handoff {
                    (Some("w2".to_owned()), Some(ME.to_owned()))
                } else {
                    (Some(ME.to_owned()), None)
                };
                let throughput = update(name::THROUGHPUT).and_then(|v| v["N"].as_str());
                let throughput = throughput.map(|text| text.parse().unwrap());
                let report = OwnerReport { throughput, failing: None };
                LeaseWrite::Renew { owner: ME.to_owned(), report }
            }
        };
        Some(Self { known, write })
    }

    async fn run(&self, store: &dyn LeaseStore, state: Option<&Lease>) -> bool {
        let known = match (&self.write, state) {
            // Java's delete has no condition.
            (LeaseWrite::Delete, Some(state)) => state,
            _ => &self.known,
        };
        match store.write(known, self.write.clone()).await.unwrap() {
            Outcome::Applied(_) => true,
            // Our create does not overwrite, either. Our delete needs an item.
            Outcome::AppliedBefore(_) | Outcome::ConditionFailed(_) => false,
        }
    }

    /// Whether ours asks for the processing owner, for which Java relies on the counter.
    fn asks_for_owner(&self) -> bool {
        matches!(self.write, LeaseWrite::Renew { .. } | LeaseWrite::Checkpoint { .. })
    }

    /// The states to try it on.
    fn states(&self, body: &Value) -> Vec<Option<Lease>> {
        let expected = &body["Expected"][name::COUNTER]["Value"]["N"];
        let counter = expected.as_str().map_or(4, |text| text.parse().unwrap());
        let workers = [None, Some("w1".to_owned()), Some("w2".to_owned())];
        let mut states = vec![None];
        for owner in &workers {
            for checkpoint_owner in &workers {
                for counter in [counter - 1, counter, counter + 1] {
                    let mut lease = Lease::new(&self.known.key, Checkpoint::TrimHorizon);
                    lease.owner.clone_from(owner);
                    lease.checkpoint_owner.clone_from(checkpoint_owner);
                    lease.counter = counter;
                    lease.owner_switches = 1;
                    lease.hash_key_range = range(body);
                    states.push(Some(lease));
                }
            }
        }
        states
    }
}

/// The hash keys that Java writes with each checkpoint, which the lease has already.
fn range(body: &Value) -> Option<HashKeyRange> {
    let key = |name: &str| {
        let text = body["AttributeUpdates"][name]["Value"]["S"].as_str()?;
        text.parse().ok()
    };
    HashKeyRange::new(key(name::START)?, key(name::END)?).ok()
}

/// Sends the request of the Java library to a table of its own.
async fn java(client: &Client, operation: &str, body: &Value) -> bool {
    let expected = body["Expected"].as_object().into_iter().flatten();
    let expected = expected.map(|(attribute, json)| {
        let mut value = ExpectedAttributeValue::builder();
        if let Some(json) = json.get("Value") {
            value = value.value(attribute_value(json));
        }
        let value = value.set_exists(json["Exists"].as_bool()).build();
        (attribute.clone(), value)
    });
    let expected = Some(expected.collect());
    match operation {
        "PutItem" => {
            let put = client.put_item().table_name(JAVA).set_expected(expected);
            let put = put.set_item(Some(item(&body["Item"])));
            put.send().await.is_ok()
        }
        "DeleteItem" => {
            let delete = client.delete_item().table_name(JAVA);
            let key = Some(item(&body["Key"]));
            delete.set_key(key).send().await.is_ok()
        }
        _ => {
            let mut update = client.update_item().table_name(JAVA).set_expected(expected);
            update = update.set_key(Some(item(&body["Key"])));
            for (attribute, json) in body["AttributeUpdates"].as_object().unwrap() {
                let action = AttributeAction::from(json["Action"].as_str().unwrap());
                let value = json.get("Value").map(attribute_value);
                let change = AttributeValueUpdate::builder().action(action);
                let change = change.set_value(value).build();
                update = update.attribute_updates(attribute, change);
            }
            match update.send().await {
                Ok(_) => true,
                Err(error) => {
                    let error = error.into_service_error();
                    assert!(error.is_conditional_check_failed_exception(), "{error:?}");
                    false
                }
            }
        }
    }
}

async fn set(client: &Client, key: &str, state: Option<&Lease>) {
    let deleted = client.delete_item().table_name(JAVA).key(name::KEY, text(key));
    deleted.send().await.unwrap();
    if let Some(lease) = state {
        let put = client.put_item().table_name(JAVA);
        put.set_item(Some(encode(lease))).send().await.unwrap();
    }
}

async fn left(client: &Client, key: &str) -> Option<Item> {
    let get = client.get_item().table_name(JAVA).key(name::KEY, text(key));
    get.send().await.unwrap().item
}

pub(super) async fn every_golden_write_of_a_lease_does_what_ours_does(subject: &impl Subject) {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.dynamodb();
    // For the table alone.
    open_lease_table(&client, JAVA, 0).await.unwrap();
    let (mut replayed, mut both, mut neither, mut stricter) = (0, 0, 0, 0);
    for (operation, body) in requests() {
        let Some(ours) = Ours::of(&operation, &body) else {
            continue;
        };
        replayed += 1;
        for state in ours.states(&body) {
            let key = &ours.known.key;
            set(&client, key, state.as_ref()).await;
            let javas = java(&client, &operation, &body).await;
            match &state {
                Some(lease) => subject.put_item(key, encode(lease)).await,
                None => {
                    if let Some(lease) = subject.store().get(key).await.unwrap() {
                        subject.store().write(&lease, LeaseWrite::Delete).await.unwrap();
                    }
                }
            }
            let done = ours.run(subject.store(), state.as_ref()).await;
            let context = format!("{ours:?} on {state:?}");
            match (done, javas) {
                (true, false) => panic!("ours goes through where Java's does not: {context}"),
                (false, true) if ours.write == LeaseWrite::Delete => assert_eq!(state, None),
                (false, true) => {
                    let actual = state.as_ref().and_then(Lease::actual_owner);
                    let owner_is_me = actual == Some(ME);
                    let sees_handoff = state.as_ref().is_some_and(|state| match ours.write {
                        LeaseWrite::Renew { .. } => {
                            ours.known.is_handoff_pending() == state.is_handoff_pending()
                        }
                        _ => true,
                    });
                    let asked = ours.asks_for_owner() && !(owner_is_me && sees_handoff);
                    assert!(asked, "ours is refused: {context}");
                    stricter += 1;
                }
                (false, false) => neither += 1,
                (true, true) => {
                    let (ours, javas) = (subject.item(key).await, left(&client, key).await);
                    let ours = ours.map(|mut item| {
                        // Ours alone.
                        item.remove(name::STAMP);
                        sorted(item)
                    });
                    assert_eq!(ours, javas.map(sorted), "{context}");
                    both += 1;
                }
            }
        }
    }
    assert_eq!(replayed, 13, "the golden writes of leases");
    // Of 28 states each.
    assert!(both > 60 && neither > 150 && stricter > 10, "{both} {neither} {stricter}");
}
