//! One subscription, as the service sends its events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tokio::sync::mpsc;

use super::messages::{self, Frame, Refusal};
use super::{FanOut, FanOutCounts, LONGEST};
use crate::network::Network;
use crate::stream::sequence_of;

/// Most Kinesis records of an event.
const MOST_RECORDS: usize = 8;
/// Time after which an event without records is sent.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Longest time after which the service notices that the client is gone, in milliseconds.
const LONGEST_UNNOTICED: u64 = 8_000;

/// See the module.
pub(super) struct Session {
    service: Arc<FanOut>,
    network: Arc<Network>,
    id: u64,
    shard: String,
    /// The first user record that was not sent yet.
    next: u64,
    last_event: Option<Duration>,
    /// The time at which the service ends the subscription.
    end: Duration,
    random: Rng,
}

/// Why a session ends.
enum Ended {
    /// The service has ended the subscription.
    ByService,
    /// The connection broke.
    Broken,
    /// Another subscription took the shard over.
    TakenOver,
}

impl Session {
    pub(super) fn new(
        service: Arc<FanOut>,
        network: Arc<Network>,
        id: u64,
        shard: String,
        next: u64,
        mut random: Rng,
    ) -> Self {
        // The service promises five minutes, and not that it keeps the promise.
        let is_short = !network.is_calm() && random.u32(..4) == 0;
        let time = if is_short { millis(&mut random, 3_000, 300_000) } else { LONGEST };
        let end = service.clock.now() + time;
        Self { service, network, id, shard, next, last_event: None, end, random }
    }

    /// Sends events until the subscription ends.
    pub(super) async fn serve(mut self, frames: mpsc::Sender<Frame>) {
        let ended = tokio::select! {
            biased;
            () = frames.closed() => Ended::Broken,
            ended = self.send_events(&frames) => ended,
        };
        drop(frames);
        match ended {
            Ended::ByService => {}
            Ended::TakenOver => return,
            Ended::Broken => {
                let unnoticed = millis(&mut self.random, 0, LONGEST_UNNOTICED);
                tokio::time::sleep(unnoticed).await;
            }
        }
        self.service.is_over(&self.shard, self.id);
    }

    async fn send_events(&mut self, frames: &mpsc::Sender<Frame>) -> Ended {
        let mut frame = Some((messages::opening(), false));
        loop {
            // What is sent during an outage arrives after it.
            tokio::time::sleep(self.network.outage()).await;
            if !self.service.is_current(&self.shard, self.id) {
                self.ends("is taken over", |counts| counts.takeovers += 1);
                return close(frames, Ok(Refusal::IN_USE.frame()), Ended::TakenOver).await;
            }
            let now = self.service.clock.now();
            if now >= self.end {
                return Ended::ByService;
            }
            if let Some((frame, is_last)) = frame.take() {
                if !self.network.is_calm() && self.random.u32(..100) == 0 {
                    self.ends("is cut", |counts| counts.cuts += 1);
                    return self.cut_within(&frame, frames).await;
                }
                if frames.send(Ok(frame)).await.is_err() {
                    return Ended::Broken;
                }
                if is_last {
                    return Ended::ByService;
                }
            }
            let draw = if self.network.is_calm() { u32::MAX } else { self.random.u32(..4_000) };
            match draw {
                0..10 => {
                    self.ends("is cut", |counts| counts.cuts += 1);
                    return close(frames, Err(broken()), Ended::Broken).await;
                }
                10..15 => {
                    self.ends("fails", |counts| counts.failures += 1);
                    return close(frames, Ok(Refusal::INTERNAL.frame()), Ended::ByService).await;
                }
                15..20 => {
                    self.ends("falls silent", |counts| counts.silences += 1);
                    tokio::time::sleep(millis(&mut self.random, 31_000, 60_000)).await;
                }
                20..30 => self.service.pass_to_stranger(&self.shard),
                _ => {}
            }
            tokio::time::sleep(millis(&mut self.random, 20, 300)).await;
            frame = self.next_event();
        }
    }

    /// Sends a part of a frame before the connection ends.
    async fn cut_within(&mut self, frame: &Bytes, frames: &mpsc::Sender<Frame>) -> Ended {
        let part = frame.slice(..self.random.usize(..frame.len()));
        // Without a reader, nothing is cut.
        let _ = frames.send(Ok(part)).await;
        if self.random.bool() {
            return Ended::Broken;
        }
        close(frames, Err(broken()), Ended::Broken).await
    }

    fn ends(&self, how: &str, count: impl FnOnce(&mut FanOutCounts)) {
        self.service.count(count);
        let what = format!("fan-out: subscription {} to {} {how}", self.id, self.shard);
        self.service.oracle.step(&what);
    }

    /// Returns the next event, and whether it is the last one of the shard. `None`: nothing is to be sent yet.
    fn next_event(&mut self) -> Option<(Bytes, bool)> {
        let now = self.service.clock.now();
        let stream = &self.service.stream;
        let most = self.random.usize(1..=MOST_RECORDS);
        let fetched = stream.fetch(&self.shard, self.next, most);
        let has_records = !fetched.records.is_empty();
        let is_due = self.last_event.is_none_or(|last| now >= last + HEARTBEAT);
        if !has_records && !fetched.ended && !is_due {
            return None;
        }
        self.last_event = Some(now);
        // The service has looked at a part of the shard without a record.
        if has_records && self.random.u32(..10) == 0 {
            return Some((messages::event(&[], &Ok(self.before_next()), 1_000), false));
        }
        self.next = fetched.next;
        // Some shards end with their last records, others behind them.
        if fetched.ended && (!has_records || self.random.bool()) {
            let children = stream.children(&self.shard);
            return Some((messages::event(&fetched.records, &Err(children), 0), true));
        }
        let first = self.before_next();
        let (last, behind) = match fetched.is_last {
            true => (stream.last_sequence().max(first), 0),
            false => (first, 1_000),
        };
        // At the tip, the number moves on with the stream.
        let number = self.random.u64(first..=last);
        Some((messages::event(&fetched.records, &Ok(number), behind), false))
    }

    /// The sequence number before the next record.
    fn before_next(&self) -> u64 {
        sequence_of(self.next) - 1
    }
}

/// Sends the last frame of a subscription. The client may be gone.
async fn close(frames: &mpsc::Sender<Frame>, last: Frame, ended: Ended) -> Ended {
    let _ = frames.send(last).await;
    ended
}

fn broken() -> std::io::Error {
    std::io::Error::other("the connection broke")
}

fn millis(random: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.u64(from..to))
}
