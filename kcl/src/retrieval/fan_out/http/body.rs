//! The body of a response, which holds its place on a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use hyper::body::{Body, Frame, Incoming};
use tokio_util::task::AbortOnDropHandle;

use super::error::HttpError;
use super::pool::Place;

/// The body of a response. Dropped, it ends the request: the stream of HTTP/2 is reset, the connection of HTTP/1.1 is
/// closed.
pub(super) enum ResponseBody {
    /// The stream is dropped, and so reset, before its place is free.
    Http2 {
        stream: RecvStream,
        place: Place,
    },
    Http1 {
        incoming: Incoming,
        _connection: AbortOnDropHandle<()>,
    },
    /// The body has ended or failed.
    Ended,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = match &mut *self {
            Self::Http2 { stream, place } => match ready!(stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // Gives the server window for as much. It fails if the stream has ended, and then no window is needed.
                    drop(stream.flow_control().release_capacity(data.len()));
                    Some(Ok(Frame::data(data)))
                }
                // A server may reset a stream without an error after its last byte.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => None,
                Some(Err(error)) => Some(Err(place.connection().error(error))),
                None => None,
            },
            Self::Http1 { incoming, .. } => {
                let frame = ready!(Pin::new(incoming).poll_frame(context));
                frame.map(|frame| frame.map_err(HttpError::lost))
            }
            Self::Ended => None,
        };
        if !matches!(frame, Some(Ok(_))) {
            // The place goes to another request now, not when the caller drops the body.
            *self = Self::Ended;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http2 { stream, .. } => stream.is_end_stream(),
            Self::Http1 { incoming, .. } => incoming.is_end_stream(),
            Self::Ended => true,
        }
    }
}
