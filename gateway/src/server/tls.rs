//! The certificate and key of the TLS listener.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{FileRules, TlsConfig};
use crate::library::{Error, Kind, Result, file_format};
use crate::validity::not_after;

/// Returns a configuration for TLS 1.2 and 1.3 with the files of `tls`, and the end of the certificate's validity in seconds
/// of Unix time.
///
/// # Errors
/// When the files cannot be read, or do not belong together.
pub(crate) fn server_config(tls: &TlsConfig, files: &mut FileRules) -> Result<(Arc<ServerConfig>, Option<u64>)> {
    let failed = |what: String, hint: String| {
        Error::new(Kind::Config, format!("cannot use the certificate and key of [tls]: {what}")).hint(hint)
    };
    let (certificate, key_file) = (tls.certificate.display().to_string(), tls.key.display().to_string());
    let quoted = file_format::quoted;
    let no_certificate = |what: String| {
        failed(
            what,
            format!("`openssl x509 -noout -subject -in {}` must show its first certificate", quoted(&certificate)),
        )
    };
    let chain = files.read(&tls.certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| no_certificate(format!("{certificate}: {error}")))?;
    if chain.is_empty() {
        return Err(no_certificate(format!("{certificate} contains no certificate in PEM")));
    }
    let not_after = chain.first().and_then(|leaf| not_after(leaf));
    let key = files.read_secret(&tls.key)?;
    // The text of the error is dropped, because it could quote the key.
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        let what = format!("{key_file} contains no private key in PEM, or it has a passphrase");
        failed(what, format!("`openssl pkey -in {} -out NEW` removes a passphrase", quoted(&key_file)))
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Kind::Unexpected, format!("cannot set TLS up: {error}")))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| {
        let what = match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("the key in {key_file} does not belong to the first certificate in {certificate}")
            }
            error => format!("{certificate} or {key_file}: {error}"),
        };
        let (of_certificate, of_key) = (quoted(&certificate), quoted(&key_file));
        failed(what, format!("`openssl x509 -noout -pubkey -in {of_certificate}` and `openssl pkey -pubout -in {of_key}` must show the same key"))
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), not_after))
}
