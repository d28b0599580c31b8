//! The task that uploads the metrics, every minute and once at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::series::{Collected, Dimensions, Pending, Series, Source};
use super::uploader::{UploadError, Uploader};
use crate::clock;
use crate::log_gate::LogGate;

/// Most data of a call, and most bytes, with a margin to the 1 MB that CloudWatch takes.
const MAX_DATA: usize = 1000;
const MAX_BYTES: usize = 800_000;

/// Returns the dimensions of the series that measurements of a source count for.
pub type SeriesOf<S> = Box<dyn Fn(&S) -> Vec<Dimensions> + Send>;

/// Receives the result of each upload.
pub type OnUpload = Box<dyn FnMut(&Result<(), UploadError>) + Send>;

/// Uploads what is collected. A call that fails or hangs holds up nothing but the next upload.
pub struct Publisher<S> {
    collected: Collected<S>,
    series_of: SeriesOf<S>,
    pending: Pending,
    uploader: Arc<dyn Uploader>,
    on_upload: OnUpload,
    interval: Duration,
    rng: fastrand::Rng,
    /// The last series of the call that failed: the next upload begins after it, so that it does not block the others.
    resume: Option<Series>,
    /// Whether a failure was logged, and its end was not.
    is_failing: bool,
    failed: LogGate,
    refused: LogGate,
    dropped: LogGate,
}

impl<S: Source> Publisher<S> {
    /// Creates a publisher of what is collected, as the series that `series_of` names.
    ///
    /// `interval`: time between two uploads, jittered by a tenth.
    pub fn new(
        collected: Collected<S>,
        series_of: SeriesOf<S>,
        uploader: Arc<dyn Uploader>,
        interval: Duration,
        seed: u64,
    ) -> Self {
        Self {
            collected,
            series_of,
            pending: Pending::default(),
            uploader,
            on_upload: Box::new(|_| {}),
            interval,
            rng: fastrand::Rng::with_seed(seed),
            resume: None,
            is_failing: false,
            failed: LogGate::default(),
            refused: LogGate::default(),
            dropped: LogGate::default(),
        }
    }

    /// Sets a function that receives the result of each upload.
    pub fn on_upload(mut self, on_upload: OnUpload) -> Self {
        self.on_upload = on_upload;
        self
    }

    /// Uploads until `ended`, and then once more, for at most `last_upload`.
    ///
    /// # Cancel safety
    /// If the future is dropped, what was not uploaded is lost.
    pub async fn run(mut self, ended: CancellationToken, last_upload: Duration) {
        let limit = async {
            ended.cancelled().await;
            tokio::time::sleep(last_upload).await;
        };
        let finished = tokio::select! {
            biased;
            () = self.upload_until(&ended) => true,
            () = limit => false,
        };
        if !finished {
            tracing::warn!("the last metrics were not uploaded in time");
        }
    }

    async fn upload_until(&mut self, ended: &CancellationToken) {
        loop {
            let pause = self.interval.mul_f64(0.9 + 0.2 * self.rng.f64());
            let is_last = tokio::select! {
                biased;
                () = ended.cancelled() => true,
                () = tokio::time::sleep(pause) => false,
            };
            self.upload().await;
            if is_last {
                return;
            }
        }
    }

    /// Uploads all data. Data whose upload fails is kept, and merged with later data.
    async fn upload(&mut self) {
        self.pending.absorb(self.collected.take(), &self.series_of);
        let dropped = std::mem::take(&mut self.pending.dropped);
        if dropped > 0
            && let Some(left_out) = self.dropped.pass(clock::now())
        {
            tracing::warn!(
                dropped,
                left_out,
                "too many metrics to keep until they can be uploaded: some were dropped"
            );
        }
        loop {
            let data = self.pending.next(self.resume.as_ref(), MAX_DATA, MAX_BYTES);
            if data.is_empty() {
                // Uploaded series are removed, so only those that the resume skipped are left from the start on.
                if self.resume.take().is_some() {
                    continue;
                }
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("metrics are uploaded again");
                }
                return;
            }
            let sent: Vec<_> = data.iter().map(|datum| datum.series.clone()).collect();
            let result = self.uploader.put(data).await;
            (self.on_upload)(&result);
            match result {
                Ok(()) => self.pending.complete(&sent),
                Err(error) if error.is_refused => {
                    self.pending.complete(&sent);
                    if let Some(left_out) = self.refused.pass(clock::now()) {
                        tracing::warn!(
                            code = error.code,
                            message = error.message,
                            data = sent.len(),
                            left_out,
                            "CloudWatch refuses metrics: they are dropped"
                        );
                    }
                }
                Err(error) => {
                    if let Some(left_out) = self.failed.pass(clock::now()) {
                        self.is_failing = true;
                        tracing::warn!(
                            code = error.code,
                            message = error.message,
                            left_out,
                            "metrics could not be uploaded: they are kept for the next upload"
                        );
                    }
                    self.resume = sent.into_iter().next_back();
                    return;
                }
            }
        }
    }
}
