//! Tags of streams.

use aws_sdk_kinesis::types::Tag;

use crate::case::{Verdict, cases};
use crate::check::{Failure, holds, refused, same};
use crate::kinesis::{Kinesis, Stream};

cases! { Kinesis, "tags":
    a_stream_is_created_with_tags,
    tags_are_added_changed_and_removed,
    tags_are_listed_page_by_page,
    a_stream_is_tagged_by_its_arn,
    a_stream_has_fifty_tags_at_most,
}

fn pairs(tags: Vec<Tag>) -> Vec<(String, String)> {
    let pair = |tag: Tag| (tag.key, tag.value.unwrap_or_default());
    let mut pairs: Vec<_> = tags.into_iter().map(pair).collect();
    pairs.sort();
    pairs
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

async fn tags_of(stream: &Stream) -> Result<Vec<(String, String)>, Failure> {
    let list = stream.client.list_tags_for_stream().stream_name(&stream.name);
    Ok(pairs(list.send().await?.tags))
}

async fn a_stream_is_created_with_tags(kinesis: Kinesis) -> Verdict {
    let name = kinesis.fresh_name();
    let create = kinesis.create_stream().stream_name(&name).shard_count(1);
    create.tags("team", "coffee").send().await?;
    let stream = kinesis.created(name).await?;
    same("tags", tags_of(&stream).await?, owned(&[("team", "coffee")]))
}

async fn tags_are_added_changed_and_removed(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let add = || kinesis.add_tags_to_stream().stream_name(&stream.name);
    add().tags("team", "coffee").tags("stage", "beta").send().await?;
    add().tags("team", "tea").send().await?;
    let changed = owned(&[("stage", "beta"), ("team", "tea")]);
    same("changed", tags_of(&stream).await?, changed)?;
    let remove = kinesis.remove_tags_from_stream().stream_name(&stream.name);
    remove.tag_keys("stage").tag_keys("never there").send().await?;
    same("removed", tags_of(&stream).await?, owned(&[("team", "tea")]))
}

async fn tags_are_listed_page_by_page(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let add = kinesis.add_tags_to_stream().stream_name(&stream.name);
    add.tags("a", "1").tags("b", "2").send().await?;
    let list = || kinesis.list_tags_for_stream().stream_name(&stream.name);
    let first = list().limit(1).send().await?;
    holds("there is more", first.has_more_tags)?;
    same("first page", pairs(first.tags), owned(&[("a", "1")]))?;
    let second = list().exclusive_start_tag_key("a").send().await?;
    holds("there is no more", !second.has_more_tags)?;
    same("second page", pairs(second.tags), owned(&[("b", "2")]))
}

async fn a_stream_is_tagged_by_its_arn(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let tag = kinesis.tag_resource().resource_arn(&stream.arn);
    tag.tags("team", "coffee").tags("gone", "soon").send().await?;
    let untag = kinesis.untag_resource().resource_arn(&stream.arn);
    untag.tag_keys("gone").send().await?;
    let list = kinesis.list_tags_for_resource().resource_arn(&stream.arn);
    let tags = list.send().await?.tags.unwrap_or_default();
    same("by ARN", pairs(tags), owned(&[("team", "coffee")]))?;
    same("by name", tags_of(&stream).await?, owned(&[("team", "coffee")]))
}

async fn a_stream_has_fifty_tags_at_most(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let add = || kinesis.add_tags_to_stream().stream_name(&stream.name);
    for ten in 0..5 {
        let tags = (0..10).map(|one| (format!("k{ten}{one}"), "v".to_owned()));
        add().set_tags(Some(tags.collect())).send().await?;
    }
    let one_more = add().tags("one more", "v").send().await;
    refused("one more", one_more, "InvalidArgumentException")?;
    add().tags("k07", "changed").send().await?;
    Ok(())
}
