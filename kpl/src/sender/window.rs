//! The congestion window: how many bytes may be in flight. Pure: time is passed in.
//!
//! All requests in flight share the link to the service. If more bytes are in flight than the link carries within the
//! time limit of a request, no request is answered in time, and each is sent again. So the window follows what is
//! acknowledged:
//!
//! * The window starts small. While it is used, it doubles with each round trip, up to what the link carries in a third
//!   of the time limit. Each round trip measures that, and the window follows it slowly.
//! * A service may be slow by itself, whatever is in flight. So the window also doubles while a round trip takes about
//!   as long as the shortest one, and a full window may take twice as long as that.
//! * When a request times out, the window falls to what was acknowledged in a third of the request's time. If the link
//!   carries more than the window, the timeout has another cause and does not change the window.

use std::time::Duration;

use crate::clock::Instant;
use crate::config::ProducerConfig;

/// The window at the start, in bytes.
const INITIAL: usize = 1024 * 1024;

/// The smallest window, in bytes. It is sent as a probe after timeouts.
const LEAST: usize = 128 * 1024;

/// The smallest limit on the bytes of a request.
const LEAST_REQUEST: usize = 64 * 1024;

/// The smallest limit on the bytes of a request while the window is not smaller than at the start.
const LEAST_USUAL_REQUEST: usize = 512 * 1024;

/// Number of the largest requests that fit into a window. On a link that is nearly full, a request takes ten times as
/// long as alone: large requests would delay their records for seconds.
const REQUESTS: usize = 16;

/// A full window takes this fraction of the time limit to be answered: one third. The rest is for a link that slows
/// down.
const TARGET_PART: u32 = 3;

/// Fraction of the difference between a measurement and the window by which the window changes: one eighth.
const SMOOTHING: usize = 8;

/// The window, and the requests in flight.
#[derive(Debug)]
pub(crate) struct Window {
    size: usize,
    most: usize,
    /// Number of requests that may be in flight.
    max_requests: usize,
    request_timeout: Duration,
    /// The shortest round trip: the time of the service while the link is free.
    shortest: Option<Duration>,
    shrinking: Option<Shrinking>,
    /// Requests in flight that are not isolated.
    batches: Load,
    /// Isolated requests in flight. They do not count as use of the window, because they may hang.
    isolated: Load,
    /// Time since which no batch is in flight.
    idle_since: Option<Instant>,
    /// When batches of at least half of the window were last in flight.
    used: Option<Instant>,
    /// When a request last was about as large as a small window allows.
    limited: Option<Instant>,
    /// The measured round trip. It ends with the first answer to a request that started in it.
    round: Option<Mark>,
    /// Sum of the durations of the requests that were answered in this round trip, and their number.
    answers: (Duration, u32),
    /// Bytes acknowledged since the start.
    acknowledged: u64,
}

/// Requests in flight of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    requests: usize,
    bytes: usize,
}

/// The state since the window began to shrink, because round trips take long.
#[derive(Debug, Clone, Copy)]
struct Shrinking {
    /// The window before it shrank.
    size: usize,
    /// The longest round trip.
    longest: Duration,
}

/// A moment, and the bytes acknowledged until then.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    acknowledged: u64,
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentRequest {
    bytes: usize,
    is_isolated: bool,
    began: Mark,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestEnd {
    /// The service answered: all of the request was carried.
    Answered,
    TimedOut,
    /// It failed in another way, which tells nothing of the link.
    Failed,
}

impl Window {
    pub(crate) fn new(config: &ProducerConfig) -> Self {
        let most = config.max_in_flight_bytes;
        Self {
            size: INITIAL.min(most),
            most,
            max_requests: config.max_requests_in_flight,
            request_timeout: config.request_timeout,
            shortest: None,
            shrinking: None,
            batches: Load::default(),
            isolated: Load::default(),
            idle_since: None,
            used: None,
            limited: None,
            round: None,
            answers: (Duration::ZERO, 0),
            acknowledged: 0,
        }
    }

    /// Number of bytes in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.batches.bytes + self.isolated.bytes
    }

    /// Whether a batch of `bytes` may start, while isolated requests of `reserved` bytes wait.
    ///
    /// Isolated requests in flight or waiting take at most half of the window. A batch that is larger than the rest
    /// starts when no other batch is in flight.
    pub(crate) fn has_room(&self, bytes: usize, reserved: usize) -> bool {
        let for_isolated = (self.isolated.bytes.saturating_add(reserved)).min(self.size / 2);
        self.batches.requests == 0
            || self.batches.bytes.saturating_add(bytes) <= self.size - for_isolated
    }

    /// Whether an isolated request of `bytes` may start: within its half of the window, or as the only isolated
    /// request.
    pub(crate) fn has_room_for_isolated(&self, bytes: usize) -> bool {
        let half = self.size / 2;
        let fits_into_half =
            self.isolated.requests == 0 || self.isolated.bytes.saturating_add(bytes) <= half;
        // A request that is larger than half of the window waits for only half of it.
        let room = self.size - bytes.min(half);
        fits_into_half && (self.batches.requests == 0 || self.in_flight() <= room)
    }

    /// Most bytes of a request of several records.
    pub(crate) fn max_request(&self) -> usize {
        // Large requests are cheaper, and a link counts as fast until it shows that it is slow.
        let least = match self.is_small() {
            true => LEAST_REQUEST,
            false => LEAST_USUAL_REQUEST.min(self.size / 2).max(LEAST_REQUEST),
        };
        // If few requests may be in flight, these alone must be able to fill the window.
        (self.size / REQUESTS.min(self.max_requests)).max(least)
    }

    /// Whether the window is smaller than at the start.
    fn is_small(&self) -> bool {
        self.size < INITIAL.min(self.most)
    }

    /// A request of `bytes` starts.
    pub(crate) fn start(&mut self, bytes: usize, is_isolated: bool, now: Instant) -> SentRequest {
        let began = self.mark(now);
        let load = self.load(is_isolated);
        load.requests += 1;
        load.bytes += bytes;
        if !is_isolated {
            // Idle time is not part of a round trip.
            let idle = match self.idle_since.take() {
                Some(since) => now.saturating_duration_since(since),
                None => Duration::ZERO,
            };
            self.round.get_or_insert(began).at += idle;
            if self.batches.bytes >= self.size / 2 {
                self.used = Some(now);
            }
            if self.is_small() && bytes >= self.max_request() / 2 {
                self.limited = Some(now);
            }
        }
        SentRequest { bytes, is_isolated, began }
    }

    /// A request ended.
    pub(crate) fn end(&mut self, sent: SentRequest, end: RequestEnd, now: Instant) {
        let load = self.load(sent.is_isolated);
        load.requests -= 1;
        load.bytes -= sent.bytes;
        if !sent.is_isolated && self.batches.requests == 0 {
            self.idle_since = Some(now);
        }
        match end {
            RequestEnd::Answered => {
                let took = now.saturating_duration_since(sent.began.at);
                self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
                self.acknowledged += sent.bytes as u64;
                if !sent.is_isolated {
                    let (sum, count) = self.answers;
                    self.answers = (sum.saturating_add(took), count + 1);
                    if let Some(round) = self.round.filter(|round| sent.began.at >= round.at) {
                        self.end_round(round, now);
                    }
                }
            }
            RequestEnd::TimedOut => {
                let least = LEAST.min(self.most);
                let carried = self.carried_since(sent.began, self.slow_link_target(), now);
                self.size = self.size.min(carried.max(least));
                self.shrinking = None;
                self.begin_round(now);
            }
            RequestEnd::Failed => {}
        }
    }

    fn begin_round(&mut self, now: Instant) {
        self.round = Some(self.mark(now));
        self.answers = (Duration::ZERO, 0);
    }

    fn end_round(&mut self, round: Mark, now: Instant) {
        // The mean, because on a link that carries one request after the other, the first one does not wait.
        let (sum, count) = self.answers;
        let took = sum / count.max(1);
        let in_round = |at: Option<Instant>| at.is_some_and(|at| at >= round.at);
        let (is_used, is_limited) = (in_round(self.used), in_round(self.limited));
        let carried = (self.carried_since(round, self.max_round_trip(), now)).min(self.most);
        // A small window limits the size of a request. If such a request is answered quickly, the link carries a larger
        // window.
        if (is_used || is_limited) && carried / 2 >= self.size {
            self.size *= 2;
            self.shrinking = None;
        } else if is_used {
            // Only a used window shows that the link does not carry more.
            if self.is_short(took) {
                self.size = self.size.saturating_mul(2).min(self.most);
                self.shrinking = None;
            } else {
                self.follow(carried, took);
            }
        }
        self.begin_round(now);
    }

    /// Moves the window slowly towards what the link carries. One round trip is an inexact measurement, so the window
    /// follows the mean of several.
    fn follow(&mut self, carried: usize, took: Duration) {
        let before = self.size;
        let wanted = (self.size / SMOOTHING * (SMOOTHING - 1)) + carried / SMOOTHING;
        self.size = wanted.max(LEAST.min(self.most)).min(self.most);
        if self.size >= before {
            self.shrinking = None;
            return;
        }
        let start = Shrinking { size: before, longest: took };
        let shrinking = self.shrinking.get_or_insert(start);
        shrinking.longest = shrinking.longest.max(took);
        if self.size <= shrinking.size / 4 * 3 {
            // On a full link, round trips get shorter with the window. If they do not, the service is slow.
            if took >= shrinking.longest.mul_f64(0.9) {
                self.shortest = Some(took);
            }
            self.shrinking = None;
        }
    }

    /// Whether a round trip took about as long as on a free link.
    fn is_short(&self, took: Duration) -> bool {
        self.shortest.is_some_and(|shortest| took <= shortest.saturating_add(shortest / 4))
    }

    /// Longest time that a full window may take if the link is slow, and not the service.
    fn slow_link_target(&self) -> Duration {
        self.request_timeout / TARGET_PART
    }

    /// Longest time that a full window may take.
    fn max_round_trip(&self) -> Duration {
        let shortest = self.shortest.unwrap_or_default();
        // At most halfway to the timeout: the rest is for a link that slows down.
        let halfway = shortest.saturating_add(self.request_timeout) / 2;
        self.slow_link_target().max(shortest.saturating_mul(2).min(halfway))
    }

    fn load(&mut self, is_isolated: bool) -> &mut Load {
        match is_isolated {
            true => &mut self.isolated,
            false => &mut self.batches,
        }
    }

    fn mark(&self, now: Instant) -> Mark {
        Mark { at: now, acknowledged: self.acknowledged }
    }

    /// Bytes that the link carries in `time`, as measured since `mark`.
    fn carried_since(&self, mark: Mark, time: Duration, now: Instant) -> usize {
        let took = now.saturating_duration_since(mark.at);
        let bytes = (self.acknowledged - mark.acknowledged) as f64;
        // In floating point, because a round trip that took no time has an infinite rate.
        (bytes * time.as_secs_f64() / took.as_secs_f64().max(1e-6)) as usize
    }
}

#[cfg(test)]
mod tests;
