//! Settings of a stream: how long records stay, and how large they may be.

use crate::case::{Verdict, cases};
use crate::check::{refused, same};
use crate::kinesis::Kinesis;

cases! { Kinesis, "retention":
    retention_is_raised_and_lowered,
    retention_is_raised_upwards_and_lowered_downwards,
    retention_is_a_day_at_least_and_a_year_at_most,
    the_maximum_record_size_is_shown,
    the_maximum_record_size_has_bounds,
}

async fn retention_is_raised_and_lowered(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let raise = kinesis.increase_stream_retention_period().stream_name(&stream.name);
    raise.retention_period_hours(48).send().await?;
    same("raised", stream.active().await?.retention_period_hours, 48)?;
    let lower = kinesis.decrease_stream_retention_period().stream_arn(&stream.arn);
    lower.retention_period_hours(30).send().await?;
    same("lowered", stream.active().await?.retention_period_hours, 30)
}

async fn retention_is_raised_upwards_and_lowered_downwards(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let raise = kinesis.increase_stream_retention_period().stream_name(&stream.name);
    raise.clone().retention_period_hours(48).send().await?;
    stream.active().await?;
    let down = raise.retention_period_hours(30).send().await;
    refused("raising to less", down, "InvalidArgumentException")?;
    let lower = kinesis.decrease_stream_retention_period().stream_name(&stream.name);
    let up = lower.retention_period_hours(72).send().await;
    refused("lowering to more", up, "InvalidArgumentException")
}

async fn retention_is_a_day_at_least_and_a_year_at_most(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let raise = kinesis.increase_stream_retention_period().stream_name(&stream.name);
    let year = raise.retention_period_hours(8761).send().await;
    refused("more than a year", year, "ValidationException")?;
    let lower = kinesis.decrease_stream_retention_period().stream_name(&stream.name);
    let day = lower.retention_period_hours(23).send().await;
    refused("less than a day", day, "ValidationException")
}

async fn the_maximum_record_size_is_shown(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let max = stream.summary().await?.max_record_size_in_kib;
    same("at first", max, Some(1024))?;
    stream.allow_records_of(5120).await?;
    let max = stream.summary().await?.max_record_size_in_kib;
    same("updated", max, Some(5120))
}

async fn the_maximum_record_size_has_bounds(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    for kib in [1023, 10_241] {
        let update = kinesis.update_max_record_size().stream_arn(&stream.arn);
        let update = update.max_record_size_in_kib(kib).send().await;
        refused(&format!("{kib} KiB"), update, "ValidationException")?;
    }
    Ok(())
}
