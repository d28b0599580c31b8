//! Settings at their extremes, for the tests of both libraries' settings.

use std::fmt::Debug;
use std::time::Duration;

use fastrand::Rng;
use kinesis_common::protocol::Wire;

/// Sets one field to one value.
pub(crate) struct Change<T> {
    /// The value.
    pub(crate) text: String,
    pub(crate) apply: Box<dyn Fn(&mut T)>,
}

/// Changes of each field, by its name.
pub(crate) type Fields<T> = Vec<(&'static str, Vec<Change<T>>)>;

/// One change for each extreme value of a field.
pub(crate) fn changes<T: 'static, V: Extremes>(set: fn(&mut T, V)) -> Vec<Change<T>> {
    let change = |value: V| Change {
        text: format!("{value:?}"),
        apply: Box::new(move |config| set(config, value.clone())),
    };
    V::extremes().into_iter().map(change).collect()
}

/// A type of a setting, with the values that arithmetic fails on first.
pub(crate) trait Extremes: Clone + Debug + 'static {
    fn extremes() -> Vec<Self>;
}

impl Extremes for Duration {
    fn extremes() -> Vec<Self> {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        vec![
            Self::ZERO,
            Self::from_nanos(1),
            Self::from_micros(1),
            Self::from_millis(1),
            Self::from_millis(50),
            Self::from_millis(500),
            Self::from_secs(1),
            Self::from_millis(u64::from(u32::MAX)),
            YEAR,
            YEAR + Self::from_nanos(1),
            Self::from_secs(u64::from(u32::MAX)),
            Self::from_nanos(u64::MAX),
            Self::from_millis(i64::MAX as u64),
            Self::from_millis(u64::MAX),
            Self::from_secs(i64::MAX as u64),
            Self::MAX - Self::from_nanos(1),
            Self::MAX,
        ]
    }
}

impl Extremes for u32 {
    fn extremes() -> Vec<Self> {
        vec![0, 1, 2, 100, 101, 10_000, 10_001, 1_000_000, 1 << 31, Self::MAX]
    }
}

impl Extremes for usize {
    fn extremes() -> Vec<Self> {
        let small = [0, 1, 2, 64, 500, 10_000, 64 << 10, 1 << 20, 10 << 20, 20 << 20];
        let large = [u32::MAX as Self, 1 << 32, i64::MAX as Self];
        // Tokio's semaphores hold an eighth.
        let eighths = [Self::MAX >> 3, (Self::MAX >> 3) + 1, Self::MAX - 1, Self::MAX];
        small.into_iter().chain(large).chain(eighths).collect()
    }
}

impl Extremes for Wire {
    fn extremes() -> Vec<Self> {
        vec![Self::Auto, Self::Json, Self::Cbor]
    }
}

impl Extremes for bool {
    fn extremes() -> Vec<Self> {
        vec![false, true]
    }
}

/// Settings with one field changed.
pub(crate) struct Single<T> {
    pub(crate) field: &'static str,
    pub(crate) value: String,
    pub(crate) config: T,
}

/// For each field, `base` with each of its values.
pub(crate) fn one_at_a_time<T: Clone>(base: &T, fields: Fields<T>) -> Vec<Vec<Single<T>>> {
    let singles = |(field, changes): (&'static str, Vec<Change<T>>)| {
        let single = |change: Change<T>| {
            let mut config = base.clone();
            (change.apply)(&mut config);
            Single { field, value: change.text, config }
        };
        changes.into_iter().map(single).collect()
    };
    fields.into_iter().map(singles).collect()
}

/// Of many values of a field, the two at each end of what is valid.
pub(crate) fn ends<T>(mut singles: Vec<Single<T>>, is_valid: fn(&T) -> bool) -> Vec<Single<T>> {
    singles.retain(|single| is_valid(&single.config));
    if singles.len() > 4 {
        singles.drain(2..singles.len() - 2);
    }
    singles
}

/// `base` with `count` fields changed at random.
pub(crate) fn combination<T: Clone>(
    base: &T,
    mut fields: Fields<T>,
    random: &mut Rng,
    count: usize,
) -> T {
    let mut config = base.clone();
    random.shuffle(&mut fields);
    for (_, changes) in fields.iter().take(count) {
        (changes[random.usize(..changes.len())].apply)(&mut config);
    }
    config
}
