//! The real client on a socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// As CloudWatch answers.
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nsmithy-protocol: rpc-v2-cbor\r\ncontent-type: application/cbor\r\ncontent-length: 1\r\n\r\n\xA0";

/// Takes one request by HTTP/1.1, answers it, and gives back its head and body.
async fn one_request(listener: TcpListener, answer: &[u8]) -> (String, Vec<u8>) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(request[..end].to_vec()).unwrap().to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().trim().parse().unwrap();
            if request.len() >= end + 4 + length {
                socket.write_all(answer).await.unwrap();
                return (head, request[end + 4..end + 4 + length].to_vec());
            }
        }
        let read = socket.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the request ended early");
        request.extend_from_slice(&chunk[..read]);
    }
}

async fn endpoint() -> (TcpListener, SdkConfig) {
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_types::region::Region;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let credentials = Credentials::new("id", "secret", None, None, "a test");
    let sdk_config = SdkConfig::builder()
        .region(Region::new("eu-central-1"))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    (listener, sdk_config)
}

#[tokio::test]
async fn the_real_client_tells_a_refusal_from_what_passes() {
    for (answer, is_refused) in [
        ("413 Content Too Large", true),
        ("400 Bad Request", true),
        ("403 Forbidden", false),
        ("404 Not Found", false),
    ] {
        let (listener, sdk_config) = endpoint().await;
        let CloudWatch { uploader, .. } = CloudWatch::new(&sdk_config, CloudWatchConfig::default());
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        let (_, outcome) =
            tokio::join!(one_request(listener, answer.as_bytes()), uploader.put(Vec::new()));
        assert_eq!(outcome.unwrap_err().is_refused, is_refused, "{answer}");
    }
}

#[tokio::test]
async fn the_real_client_puts_metric_data() {
    let (listener, sdk_config) = endpoint().await;
    let CloudWatch { uploader, .. } = CloudWatch::new(&sdk_config, CloudWatchConfig::default());
    let (layout, sink) = layout();
    record(&sink, Metric::UserRecordsPut, Some("shardId-7"), 1.0, 42);
    record(&sink, Metric::BufferingTime, Some("shardId-7"), 12.0, 1);
    let mut pending = Pending::default();
    pending.absorb(sink.collected.take(), |source| layout.series_of(source));
    let data = pending.next(None, 1000, 1_000_000);
    let ((head, body), answer) = tokio::join!(one_request(listener, TAKEN), uploader.put(data));
    answer.unwrap();

    assert!(head.contains("putmetricdata"), "{head}");
    assert!(head.contains("credential=id/") && head.contains("/monitoring/aws4_request"), "{head}");
    let holds = |text: &str| body.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    for text in [
        "KinesisProducerLibrary",
        "UserRecordsPut",
        "BufferingTime",
        "StreamName",
        "orders",
        "ShardId",
        "shardId-7",
        "StatisticValues",
        "SampleCount",
        "Values",
        "Counts",
        "Milliseconds",
    ] {
        assert!(holds(text), "{text}: {}", String::from_utf8_lossy(&body));
    }
}
