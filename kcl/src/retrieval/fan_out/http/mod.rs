//! The HTTP client of subscriptions.
//!
//! A subscription (SubscribeToShard) is a response whose body lasts up to five minutes. The SDK's own client puts all
//! requests to a host on one HTTP/2 connection, with a receive window for the connection that two unread responses
//! use up, and without pings. One slow shard would stall all others, and a dead connection would be noticed by none.
//! `aws-smithy-http-client` 1.5.2 has no setting for windows, pings or the number of connections: neither its client
//! nor its connection pool lets the caller configure hyper. So subscriptions have an HTTP client of their own:
//!
//! * The window of a connection is the sum of the windows of its streams. However many subscriptions are not read, the
//!   others are never short of window.
//! * A connection carries a bounded number of streams, and no more than the server allows. Further subscriptions open
//!   further connections. See [`pool`].
//! * Each connection is pinged. A peer that does not answer is noticed within [`PING_INTERVAL`] + [`PING_TIMEOUT`];
//!   then all response bodies of the connection fail.
//!
//! It is written on `h2`, the HTTP/2 implementation of hyper, because hyper's client does not tell how many streams the
//! server allows, and queues the ones above without a sign. Proxies and root certificates are those of the SDK's client:
//! the environment (`HTTPS_PROXY`, `NO_PROXY`, ...) and the system's certificates (`SSL_CERT_FILE`).
//!
//! An `http://` endpoint (an emulator), or a server that does not offer HTTP/2, gets a connection of HTTP/1.1 for each
//! subscription.

mod body;
mod client;
mod connect;
mod connection;
mod error;
mod origin;
mod pool;
mod request;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_sdk_kinesis::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{IdentityCache, StalledStreamProtectionConfig};

use self::client::SubscriptionHttpClient;

/// Receive window of a stream: the most bytes that the client buffers of one subscription that is not read.
///
/// It bounds the speed of a subscription to one window per round trip: at 50 ms, 10 MB/s, while the service sends at
/// most 2 MB/s. The Java KCL has the same size.
const STREAM_WINDOW: u32 = 512 << 10;

/// Most subscriptions on a connection, if the server allows as many. Kinesis documents no limit of its own.
///
/// All subscriptions of a connection fail and subscribe again together, and a lost packet holds all of them up. At 2 MB/s
/// each they need 1 Gbit/s, and EC2 gives a single flow to the internet 5 Gbit/s.
const MAX_STREAMS: usize = 64;

/// Receive window of a connection: the sum of the windows of its streams. It is a permission to send; the memory is used
/// only while subscriptions are not read.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;

/// Time between the answer to a ping and the next ping.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Time without an answer to a ping after which a connection is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Pings in a row without a subscription after which a connection is closed: a minute.
const IDLE_PINGS: u32 = 6;

/// Time limit for opening a connection if the SDK's configuration has none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const RETRY_PARTITION: &str = "kcl-fan-out";

/// Sizes and times of the connections: the constants of this module, except in tests.
#[derive(Debug, Clone, Copy)]
struct Settings {
    stream_window: u32,
    connection_window: u32,
    max_streams: usize,
    ping_interval: Duration,
    ping_timeout: Duration,
    idle_pings: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            max_streams: MAX_STREAMS,
            ping_interval: PING_INTERVAL,
            ping_timeout: PING_TIMEOUT,
            idle_pings: IDLE_PINGS,
        }
    }
}

/// Returns a client for SubscribeToShard with the credentials, region and endpoint of `client`.
///
/// It uses the HTTP client of this module, unless the application has set one of its own. It makes one attempt for each
/// call, and the caller retries. `request_timeout` bounds opening a connection and the time to the headers of the
/// response, each. It does not bound the body, and so **not the first event**, which `send` waits for as well: the
/// caller bounds `send`.
pub(crate) fn client_for_subscriptions(
    client: &aws_sdk_kinesis::Client,
    request_timeout: Duration,
) -> aws_sdk_kinesis::Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(request_timeout)
        .read_timeout(request_timeout)
        .disable_operation_timeout()
        .disable_operation_attempt_timeout();
    let mut config = client
        .config()
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .retry_partition(RetryPartition::new(RETRY_PARTITION))
        .identity_cache(IdentityCache::lazy().build())
        // A shard without records is silent for seconds. The pings tell whether the peer is there.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts.build());
    // The configuration holds an HTTP client only if the application has set one. The SDK's default is no part of it.
    if client.config().http_client().is_none() {
        config.set_http_client(Some(SubscriptionHttpClient::new().into()));
    }
    aws_sdk_kinesis::Client::from_conf(config.build())
}
