//! What files are that hold no certificate, and what helps.
//!
//! PURE.

use crate::certificate::pem::BlockError;

/// Why a file holds no certificate that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No bytes, or white space alone.
    #[error("an empty file")]
    Empty,
    /// PKCS#12.
    #[error("a PKCS#12 file (.p12, .pfx), which holds a private key")]
    Pkcs12,
    /// A keystore of Java's.
    #[error("a Java keystore ({0}), which holds a private key")]
    JavaKeystore(&'static str),
    /// A private key, and no certificate.
    #[error("a private key and no certificate")]
    PrivateKey,
    /// A signing request.
    #[error("a certificate signing request and no certificate")]
    Request,
    /// A list of revoked certificates.
    #[error("a list of revoked certificates (CRL) and no certificate")]
    RevocationList,
    /// A public key, of SSH or by itself.
    #[error("a public key and no certificate")]
    PublicKey,
    /// Something of PGP's.
    #[error("a PGP file; a certificate of X.509 is needed")]
    Pgp,
    /// A packed directory.
    #[error("a ZIP archive")]
    Zip,
    /// A page of a web site, often an error.
    #[error("a web page (HTML)")]
    Html,
    /// A PEM block that cannot be read.
    #[error("a PEM file whose block {label} cannot be read: {reason}")]
    Block {
        /// Its label.
        label: String,
        /// What is wrong.
        reason: BlockError,
    },
    /// PEM blocks, and none of a certificate.
    #[error("a PEM file without a certificate; it holds: {0}")]
    OtherBlocks(String),
    /// PKCS#7 without certificates.
    #[error("a PKCS#7 file without certificates")]
    NoneInPkcs7,
    /// A certificate that cannot be read.
    #[error("a certificate that cannot be read: {0}")]
    Certificate(String),
    /// Something else.
    #[error("not a certificate in a form that is known here")]
    Unknown,
}

impl FormatError {
    /// Whether the file holds a private key.
    #[must_use]
    pub fn has_private_key(&self) -> bool {
        matches!(self, Self::Pkcs12 | Self::JavaKeystore(_) | Self::PrivateKey)
    }

    /// What helps, for a file of this name.
    #[must_use]
    pub fn remedy(&self, path: &str) -> String {
        let path = quoted(path);
        match self {
            Self::Empty => "save the certificate again; the download or the disk may have failed".into(),
            Self::Pkcs12 => format!("openssl pkcs12 -in {path} -clcerts -nokeys | openssl x509 -out leaf.pem"),
            Self::JavaKeystore(_) => {
                format!(
                    "`keytool -list -keystore {path}` names the aliases; `keytool -exportcert -rfc -keystore {path} -alias mykey \
                     -file leaf.pem` writes the certificate of the alias mykey"
                )
            }
            Self::PrivateKey => "the certificate is another file; the CA sent it".into(),
            Self::Request => "send it to the CA; the certificate is the CA's answer".into(),
            Self::RevocationList | Self::PublicKey | Self::OtherBlocks(_) | Self::NoneInPkcs7 => {
                "the certificate is another file; the CA sent it".into()
            }
            Self::Pgp | Self::Unknown => "get the certificate from the CA as X.509, in PEM form".into(),
            Self::Zip => format!("`unzip {path}`, and choose the certificate among the files"),
            Self::Html => "get the file again; this is the page around it, or an error".into(),
            Self::Block { .. } => {
                "copy the whole block again, from -----BEGIN to -----END, or get the file again".into()
            }
            Self::Certificate(_) => format!("have it issued again; `openssl asn1parse -in {path}` shows what is in it"),
        }
    }
}

/// A path as a shell takes it.
#[must_use]
pub fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}
