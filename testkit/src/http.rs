//! An HTTP request as the front takes it, and its answer as HTTP: the same over a socket and
//! without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use aws_smithy_types::date_time::{DateTime, Format};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::{Request, Response, StatusCode, header};

use crate::buffers::Buffers;
use crate::front::{Cut, Front, Reply, ReplyBody};

/// Largest body taken: more than any request AWS allows, base64 counted.
const MAX_BODY: usize = 32 << 20;

/// Answers a request; an error means that the connection is to be closed without a word.
pub(crate) async fn respond<B>(
    request: Request<B>,
    front: Arc<Front>,
) -> Result<Response<ReplyBody>, Cut>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    let (head, body) = request.into_parts();
    let Some(body) = read(body, &front.buffers).await else {
        let mut response = Response::new(ReplyBody::Left(Full::default()));
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return Ok(response);
    };
    let Reply { status, content_type, body } = {
        let answer = front.answer(&head, body.clone()).await;
        front.buffers.give_back(body);
        answer?
    };
    let mut response = Response::new(body);
    // The time of the services, not of this host: clients tell their time by it.
    let date = http_date(front.faults.now()).and_then(|date| date.try_into().ok());
    if let Some(date) = date {
        response.headers_mut().insert(header::DATE, date);
    }
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    let request_id = format!("{:032x}", REQUESTS.fetch_add(1, Ordering::Relaxed));
    if let Ok(request_id) = request_id.try_into() {
        headers.insert("x-amzn-requestid", request_id);
    }
    Ok(response)
}

fn http_date(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let date = DateTime::from_secs(i64::try_from(seconds).ok()?);
    date.fmt(Format::HttpDate).ok()
}

/// The whole body, copied once if it comes in several pieces; none if it is too large or breaks off.
async fn read<B>(body: B, buffers: &Buffers) -> Option<Bytes>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut whole = BytesMut::new();
    let mut body = std::pin::pin!(Limited::new(body, MAX_BODY));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            if whole.is_empty() && body.is_end_stream() {
                return Some(data);
            }
            if whole.capacity() == 0 {
                whole = buffers.take(announced.min(MAX_BODY));
            }
            whole.extend_from_slice(&data);
        }
    }
    Some(whole.freeze())
}
