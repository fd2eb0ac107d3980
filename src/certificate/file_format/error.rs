//! Names of files without certificates, and hints for them.
//!
//! PURE.

use crate::certificate::CertificateError;
use crate::certificate::pem::PemBlockError;
use crate::text::shell::always_quoted;

/// The reason why a file contains no readable certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Empty, or only white space.
    #[error("an empty file")]
    Empty,
    /// PKCS#12.
    #[error("a PKCS#12 file (.p12, .pfx), which holds a private key")]
    Pkcs12,
    /// A Java keystore.
    #[error("a Java keystore ({0}), which holds a private key")]
    JavaKeystore(&'static str),
    /// A private key without a certificate.
    #[error("a private key and no certificate")]
    PrivateKey,
    /// A signing request.
    #[error("a certificate signing request and no certificate")]
    Request,
    /// A certificate revocation list.
    #[error("a list of revoked certificates (CRL) and no certificate")]
    RevocationList,
    /// A public key, also of SSH.
    #[error("a public key and no certificate")]
    PublicKey,
    /// A PGP file.
    #[error("a PGP file; a certificate of X.509 is needed")]
    Pgp,
    /// An archive or a compressed file.
    #[error("{}", .0.name())]
    Packed(Packing),
    /// A web page, often an error message.
    #[error("a web page (HTML)")]
    Html,
    /// PEM with a first line in small letters or with other dashes, as word processors write it.
    #[error("a PEM file whose BEGIN line is damaged; it must be -----BEGIN CERTIFICATE-----")]
    BeginLine,
    /// A PEM block that cannot be read.
    #[error("a PEM file whose block {label} cannot be read: {reason}")]
    Block {
        /// Its label.
        label: String,
        /// The problem.
        reason: PemBlockError,
    },
    /// PEM blocks without a certificate.
    #[error("a PEM file without a certificate; it holds: {0}")]
    OtherBlocks(String),
    /// PKCS#7 without certificates.
    #[error("a PKCS#7 file without certificates")]
    NoneInPkcs7,
    /// A certificate that cannot be read.
    #[error("a certificate that cannot be read: {0}")]
    Certificate(String),
    /// An unknown format.
    #[error("not a certificate in a known form")]
    Unknown,
}

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// ZIP.
    Zip,
    /// tar.
    Tar,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Packing {
    fn name(self) -> &'static str {
        match self {
            Self::Zip => "a ZIP archive",
            Self::Tar => "a tar archive",
            Self::Gzip => "a file compressed with gzip",
            Self::Bzip2 => "a file compressed with bzip2",
            Self::Xz => "a file compressed with xz",
        }
    }

    fn command(self, path: &str) -> String {
        match self {
            Self::Zip => format!("unzip {path}"),
            Self::Tar => format!("tar -xvf {path}"),
            Self::Gzip => format!("gzip -dc < {path} > unpacked"),
            Self::Bzip2 => format!("bzip2 -dc < {path} > unpacked"),
            Self::Xz => format!("xz -dc < {path} > unpacked"),
        }
    }
}

impl FormatError {
    /// Whether the file contains a private key.
    #[must_use]
    pub fn has_private_key(&self) -> bool {
        matches!(self, Self::Pkcs12 | Self::JavaKeystore(_) | Self::PrivateKey)
    }

    /// The hints for a file with this name.
    #[must_use]
    pub fn remedy(&self, path: &str) -> String {
        let path = always_quoted(path);
        match self {
            Self::Empty => "save the certificate again; the download or the disk may have failed".into(),
            Self::Pkcs12 => format!("openssl pkcs12 -in {path} -clcerts -nokeys | openssl x509 -out leaf.pem"),
            Self::JavaKeystore(_) => {
                format!(
                    "`keytool -list -keystore {path}` names the aliases; `keytool -exportcert -rfc -keystore {path} -alias mykey \
                     -file leaf.pem` writes the certificate of the alias mykey"
                )
            }
            Self::PrivateKey => "use the certificate file from the CA".into(),
            Self::Request => "send it to the CA; the certificate is the CA's answer".into(),
            Self::RevocationList | Self::PublicKey | Self::OtherBlocks(_) | Self::NoneInPkcs7 => {
                "use the certificate file from the CA".into()
            }
            Self::Pgp | Self::Unknown => "get the certificate from the CA as X.509, in PEM form".into(),
            Self::Packed(packing) => format!("`{}`, and check the certificate that was in it", packing.command(&path)),
            Self::BeginLine => format!(
                "sed 's/^.*[Bb][Ee][Gg][Ii][Nn] .*/-----BEGIN CERTIFICATE-----/; s/^.*[Ee][Nn][Dd] .*/-----END CERTIFICATE-----/' \
                 {path} | openssl x509 -out leaf.pem"
            ),
            Self::Html => "download the file again; this is a web page, perhaps an error message".into(),
            Self::Block { .. } => {
                "copy the whole block again, from -----BEGIN to -----END, or get the file again".into()
            }
            Self::Certificate(_) => {
                format!("ask the CA to issue it again; `openssl asn1parse -in {path}` shows what is in it")
            }
        }
    }
}

pub(super) fn in_words(error: CertificateError) -> FormatError {
    FormatError::Certificate(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_file_is_named_with_its_format_and_the_command_that_unpacks_it() {
        for (packing, format, command) in [
            (Packing::Zip, "ZIP", "unzip 'my file'"),
            (Packing::Tar, "tar", "tar -xvf 'my file'"),
            (Packing::Gzip, "gzip", "gzip -dc < 'my file' > unpacked"),
            (Packing::Bzip2, "bzip2", "bzip2 -dc < 'my file' > unpacked"),
            (Packing::Xz, "xz", "xz -dc < 'my file' > unpacked"),
        ] {
            let error = FormatError::Packed(packing);
            assert!(error.to_string().contains(format), "{error}");
            assert!(error.remedy("my file").contains(command), "{}", error.remedy("my file"));
        }
    }
}
