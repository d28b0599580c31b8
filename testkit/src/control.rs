//! Faults set, listed and cleared at run time, over HTTP beside the protocols of AWS.
//!
//! AWS's protocols post to `/`; these paths are testkit's own:
//!
//! | request | does |
//! |---|---|
//! | `GET /_testkit/faults` | lists the faults, with their ids and how often each has struck |
//! | `POST /_testkit/faults` | adds those of a script, all or none; answers their ids |
//! | `DELETE /_testkit/faults` | clears all |
//! | `DELETE /_testkit/faults/ID` | removes one |
//! | `GET /_testkit/faults/injected` | lists what struck, oldest first |

use hyper::Method;
use hyper::http::request::Parts;
use serde_json::{Value, json};

use crate::faults::{Faults, InjectedFault, Service, script_entry};

/// The status and the JSON of the answer to a request, if its path is one of these.
pub(crate) fn answer(faults: &Faults, head: &Parts, body: &[u8]) -> Option<(u16, Value)> {
    let path = head.uri.path().strip_prefix("/_testkit/")?;
    let refused = |status: u16, message: &str| (status, json!({ "message": message }));
    Some(match (&head.method, path) {
        (&Method::GET, "faults") => (200, list(faults)),
        (&Method::POST, "faults") => match std::str::from_utf8(body) {
            Err(_) => refused(400, "a script of faults is text in UTF-8"),
            Ok(script) => match faults.load(script) {
                Ok(ids) => {
                    let ids: Vec<_> = ids.iter().map(|id| id.number()).collect();
                    (200, json!({ "ids": ids }))
                }
                Err(error) => refused(400, &with_source(&error)),
            },
        },
        (&Method::DELETE, "faults") => {
            faults.clear();
            (200, json!({}))
        }
        (&Method::GET, "faults/injected") => {
            let injected = faults.injected();
            (200, injected.iter().map(struck).collect())
        }
        (&Method::DELETE, path) => {
            let id = path.strip_prefix("faults/").and_then(|id| id.parse().ok());
            match id.and_then(|id| faults.find(id)) {
                None => refused(404, "there is no fault with this id"),
                Some(id) => {
                    faults.remove(id);
                    (200, json!({}))
                }
            }
        }
        (_, "faults" | "faults/injected") => {
            refused(405, "GET lists faults, POST adds them, DELETE clears them")
        }
        _ => refused(404, "there are /_testkit/faults and /_testkit/faults/injected"),
    })
}

fn list(faults: &Faults) -> Value {
    let each = faults.list().into_iter().map(|(id, fault, struck)| {
        let mut entry = script_entry(&fault);
        entry["id"] = id.number().into();
        entry["struck"] = struck.into();
        entry
    });
    each.collect()
}

fn struck(injected: &InjectedFault) -> Value {
    let mut shown = json!({
        "id": injected.fault.number(),
        "service": service_name(injected.service),
        "operation": injected.operation,
    });
    for (member, value) in [("resource", &injected.resource), ("shard", &injected.shard)] {
        if let Some(value) = value {
            shown[member] = json!(value);
        }
    }
    if let Some(entry) = injected.entry {
        shown["entry"] = json!(entry);
    }
    shown
}

fn service_name(service: Service) -> &'static str {
    match service {
        Service::Kinesis => "kinesis",
        Service::DynamoDb => "dynamodb",
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {source}"),
    }
}
