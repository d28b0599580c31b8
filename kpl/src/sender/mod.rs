//! Sends sealed records: collects batches, calls PutRecords, and acts on what each response says of each record.

pub(crate) mod batch;
pub(crate) mod ordering;
pub(crate) mod pipeline;
pub(crate) mod request_limit;
pub(crate) mod window;
