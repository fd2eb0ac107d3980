//! Private keys in a certificate file.
//!
//! PURE.

/// The warning about a certificate file with a private key.
pub(crate) const HOLDS_A_PRIVATE_KEY: &str = "holds a private key; do not give this file to anybody";

/// Whether a text contains the mark of a private key: PEM, SSH and PGP with any dashes, PuTTY, JWK (RFC 7517), or
/// XML of .NET. A damaged key counts, too.
pub(super) fn mentions_private_key(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let is_begin_line = |line: &str| line.split_once("begin ").is_some_and(|(_, label)| label.contains("private key"));
    text.split(['\n', '\r']).any(is_begin_line)
        || text.contains("putty-user-key-file")
        || (text.contains("\"kty\"") && text.contains("\"d\""))
        || (text.contains("<rsakeyvalue") && text.contains("<d>"))
}
