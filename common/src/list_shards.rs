//! ListShards, page by page. Pauses and further attempts are the caller's business.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::list_shards::builders::ListShardsFluentBuilder;
use aws_sdk_kinesis::operation::list_shards::{ListShardsError, ListShardsOutput};
use aws_sdk_kinesis::types::{Shard, ShardFilter};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::protocol;
use crate::retry_class::RetryClass;
use crate::stream_name::StreamName;

/// The most shards of a page that Kinesis allows.
const PAGE: i32 = 1_000;

/// How often a listing begins again because its token has expired. A token lives for 300 seconds, so a
/// listing whose tokens keep expiring does not end.
const MAX_RESTARTS: u32 = 3;

/// Lists the shards of a stream that pass the filter, from all pages. `send`: sends one request.
///
/// If the token of a page has expired, the listing begins again from the first page.
///
/// # Errors
/// The error of the first request that fails.
pub async fn list_shards<Answer>(
    client: &Client,
    stream: &StreamName,
    filter: Option<ShardFilter>,
    send: impl Fn(ListShardsFluentBuilder) -> Answer,
) -> Result<Vec<Shard>, SdkError<ListShardsError, HttpResponse>>
where
    Answer: Future<Output = Result<ListShardsOutput, SdkError<ListShardsError, HttpResponse>>>,
{
    let (mut shards, mut token, mut restarts) = (Vec::new(), None, 0);
    loop {
        let is_first = token.is_none();
        let request = client.list_shards().max_results(PAGE);
        let request = match token {
            // The token stands for stream and filter: Kinesis refuses them beside it.
            Some(token) => request.next_token(token),
            None => request
                .set_stream_arn(stream.arn())
                .set_stream_name(stream.name())
                .set_shard_filter(filter.clone()),
        };
        let page = match protocol::send(|| send(request.clone())).await {
            Ok(page) => page,
            Err(error) if !is_first && restarts < MAX_RESTARTS && is_expired(&error) => {
                restarts += 1;
                shards.clear();
                token = None;
                continue;
            }
            Err(error) => return Err(error),
        };
        shards.extend(page.shards.unwrap_or_default());
        // Some emulators end a listing with an empty token.
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(shards);
        }
    }
}

fn is_expired(error: &impl ProvideErrorMetadata) -> bool {
    error.code().and_then(RetryClass::of) == Some(RetryClass::TokenExpired)
}

#[cfg(test)]
#[allow(clippy::result_large_err, reason = "the type of the client")]
mod tests {
    use std::collections::VecDeque;
    use std::future::ready;
    use std::sync::Mutex;

    use aws_sdk_kinesis::config::{BehaviorVersion, Builder};
    use aws_sdk_kinesis::error::ErrorMetadata;
    use aws_sdk_kinesis::types::ShardFilterType;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    type Answer = Result<ListShardsOutput, SdkError<ListShardsError, HttpResponse>>;

    fn page(ids: &[&str], token: Option<&str>) -> Answer {
        let shards = ids.iter().map(|id| Shard::builder().shard_id(*id).build().unwrap());
        let page = ListShardsOutput::builder().set_shards(Some(shards.collect()));
        Ok(page.set_next_token(token.map(str::to_owned)).build())
    }

    fn refused(code: &str) -> Answer {
        let error = ListShardsError::generic(ErrorMetadata::builder().code(code).build());
        let status = 400.try_into().unwrap();
        Err(SdkError::service_error(error, HttpResponse::new(status, SdkBody::empty())))
    }

    /// Lists with these answers. Returns the ids, and what each request named: a token or the stream, and
    /// whether it had a filter.
    async fn list(
        stream: &str,
        answers: impl IntoIterator<Item = Answer>,
    ) -> (Result<Vec<String>, String>, Vec<(String, bool)>) {
        let version = BehaviorVersion::v2026_01_12();
        let client = Client::from_conf(Builder::new().behavior_version(version).build());
        let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
        let requests = Mutex::new(Vec::new());
        let filter = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build().unwrap();
        let send = |request: ListShardsFluentBuilder| {
            assert_eq!(request.get_max_results(), &Some(1000));
            let named = [
                request.get_next_token().clone(),
                request.get_stream_name().clone(),
                request.get_stream_arn().clone(),
            ];
            let named: Vec<_> = named.into_iter().flatten().collect();
            assert_eq!(named.len(), 1, "{named:?}");
            let has_filter = request.get_shard_filter().is_some();
            requests.lock().unwrap().push((named[0].clone(), has_filter));
            ready(answers.lock().unwrap().pop_front().expect("one more request than answers"))
        };
        let listed = list_shards(&client, &stream.parse().unwrap(), Some(filter), send).await;
        let listed = listed
            .map(|shards| shards.into_iter().map(|shard| shard.shard_id).collect())
            .map_err(|error| error.code().unwrap_or_default().to_owned());
        assert!(answers.into_inner().unwrap().is_empty(), "answers that were not asked for");
        (listed, requests.into_inner().unwrap())
    }

    fn of(requests: &[(&str, bool)]) -> Vec<(String, bool)> {
        requests.iter().map(|(named, filter)| ((*named).to_owned(), *filter)).collect()
    }

    #[tokio::test]
    async fn a_token_stands_for_stream_and_filter() {
        for stream in ["orders", "arn:aws:kinesis:us-east-1:000000000000:stream/orders"] {
            let pages = [page(&["a", "b"], Some("1")), page(&[], Some("2")), page(&["c"], None)];
            let (listed, requests) = list(stream, pages).await;
            assert_eq!(listed.unwrap(), ["a", "b", "c"]);
            assert_eq!(requests, of(&[(stream, true), ("1", false), ("2", false)]));
        }
    }

    #[tokio::test]
    async fn an_empty_token_ends_the_listing() {
        let (listed, _) = list("orders", [page(&["a"], Some(""))]).await;
        assert_eq!(listed.unwrap(), ["a"]);
    }

    #[tokio::test]
    async fn an_expired_token_begins_the_listing_again() {
        let answers = [
            page(&["a"], Some("1")),
            refused("ExpiredNextTokenException"),
            page(&["a"], Some("2")),
            page(&["b"], None),
        ];
        let (listed, requests) = list("orders", answers).await;
        assert_eq!(listed.unwrap(), ["a", "b"]);
        let expected = [("orders", true), ("1", false), ("orders", true), ("2", false)];
        assert_eq!(requests, of(&expected));
    }

    #[tokio::test]
    async fn tokens_that_keep_expiring_end_the_listing() {
        let answers = (0..=MAX_RESTARTS)
            .flat_map(|_| [page(&["a"], Some("1")), refused("ExpiredNextTokenException")]);
        let (listed, _) = list("orders", answers).await;
        assert_eq!(listed.unwrap_err(), "ExpiredNextTokenException");
    }

    #[tokio::test]
    async fn all_other_errors_are_the_callers() {
        // Without a token, another request would be refused for the same reason.
        for code in ["ExpiredNextTokenException", "LimitExceededException"] {
            let (listed, _) = list("orders", [refused(code)]).await;
            assert_eq!(listed.unwrap_err(), code);
        }
        let (listed, _) =
            list("orders", [page(&["a"], Some("1")), refused("LimitExceededException")]).await;
        assert_eq!(listed.unwrap_err(), "LimitExceededException");
    }
}
