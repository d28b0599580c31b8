//! A case, and how cases are run: some at once, each within its time.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use aws_types::SdkConfig;
use futures::{StreamExt, stream};
use kinesis_common::protocol::Wire;

use crate::check::Failure;
use crate::dynamodb::DynamoDb;
use crate::kinesis::Kinesis;

/// What a case comes to.
pub(crate) type Verdict = Result<(), Failure>;

type Running = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One thing that a service does.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Its group and what it says, such as `put::five_hundred_records_are_a_batch`.
    pub(crate) name: &'static str,
    pub(crate) run: Run,
}

/// How a case is run, by the service it asks.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    Kinesis(fn(Kinesis) -> Running),
    DynamoDb(fn(DynamoDb) -> Running),
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Where the services are, as far as they are.
#[derive(Debug)]
pub(crate) struct Targets {
    /// The encoding of requests to Kinesis.
    pub(crate) wire: Wire,
    pub(crate) kinesis: Option<SdkConfig>,
    pub(crate) dynamodb: Option<SdkConfig>,
}

/// A case that has been run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) verdict: Verdict,
}

/// Defines `cases()`: the cases of a group, functions of this module that take a service.
macro_rules! cases {
    ($service:ident, $group:literal: $($case:ident),* $(,)?) => {
        pub(crate) fn cases() -> Vec<$crate::case::Case> {
            vec![$($crate::case::Case {
                name: concat!($group, "::", stringify!($case)),
                run: $crate::case::Run::$service(|service| Box::pin($case(service))),
            }),*]
        }
    };
}
pub(crate) use cases;

/// Runs cases, so many at once, and tells of each as it ends.
pub(crate) async fn run(
    cases: Vec<Case>,
    targets: &Targets,
    limit: Duration,
    jobs: usize,
    mut tell: impl FnMut(Outcome),
) {
    let running = cases.into_iter().enumerate().map(|(nth, case)| async move {
        let verdict = match case.run {
            Run::Kinesis(run) => match &targets.kinesis {
                Some(config) => {
                    let kinesis = Kinesis::new(config, targets.wire, nth);
                    let verdict = within(limit, run(kinesis.clone())).await;
                    kinesis.clean_up().await;
                    verdict
                }
                None => Err(Failure::new("there is no Kinesis to ask")),
            },
            Run::DynamoDb(run) => match &targets.dynamodb {
                Some(config) => {
                    let dynamodb = DynamoDb::new(config, nth);
                    let verdict = within(limit, run(dynamodb.clone())).await;
                    dynamodb.clean_up().await;
                    verdict
                }
                None => Err(Failure::new("there is no DynamoDB to ask")),
            },
        };
        Outcome { name: case.name, verdict }
    });
    let mut ended = stream::iter(running).buffer_unordered(jobs.max(1));
    while let Some(outcome) = ended.next().await {
        tell(outcome);
    }
}

/// The verdict of a case, on a task of its own: a panic is a failure like any other.
async fn within(limit: Duration, running: Running) -> Verdict {
    let mut task = tokio::spawn(running);
    match tokio::time::timeout(limit, &mut task).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(panic)) => Err(Failure::new(format!("the case panicked: {panic}"))),
        Err(_) => {
            task.abort();
            Err(Failure::new(format!("not done within {limit:?}")))
        }
    }
}
