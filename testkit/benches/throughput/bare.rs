//! Connections that send requests made before and do not look into the answers: what is left is the
//! server.

use base64_simd::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{CLIENTS, ENTRIES, GETS, PUTS, RECORD, STREAM, data, partition_key};

/// Puts from all connections at once; the bytes of data put.
pub(crate) async fn put(address: &str) -> usize {
    let entry = |nth| {
        format!(
            "{{\"Data\":\"{}\",\"PartitionKey\":\"{}\"}}",
            STANDARD.encode_to_string(data(nth)),
            partition_key(nth)
        )
    };
    let entries: Vec<_> = (0..ENTRIES).map(entry).collect();
    let body = format!("{{\"Records\":[{}],\"StreamName\":\"{STREAM}\"}}", entries.join(","));
    let requests = vec![request("PutRecords", &body); CLIENTS];
    talk(address, requests, PUTS).await;
    CLIENTS * PUTS * ENTRIES * RECORD
}

/// Reads a page again and again, from all connections at once; about the bytes of data read.
pub(crate) async fn get(address: &str, iterators: &[String]) -> usize {
    let body = |iterator| format!("{{\"ShardIterator\":\"{iterator}\"}}");
    let requests = iterators.iter().map(body);
    let requests = requests.map(|body| request("GetRecords", &body)).collect();
    let whole = talk(address, requests, GETS).await;
    // What is around the data of a record takes about 150 bytes, and base64 a third.
    let record = RECORD.div_ceil(3) * 4 + 150;
    whole / record * RECORD
}

fn request(operation: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-amz-json-1.1\r\n\
         x-amz-target: Kinesis_20131202.{operation}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Sends each request so many times on a connection of its own; the bytes of all answers.
async fn talk(address: &str, requests: Vec<Vec<u8>>, times: usize) -> usize {
    let mut connections = JoinSet::new();
    for request in requests {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        connections.spawn(async move {
            let mut answers = Messages::default();
            let mut bytes = 0;
            for _ in 0..times {
                socket.write_all(&request).await.unwrap();
                bytes += answers.next(&mut socket).await.expect("no answer");
            }
            bytes
        });
    }
    connections.join_all().await.into_iter().sum()
}

/// HTTP/1.1 messages of a known length, of which only the length is looked at.
pub(crate) struct Messages {
    buffer: Vec<u8>,
    /// How much of the buffer has been read and belongs to no message yet.
    held: usize,
}

impl Default for Messages {
    fn default() -> Self {
        Self { buffer: vec![0; 256 << 10], held: 0 }
    }
}

impl Messages {
    /// The length of the next body; none at the end.
    pub(crate) async fn next(&mut self, socket: &mut TcpStream) -> Option<usize> {
        let head = loop {
            let held = &self.buffer[..self.held];
            if let Some(end) = held.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.held += read(socket, &mut self.buffer[self.held..]).await?;
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        if text.contains("expect: 100-continue") {
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        assert!(text.starts_with("post ") || text.starts_with("http/1.1 200"), "{text}");
        let length = text.split_once("content-length: ")?.1.split_once("\r\n")?.0;
        let length: usize = length.parse().ok()?;
        let mut left = (head + length).saturating_sub(self.held);
        while left > 0 {
            let most = left.min(self.buffer.len());
            left -= read(socket, &mut self.buffer[..most]).await?;
        }
        // No one sends the next message before this one is answered.
        self.held = 0;
        Some(length)
    }
}

async fn read(socket: &mut TcpStream, into: &mut [u8]) -> Option<usize> {
    socket.read(into).await.ok().filter(|read| *read > 0)
}
