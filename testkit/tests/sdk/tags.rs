//! Tags of streams and consumers.

use std::collections::HashMap;

use aws_sdk_kinesis::types::Tag;

use super::consumers::{STREAM_ARN, register};
use super::*;

fn pairs(tags: &[Tag]) -> Vec<(&str, &str)> {
    tags.iter().map(|tag| (tag.key(), tag.value().unwrap_or_default())).collect()
}

fn numbered(range: std::ops::Range<usize>) -> HashMap<String, String> {
    range.map(|nth| (format!("k{nth:02}"), nth.to_string())).collect()
}

#[tokio::test]
async fn a_stream_keeps_the_tags_it_was_created_with_and_takes_and_loses_others() {
    let aws = LocalAws::start().await.unwrap();
    let client = client(&aws);
    client
        .create_stream()
        .stream_name(STREAM)
        .shard_count(1)
        .tags("team", "coffee")
        .send()
        .await
        .unwrap();
    let add = || client.add_tags_to_stream().stream_name(STREAM);
    add().tags("team", "tea").tags("cost centre", "a/b=c").send().await.unwrap();
    let list = || client.list_tags_for_stream().stream_arn(STREAM_ARN);
    let all = list().send().await.unwrap();
    let expected = [("cost centre", "a/b=c"), ("team", "tea")];
    assert_eq!(pairs(all.tags()), expected);
    assert!(!all.has_more_tags());
    let first = list().limit(1).send().await.unwrap();
    assert_eq!(pairs(first.tags()), expected[..1]);
    assert!(first.has_more_tags());
    let second = list().exclusive_start_tag_key("cost centre").send().await.unwrap();
    assert_eq!(pairs(second.tags()), expected[1..]);
    let remove = client.remove_tags_from_stream().stream_name(STREAM);
    remove.tag_keys("team").tag_keys("never there").send().await.unwrap();
    assert_eq!(pairs(list().send().await.unwrap().tags()), [("cost centre", "a/b=c")]);
}

#[tokio::test]
async fn tags_are_limited_in_number_size_and_characters() {
    let (_aws, client) = with_stream(1).await;
    let add = || client.add_tags_to_stream().stream_name(STREAM);
    let long_key = add().tags("k".repeat(129), "v").send().await;
    assert_eq!(code(long_key), "ValidationException");
    let long_value = add().tags("k", "v".repeat(257)).send().await;
    assert_eq!(code(long_value), "ValidationException");
    let characters = add().tags("k", "50 €?").send().await;
    assert_eq!(code(characters), "InvalidArgumentException");
    let none = add().set_tags(Some(HashMap::new())).send().await;
    assert_eq!(code(none), "ValidationException");
    let create =
        client.create_stream().stream_name("other").shard_count(1).set_tags(Some(numbered(0..51)));
    assert_eq!(code(create.send().await), "InvalidArgumentException");

    add().set_tags(Some(numbered(0..50))).send().await.unwrap();
    add().tags("k07", "changed").send().await.unwrap();
    let one_more = add().tags("k50", "50").tags("k01", "not").send().await;
    assert_eq!(code(one_more), "InvalidArgumentException");
    let list = client.list_tags_for_stream().stream_name(STREAM);
    let tags = list.send().await.unwrap().tags;
    assert_eq!(tags.len(), 50);
    assert_eq!(pairs(&tags)[1], ("k01", "1"));
    assert_eq!(pairs(&tags)[7], ("k07", "changed"));
    let nowhere = client.list_tags_for_stream().stream_name("none").send();
    assert_eq!(code(nowhere.await), "ResourceNotFoundException");
}

#[tokio::test]
async fn streams_and_consumers_are_tagged_by_arn() {
    let (_aws, client) = with_stream(1).await;
    let tagged = client
        .register_stream_consumer()
        .stream_arn(STREAM_ARN)
        .consumer_name("tagged")
        .tags("from", "registration")
        .send()
        .await
        .unwrap();
    let tagged = tagged.consumer().unwrap().consumer_arn().to_owned();
    let plain = register(&client, "plain").await;
    for arn in [STREAM_ARN, &tagged, &plain] {
        let tag = client.tag_resource().resource_arn(arn).tags("of", arn);
        tag.tags("gone", "soon").send().await.unwrap();
        let untag = client.untag_resource().resource_arn(arn).tag_keys("gone");
        untag.send().await.unwrap();
    }
    let list = async |arn: &str| {
        let list = client.list_tags_for_resource().resource_arn(arn);
        list.send().await.unwrap().tags.unwrap()
    };
    assert_eq!(pairs(&list(STREAM_ARN).await), [("of", STREAM_ARN)]);
    assert_eq!(pairs(&list(&tagged).await), [("from", "registration"), ("of", &tagged)]);
    assert_eq!(pairs(&list(&plain).await), [("of", &*plain)]);
    let unknown = format!("{STREAM_ARN}/consumer/unknown:1");
    let unknown = client.list_tags_for_resource().resource_arn(unknown).send();
    assert_eq!(code(unknown.await), "ResourceNotFoundException");
}
