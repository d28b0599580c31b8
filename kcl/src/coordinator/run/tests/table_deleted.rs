//! A lease table that is deleted while a worker starts.

use tokio::runtime::Handle;

use super::*;
use crate::clock::TokioClock;
use crate::config::OnRecreatedStream;

const SHARDS: usize = 3;

/// What becomes of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Delete,
    /// Another worker, which has not come further, creates it again.
    DeleteAndCreate,
}

/// A worker's start in the time of the test's runtime, which is paused.
struct Start {
    aws: LocalAws,
    dynamodb: aws_sdk_dynamodb::Client,
    clock: Arc<dyn Clock>,
}

impl Start {
    async fn new() -> Self {
        let clock = TokioClock::new();
        let services = kinesis_testkit::TokioClock::starting_at(clock.wall());
        let aws = LocalAws::builder().clock(services).build().await.unwrap();
        aws.create_stream(STREAM, u32::try_from(SHARDS).unwrap()).await.unwrap();
        Self {
            dynamodb: aws_sdk_dynamodb::Client::new(&aws.in_process_config()),
            clock: Arc::new(clock),
            aws,
        }
    }

    async fn run(&self) -> Result<Coordinator, StartError> {
        self.run_on(STREAM).await
    }

    async fn run_on(&self, stream: &str) -> Result<Coordinator, StartError> {
        let config = config().with_on_recreated_stream(OnRecreatedStream::StartOver);
        let mut parts = parts(&self.aws, "w1", config);
        parts.stream = stream.parse().unwrap();
        parts.kinesis = aws_sdk_kinesis::Client::new(&self.aws.in_process_config());
        parts.dynamodb = Some(self.dynamodb.clone());
        parts.clock = Arc::clone(&self.clock);
        parts.problems = Arc::new(ProblemLog::new(Arc::clone(&self.clock)));
        parts.runtime = Some(Handle::current());
        Coordinator::prepare(parts).await
    }

    /// Starts while the table is replaced, at the call of this number of those that the fault is
    /// for: by leases of another fleet that `create` makes. `None`: the start makes fewer calls.
    async fn replaced(
        &self,
        stream: &str,
        (fault, call): (Fault, u64),
        create: impl Future<Output = ()>,
    ) -> Option<Result<Coordinator, StartError>> {
        let fault = self.aws.faults().add(fault.skip(call).times(1));
        let replace = async {
            while self.aws.faults().count(fault) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // At the first calls, there may be no table yet.
            let _ = self.dynamodb.delete_table().table_name(APP).send().await;
            create.await;
        };
        let mut start = Box::pin(self.run_on(stream));
        tokio::select! {
            _ = &mut start => None,
            () = replace => Some(start.await),
        }
    }

    async fn leases(&self) -> Vec<Lease> {
        let (client, table) = (self.dynamodb.clone(), APP.to_owned());
        let store = DynamoDbLeaseStore::new(client, table, Layout::OneTable, 1);
        store.list(true).await.unwrap().leases
    }

    /// Starts, with the table as `deed` leaves it at the DynamoDB call of this number; false if the
    /// start makes fewer calls.
    async fn disturbed(&self, call: u64, deed: Deed) -> bool {
        let delay = Fault::delay(Duration::from_millis(200)).service(Service::DynamoDb);
        let delay = self.aws.faults().add(delay.skip(call).times(1));
        let disturb = async {
            while self.aws.faults().count(delay) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let delete = self.dynamodb.delete_table().table_name(APP).send().await;
            if deed == Deed::DeleteAndCreate {
                ensure_table(&self.dynamodb, APP, &TableConfig::default()).await.unwrap();
            }
            delete.is_ok()
        };
        tokio::pin!(disturb);
        let mut start = Box::pin(self.run());
        let (started, disturbed) = tokio::select! {
            started = &mut start => (started, false),
            deleted = &mut disturb => (start.await, deleted),
        };
        self.aws.faults().clear();
        if let Err(error) = started {
            panic!("{deed:?} at call {call}: {error}");
        }
        let items = self.dynamodb.scan().table_name(APP).send().await.unwrap();
        let has = |attribute: &str| {
            let items = items.items().iter();
            items.filter(|item| item.contains_key(attribute)).count()
        };
        assert_eq!((has("cv"), has("checkpoint")), (1, SHARDS), "{deed:?} at call {call}");
        disturbed
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_survives_that_its_table_is_deleted_at_any_of_its_steps() {
    for deed in [Deed::Delete, Deed::DeleteAndCreate] {
        for exists in [true, false] {
            let mut disturbed = 0;
            for call in 0.. {
                let start = Start::new().await;
                if exists {
                    drop(start.run().await.unwrap());
                }
                let calls = start.aws.faults().injected().len();
                disturbed += u32::from(Box::pin(start.disturbed(call, deed)).await);
                if start.aws.faults().injected().len() == calls {
                    break;
                }
            }
            // Some calls find no table to delete.
            assert!(disturbed >= 5, "{deed:?}, {exists}: {disturbed}");
        }
    }
}

/// Longer than another worker needs to start.
fn pause() -> Fault {
    Fault::delay(Duration::from_secs(20)).service(Service::DynamoDb)
}

#[tokio::test(start_paused = true)]
async fn leases_that_another_application_creates_in_the_table_meanwhile_are_left_alone() {
    // The stream of the other application is the older one, or the younger one.
    for (ours, others) in [("payments", STREAM), (STREAM, "payments")] {
        let mut refused = 0;
        for call in 0.. {
            let start = Start::new().await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            start.aws.create_stream("payments", 3).await.unwrap();
            let create = async {
                start.run_on(others).await.unwrap();
            };
            let replaced = start.replaced(ours, (pause(), call), create);
            let Some(started) = Box::pin(replaced).await else {
                break;
            };
            if let Err(error) = started {
                let is_named = matches!(error, StartError::TableOfAnotherStream { .. });
                assert!(is_named, "{ours} at call {call}: {error}");
                refused += 1;
            }
            let leases = start.leases().await;
            let is_others = |lease: &&Lease| {
                let stream = lease.stream.as_ref();
                stream.is_some_and(|stream| stream.arn.ends_with(others))
            };
            let left = leases.iter().filter(is_others).count();
            assert_eq!((left, leases.len()), (3, 3), "{ours} at call {call}");
        }
        assert!(refused >= 4, "{ours}: {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_state_is_written_beside_leases_that_a_fleet_of_2x_creates_meanwhile() {
    let mut refused = 0;
    for scan in 0.. {
        let start = Start::new().await;
        let create = async {
            ensure_table(&start.dynamodb, APP, &TableConfig::default()).await.unwrap();
            let (client, table) = (start.dynamodb.clone(), APP.to_owned());
            let store = DynamoDbLeaseStore::new(client, table, Layout::OneTable, 1);
            for shard in 0..SHARDS {
                let mut lease = Lease::new(format!("shardId-{shard:012}"), Checkpoint::TrimHorizon);
                lease.has_entity_type = false;
                store.write(&lease, LeaseWrite::Create).await.unwrap();
            }
        };
        let replaced =
            Box::pin(start.replaced(STREAM, (pause().operation("Scan"), scan), create)).await;
        let Some(started) = replaced else { break };
        let error = started.map(drop).unwrap_err();
        let is_named = matches!(error, StartError::UnsupportedFleet { .. });
        assert!(is_named, "at scan {scan}: {error}");
        let items = start.dynamodb.scan().table_name(APP).send().await.unwrap();
        let state = items.items().iter().find(|item| item.contains_key("cv"));
        assert!(state.is_none(), "at scan {scan}: {state:?}");
        refused += 1;
    }
    assert!(refused >= 2, "{refused}");
}
