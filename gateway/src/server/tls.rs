//! The certificate and key of the TLS listener.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{FileRules, TlsConfig};
use crate::library::{Error, Kind, Result};
use crate::validity::not_after;

/// Returns a configuration for TLS 1.2 and 1.3 with the files of `tls`, and the end of the certificate's validity in seconds
/// of Unix time.
///
/// # Errors
/// When the files cannot be read, or do not belong together.
pub(crate) fn server_config(tls: &TlsConfig, files: &mut FileRules) -> Result<(Arc<ServerConfig>, Option<u64>)> {
    let failed = |what: String| {
        Error::new(Kind::Config, format!("cannot use the certificate and key of [tls]: {what}"))
            .hint("both are PEM files; the key must belong to the first certificate")
    };
    let chain = files.read(&tls.certificate)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
    let not_after = chain.first().and_then(|leaf| not_after(leaf));
    let key = files.read_secret(&tls.key)?;
    // The text of the error is dropped, because it could quote the key.
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| failed("the key cannot be read".into()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    let mut config =
        builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| failed(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), not_after))
}
