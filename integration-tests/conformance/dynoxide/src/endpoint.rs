//! A DynamoDB at a URL, asked over one connection.

use serde_json::Value;
use tokio::net::TcpStream;

use crate::Failure;

pub struct Endpoint {
    address: String,
    socket: Option<TcpStream>,
}

impl Endpoint {
    pub fn new(url: &str) -> Result<Self, Failure> {
        let address = url.strip_prefix("http://");
        let address = address.ok_or_else(|| format!("{url} does not begin with http://"))?;
        Ok(Self { address: address.trim_end_matches('/').to_owned(), socket: None })
    }

    /// The status and the body of the answer.
    pub async fn call(&mut self, operation: &str, body: &Value) -> Result<(u16, Value), Failure> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => TcpStream::connect(&self.address).await?,
        };
        let body = body.to_string();
        let address = &self.address;
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.{operation}\r\nx-amz-date: 20260101T000000Z\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/dynamodb/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=00\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        write_all(&socket, request.as_bytes()).await?;
        let answer = read_answer(&socket).await?;
        self.socket = Some(socket);
        Ok(answer)
    }
}

async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn read_answer(socket: &TcpStream) -> Result<(u16, Value), Failure> {
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes)? {
            return Ok(answer);
        }
        socket.readable().await?;
        match socket.try_read_buf(&mut bytes) {
            Ok(0) => return Err("the connection ended in the middle of an answer".into()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The answer, once all of it is there.
fn parse(bytes: &[u8]) -> Result<Option<(u16, Value)>, Failure> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or("an answer without a status")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    let length = length.ok_or("an answer without a content-length")?;
    let body = &bytes[end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    Ok(Some((status, serde_json::from_slice(body)?)))
}
