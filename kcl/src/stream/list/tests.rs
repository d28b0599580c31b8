//! The time of a listing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::clock::Clock;

/// Each reading is ten seconds later than the one before.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> SystemTime {
        let looks = self.0.fetch_add(1, Ordering::SeqCst);
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + 10 * looks)
    }
}

/// Lists two empty pages from a server that sends these header lines.
async fn server_time(headers: [&'static str; 2], clock: Arc<Ticking>) -> SystemTime {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let on_page = Arc::clone(&clock);
    let server = tokio::spawn(async move {
        let bodies = [r#"{"Shards":[],"NextToken":"t"}"#, r#"{"Shards":[]}"#];
        for (header, body) in headers.into_iter().zip(bodies) {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // The body is the last thing sent, and ends with the first brace.
            while !request.ends_with(b"}") {
                assert!(socket.read_buf(&mut request).await.unwrap() > 0);
            }
            // Time passes while a page is made.
            on_page.wall();
            let answer = format!(
                "HTTP/1.1 200 OK\r\n{header}content-type: application/x-amz-json-1.1\r\n\
                 connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(url)
        .build();
    let lister = KinesisShardLister::new(
        Client::from_conf(config),
        "orders".parse().unwrap(),
        ServiceClock::new(clock),
    );
    let listed = lister.list(None).await.unwrap();
    server.await.unwrap();
    listed.server_time
}

#[tokio::test]
async fn the_time_is_the_first_answers_with_a_margin_between_hosts_of_the_service() {
    let headers =
        ["date: Tue, 15 Nov 1994 08:12:31 GMT\r\n", "date: Tue, 15 Nov 1994 08:12:41 GMT\r\n"];
    let time = server_time(headers, Arc::default()).await;
    // 08:12:29
    assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::from_secs(784_887_149));
}

#[tokio::test]
async fn without_a_date_the_time_is_that_before_the_first_page() {
    let time = server_time(["", ""], Arc::default()).await;
    assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
}
