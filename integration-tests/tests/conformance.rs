//! The conformance suite, run on testkit.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is a failure")]

use std::process::Stdio;

use kinesis_testkit::{Fault, LocalAws};
use tokio::process::Command;

/// What the program prints, and whether it succeeded.
async fn run(arguments: &[&str]) -> (String, bool) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_conformance"));
    let program = program.args(arguments).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = program.output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    (printed, output.status.success())
}

/// Runs the cases, and checks that at least so many pass, and none fails.
async fn all_pass(services: &[&str], at_least: usize) {
    // Beside other tests a case has to share the processor.
    let (printed, success) = run(&[services, &["--limit", "300"]].concat()).await;
    assert!(success, "{printed}");
    let last = printed.lines().last().unwrap();
    let passed = last.strip_suffix(" passed, 0 failed").unwrap();
    assert!(passed.parse::<usize>().unwrap() >= at_least, "{last}");
}

#[tokio::test]
async fn testkit_passes_every_case() {
    let aws = LocalAws::start().await.unwrap();
    all_pass(&["--kinesis", aws.kinesis_url(), "--dynamodb", aws.dynamodb_url()], 200).await;
    assert_eq!(aws.calls_in_cbor("PutRecords"), 0);
    // It leaves nothing behind.
    let streams = aws.kinesis().list_streams().send().await.unwrap();
    assert!(streams.stream_names().is_empty(), "{streams:?}");
    let tables = aws.dynamodb().list_tables().send().await.unwrap();
    assert!(tables.table_names().is_empty(), "{tables:?}");
}

#[tokio::test]
async fn testkit_passes_every_case_in_cbor() {
    let aws = LocalAws::start().await.unwrap();
    all_pass(&["--kinesis", aws.kinesis_url(), "--wire", "cbor"], 100).await;
    for operation in ["PutRecord", "PutRecords", "GetRecords", "GetShardIterator", "ListShards"] {
        assert!(aws.calls_in_cbor(operation) > 0, "{operation}");
    }
}

#[tokio::test]
async fn a_difference_fails_unless_it_is_known_and_a_known_one_must_be_there() {
    let aws = LocalAws::start().await.unwrap();
    let kinesis = ["--kinesis", aws.kinesis_url(), "--only"];
    let fault = Fault::refuse("AccessDeniedException").operation("UpdateMaxRecordSize");
    aws.faults().add(fault);
    let (printed, success) = run(&[&kinesis[..], &["maximum_record_size"]].concat()).await;
    assert!(!success, "{printed}");
    assert!(printed.contains("\nFAILED "), "{printed}");
    assert!(printed.contains("AccessDeniedException"), "{printed}");
    assert!(printed.ends_with("\n0 passed, 2 failed\n"), "{printed}");
    assert!(printed.contains("cases of DynamoDB: no URL"), "{printed}");

    // It accepts 501 records: a difference that testkit does not have.
    let case = "put_limits::one_more_is_none";
    let known = [case, "--known", "kinesis-local-0.6.2"];
    let (printed, success) = run(&[&kinesis[..], &known].concat()).await;
    assert!(!success, "{printed}");
    assert!(printed.contains("is listed as a known difference"), "{printed}");
    assert!(printed.ends_with("\n0 passed, 1 failed\n"), "{printed}");

    let batches = Fault::internal_failure().operation("PutRecords");
    aws.faults().add(batches);
    let (printed, success) = run(&[&kinesis[..], &known].concat()).await;
    assert!(printed.contains("\nknown difference  put_limits::"), "{printed}");
    assert!(printed.ends_with("\n0 passed, 0 failed\n"), "{printed}");
    assert!(!success, "nothing passed");
}

#[tokio::test]
async fn a_case_that_hangs_is_cut_short() {
    let aws = LocalAws::start().await.unwrap();
    let hang = Fault::delay(std::time::Duration::from_secs(3600)).operation("ListShards");
    aws.faults().add(hang);
    let arguments = ["--kinesis", aws.kinesis_url(), "--limit", "1", "--only"];
    let case = "list_shards::a_token_that_cannot_be_is_refused";
    let (printed, success) = run(&[&arguments[..], &[case]].concat()).await;
    assert!(!success, "{printed}");
    assert!(printed.contains(": not done within 1s\n"), "{printed}");
}
