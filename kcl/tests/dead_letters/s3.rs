//! Amazon S3: the sink and the source against a bucket that answers S3's protocol.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kcl::{
    DeadLetter, DeadLetterSink as _, ObjectStoreSink, ObjectStoreSource, Redrive, SinkError,
};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    ClientOptions, HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpService,
};
use object_store::{BackoffConfig, RetryConfig};

use crate::http::{Answer, Call, Fault, Server, Service};
use crate::{keys, letter};

const XML: &str = "application/xml";
const BUCKET: &str = "letters";
/// Objects of a page of a listing.
const PAGE: usize = 3;

/// The objects of one bucket by key.
#[derive(Default)]
struct Bucket(Mutex<BTreeMap<String, String>>);

impl Bucket {
    fn letters(&self) -> Vec<DeadLetter> {
        let objects = self.0.lock().unwrap();
        objects.values().map(|json| DeadLetter::from_json(json.as_bytes()).unwrap()).collect()
    }

    fn list(&self, query: &[(String, String)]) -> String {
        let parameter =
            |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let prefix = parameter("prefix").unwrap_or_default();
        let after = parameter("continuation-token").unwrap_or_default();
        let objects = self.0.lock().unwrap();
        let mut found =
            objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
        let page: Vec<_> = found.by_ref().take(PAGE).collect();
        let mut xml = String::from("<ListBucketResult>");
        for (key, json) in &page {
            write!(
                xml,
                "<Contents><Key>{key}</Key><Size>{}</Size><ETag>tag</ETag>\
                 <LastModified>2026-11-29T05:00:00.000Z</LastModified></Contents>",
                json.len()
            )
            .unwrap();
        }
        if found.next().is_some() {
            let last = page[PAGE - 1].0;
            write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>").unwrap();
        }
        xml.push_str("</ListBucketResult>");
        xml
    }

    fn delete(&self, request: &str) -> String {
        let mut xml = String::from("<DeleteResult>");
        let keys = request.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap());
        for key in keys {
            self.0.lock().unwrap().remove(key);
            write!(xml, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
        }
        xml.push_str("</DeleteResult>");
        xml
    }
}

/// Decodes percent encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match first {
            b'%' => {
                (u8::from_str_radix(str::from_utf8(&after[..2]).unwrap(), 16).unwrap(), &after[2..])
            }
            byte => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).unwrap()
}

impl Service for Bucket {
    fn answer(&self, call: &Call, _: Option<usize>) -> Answer {
        let path = decoded(&call.path);
        let key =
            path.trim_start_matches('/').strip_prefix(BUCKET).unwrap().trim_start_matches('/');
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), decoded(value))
        };
        let query: Vec<_> = call.query.split('&').map(pair).collect();
        let body = str::from_utf8(&call.body).unwrap();
        if call.method == Method::PUT {
            self.0.lock().unwrap().insert(key.to_owned(), body.to_owned());
            (200, XML, String::new())
        } else if call.method == Method::POST && query[0].0 == "delete" {
            (200, XML, self.delete(body))
        } else if query.iter().any(|(name, _)| name == "list-type") {
            (200, XML, self.list(&query))
        } else {
            match self.0.lock().unwrap().get(key) {
                Some(json) => (200, "application/json", json.clone()),
                None => (404, XML, "<Error><Code>NoSuchKey</Code></Error>".to_owned()),
            }
        }
    }
}

fn refusal(status: u16, code: &str) -> Fault {
    Fault::Answer(status, XML, format!("<Error><Code>{code}</Code></Error>"))
}

/// HTTP by hyper, so that the test needs no second HTTP client.
#[derive(Debug, Clone)]
struct Hyper(Client<HttpConnector, HttpRequestBody>);

impl HttpService for Hyper {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let response = self.0.request(request).await;
            let response = response.map_err(|e| HttpError::new(HttpErrorKind::Interrupted, e))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await;
            let body = body.map_err(|e| HttpError::new(HttpErrorKind::Interrupted, e))?;
            Ok(HttpResponse::from_parts(head, body.to_bytes().into()))
        })
    }
}

impl object_store::client::HttpConnector for Hyper {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

struct Setup {
    bucket: Arc<Bucket>,
    server: Server,
    store: Arc<AmazonS3>,
}

impl Setup {
    async fn new() -> Self {
        let bucket = Arc::<Bucket>::default();
        let server = Server::start(Arc::clone(&bucket)).await;
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(5),
            base: 2.0,
        };
        let retries =
            RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(60) };
        let store = AmazonS3Builder::new()
            .with_endpoint(&server.url)
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_region("eu-west-1")
            .with_access_key_id("id")
            .with_secret_access_key("secret")
            .with_http_connector(Hyper(Client::builder(TokioExecutor::new()).build_http()))
            .with_retry(retries)
            .build()
            .unwrap();
        Self { bucket, server, store: Arc::new(store) }
    }

    fn sink(&self) -> ObjectStoreSink {
        ObjectStoreSink::new(Arc::<AmazonS3>::clone(&self.store), "dead-letters/billing")
    }

    fn source(&self) -> ObjectStoreSource {
        ObjectStoreSource::new(Arc::<AmazonS3>::clone(&self.store), "dead-letters/billing")
    }
}

#[tokio::test]
async fn a_letter_is_an_object_with_the_layout_of_lambda() {
    let setup = Setup::new().await;
    setup.sink().write(&[letter(7, "k")]).await.unwrap();
    let names: Vec<_> = setup.bucket.0.lock().unwrap().keys().cloned().collect();
    assert_eq!(
        names,
        ["dead-letters/billing/shardId-000000000000/2026/11/28/\
          2026-11-28T05.00.07-billing:orders:shardId-000000000000:7:0"]
    );
    assert_eq!(setup.bucket.letters(), [letter(7, "k")]);
}

#[tokio::test]
async fn a_repeated_write_replaces_the_object() {
    let setup = Setup::new().await;
    let mut again = letter(7, "k");
    again.worker_id = "another".into();
    again.attempts = 9;
    setup.sink().write(&[letter(7, "k")]).await.unwrap();
    setup.sink().write(&[letter(6, "k"), again.clone()]).await.unwrap();
    assert_eq!(setup.bucket.letters(), [letter(6, "k"), again]);
}

#[tokio::test]
async fn faults_of_the_store_are_retried_by_it() {
    for fault in
        [refusal(503, "SlowDown"), refusal(500, "InternalError"), Fault::Cut, Fault::CutAfter]
    {
        let setup = Setup::new().await;
        setup.server.fail([fault]);
        let letters: Vec<_> = (0..20).map(|number| letter(number, "k")).collect();
        setup.sink().write(&letters).await.unwrap();
        assert_eq!(setup.server.planned(), 0);
        assert_eq!(keys(&setup.bucket.letters()), keys(&letters));
    }
}

#[tokio::test]
async fn one_letter_that_fails_is_an_error_of_the_write() {
    let setup = Setup::new().await;
    setup.server.fail([refusal(403, "AccessDenied")]);
    let letters: Vec<_> = (0..3).map(|number| letter(number, "k")).collect();
    let error = setup.sink().write(&letters).await.unwrap_err();
    assert!(matches!(error, SinkError::Call { call: "put", .. }), "{error}");
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    setup.sink().write(&letters).await.unwrap();
    assert_eq!(keys(&setup.bucket.letters()), keys(&letters));
}

#[tokio::test]
async fn handled_letters_are_deleted_in_the_order_of_their_arrival() {
    let setup = Setup::new().await;
    let letters: Vec<_> = (0..40).map(|number| letter(number, &number.to_string())).collect();
    setup.sink().write(&letters).await.unwrap();
    let foreign = "dead-letters/billing/README".to_owned();
    setup.bucket.0.lock().unwrap().insert(foreign.clone(), "no letter".into());
    setup.server.fail([refusal(503, "SlowDown")]);
    let mut handled = Vec::new();
    let sdk_config = aws_types::SdkConfig::builder().build();
    let (redrive, mut source) = (Redrive::new(&sdk_config), setup.source());
    let report = redrive.run_with(&mut source, |letter| {
        let fails = letter.position.sequence_number.as_str() == "33";
        handled.push(letter);
        async move { if fails { Err("not yet") } else { Ok(()) } }
    });
    let report = report.await.unwrap();
    assert_eq!((report.redriven, report.failed, report.unreadable), (39, 1, 1), "{report}");
    assert_eq!(handled, letters);
    let left: Vec<_> = setup.bucket.0.lock().unwrap().keys().cloned().collect();
    assert!(left.len() == 2 && left[0] == foreign && left[1].ends_with(":33:0"), "{left:?}");
}

#[tokio::test]
async fn a_store_that_cannot_be_listed_ends_the_redrive() {
    let setup = Setup::new().await;
    setup.sink().write(&[letter(1, "k")]).await.unwrap();
    setup.server.fail([refusal(403, "AccessDenied")]);
    let sdk_config = aws_types::SdkConfig::builder().build();
    let redrive = Redrive::new(&sdk_config);
    let error =
        redrive.run_with(&mut setup.source(), async |_| Ok::<(), &str>(())).await.unwrap_err();
    assert_eq!(error.report.redriven, 0);
    assert!(error.source.to_string().contains("AccessDenied"), "{error:?}");
    assert_eq!(setup.bucket.letters().len(), 1);
}
