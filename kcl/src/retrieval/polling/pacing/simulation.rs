//! Applications that read one shard and know nothing of each other, in simulated time.

use super::*;

/// Not measured: the readers find their shares.
const WARM_UP: Duration = Duration::from_secs(120);
const MEASURED: Duration = Duration::from_secs(1200);

/// The limits of a shard, as the service counts them: five reads and two MiB saved up, at most.
struct Shard {
    reads: f64,
    bytes: f64,
    filled: Duration,
}

impl Shard {
    fn admits(&mut self, now: Duration) -> bool {
        let elapsed = now.saturating_sub(self.filled).as_secs_f64();
        self.filled = now;
        let reads = f64::from(READS_PER_SECOND);
        self.reads = (self.reads + reads * elapsed).min(reads);
        self.bytes = (self.bytes + BYTES_PER_SECOND * elapsed).min(BYTES_PER_SECOND);
        let admitted = self.reads >= 1.0 && self.bytes > 0.0;
        self.reads -= f64::from(u8::from(admitted));
        admitted
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Load {
    /// Every read finds all there is.
    Tip,
    /// There is always more than a page.
    CatchUp,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    calls: u32,
    throttled: u32,
    bytes: u64,
}

/// `loads`: one for each application.
fn run(loads: &[Load], idle: Duration, seed: u64) -> Vec<Counts> {
    let applications = loads.len();
    let mut random = Rng::with_seed(seed);
    let mut shard = Shard { reads: 0.0, bytes: 0.0, filled: Duration::ZERO };
    let mut pacers: Vec<_> = (0..applications).map(|_| Pacer::new(idle, random.fork())).collect();
    // When each may act again: its last answer has come.
    let mut free: Vec<_> =
        (0..applications).map(|_| Duration::from_millis(random.u64(0..5000))).collect();
    let mut counts = vec![Counts::default(); applications];
    loop {
        let next = (0..applications).map(|app| (free[app] + pacers[app].delay(free[app]), app));
        let Some((now, app)) = next.min() else {
            return counts;
        };
        if now > WARM_UP + MEASURED {
            return counts;
        }
        let (pacer, load) = (&mut pacers[app], loads[app]);
        pacer.sent(now);
        let answered = now + Duration::from_millis(random.u64(10..40));
        free[app] = answered;
        let mut count = Counts { calls: 1, ..Counts::default() };
        let arrives = now + Duration::from_millis(random.u64(1..9));
        if shard.admits(arrives) {
            count.bytes = match load {
                Load::Tip => random.u64(0..20_000),
                Load::CatchUp => pacer.page_bytes(now).min(10 << 20) * random.u64(80..100) / 100,
            };
            shard.bytes -= count.bytes as f64;
            pacer.answered(answered, count.bytes, load == Load::Tip);
        } else {
            count.throttled = 1;
            pacer.throttled(answered);
        }
        if now > WARM_UP {
            let sum = &mut counts[app];
            sum.calls += count.calls;
            sum.throttled += count.throttled;
            sum.bytes += count.bytes;
        }
    }
}

/// Share of all calls that were throttled; how much of an equal share the worst off got; how much of
/// the shard's limit was used. The worst of some seeds.
fn judge(applications: usize, idle: Duration, load: Load) -> (f64, f64, f64) {
    let (mut throttled, mut least, mut used) = (0f64, f64::INFINITY, f64::INFINITY);
    for seed in 0..10 {
        let counts = run(&vec![load; applications], idle, seed);
        let calls: u32 = counts.iter().map(|count| count.calls).sum();
        let refused: u32 = counts.iter().map(|count| count.throttled).sum();
        throttled = throttled.max(f64::from(refused) / f64::from(calls));
        let got = |count: &Counts| match load {
            Load::Tip => f64::from(count.calls - count.throttled),
            Load::CatchUp => count.bytes as f64,
        };
        let all: f64 = counts.iter().map(got).sum();
        let fewest = counts.iter().map(got).fold(f64::INFINITY, f64::min);
        least = least.min(fewest * applications as f64 / all);
        let limit = match load {
            Load::Tip => f64::from(READS_PER_SECOND),
            Load::CatchUp => BYTES_PER_SECOND,
        };
        used = used.min(all / MEASURED.as_secs_f64() / limit);
    }
    (throttled, least, used)
}

#[test]
fn three_applications_at_the_tip_never_throttle_each_other() {
    let (throttled, least, _) = judge(3, Duration::from_secs(1), Load::Tip);
    assert_eq!(throttled, 0.0);
    assert!(least > 0.98, "{least}");
}

#[test]
fn three_applications_that_poll_faster_than_the_shard_allows_share_it() {
    let (throttled, least, used) = judge(3, Duration::from_millis(200), Load::Tip);
    assert!(throttled < 0.02, "{throttled}");
    assert!(least > 0.55 && used > 0.8, "{least} {used}");
}

#[test]
fn three_applications_that_catch_up_share_the_shard() {
    let (throttled, least, used) = judge(3, Duration::from_secs(1), Load::CatchUp);
    assert!(throttled < 0.02, "{throttled}");
    assert!(least > 0.7 && used > 0.9, "{least} {used}");
}

#[test]
fn one_application_alone_takes_two_megabytes_a_second() {
    let (throttled, _, used) = judge(1, Duration::from_secs(1), Load::CatchUp);
    assert!(throttled < 0.002, "{throttled}");
    assert!(used * BYTES_PER_SECOND > 2e6, "{used}");
}

#[test]
fn one_that_catches_up_leaves_room_for_others_at_the_tip() {
    for at_tip in 1..=2 {
        let mut loads = vec![Load::CatchUp];
        loads.resize(1 + at_tip, Load::Tip);
        for seed in 0..10 {
            let counts = run(&loads, Duration::from_secs(1), seed);
            let (first, others) = (counts[0], &counts[1..]);
            let used = first.bytes as f64 / MEASURED.as_secs_f64() / BYTES_PER_SECOND;
            assert!(used > 0.9, "{at_tip} {seed}: {used}");
            for other in others {
                let throttled = f64::from(other.throttled) / f64::from(other.calls);
                assert!(throttled < 0.01, "{at_tip} {seed}: {throttled}");
            }
        }
    }
}
