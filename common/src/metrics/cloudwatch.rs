//! The uploader of metrics to Amazon CloudWatch.
//!
//! A crate collects its measurements by their [`Source`], and says which [`Dimensions`] their series have. The
//! [`Publisher`] uploads them. The names, levels and dimensions stay with each crate.

mod client;
mod publisher;
mod series;
mod uploader;

pub use self::client::SdkUploader;
pub use self::publisher::{OnUpload, Publisher, SeriesOf};
pub use self::series::{
    Collected, Datum, Dimensions, MAX_DIMENSION_VALUE, Pending, Series, Source, Values, dimension,
};
pub use self::uploader::{UploadError, Uploader};
