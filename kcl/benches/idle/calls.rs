//! The calls of a side, counted and timed where its clients send them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::interceptors::BeforeSerializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemInput;
use aws_sdk_kinesis::operation::get_records::GetRecordsInput;
use kinesis_benchmark::statistics::quantile;

/// Counts GetRecords and UpdateItem calls. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    failover_time: Duration,
    reads: AtomicU64,
    renewals: AtomicU64,
    timed: Mutex<Timed>,
}

#[derive(Debug, Default)]
struct Timed {
    /// When each lease was last renewed.
    last: HashMap<String, Instant>,
    /// How late each renewal was, in seconds.
    lateness: Vec<f64>,
}

impl Calls {
    pub(crate) fn new(failover_time: Duration) -> Self {
        Self(Arc::new(Inner {
            failover_time,
            reads: AtomicU64::new(0),
            renewals: AtomicU64::new(0),
            timed: Mutex::default(),
        }))
    }

    /// The numbers of reads and of renewals.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.0.reads.load(Ordering::Relaxed), self.0.renewals.load(Ordering::Relaxed))
    }

    /// How late renewals were, in seconds, at a quantile. `None`: no lease was renewed twice.
    pub(crate) fn lateness(&self, share: f64) -> Option<f64> {
        let timed = self.0.timed.lock().unwrap_or_else(PoisonError::into_inner);
        let late = quantile(timed.lateness.iter().copied(), share);
        (!late.is_nan()).then_some(late)
    }

    fn renewed(&self, key: &str) {
        let now = Instant::now();
        let mut timed = self.0.timed.lock().unwrap_or_else(PoisonError::into_inner);
        match timed.last.get_mut(key) {
            Some(last) => {
                let interval = now - std::mem::replace(last, now);
                let late = interval.saturating_sub(self.0.failover_time / 2);
                timed.lateness.push(late.as_secs_f64());
            }
            None => {
                timed.last.insert(key.to_owned(), now);
            }
        }
    }
}

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    fn read_before_serialization(
        &self,
        context: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let input = context.input();
        if input.downcast_ref::<GetRecordsInput>().is_some() {
            self.0.reads.fetch_add(1, Ordering::Relaxed);
        } else if let Some(update) = input.downcast_ref::<UpdateItemInput>() {
            self.0.renewals.fetch_add(1, Ordering::Relaxed);
            let key = update.key().and_then(|key| key.get("leaseKey")?.as_s().ok());
            if let Some(key) = key {
                self.renewed(key);
            }
        }
        Ok(())
    }
}
