//! The SDK's settings of a side.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_types::retry::RetryConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;

use crate::Error;
use crate::process::Endpoint;

/// The settings for calls to `endpoint`. A call that fails is not sent again: the servers refuse nothing.
///
/// # Errors
/// The certificate cannot be used.
pub fn sdk_config(endpoint: &Endpoint) -> Result<SdkConfig, Error> {
    let credentials = Credentials::from_keys("benchmark", "benchmark", None);
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(&endpoint.url);
    if let Some(certificate) = &endpoint.certificate {
        let trusted = TrustStore::empty().with_pem_certificate(certificate.as_str());
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(TlsContext::builder().with_trust_store(trusted).build()?)
            .build_https();
        config = config.http_client(http);
    }
    Ok(config.build())
}
