//! The metrics by name: the KPL's, and five of our own.

use kinesis_common::metrics::{Kind, Unit};

use crate::config::{MetricsGranularity, MetricsLevel};

pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) kind: Kind,
    pub(crate) level: MetricsLevel,
    pub(crate) finest: MetricsGranularity,
    pub(crate) description: &'static str,
}

macro_rules! metrics {
    ($($metric:ident $unit:ident $kind:ident $level:ident $finest:ident $description:literal;)*) => {
        /// A metric of the producer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Metric {
            $($metric,)*
        }

        impl Metric {
            pub(crate) const ALL: &[Self] = &[$(Self::$metric,)*];

            pub(crate) const fn definition(self) -> Definition {
                match self {
                    $(Self::$metric => Definition {
                        name: stringify!($metric),
                        unit: Unit::$unit,
                        kind: Kind::$kind,
                        level: MetricsLevel::$level,
                        finest: MetricsGranularity::$finest,
                        description: $description,
                    },)*
                }
            }
        }
    };
}

metrics! {
    UserRecordsReceived Count Counter Detailed Stream "User records accepted.";
    UserRecordsPending Count Gauge Detailed Stream "User records accepted and not completed.";
    UserRecordsPut Count Counter Summary Shard "User records completed: 1 for each acknowledged, 0 for each failed.";
    UserRecordsDataPut Bytes Counter Detailed Shard "Data and partition keys of the user records acknowledged.";
    KinesisRecordsPut Count Counter Summary Shard "Attempts at Kinesis records: 1 for each written, 0 for each refused.";
    KinesisRecordsDataPut Bytes Counter Detailed Shard "Data and partition keys of the Kinesis records written.";
    ErrorsByCode Count Counter Summary Shard "Attempts at Kinesis records that failed, by error code.";
    AllErrors Count Counter Summary Shard "Attempts at Kinesis records: 1 for each failed, 0 for each written.";
    RetriesPerRecord Count Distribution Detailed Shard "Attempts after the first, of each user record completed.";
    UserRecordExpired Count Counter Summary Shard "User records whose time to live passed.";
    UserRecordsFailed Count Counter Summary Shard "User records given up, by cause.";
    UserRecordsDropped Count Counter Summary Stream "Droppable user records that gave way to others.";
    BufferingTime Milliseconds Distribution Summary Shard "From acceptance, or the end of the attempt before, to the start of an attempt.";
    RequestTime Milliseconds Distribution Detailed Stream "How long each PutRecords call took.";
    UserRecordsPerKinesisRecord Count Distribution Detailed Shard "User records in each Kinesis record written.";
    KinesisRecordsPerPutRecordsRequest Count Distribution Detailed Stream "Kinesis records in each PutRecords call.";
    UserRecordsPerPutRecordsRequest Count Distribution Detailed Stream "User records in each PutRecords call.";
    DeliveryTime Milliseconds Distribution Detailed Shard "From acceptance of a Kinesis record's first member to its acknowledgement.";
    BufferedBytes Bytes Gauge Detailed Stream "Bytes of the buffer in use.";
    InFlightBytes Bytes Gauge Detailed Stream "Bytes of payload in flight.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_metric_with_its_unit_and_level() {
        let page = include_str!("../metrics.md");
        for metric in Metric::ALL {
            let Definition { name, unit, level, finest, .. } = metric.definition();
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")))
                .unwrap_or_else(|| panic!("{name} has no row"));
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            assert_eq!(cells[2], format!("{unit:?}"), "{name}");
            assert_eq!(cells[3], format!("{level:?}").to_lowercase(), "{name}");
            let by = match metric {
                Metric::ErrorsByCode | Metric::UserRecordsFailed => "shard, error code".to_owned(),
                _ => format!("{finest:?}").to_lowercase(),
            };
            assert_eq!(cells[4], by, "{name}");
        }
    }
}
