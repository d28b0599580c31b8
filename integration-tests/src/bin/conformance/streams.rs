//! Streams come, are described by name and by ARN, and go.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ScalingType, ShardIteratorType, StreamMode, StreamModeDetails};

use crate::case::{Verdict, cases};
use crate::check::{holds, refused, same, some};
use crate::kinesis::{Kinesis, LOOK_AGAIN, SHARD_0, Stream, cover};

cases! { Kinesis, "streams":
    a_stream_is_described_by_name_and_by_arn,
    a_summary_counts_open_shards,
    a_name_and_the_arn_of_another_are_refused,
    a_request_that_names_no_stream_is_refused,
    an_unknown_stream_is_not_found,
    a_stream_is_created_once,
    a_name_has_few_characters_to_choose_from,
    a_stream_has_a_shard_at_least,
    an_on_demand_stream_starts_with_four_shards,
    an_on_demand_stream_is_not_scaled_by_hand,
    streams_are_listed_page_by_page,
    a_description_shows_shards_page_by_page,
    a_deleted_stream_is_gone,
    a_stream_of_an_old_name_is_another,
    a_stream_with_consumers_is_deleted_by_force_only,
}

async fn a_stream_is_described_by_name_and_by_arn(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    let describe = kinesis.describe_stream();
    let by_name = describe.stream_name(&stream.name).send().await?;
    let by_arn = kinesis.describe_stream().stream_arn(&stream.arn);
    let by_arn = by_arn.send().await?.stream_description;
    let described = some("description", by_name.stream_description)?;
    same("name", &described.stream_name, &stream.name)?;
    same("shards", described.shards.len(), 2)?;
    same("retention", described.retention_period_hours, 24)?;
    let ends = format!(":stream/{}", stream.name);
    holds("the ARN ends with the name", described.stream_arn.ends_with(&ends))?;
    same("by ARN", by_arn, Some(described))
}

async fn a_summary_counts_open_shards(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    stream.merge("shardId-000000000000", "shardId-000000000001").await?;
    same("open shards", stream.summary().await?.open_shard_count, 1)
}

async fn a_name_and_the_arn_of_another_are_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let describe = kinesis.describe_stream().stream_arn(&stream.arn);
    let both = describe.stream_name("another").send().await;
    refused("both", both, "InvalidArgumentException")
}

async fn a_request_that_names_no_stream_is_refused(kinesis: Kinesis) -> Verdict {
    let nameless = kinesis.describe_stream().send().await;
    refused("nameless", nameless, "InvalidArgumentException")
}

async fn an_unknown_stream_is_not_found(kinesis: Kinesis) -> Verdict {
    let name = kinesis.fresh_name();
    let describe = kinesis.describe_stream_summary().stream_name(&name);
    refused("describe", describe.send().await, "ResourceNotFoundException")?;
    let put = kinesis.put_record().stream_name(&name).partition_key("k");
    let put = put.data(Blob::new("x")).send().await;
    refused("put", put, "ResourceNotFoundException")?;
    let list = kinesis.list_shards().stream_name(&name).send().await;
    refused("list", list, "ResourceNotFoundException")
}

async fn a_stream_is_created_once(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let again = kinesis.create_stream().stream_name(&stream.name);
    let again = again.shard_count(1).send().await;
    refused("again", again, "ResourceInUseException")
}

async fn a_name_has_few_characters_to_choose_from(kinesis: Kinesis) -> Verdict {
    for name in ["with a blank".to_owned(), "é".to_owned(), "x".repeat(129)] {
        let create = kinesis.create_stream().stream_name(&name).shard_count(1);
        refused(&name, create.send().await, "ValidationException")?;
    }
    Ok(())
}

async fn a_stream_has_a_shard_at_least(kinesis: Kinesis) -> Verdict {
    let create = kinesis.create_stream().stream_name(kinesis.fresh_name());
    let none = create.shard_count(0).send().await;
    refused("no shards", none, "ValidationException")
}

async fn on_demand(kinesis: &Kinesis) -> Result<Stream, crate::check::Failure> {
    let name = kinesis.fresh_name();
    let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand);
    let create = kinesis.create_stream().stream_name(&name);
    create.stream_mode_details(mode.build()?).send().await?;
    kinesis.created(name).await
}

async fn an_on_demand_stream_starts_with_four_shards(kinesis: Kinesis) -> Verdict {
    let stream = on_demand(&kinesis).await?;
    let shards = stream.shards().await?;
    same("shards", shards.len(), 4)?;
    holds("they cover all hash keys", cover(&shards)?)?;
    let mode = stream.summary().await?.stream_mode_details;
    same("mode", some("mode", mode)?.stream_mode, StreamMode::OnDemand)
}

async fn an_on_demand_stream_is_not_scaled_by_hand(kinesis: Kinesis) -> Verdict {
    let stream = on_demand(&kinesis).await?;
    let update = kinesis.update_shard_count().stream_name(&stream.name);
    let update = update.target_shard_count(8).scaling_type(ScalingType::UniformScaling);
    refused("scaling", update.send().await, "ValidationException")
}

async fn streams_are_listed_page_by_page(kinesis: Kinesis) -> Verdict {
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push(kinesis.stream(1).await?.name);
    }
    // Others may have streams here too, but none whose name comes between ours.
    let list = || kinesis.list_streams().limit(1);
    let first = list().exclusive_start_stream_name(&expected[0]).send().await?;
    same("first page", &first.stream_names, &expected[1..2])?;
    holds("there is more", first.has_more_streams)?;
    let second = list().exclusive_start_stream_name(&expected[1]).send().await?;
    same("second page", &second.stream_names, &expected[2..])
}

async fn a_description_shows_shards_page_by_page(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(3).await?;
    let describe = || kinesis.describe_stream().stream_name(&stream.name).limit(2);
    let first = some("description", describe().send().await?.stream_description)?;
    same("first page", first.shards.len(), 2)?;
    holds("there is more", first.has_more_shards)?;
    let second = describe().exclusive_start_shard_id(first.shards[1].shard_id());
    let second = some("description", second.send().await?.stream_description)?;
    same("second page", second.shards.len(), 1)?;
    holds("there is no more", !second.has_more_shards)?;
    holds("no shard comes twice", second.shards[0].shard_id > first.shards[1].shard_id)
}

/// Waits until it is gone.
async fn delete(kinesis: &Kinesis, stream: &Stream) -> Verdict {
    kinesis.delete_stream().stream_name(&stream.name).send().await?;
    loop {
        let describe = kinesis.describe_stream_summary().stream_name(&stream.name);
        match describe.send().await {
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
            gone => return refused("describe", gone, "ResourceNotFoundException"),
        }
    }
}

async fn a_deleted_stream_is_gone(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let iterator = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    delete(&kinesis, &stream).await?;
    let get = kinesis.get_records().shard_iterator(iterator).send().await;
    refused("reading on", get, "ResourceNotFoundException")
}

async fn a_stream_of_an_old_name_is_another(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.put(0, "old").await?;
    delete(&kinesis, &stream).await?;
    let create = kinesis.create_stream().stream_name(&stream.name);
    create.shard_count(1).send().await?;
    let stream = kinesis.created(stream.name).await?;
    stream.put(0, "new").await?;
    same("records", stream.texts_of(SHARD_0, 1).await?, ["new"])
}

async fn a_stream_with_consumers_is_deleted_by_force_only(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.consumer("app").await?;
    let delete = kinesis.delete_stream().stream_name(&stream.name);
    let unforced = delete.clone().send().await;
    refused("without force", unforced, "ResourceInUseException")?;
    // Long enough for a deletion that was refused and is carried out nevertheless.
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.summary().await?;
    delete.enforce_consumer_deletion(true).send().await?;
    Ok(())
}
