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
        Self {
            child,
            stdout,
            ready,
        }
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
    assert_eq!(
        program.ready,
        format!("ready kinesis={kinesis} dynamodb={dynamodb}\n")
    );
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
    // Below the ports that the system gives to connections and to those who ask for any.
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
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap();
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
        assert!(
            said.contains(&format!("port {port} of 127.0.0.1 is in use")),
            "{said}"
        );
    }
    let said = fails(&["--tls", "--tls-port", &port]).await;
    assert!(said.contains("is in use"), "{said}");
}

#[tokio::test]
async fn a_wrong_argument_is_an_error_that_says_so() {
    for (arguments, expected) in [
        (&["--stream", "orders"][..], "NAME:SHARDS"),
        (&["--stream", "orders:many"], "is not a number"),
        (
            &["--stream", "orders:0"],
            "--stream orders:0 was refused with",
        ),
        (&["--tls-port", "1"], "--tls"),
        (
            &["--tls", "--cert-out", "/nowhere/at/all"],
            "could not write /nowhere/at/all",
        ),
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
    assert!(
        said.contains(&not_json) && said.contains("line 1"),
        "{said}"
    );
    let no_code = temporary("program-no-code.json", r#"[{"kind": "refuse"}]"#);
    let said = fails(&["--faults", &no_code]).await;
    assert!(said.contains("fault 1") && said.contains("code"), "{said}");
    let said = fails(&["--faults", "/nowhere/at/all"]).await;
    assert!(said.contains("could not read /nowhere/at/all"), "{said}");
}
