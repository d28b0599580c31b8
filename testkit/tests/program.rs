//! The program `kinesis-testkit`, as a process of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is a failure")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// Far more than anything here takes: so that a failure does not hang.
const LONG: Duration = Duration::from_secs(120);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinesis-testkit"));
    command.args(arguments).kill_on_drop(true);
    command.stdout(Stdio::piped());
    command
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(LONG, what).await;
    done.expect("the program neither did it nor ended")
}

/// The program, ready.
struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready: String,
}

impl Program {
    async fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        soon(stdout.read_line(&mut ready)).await.unwrap();
        Self { child, stdout, ready }
    }

    /// The value after `name=` in the ready line.
    fn url(&self, name: &str) -> &str {
        let fields = self.ready.trim_end().split(' ').skip(1);
        let mut pairs = fields.map(|field| field.split_once('=').unwrap());
        pairs.find(|(key, _)| *key == name).unwrap().1
    }

    /// How it ends after a signal, and what it printed after the ready line.
    async fn signal(mut self, signal: Signal) -> (ExitStatus, String) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        let status = soon(self.child.wait()).await.unwrap();
        let mut rest = String::new();
        soon(self.stdout.read_to_string(&mut rest)).await.unwrap();
        (status, rest)
    }
}

/// A client of the SDK in the way of another program: it knows a URL, and perhaps a certificate.
fn config(url: &str, certificate: Option<&Path>) -> aws_types::SdkConfig {
    let credentials = Credentials::new("any", "any", None, None, "test");
    let mut config = aws_types::SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url);
    if let Some(file) = certificate {
        let trusted = TrustStore::empty().with_pem_certificate(std::fs::read(file).unwrap());
        let context = TlsContext::builder().with_trust_store(trusted).build();
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.unwrap());
        config = config.http_client(http.build_https());
    }
    config.build()
}

async fn stream_names(config: &aws_types::SdkConfig) -> Vec<String> {
    let listed = Client::new(config).list_streams().send().await;
    listed.unwrap().stream_names
}

#[tokio::test]
async fn says_that_it_is_ready_in_one_line_and_each_port_answers_both_services() {
    let program = Program::start(&["--stream", "orders:2", "--stream", "a.b-c_d:1"]).await;
    let (kinesis, dynamodb) = (program.url("kinesis"), program.url("dynamodb"));
    assert_eq!(program.ready, format!("ready kinesis={kinesis} dynamodb={dynamodb}\n"));
    assert_ne!(kinesis, dynamodb);
    for url in [kinesis, dynamodb] {
        let config = config(url, None);
        assert_eq!(stream_names(&config).await, ["a.b-c_d", "orders"]);
        let tables = aws_sdk_dynamodb::Client::new(&config).list_tables().send();
        assert!(tables.await.unwrap().table_names().is_empty());
    }
    let shards = Client::new(&config(kinesis, None)).list_shards();
    let shards = shards.stream_name("orders").send().await.unwrap();
    assert_eq!(shards.shards().len(), 2);

    let (status, rest) = program.signal(Signal::TERM).await;
    assert!(status.success(), "{status}");
    assert_eq!(rest, "");
}

#[tokio::test]
async fn stops_on_an_interrupt_with_a_connection_open() {
    let program = Program::start(&[]).await;
    let config = config(program.url("kinesis"), None);
    assert!(stream_names(&config).await.is_empty());
    let (status, rest) = program.signal(Signal::INT).await;
    assert!(status.success(), "{status}");
    assert_eq!(rest, "");
}

#[tokio::test]
async fn listens_on_the_ports_it_is_told_and_takes_them_again() {
    // Below the ports that the system gives to connections, and to a program that asks for any port.
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let mut free = (first..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let mut free = || free.next().unwrap().to_string();
    let (kinesis, dynamodb) = (free(), free());
    let arguments = ["--kinesis-port", &kinesis, "--dynamodb-port", &dynamodb];
    for _ in 0..2 {
        let program = Program::start(&arguments).await;
        assert_eq!(
            program.ready,
            format!(
                "ready kinesis=http://127.0.0.1:{kinesis} dynamodb=http://127.0.0.1:{dynamodb}\n"
            )
        );
        assert!(program.signal(Signal::TERM).await.0.success());
    }
}

async fn fails(arguments: &[&str]) -> String {
    let output = soon(command(arguments).stderr(Stdio::piped()).output()).await;
    let Output { status, stdout, stderr } = output.unwrap();
    assert!(!status.success(), "{arguments:?}");
    assert!(stdout.is_empty(), "{arguments:?}: {stdout:?}");
    String::from_utf8(stderr).unwrap()
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for argument in ["--kinesis-port", "--dynamodb-port"] {
        let said = fails(&[argument, &port]).await;
        assert!(said.contains(&format!("port {port} of 127.0.0.1 is in use")), "{said}");
    }
    let said = fails(&["--tls", "--tls-port", &port]).await;
    assert!(said.contains("is in use"), "{said}");
}

#[tokio::test]
async fn a_wrong_argument_is_an_error_that_says_so() {
    for (arguments, expected) in [
        (&["--stream", "orders"][..], "NAME:SHARDS"),
        (&["--stream", "orders:many"], "is not a number"),
        (&["--stream", "orders:0"], "--stream orders:0 was refused with"),
        (&["--tls-port", "1"], "--tls"),
        (&["--tls", "--cert-out", "/nowhere/at/all"], "could not write /nowhere/at/all"),
    ] {
        let said = fails(arguments).await;
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn serves_tls_with_a_certificate_in_a_file() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("program-certificate.pem");
    let arguments = ["--tls", "--cert-out", file.to_str().unwrap()];
    let program = Program::start(&[&arguments[..], &["--stream", "orders:1"]].concat()).await;
    let url = program.url("tls");
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert_eq!(stream_names(&config(url, Some(&file))).await, ["orders"]);
    let plain = config(program.url("kinesis"), None);
    assert_eq!(stream_names(&plain).await, ["orders"]);
    assert!(program.signal(Signal::TERM).await.0.success());
}

#[tokio::test]
async fn limits_shards_if_told() {
    for (arguments, refused) in [(&["--shard-limits"][..], 1), (&[], 0)] {
        let program = Program::start(&[arguments, &["--stream", "orders:1"]].concat()).await;
        let client = Client::new(&config(program.url("kinesis"), None));
        let entry = PutRecordsRequestEntry::builder().partition_key("key");
        let entry = entry.data(Blob::new(vec![0; 600 << 10])).build().unwrap();
        let put = client.put_records().stream_name("orders");
        let put = put.records(entry.clone()).records(entry).send().await;
        assert_eq!(put.unwrap().failed_record_count, Some(refused));
        assert!(program.signal(Signal::TERM).await.0.success());
    }
}

fn temporary(name: &str, contents: &str) -> String {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, contents).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn starts_with_the_faults_of_a_file() {
    let script = r#"[{"kind": "refuse", "code": "Odd", "operation": "ListStreams", "times": 1}]"#;
    let file = temporary("program-faults.json", script);
    let program = Program::start(&["--faults", &file]).await;
    let config = config(program.url("kinesis"), None);
    let client = Client::new(&config);
    let refused = client.list_streams().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("Odd"));
    assert!(stream_names(&config).await.is_empty());
    assert!(program.signal(Signal::TERM).await.0.success());
}

#[tokio::test]
async fn a_script_of_faults_that_cannot_be_read_is_an_error_that_says_so() {
    let not_json = temporary("program-not-json.json", "throttle everything");
    let said = fails(&["--faults", &not_json]).await;
    assert!(said.contains(&not_json) && said.contains("line 1"), "{said}");
    let no_code = temporary("program-no-code.json", r#"[{"kind": "refuse"}]"#);
    let said = fails(&["--faults", &no_code]).await;
    assert!(said.contains("fault 1") && said.contains("code"), "{said}");
    let said = fails(&["--faults", "/nowhere/at/all"]).await;
    assert!(said.contains("could not read /nowhere/at/all"), "{said}");
}

#[tokio::test]
async fn lets_in_one_key_only_and_denies_operations() {
    let arguments = ["--credentials", "any:other", "--stream", "orders:1"];
    let program = Program::start(&arguments).await;
    let client = Client::new(&config(program.url("kinesis"), None));
    let refused = client.list_streams().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("InvalidSignatureException"));

    let arguments = ["--deny", "kinesis:ListStreams", "--deny", "dynamodb:ListTables"];
    let program = Program::start(&arguments).await;
    let config = config(program.url("kinesis"), None);
    let refused = Client::new(&config).list_streams().send().await;
    assert_eq!(refused.unwrap_err().code(), Some("AccessDeniedException"));
    let refused = aws_sdk_dynamodb::Client::new(&config).list_tables().send();
    assert_eq!(refused.await.unwrap_err().code(), Some("AccessDeniedException"));
    for wrong in [["--credentials", "key"], ["--deny", "ListTables"], ["--deny", "s3:Get"]] {
        assert!(fails(&wrong).await.contains("write it as"), "{wrong:?}");
    }
}

#[tokio::test]
async fn checks_the_region_if_told() {
    let program = Program::start(&["--check-region"]).await;
    let client = Client::new(&config(program.url("kinesis"), None));
    let refused = client.list_streams().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("InvalidSignatureException"));
}

#[tokio::test]
async fn takes_times_of_transitions_and_of_iterators() {
    let arguments = ["--transition-time", "1h", "--iterator-lifetime", "1ms"];
    let program = Program::start(&arguments).await;
    let client = Client::new(&config(program.url("kinesis"), None));
    let create = client.create_stream().stream_name("slow").shard_count(1);
    create.send().await.unwrap();
    let described = client.describe_stream_summary().stream_name("slow").send();
    let described = described.await.unwrap().stream_description_summary.unwrap();
    assert_eq!(described.stream_status().as_str(), "CREATING");

    let arguments = ["--iterator-lifetime", "1ms", "--stream", "orders:1"];
    let program = Program::start(&arguments).await;
    let client = Client::new(&config(program.url("kinesis"), None));
    let iterator = iterator(&client).await;
    // It expires soon; nothing says when.
    let expired = async {
        loop {
            let read = client.get_records().shard_iterator(&iterator).send().await;
            if let Err(error) = read {
                break error.code().map(str::to_owned);
            }
        }
    };
    assert_eq!(soon(expired).await.as_deref(), Some("ExpiredIteratorException"));
    let said = fails(&["--transition-time", "long"]).await;
    assert!(said.contains("--transition-time"), "{said}");
}

/// The status and the body of the answer to a request of testkit's own.
async fn control(program: &Program, method: &str, path: &str, body: &str) -> (String, String) {
    use tokio::io::AsyncWriteExt;
    let address = program.url("dynamodb").strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    (status.to_owned(), body.to_owned())
}

#[tokio::test]
async fn faults_are_set_listed_and_cleared_while_it_runs() {
    let program = Program::start(&[]).await;
    let config = config(program.url("kinesis"), None);
    let client = Client::new(&config);
    let faults = "/_testkit/faults";
    let ok = |body: &str| ("200".to_owned(), body.to_owned());
    assert_eq!(control(&program, "GET", faults, "").await, ok("[]"));
    let script = r#"[
        {"kind": "refuse", "code": "Odd", "operation": "ListStreams", "times": 1, "after": "0s"},
        {"kind": "delay", "by": "1.5s", "service": "dynamodb", "probability": 0.5}
    ]"#;
    let added = control(&program, "POST", faults, script).await;
    assert_eq!(added, ok(r#"{"ids":[0,1]}"#));
    let refused = client.list_streams().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("Odd"));
    let listed = control(&program, "GET", faults, "").await;
    let expected = concat!(
        r#"[{"code":"Odd","id":0,"kind":"refuse","operation":"ListStreams","struck":1,"times":1},"#,
        r#"{"by":"1500ms","id":1,"kind":"delay","probability":0.5,"service":"dynamodb","struck":0}]"#,
    );
    assert_eq!(listed, ok(expected));
    let struck = control(&program, "GET", "/_testkit/faults/injected", "").await;
    let expected = r#"[{"id":0,"operation":"ListStreams","service":"kinesis"}]"#;
    assert_eq!(struck, ok(expected));

    let removed = control(&program, "DELETE", "/_testkit/faults/1", "").await;
    assert_eq!(removed, ok("{}"));
    assert_eq!(control(&program, "DELETE", "/_testkit/faults/1", "").await.0, "404");
    let bad = control(&program, "POST", faults, r#"[{"kind": "refuse"}]"#).await;
    assert_eq!(bad.0, "400");
    assert!(bad.1.contains("code"), "{}", bad.1);
    assert_eq!(control(&program, "PUT", faults, "").await.0, "405");
    assert_eq!(control(&program, "GET", "/_testkit/other", "").await.0, "404");
    assert_eq!(control(&program, "DELETE", faults, "").await, ok("{}"));
    assert_eq!(control(&program, "GET", faults, "").await, ok("[]"));
    assert!(stream_names(&config).await.is_empty());
}

async fn iterator(client: &Client) -> String {
    let start = client.get_shard_iterator().stream_name("orders");
    let start = start.shard_id("shardId-000000000000");
    let start = start.shard_iterator_type(aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon);
    start.send().await.unwrap().shard_iterator.unwrap()
}

/// Puts a record, and gives its number.
async fn put(client: &Client, data: &str) -> String {
    let put = client.put_record().stream_name("orders").partition_key("key");
    put.data(Blob::new(data)).send().await.unwrap().sequence_number
}

/// What an iterator reads, and the iterator after it.
async fn read(client: &Client, iterator: &str) -> (Vec<String>, String) {
    let read = client.get_records().shard_iterator(iterator).send().await.unwrap();
    let data = read.records.iter().map(|record| record.data().as_ref().to_vec());
    let data = data.map(|data| String::from_utf8(data).unwrap()).collect();
    (data, read.next_shard_iterator.unwrap())
}

/// A file that is not there.
fn fresh(name: &str) -> String {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    for ending in ["", ".lock", ".next"] {
        let _ = std::fs::remove_file(format!("{}{ending}", file.display()));
    }
    file.to_str().unwrap().to_owned()
}

/// Takes a lease by its counter: whether the counter was the expected one.
async fn raise(dynamodb: &aws_sdk_dynamodb::Client, expected: &str) -> bool {
    use aws_sdk_dynamodb::types::AttributeValue;
    let update = dynamodb.update_item().table_name("leases");
    let update = update.key("id", AttributeValue::S("lease".to_owned()));
    let update = update.update_expression("SET x = x + :one").condition_expression("x = :x");
    let update = update.expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
    let update = update.expression_attribute_values(":x", AttributeValue::N(expected.to_owned()));
    update.send().await.is_ok()
}

async fn create_leases(dynamodb: &aws_sdk_dynamodb::Client) {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
        ScalarAttributeType,
    };
    let id = AttributeDefinition::builder().attribute_name("id");
    let id = id.attribute_type(ScalarAttributeType::S).build().unwrap();
    let key = KeySchemaElement::builder().attribute_name("id");
    let key = key.key_type(KeyType::Hash).build().unwrap();
    let create = dynamodb.create_table().table_name("leases").key_schema(key);
    let create = create.attribute_definitions(id);
    create.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
    let put = dynamodb.put_item().table_name("leases");
    let put = put.item("id", AttributeValue::S("lease".to_owned()));
    let put = put.item("x", AttributeValue::N("0".to_owned()));
    put.send().await.unwrap();
}

#[tokio::test]
async fn a_stop_keeps_everything_in_a_file_and_a_start_goes_on() {
    let file = fresh("program-data-stop");
    let arguments = ["--data", &file, "--stream", "orders:1"];
    let program = Program::start(&arguments).await;
    let target = config(program.url("kinesis"), None);
    let (client, dynamodb) = (Client::new(&target), aws_sdk_dynamodb::Client::new(&target));
    let first = put(&client, "one").await;
    let (data, next) = read(&client, &iterator(&client).await).await;
    assert_eq!(data, ["one"]);
    let split = client.split_shard().stream_name("orders");
    let split = split.shard_to_split("shardId-000000000000");
    split.new_starting_hash_key("7").send().await.unwrap();
    create_leases(&dynamodb).await;
    assert!(raise(&dynamodb, "0").await);
    let in_use = fails(&["--data", &file]).await;
    assert!(in_use.contains("is in use"), "{in_use}");
    assert!(program.signal(Signal::TERM).await.0.success());

    let program = Program::start(&arguments).await;
    let target = config(program.url("kinesis"), None);
    let (client, dynamodb) = (Client::new(&target), aws_sdk_dynamodb::Client::new(&target));
    let shards = client.list_shards().stream_name("orders").send().await.unwrap();
    assert_eq!(shards.shards().len(), 3);
    let ended = client.get_records().shard_iterator(next).send().await.unwrap();
    assert_eq!(ended.next_shard_iterator, None, "its shard was split");
    let (data, _) = read_all(&client).await;
    assert_eq!(data, ["one"]);
    assert!(put(&client, "two").await > first);
    assert!(!raise(&dynamodb, "0").await);
    assert!(raise(&dynamodb, "1").await);
    assert!(program.signal(Signal::TERM).await.0.success());
}

/// What the first shard holds.
async fn read_all(client: &Client) -> (Vec<String>, Option<String>) {
    let iterator = iterator(client).await;
    let read = client.get_records().shard_iterator(iterator).send().await.unwrap();
    let data = read.records.iter().map(|record| record.data().as_ref().to_vec());
    let data = data.map(|data| String::from_utf8(data).unwrap()).collect();
    (data, read.next_shard_iterator)
}

#[tokio::test]
async fn a_kill_loses_a_moment_and_no_reader_misses_what_comes_after() {
    let file = fresh("program-data-kill");
    let arguments = ["--data", &file, "--stream", "orders:1"];
    let program = Program::start(&arguments).await;
    let client = Client::new(&config(program.url("kinesis"), None));
    let kept = put(&client, "kept").await;
    // Written within a second or so; what follows may be lost.
    let written = async {
        while !std::fs::read(&file).unwrap().windows(4).any(|bytes| bytes == b"kept") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(written).await;
    let mut last = kept;
    for nth in 0..20 {
        last = put(&client, &format!("perhaps {nth}")).await;
    }
    let (_, reader) = read(&client, &iterator(&client).await).await;
    let (status, _) = program.signal(Signal::KILL).await;
    assert!(!status.success());

    let program = Program::start(&arguments).await;
    let client = Client::new(&config(program.url("kinesis"), None));
    let (held, _) = read_all(&client).await;
    assert_eq!(held[0], "kept");
    // The reader had seen them all, those that are lost now among them.
    let number = put(&client, "after").await;
    assert!(number > last, "{number} is not after {last}");
    assert_eq!(read(&client, &reader).await.0, ["after"]);
    assert!(program.signal(Signal::TERM).await.0.success());
}

#[tokio::test]
async fn a_kill_right_after_a_restart_gives_no_number_again() {
    let file = fresh("program-data-early-kill");
    let arguments = ["--data", &file, "--stream", "orders:1"];
    let program = Program::start(&arguments).await;
    assert!(program.signal(Signal::TERM).await.0.success());

    // Most likely killed before what it does is written.
    let program = Program::start(&arguments).await;
    let client = Client::new(&config(program.url("kinesis"), None));
    let lost = put(&client, "perhaps").await;
    let (_, reader) = read(&client, &iterator(&client).await).await;
    program.signal(Signal::KILL).await;

    let program = Program::start(&arguments).await;
    let client = Client::new(&config(program.url("kinesis"), None));
    assert!(put(&client, "after").await > lost);
    assert_eq!(read(&client, &reader).await.0, ["after"]);
}

#[tokio::test]
async fn a_data_file_that_cannot_be_read_is_an_error_that_says_so() {
    let file = fresh("program-data-bad");
    std::fs::write(&file, "not such a file").unwrap();
    let said = fails(&["--data", &file]).await;
    assert!(said.contains("could not use the data file"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not such a file");
    let said = fails(&["--data", "/nowhere/at/all"]).await;
    assert!(said.contains("/nowhere/at/all"), "{said}");
}
