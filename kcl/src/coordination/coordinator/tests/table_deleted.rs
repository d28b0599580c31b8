//! A lease table that is deleted while a worker starts.

use tokio::runtime::Handle;

use super::*;
use crate::clock::TokioClock;

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
        let noon = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let services = kinesis_testkit::TokioClock::starting_at(noon);
        let aws = LocalAws::builder().clock(services).build().await.unwrap();
        aws.create_stream(STREAM, u32::try_from(SHARDS).unwrap())
            .await
            .unwrap();
        Self {
            dynamodb: aws_sdk_dynamodb::Client::new(&aws.in_process_config()),
            clock: Arc::new(TokioClock::starting_at(noon)),
            aws,
        }
    }

    async fn run(&self) -> Result<Coordinator, StartError> {
        let mut parts = parts(&self.aws, "w1", config());
        parts.kinesis = aws_sdk_kinesis::Client::new(&self.aws.in_process_config());
        parts.dynamodb = self.dynamodb.clone();
        parts.clock = Arc::clone(&self.clock);
        parts.problems = Arc::new(ProblemLog::new(Arc::clone(&self.clock)));
        parts.runtime = Some(Handle::current());
        Coordinator::prepare(parts).await
    }

    /// Starts, with the table as `deed` leaves it at the DynamoDB call of this number; false if the start
    /// makes fewer calls.
    async fn disturbed(&self, call: u64, deed: Deed) -> bool {
        let delay = Fault::delay(Duration::from_millis(200)).service(Service::DynamoDb);
        let delay = self.aws.faults().add(delay.skip(call).times(1));
        let disturb = async {
            while self.aws.faults().count(delay) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let delete = self.dynamodb.delete_table().table_name(APP).send().await;
            if deed == Deed::DeleteAndCreate {
                ensure_table(&self.dynamodb, APP, &TableConfig::default())
                    .await
                    .unwrap();
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
        let coordinator = match started {
            Ok(coordinator) => coordinator,
            Err(error) => panic!("{deed:?} at call {call}: {error}"),
        };
        if deed == Deed::DeleteAndCreate {
            // At the last calls of the start, its leases were there already: the next sync finds them gone.
            coordinator.shared.sync.run().await.unwrap();
        }
        let items = self.dynamodb.scan().table_name(APP).send().await.unwrap();
        let has = |attribute: &str| {
            let items = items.items().iter();
            items.filter(|item| item.contains_key(attribute)).count()
        };
        assert_eq!(
            (has("cv"), has("checkpoint")),
            (1, SHARDS),
            "{deed:?} at call {call}"
        );
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
