//! A server that reads requests without a look and gives one answer: what is left is the client.

use base64_simd::STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::bare::Messages;
use crate::{ENTRIES, data, partition_key};

pub(crate) struct Sink {
    url: String,
    _runtime: Runtime,
}

impl Sink {
    pub(crate) fn start(answer: String) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("sink")
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer: &'static [u8] = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\n\
             content-length: {}\r\n\r\n{answer}",
            answer.len()
        )
        .leak()
        .as_bytes();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, answer));
            }
        });
        Self { url, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

async fn serve(mut socket: TcpStream, answer: &[u8]) {
    socket.set_nodelay(true).unwrap();
    let mut messages = Messages::default();
    while messages.next(&mut socket).await.is_some() {
        if socket.write_all(answer).await.is_err() {
            return;
        }
    }
}

const NUMBER: &str = "49680428555984593382248559893343484572456635302259195906";

pub(crate) fn put_answer() -> String {
    let record =
        format!("{{\"SequenceNumber\":\"{NUMBER}\",\"ShardId\":\"shardId-000000000000\"}}");
    let records = vec![record; ENTRIES].join(",");
    format!("{{\"FailedRecordCount\":0,\"Records\":[{records}]}}")
}

/// A page of ten megabytes.
pub(crate) fn get_answer() -> String {
    let record = |nth| {
        format!(
            "{{\"SequenceNumber\":\"{NUMBER}\",\"ApproximateArrivalTimestamp\":1795263013.449,\
             \"Data\":\"{}\",\"PartitionKey\":\"{}\"}}",
            STANDARD.encode_to_string(data(nth)),
            partition_key(nth)
        )
    };
    let records: Vec<_> = (0..10_000).map(record).collect();
    format!(
        "{{\"Records\":[{}],\"NextShardIterator\":\"next\",\"MillisBehindLatest\":0}}",
        records.join(",")
    )
}
