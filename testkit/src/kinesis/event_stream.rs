//! A subscription as a body of HTTP: frames of the AWS event stream, sent as there is something to
//! send.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures::stream::unfold;
use futures::{Stream, StreamExt};

use super::error::ApiError;
use super::service::KinesisService;
use super::subscribe::{Next, SubscribeToShardEvent, Subscription};
use crate::encoding::Encoding;
use crate::faults::{Asks, Call, Faults, Part, Service, Stop};
use crate::front::Cut;

/// The injected clock may be moved while a subscription sleeps: so often it is looked at.
const CLOCK_CHECK: Duration = Duration::from_millis(250);

/// The frames of a subscription, the initial response first. Dropped, it ends the subscription.
pub(crate) fn frames(
    service: &Arc<KinesisService>,
    faults: Arc<Faults>,
    subscription: Subscription,
    encoding: Encoding,
) -> impl Stream<Item = Result<Bytes, Cut>> + Send + Sync + use<> {
    let session = Session {
        service: Arc::downgrade(service),
        faults,
        subscription,
        encoding,
        stage: Stage::Begin,
    };
    unfold(session, async |mut session| {
        let frame = session.next_frame().await?;
        Some((frame, session))
    })
    .fuse()
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Serve,
    Over,
}

struct Session {
    /// Weak, so that what is stopped is also forgotten while clients are still around.
    service: Weak<KinesisService>,
    faults: Arc<Faults>,
    subscription: Subscription,
    encoding: Encoding,
    stage: Stage,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(service) = self.service.upgrade() {
            service.with_state(|kinesis, _| kinesis.leave(&self.subscription));
        }
    }
}

impl Session {
    async fn next_frame(&mut self) -> Option<Result<Bytes, Cut>> {
        let encoding = self.encoding;
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Serve;
                let nothing = b"{}".to_vec();
                return Some(frame(encoding, "event", "initial-response", nothing));
            }
            Stage::Serve => {}
            Stage::Over => return None,
        }
        let event = match self.next_event().await {
            Ok(None) => return None,
            Ok(Some(event)) => event,
            Err(Stop::Cut) => return Some(Err(self.end(Cut))),
            Err(Stop::Refuse(error)) => return Some(self.end(exception(encoding, &error))),
        };
        Some(match event.to_json() {
            Ok(json) => frame(encoding, "event", "SubscribeToShardEvent", json),
            Err(_) => Err(self.end(Cut)),
        })
    }

    fn end<T>(&mut self, last: T) -> T {
        self.stage = Stage::Over;
        last
    }

    /// Waits for the next event; none at the end of the subscription.
    async fn next_event(&mut self) -> Result<Option<SubscribeToShardEvent>, Stop> {
        loop {
            // From here on a change wakes us, so none is missed between the look and the wait.
            let mut changed = pin!(Arc::clone(&self.subscription.changed).notified_owned());
            changed.as_mut().enable();
            let subscription = &mut self.subscription;
            let service = self.service.upgrade().ok_or(Stop::Cut)?;
            let next = service.with_state(|kinesis, now| kinesis.next_event(now, subscription));
            drop(service);
            match next.map_err(Stop::Refuse)? {
                Next::End => return Ok(None),
                Next::Cut => return Err(Stop::Cut),
                Next::Send(event) => return self.past_faults(event).await.map(Some),
                Next::Wait(at_most) => {
                    // Timers count milliseconds and may not fire early: no wait is shorter.
                    let at_most = at_most.clamp(Duration::from_millis(1), CLOCK_CHECK);
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = tokio::time::sleep(at_most) => {}
                    }
                }
            }
        }
    }

    /// Runs an event past the faults, as if it were a call of its own.
    async fn past_faults(
        &self,
        event: SubscribeToShardEvent,
    ) -> Result<SubscribeToShardEvent, Stop> {
        if self.faults.is_empty() {
            return Ok(event);
        }
        let part = Part {
            resource: Some(self.subscription.stream.clone()),
            shard: Some(self.subscription.shard.to_string()),
        };
        let plan = self.faults.plan(&Call {
            service: Service::Kinesis,
            operation: "SubscribeToShardEvent",
            parts: vec![part],
            batch: false,
            asks: Asks::default(),
        });
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        match plan.stop {
            Some(stop) => Err(stop),
            None if plan.lose_response => Err(Stop::Cut),
            None => Ok(event),
        }
    }
}

fn frame(
    encoding: Encoding,
    message_type: &str,
    event_type: &str,
    json: Vec<u8>,
) -> Result<Bytes, Cut> {
    let text = |value: &str| HeaderValue::String(value.to_owned().into());
    let kind = if message_type == "exception" { ":exception-type" } else { ":event-type" };
    let content_type = text(encoding.event_content_type());
    let message = Message::new(encoding.write(json))
        .add_header(Header::new(":message-type", text(message_type)))
        .add_header(Header::new(kind, text(event_type)))
        .add_header(Header::new(":content-type", content_type));
    let mut bytes = Vec::with_capacity(message.payload().len() + 160);
    // A message too large for its frame cannot be sent; what comes after it must not be either.
    write_message_to(&message, &mut bytes).map_err(|_| Cut)?;
    Ok(bytes.into())
}

fn exception(encoding: Encoding, error: &ApiError) -> Result<Bytes, Cut> {
    frame(encoding, "exception", &error.code, error.to_json())
}
