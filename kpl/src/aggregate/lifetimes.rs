//! Lifetimes: when the members of an aggregate expire. Pure: time is passed in.
//!
//! Members usually have the same time to live and are accepted within the linger. Then all of them expire with the
//! first. If an aggregate stays open for longer, or its members have different times to live, each member has its own
//! lifetime.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::{self, Instant};

/// Parts into which a time to live is divided. When a member expires, the members that would expire within one part
/// fail with it, and the aggregate is rebuilt from the others. So it is rebuilt at most 16 times in one time to live.
const EXPIRY_STEPS: u32 = 16;

/// Number of the latest times to live that a new member is compared with, so that equal ones are kept once.
const COMPARED: usize = 8;

/// When the members of an aggregate expire.
#[derive(Debug, Clone)]
pub(crate) struct Lifetimes {
    /// Time to live of the first member. `None`: that of the configuration.
    time_to_live: Option<Duration>,
    expires: Instant,
    /// Set if the lifetimes of the members differ.
    own: Option<Box<Own>>,
}

#[derive(Debug, Clone)]
struct Own {
    /// When the first member was accepted.
    opened: Instant,
    /// Time to live of members without their own.
    usual: Duration,
    times_to_live: Vec<Option<Duration>>,
    members: Vec<Lifetime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lifetime {
    /// Position among `times_to_live`.
    time_to_live: u32,
    /// Time from `opened` to the acceptance, rounded down so that no member expires late.
    accepted_millis: u32,
}

impl Lifetimes {
    /// Lifetimes of a first member, which was accepted at `opened`. `usual` is the time to live of members without
    /// their own.
    pub(crate) fn new(time_to_live: Option<Duration>, opened: Instant, usual: Duration) -> Self {
        Self {
            time_to_live,
            expires: clock::after(opened, time_to_live.unwrap_or(usual)),
            own: None,
        }
    }

    pub(crate) fn expires(&self) -> Instant {
        self.expires
    }

    /// Whether all members expire together.
    pub(crate) fn are_equal(&self) -> bool {
        self.own.is_none()
    }

    /// Whether a member with this time to live may share the lifetime of all members so far.
    pub(crate) fn may_share(&self, time_to_live: Option<Duration>) -> bool {
        self.own.is_none() && self.time_to_live == time_to_live
    }

    pub(crate) fn first_time_to_live(&self) -> Option<Duration> {
        self.time_to_live
    }

    /// Adds a member with its own lifetime after `members` others.
    pub(crate) fn add(
        &mut self,
        members: usize,
        time_to_live: Option<Duration>,
        (opened, accepted): (Instant, Instant),
        usual: Duration,
    ) {
        let first = self.time_to_live;
        let own = self.own.get_or_insert_with(|| {
            let shared = Lifetime { time_to_live: 0, accepted_millis: 0 };
            Box::new(Own {
                opened,
                usual,
                times_to_live: vec![first],
                members: vec![shared; members],
            })
        });
        own.add(time_to_live, accepted);
        self.expires = self.expires.min(own.expires(members));
    }

    /// The time to live of a member. `None`: that of the configuration.
    pub(crate) fn time_to_live(&self, member: usize) -> Option<Duration> {
        match &self.own {
            None => self.time_to_live,
            Some(own) => own.time_to_live(member),
        }
    }

    /// When a member was accepted. `None` if members have no lifetimes of their own.
    pub(crate) fn accepted(&self, member: usize) -> Option<Instant> {
        self.own.as_ref().map(|own| own.accepted(member))
    }

    /// Whether a member fails when the sender searches for expired records.
    pub(crate) fn is_over(&self, member: usize, now: Instant) -> bool {
        match &self.own {
            None => self.expires <= now,
            Some(own) => {
                let time_to_live = own.time_to_live(member).unwrap_or(own.usual);
                own.expires(member) <= clock::after(now, time_to_live / EXPIRY_STEPS)
            }
        }
    }

    /// The lifetimes of some of the members, at least one.
    pub(crate) fn of_members(&self, members: &[usize]) -> Self {
        let Some(own) = &self.own else {
            return self.clone();
        };
        let expires = members.iter().map(|member| own.expires(*member)).min();
        let lifetimes: Vec<_> = members.iter().map(|member| own.members[*member]).collect();
        let are_equal = lifetimes.windows(2).all(|pair| pair[0] == pair[1]);
        let (times_to_live, lifetimes) = own.compact(lifetimes);
        Self {
            time_to_live: own.time_to_live(members[0]),
            expires: expires.unwrap_or(self.expires),
            own: (!are_equal).then(|| Box::new(Own { times_to_live, members: lifetimes, ..**own })),
        }
    }

    /// Gives back memory that was reserved for further members.
    pub(crate) fn shrink_to_fit(&mut self) {
        if let Some(own) = &mut self.own {
            own.times_to_live.shrink_to_fit();
            own.members.shrink_to_fit();
        }
    }
}

impl Own {
    fn add(&mut self, time_to_live: Option<Duration>, accepted: Instant) {
        let skipped = self.times_to_live.len().saturating_sub(COMPARED);
        let latest = &self.times_to_live[skipped..];
        let known = latest.iter().position(|known| *known == time_to_live);
        let position = known.map(|position| skipped + position);
        let position = position.unwrap_or_else(|| {
            self.times_to_live.push(time_to_live);
            self.times_to_live.len() - 1
        });
        let passed = accepted.saturating_duration_since(self.opened).as_millis();
        self.members.push(Lifetime {
            time_to_live: position as u32,
            accepted_millis: u32::try_from(passed).unwrap_or(u32::MAX),
        });
    }

    /// Removes the times to live to which none of `members` refers. Returns the others, and the members.
    fn compact(&self, mut members: Vec<Lifetime>) -> (Vec<Option<Duration>>, Vec<Lifetime>) {
        let mut times_to_live = Vec::new();
        let mut positions = HashMap::new();
        for member in &mut members {
            let old = member.time_to_live;
            member.time_to_live = *positions.entry(old).or_insert_with(|| {
                times_to_live.push(self.times_to_live[old as usize]);
                (times_to_live.len() - 1) as u32
            });
        }
        times_to_live.shrink_to_fit();
        (times_to_live, members)
    }

    fn time_to_live(&self, member: usize) -> Option<Duration> {
        self.times_to_live[self.members[member].time_to_live as usize]
    }

    fn accepted(&self, member: usize) -> Instant {
        let passed = self.members[member].accepted_millis;
        self.opened + Duration::from_millis(passed.into())
    }

    fn expires(&self, member: usize) -> Instant {
        let passed = Duration::from_millis(self.members[member].accepted_millis.into());
        let time_to_live = self.time_to_live(member).unwrap_or(self.usual);
        clock::after(self.opened, passed.saturating_add(time_to_live))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: Duration = Duration::from_secs(30);

    proptest! {
        /// Each member fails no later than its time to live says, and at most a sixteenth of it early; where lifetimes
        /// are parted, those of the parts are the same.
        #[test]
        fn members_expire_by_their_own_time(
            records in proptest::collection::vec((proptest::option::of(1..40_000_u64), 0..5000_u64), 1..40),
            times in proptest::collection::vec(0..50_000_u64, 1..10),
        ) {
            let opened = clock::now();
            let millis = Duration::from_millis;
            let mut accepted = opened;
            let mut deadlines = Vec::new();
            let mut lifetimes: Option<Lifetimes> = None;
            for (members, (time_to_live, pause)) in records.iter().enumerate() {
                let time_to_live = time_to_live.map(millis);
                match &mut lifetimes {
                    None => lifetimes = Some(Lifetimes::new(time_to_live, opened, USUAL)),
                    Some(lifetimes) => {
                        accepted += millis(*pause);
                        if accepted > opened || !lifetimes.may_share(time_to_live) {
                            lifetimes.add(members, time_to_live, (opened, accepted), USUAL);
                        }
                    }
                }
                let lives = time_to_live.unwrap_or(USUAL);
                deadlines.push((accepted + lives, lives, time_to_live));
            }
            let lifetimes = lifetimes.unwrap();
            prop_assert_eq!(lifetimes.expires(), deadlines.iter().map(|(at, ..)| *at).min().unwrap());
            let mut members: Vec<_> = (0..deadlines.len()).collect();
            let mut left = lifetimes;
            let mut times = times;
            times.sort_unstable();
            for now in times.into_iter().map(|at| opened + millis(at)) {
                let (mut stay, mut places) = (Vec::new(), Vec::new());
                for (place, member) in members.iter().enumerate() {
                    let (expires, lives, time_to_live) = deadlines[*member];
                    prop_assert_eq!(left.time_to_live(place), time_to_live);
                    let is_over = left.is_over(place, now);
                    prop_assert!(is_over || expires > now);
                    prop_assert!(!is_over || expires <= now + lives / EXPIRY_STEPS);
                    if !is_over {
                        stay.push(*member);
                        places.push(place);
                    }
                }
                if stay.is_empty() {
                    break;
                }
                left = left.of_members(&places);
                members = stay;
                prop_assert_eq!(left.expires(), members.iter().map(|member| deadlines[*member].0).min().unwrap());
            }
        }
    }

    #[test]
    fn a_part_keeps_the_times_to_live_of_its_members_only() {
        let opened = clock::now();
        let mut lifetimes = Lifetimes::new(None, opened, USUAL);
        for members in 1..1000 {
            let time_to_live = Some(Duration::from_secs(members as u64));
            lifetimes.add(members, time_to_live, (opened, opened), USUAL);
        }
        let part = lifetimes.of_members(&[500, 700]);
        let own = part.own.as_ref().unwrap();
        assert_eq!((own.times_to_live.len(), own.members.len()), (2, 2));
        assert_eq!(part.time_to_live(1), Some(Duration::from_secs(700)));
        assert_eq!(part.expires(), opened + Duration::from_secs(500));
    }

    #[test]
    fn few_distinct_times_to_live_are_kept_once() {
        let opened = clock::now();
        let mut lifetimes = Lifetimes::new(None, opened, USUAL);
        for members in 1..1000 {
            let time_to_live = Some(Duration::from_secs(members as u64 % 3 + 1));
            lifetimes.add(members, time_to_live, (opened, opened), USUAL);
        }
        let own = lifetimes.own.unwrap();
        assert_eq!((own.times_to_live.len(), own.members.len()), (4, 1000));
    }
}
