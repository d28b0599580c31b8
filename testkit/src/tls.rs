//! TLS with a certificate made at the start.

use std::error::Error;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::error::StartError;

/// What the certificate is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A server's side of TLS, and what its clients are to trust.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    /// The certificate of the authority that signed the server's.
    pub(crate) authority_pem: String,
}

impl Tls {
    pub(crate) fn generate() -> Result<Self, StartError> {
        generate().map_err(StartError::Certificate)
    }
}

/// An authority of its own and a certificate signed by it: some clients refuse to trust the
/// certificate of a server directly. Keys never leave the process.
fn generate() -> Result<Tls, Box<dyn Error + Send + Sync>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("kinesis-testkit authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name = named("kinesis-testkit");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;

    // Named, so that nothing depends on a provider installed for the whole process.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), authority_pem: authority.pem() })
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
