//! The root certificates that the gateway trusts for Anaplan: those of the system, and those of `upstream.ca_file`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::config::FileRules;
use crate::library::{Error, Kind, Result};

/// Returns a configuration for TLS 1.2 and 1.3 with these roots.
pub(super) fn client_config(ca_file: Option<&Path>, files: &mut FileRules) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let failed = |what: String| {
            Error::new(Kind::Config, format!("cannot use upstream.ca_file {}: {what}", path.display()))
                .hint("it must contain PEM certificates")
        };
        let bytes = files.read(path)?;
        let mut found = 0;
        for one in CertificateDer::pem_slice_iter(&bytes) {
            let one = one.map_err(|error| failed(error.to_string()))?;
            roots.add(one).map_err(|error| failed(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(failed("it contains no certificate".into()));
        }
    }
    if roots.is_empty() {
        return Err(Error::new(Kind::Config, "cannot trust any TLS server: this host has no root certificates")
            .hint("apt-get install ca-certificates, or set upstream.ca_file"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Kind::Unexpected, format!("cannot set TLS up: {error}")))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
