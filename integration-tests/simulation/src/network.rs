//! The network of a worker: faults of its calls to the table, drawn from the seed, and outages.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use kcl::Clock;

use crate::memory::{Link, Passage};

/// One worker's way to the table, and to the service of the stream.
#[derive(Debug)]
pub(super) struct Network {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Rng,
    /// Time until which answers are slow.
    slow_until: Duration,
    /// Time until which no call gets through, from `slow_until` on.
    cut_until: Duration,
    /// Time until which most calls are throttled, from `cut_until` on.
    throttled_until: Duration,
    index_behind: Duration,
    calm: bool,
}

fn millis(random: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.u64(from..to))
}

impl Network {
    pub(super) fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                random: Rng::with_seed(seed),
                slow_until: Duration::ZERO,
                cut_until: Duration::ZERO,
                throttled_until: Duration::ZERO,
                index_behind: Duration::from_secs(1),
                calm: false,
            }),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets no call through for `span`, after a time in which all calls are slow.
    pub(super) fn cut(&self, span: Duration) {
        let now = self.clock.now();
        self.with(|state| {
            state.slow_until = now + millis(&mut state.random, 0, 12_000);
            state.cut_until = state.slow_until + span;
        });
    }

    pub(super) fn throttle(&self, span: Duration) {
        let until = self.clock.now() + span;
        self.with(|state| state.throttled_until = until);
    }

    pub(super) fn leave_index_behind(&self, by: Duration) {
        self.with(|state| state.index_behind = by);
    }

    /// How long no call gets through from now on.
    pub(super) fn outage(&self) -> Duration {
        let now = self.clock.now();
        self.with(|state| match state.slow_until {
            slow_until if now < slow_until => Duration::ZERO,
            _ => state.cut_until.saturating_sub(now),
        })
    }

    pub(super) fn is_calm(&self) -> bool {
        self.with(|state| state.calm)
    }

    /// Ends all faults.
    pub(super) fn calm(&self) {
        self.with(|state| {
            state.calm = true;
            state.slow_until = Duration::ZERO;
            state.cut_until = Duration::ZERO;
            state.throttled_until = Duration::ZERO;
            state.index_behind = Duration::from_secs(1);
        });
    }
}

impl State {
    fn passage(&mut self, now: Duration, is_write: bool) -> Passage {
        if now < self.slow_until {
            return Passage::Through {
                there: millis(&mut self.random, 1, 300),
                back: Some(millis(&mut self.random, 200, 1_700)),
            };
        }
        if now < self.cut_until {
            return Passage::Lost;
        }
        if now < self.throttled_until && self.random.f64() < 0.8 {
            return Passage::Throttled;
        }
        let there = millis(&mut self.random, 1, 15);
        let back = Some(millis(&mut self.random, 1, 15));
        let through = Passage::Through { there, back };
        if self.calm {
            return through;
        }
        match self.random.u32(..1000) {
            0..10 => Passage::Throttled,
            10..20 => Passage::Lost,
            20..25 => Passage::Cut,
            // Answers that get lost, or come after the caller has given up.
            25..45 => Passage::Through { there, back: None },
            45..55 => Passage::Through { there, back: Some(millis(&mut self.random, 100, 8_000)) },
            // Requests that arrive late.
            55..65 if is_write => {
                Passage::Through { there: millis(&mut self.random, 100, 8_000), back }
            }
            65..67 if is_write => {
                Passage::Through { there: millis(&mut self.random, 5_000, 25_000), back }
            }
            _ => through,
        }
    }
}

impl Link for Network {
    fn passage(&self, is_write: bool) -> Passage {
        let now = self.clock.now();
        self.with(|state| state.passage(now, is_write))
    }

    fn scan_lag(&self) -> Duration {
        self.with(|state| millis(&mut state.random, 0, 1000))
    }

    fn index_lag(&self) -> Duration {
        self.with(|state| {
            let most = u64::try_from(state.index_behind.as_millis()).unwrap_or(1000);
            millis(&mut state.random, 0, most.max(1))
        })
    }

    fn hides_old_item(&self) -> bool {
        self.with(|state| state.random.u32(..20) == 0)
    }
}
