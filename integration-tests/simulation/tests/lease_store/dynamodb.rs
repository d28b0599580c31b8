//! The lease table in DynamoDB, as the embedded AWS has it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use kcl::internals::{Item, LeaseStore, attribute, open_lease_table, text};
use kinesis_testkit::{Fault, FaultId, LocalAws, ManualClock, Service};

use super::{Subject, Trouble, conformance};

const TABLE: &str = "app";

struct OnDynamoDb {
    aws: LocalAws,
    clock: ManualClock,
    client: Client,
    store: Arc<dyn LeaseStore>,
    faults: Mutex<Vec<FaultId>>,
}

impl OnDynamoDb {
    async fn new() -> Self {
        let clock = ManualClock::default();
        let aws = LocalAws::builder().clock(clock.clone());
        let aws = aws.build().await.unwrap();
        let client = aws.dynamodb();
        let store = open_lease_table(&client, TABLE, 1).await.unwrap();
        Self { aws, clock, client, store, faults: Mutex::default() }
    }
}

impl Subject for OnDynamoDb {
    fn store(&self) -> &dyn LeaseStore {
        &*self.store
    }

    async fn put_item(&self, _: &str, item: Item) {
        let put = self.client.put_item().table_name(TABLE);
        put.set_item(Some(item)).send().await.unwrap();
    }

    async fn item(&self, key: &str) -> Option<Item> {
        let get = self.client.get_item().table_name(TABLE);
        let get = get.key(attribute::KEY, text(key)).consistent_read(true);
        get.send().await.unwrap().item
    }

    fn trouble(&self, trouble: Trouble, times: u64) {
        let write = |fault: Fault| fault.operation("UpdateItem").times(times);
        let fault = match trouble {
            Trouble::AnswersLost => write(Fault::response_lost()),
            Trouble::PutAnswersLost => {
                let lost = Fault::response_lost().operation("PutItem");
                lost.times(times)
            }
            Trouble::Throttled => write(Fault::throttle()),
            Trouble::Cut => write(Fault::cut_connection()),
            Trouble::OldItemHidden => Fault::no_old_item(),
            Trouble::IndexBehind(lag) => Fault::stale_index(lag).resource(TABLE),
        };
        let id = self.aws.faults().add(fault.service(Service::DynamoDb));
        self.faults.lock().unwrap().push(id);
    }

    fn heal(&self) -> u64 {
        let ids = std::mem::take(&mut *self.faults.lock().unwrap());
        let faults = self.aws.faults();
        let struck = ids.iter().map(|id| faults.count(*id)).sum();
        for id in ids {
            faults.remove(id);
        }
        struck
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

conformance!(OnDynamoDb::new().await);
