//! What was found in a certificate file.
//!
//! PURE.

/// The certificates of a file, and other observations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CertificateFile {
    pub(crate) form: FileForm,
    /// Each certificate as DER (or BER, as written), in the file's order.
    pub certificates: Vec<Vec<u8>>,
    /// Differences from OpenSSL's PEM.
    pub(crate) oddities: Vec<Oddity>,
    /// Whether a private key is in the file too.
    pub has_private_key: bool,
}

/// The form of the certificates in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FileForm {
    /// PEM (RFC 7468).
    #[default]
    Pem,
    /// One certificate as DER.
    Der,
    /// PKCS#7 (`.p7b`) with PEM lines.
    Pkcs7Pem,
    /// PKCS#7 (`.p7b`) in binary form.
    Pkcs7Der,
    /// One certificate as base64 without PEM lines.
    Base64,
    /// PKCS#7 as base64 without PEM lines.
    Pkcs7Base64,
}

/// A difference from OpenSSL's PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    /// A byte order mark at its beginning.
    ByteOrderMark,
    /// UTF-16, as written by PowerShell and Notepad; with iconv's name.
    Utf16(&'static str),
    /// Text around the blocks, such as "Bag Attributes".
    OtherText,
    /// `TRUSTED CERTIFICATE`: a certificate followed by OpenSSL's trust settings.
    Trusted,
    /// `X509 CERTIFICATE`, an old label.
    OldLabel,
    /// Line breaks are missing or written as `\n`, or lines are indented.
    NoLines,
    /// The base64 of a whole PEM file.
    Encoded,
}
