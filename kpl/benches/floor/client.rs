//! The SDK's settings for reaching the sink, the same for both sides.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_types::SdkConfig;
use kinesis_common::protocol::WireProtocol;

use crate::{Error, roles};

pub(crate) fn sdk_config() -> Result<SdkConfig, Error> {
    let (url, certificate) = roles::sink_address()?;
    let trusted = TrustStore::empty().with_pem_certificate(certificate);
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(TlsContext::builder().with_trust_store(trusted).build()?)
        .build_https();
    let credentials = Credentials::from_keys("bench", "bench", None);
    Ok(SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .http_client(http)
        .endpoint_url(url)
        .build())
}

/// The bare client, as the floor uses it.
pub(crate) fn client() -> Result<aws_sdk_kinesis::Client, Error> {
    let config = WireProtocol::new(roles::wire()).install((&sdk_config()?).into());
    Ok(aws_sdk_kinesis::Client::from_conf(config.build()))
}
