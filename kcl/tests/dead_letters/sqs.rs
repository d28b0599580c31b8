//! SQS: the sink and the source against a queue that answers SQS's JSON protocol.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use aws_types::region::Region;
use kcl::{
    DeadLetter, DeadLetterSink as _, DeadLetterSource as _, Redrive, SinkError, SqsSink, SqsSource,
};
use serde_json::{Value, json};

use crate::http::{Answer, Call, Fault, Server, Service};
use crate::{keys, letter};

const KIND: &str = "application/x-amz-json-1.0";

/// A message of the queue.
#[derive(Clone)]
struct Message {
    id: String,
    body: String,
    group: Option<String>,
    hidden: bool,
}

/// One queue. A hidden message is offered again when [`reveal`](Self::reveal) is called.
#[derive(Default)]
struct Queue {
    messages: Mutex<Vec<Message>>,
    sent: Mutex<u64>,
    deduplicated: Mutex<HashMap<String, String>>,
    /// The number of messages of each send.
    sends: Mutex<Vec<usize>>,
}

impl Queue {
    fn letters(&self) -> Vec<DeadLetter> {
        let messages = self.messages.lock().unwrap();
        let read = |message: &Message| DeadLetter::from_json(message.body.as_bytes()).unwrap();
        messages.iter().map(read).collect()
    }

    fn reveal(&self) {
        self.messages.lock().unwrap().iter_mut().for_each(|message| message.hidden = false);
    }

    fn add(&self, body: &str) {
        self.send(&json!({ "MessageBody": body }), false).unwrap();
    }

    /// Stores a message, by the rules of the queue.
    fn send(&self, entry: &Value, fifo: bool) -> Result<String, &'static str> {
        let body = entry["MessageBody"].as_str().ok_or("MissingParameter")?;
        let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if !body.chars().all(allowed) {
            return Err("InvalidMessageContents");
        }
        let text = |name: &str| entry[name].as_str().map(str::to_owned);
        let (group, deduplication) = (text("MessageGroupId"), text("MessageDeduplicationId"));
        if fifo && (group.is_none() || deduplication.is_none()) {
            return Err("MissingParameter");
        }
        if [&group, &deduplication].into_iter().flatten().any(|id| id.len() > 128) {
            return Err("InvalidParameterValue");
        }
        let mut sent = self.sent.lock().unwrap();
        *sent += 1;
        let id = format!("message-{sent}");
        if let Some(deduplication) = deduplication {
            let mut seen = self.deduplicated.lock().unwrap();
            if let Some(first) = seen.get(&deduplication) {
                return Ok(first.clone());
            }
            seen.insert(deduplication, id.clone());
        }
        let message = Message { id: id.clone(), body: body.to_owned(), group, hidden: false };
        self.messages.lock().unwrap().push(message);
        Ok(id)
    }

    fn send_batch(&self, input: &Value, without: Option<usize>) -> Value {
        let fifo = input["QueueUrl"].as_str().unwrap().ends_with(".fifo");
        let entries = input["Entries"].as_array().unwrap();
        let bytes: usize = entries.iter().map(|e| e["MessageBody"].as_str().unwrap().len()).sum();
        if entries.is_empty() || entries.len() > 10 || bytes > 1 << 20 {
            return json!({"__type": "com.amazonaws.sqs#BatchRequestTooLong", "message": "too long"});
        }
        self.sends.lock().unwrap().push(entries.len());
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (number, entry) in entries.iter().enumerate() {
            let id = &entry["Id"];
            let sent = match without == Some(number) {
                true => Err("InternalError"),
                false => self.send(entry, fifo),
            };
            match sent {
                Ok(message) => successful.push(json!({
                    "Id": id, "MessageId": message, "MD5OfMessageBody": "unchecked",
                })),
                Err(code) => failed.push(json!({
                    "Id": id, "Code": code, "SenderFault": code != "InternalError",
                })),
            }
        }
        json!({"Successful": successful, "Failed": failed})
    }

    fn receive(&self, input: &Value) -> Value {
        let max = input["MaxNumberOfMessages"].as_u64().unwrap() as usize;
        assert!(input["VisibilityTimeout"].as_u64().is_some());
        let mut messages = self.messages.lock().unwrap();
        let visible = messages.iter_mut().filter(|message| !message.hidden).take(max);
        let received: Vec<_> = visible
            .map(|message| {
                message.hidden = true;
                let receipt = format!("receipt of {}", message.id);
                json!({"MessageId": message.id, "ReceiptHandle": receipt, "Body": message.body})
            })
            .collect();
        // An empty result has no such field.
        if received.is_empty() { json!({}) } else { json!({"Messages": received}) }
    }

    fn delete_batch(&self, input: &Value, without: Option<usize>) -> Value {
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (number, entry) in input["Entries"].as_array().unwrap().iter().enumerate() {
            if without == Some(number) {
                let failure =
                    json!({"Id": entry["Id"], "Code": "InternalError", "SenderFault": false});
                failed.push(failure);
                continue;
            }
            let receipt = entry["ReceiptHandle"].as_str().unwrap();
            let id = receipt.strip_prefix("receipt of ").unwrap();
            self.messages.lock().unwrap().retain(|message| message.id != id);
            successful.push(json!({"Id": entry["Id"]}));
        }
        json!({"Successful": successful, "Failed": failed})
    }
}

impl Service for Queue {
    fn answer(&self, call: &Call, without: Option<usize>) -> Answer {
        let input: Value = serde_json::from_slice(&call.body).unwrap();
        let target = call.headers["x-amz-target"].to_str().unwrap();
        let output = match target.strip_prefix("AmazonSQS.").unwrap() {
            "SendMessageBatch" => self.send_batch(&input, without),
            "ReceiveMessage" => self.receive(&input),
            "DeleteMessageBatch" => self.delete_batch(&input, without),
            other => panic!("{other}"),
        };
        let status = if output.get("__type").is_some() { 400 } else { 200 };
        (status, KIND, output.to_string())
    }
}

fn refusal(status: u16, code: &str) -> Fault {
    let body = json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": "no"});
    Fault::Answer(status, KIND, body.to_string())
}

struct Setup {
    queue: Arc<Queue>,
    server: Server,
    config: SdkConfig,
}

impl Setup {
    async fn new() -> Self {
        let queue = Arc::<Queue>::default();
        let server = Server::start(Arc::clone(&queue)).await;
        let credentials = Credentials::new("id", "secret", None, None, "test");
        let config = SdkConfig::builder()
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(&server.url)
            .build();
        Self { queue, server, config }
    }

    fn sink(&self) -> SqsSink {
        SqsSink::new(format!("{}/123456789012/letters", self.server.url), &self.config)
    }

    fn source(&self) -> SqsSource {
        SqsSource::new(format!("{}/123456789012/letters", self.server.url), &self.config)
    }
}

#[tokio::test]
async fn letters_are_sent_ten_at_a_time() {
    let setup = Setup::new().await;
    let letters: Vec<_> = (0..23).map(|number| letter(number, "k")).collect();
    setup.sink().write(&letters).await.unwrap();
    assert_eq!(*setup.queue.sends.lock().unwrap(), [10, 10, 3]);
    assert_eq!(setup.queue.letters(), letters);
    let messages = setup.queue.messages.lock().unwrap();
    assert!(messages.iter().all(|message| message.group.is_none()));
}

#[tokio::test]
async fn messages_of_a_call_have_at_most_one_mib() {
    let setup = Setup::new().await;
    let mut letters: Vec<_> = (0..3).map(|number| letter(number, "k")).collect();
    for letter in &mut letters {
        letter.payload = Some(vec![0; 400_000].into());
    }
    letters[2].payload = Some(vec![0; 1_000_000].into());
    setup.sink().write(&letters).await.unwrap();
    let sent = setup.queue.letters();
    assert_eq!(sent[..2], letters[..2]);
    assert_eq!((sent[2].payload.is_none(), &sent[2].position), (true, &letters[2].position));
}

#[tokio::test]
async fn every_fault_is_retried_within_the_write() {
    let faults = [
        refusal(400, "RequestThrottled"),
        refusal(500, "InternalError"),
        Fault::Answer(503, "text/html", "a proxy".into()),
        Fault::Cut,
        Fault::Entry(1),
    ];
    for fault in faults {
        let setup = Setup::new().await;
        setup.server.fail([fault.clone()]);
        let letters: Vec<_> = (0..3).map(|number| letter(number, "k")).collect();
        setup.sink().write(&letters).await.unwrap();
        assert_eq!(setup.server.planned(), 0);
        // Only the entry that failed is sent again.
        assert_eq!(keys(&setup.queue.letters()), keys(&letters), "{fault:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_an_error_at_once_and_names_the_cause() {
    let setup = Setup::new().await;
    setup.server.fail([refusal(400, "AccessDeniedException")]);
    let error = setup.sink().write(&[letter(0, "k")]).await.unwrap_err();
    assert!(matches!(error, SinkError::Call { call: "SendMessageBatch", .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("AccessDenied") && text.contains("/letters"), "{text}");
    assert!(setup.queue.letters().is_empty());
    setup.sink().write(&[letter(0, "k")]).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_sends_twice_and_a_fifo_queue_keeps_one() {
    for (queue, copies) in [("letters", 2), ("letters.fifo", 1)] {
        let setup = Setup::new().await;
        let sink = SqsSink::new(format!("{}/1/{queue}", setup.server.url), &setup.config);
        setup.server.fail([Fault::CutAfter]);
        sink.write(&[letter(0, "k")]).await.unwrap();
        let letters = setup.queue.letters();
        assert_eq!(letters.len(), copies, "{queue}");
        assert!(letters.iter().all(|sent| *sent == letter(0, "k")));
    }
}

#[tokio::test]
async fn letters_of_a_key_share_a_group() {
    let setup = Setup::new().await;
    let sink = SqsSink::new(format!("{}/1/letters.fifo", setup.server.url), &setup.config);
    sink.write(&[letter(0, "a"), letter(1, "b"), letter(2, "a")]).await.unwrap();
    let messages = setup.queue.messages.lock().unwrap();
    let groups: Vec<_> = messages.iter().map(|message| message.group.clone().unwrap()).collect();
    assert_eq!(groups[0], groups[2]);
    assert_ne!(groups[0], groups[1]);
}

#[tokio::test]
async fn handled_letters_are_deleted_and_the_others_stay() {
    let setup = Setup::new().await;
    let letters: Vec<_> = (0..25).map(|number| letter(number, &number.to_string())).collect();
    setup.sink().write(&letters).await.unwrap();
    setup.queue.add("no letter");
    // The first receive is answered once the retry comes, and a part of a deletion is repeated.
    setup.server.fail([refusal(500, "InternalError")]);
    let mut handled = Vec::new();
    let redrive = Redrive::new(&setup.config);
    let mut source = setup.source().with_visibility_timeout(Duration::from_secs(60));
    let report = redrive.run_with(&mut source, |letter| {
        let fails = letter.position.sequence_number.as_str() == "7";
        handled.push(letter);
        async move { if fails { Err("not yet") } else { Ok(()) } }
    });
    let report = report.await.unwrap();
    assert_eq!((report.redriven, report.failed, report.unreadable), (24, 1, 1), "{report}");
    assert_eq!(keys(&handled), keys(&letters));
    let left = setup.queue.messages.lock().unwrap().clone();
    let bodies: Vec<_> = left.iter().map(|message| &message.body).collect();
    assert_eq!(bodies, [&letters[7].to_json(), "no letter"]);
}

#[tokio::test]
async fn a_run_ends_when_the_queue_offers_only_letters_that_stay() {
    let setup = Setup::new().await;
    setup.sink().write(&[letter(0, "k")]).await.unwrap();
    let mut calls = 0;
    let mut source = setup.source();
    let redrive = Redrive::new(&setup.config);
    let report = redrive.run_with(&mut source, |_| {
        calls += 1;
        // The letter becomes visible again while the run goes on.
        setup.queue.reveal();
        async { Err::<(), _>("never") }
    });
    let report = report.await.unwrap();
    assert_eq!((calls, report.failed, report.left()), (1, 1, 1));
}

#[tokio::test]
async fn a_deletion_that_fails_in_part_is_repeated() {
    let setup = Setup::new().await;
    setup.sink().write(&[letter(0, "a"), letter(1, "b")]).await.unwrap();
    let mut source = setup.source();
    let read = source.read().await.unwrap();
    setup.server.fail([Fault::Entry(1), Fault::Cut]);
    let ids: Vec<_> = read.into_iter().map(|stored| stored.id).collect();
    source.remove(&ids).await.unwrap();
    assert!(setup.queue.letters().is_empty());
}
