//! PEM as found in files: with other text around it, without line breaks, with headers, with any label.
//!
//! PURE. The header of a login request is parsed strictly; see [`super::Certificate::from_pem`].

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64 with or without the padding at its end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct PemBlock<'a> {
    /// The words after `BEGIN`.
    pub(super) label: &'a str,
    /// The bytes, or the reason why they cannot be read.
    pub(super) content: Result<Vec<u8>, PemBlockError>,
}

/// The reason why a block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemBlockError {
    /// The file ends before the block does.
    #[error("its END line is missing")]
    NoEnd,
    /// The label at the end differs from the one at the beginning.
    #[error("its END line has another label")]
    OtherEnd,
    /// The text between the two lines is not base64.
    #[error("the text between BEGIN and END is not base64")]
    Base64,
}

/// The blocks of a text, and whether there is other text around them.
pub(super) fn blocks(text: &str) -> (Vec<PemBlock<'_>>, bool) {
    let (mut found, mut has_other_text) = (Vec::new(), false);
    let mut rest = text;
    while let Some((before, label, body)) = begin(rest) {
        has_other_text |= !before.trim().is_empty();
        let (content, after) = match body.find("-----END ") {
            None => (Err(PemBlockError::NoEnd), ""),
            Some(at) => {
                let end = &body[at + "-----END ".len()..];
                match end.strip_prefix(label).and_then(|end| end.strip_prefix("-----")) {
                    Some(after) => (decode(&body[..at]), after),
                    None => (Err(PemBlockError::OtherEnd), end),
                }
            }
        };
        found.push(PemBlock { label, content });
        rest = after;
    }
    has_other_text |= !rest.trim().is_empty();
    (found, has_other_text)
}

/// Decodes base64 with white space anywhere in it; `None` for other text.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let squeezed: String = text.split_whitespace().collect();
    BASE64.decode(squeezed).ok().filter(|bytes| !bytes.is_empty())
}

/// The text before a block, its label, and the text after the label.
fn begin(text: &str) -> Option<(&str, &str, &str)> {
    const BEGIN: &str = "-----BEGIN ";
    const LONGEST_LABEL: usize = 64;
    let mut from = 0;
    while let Some(at) = text[from..].find(BEGIN) {
        let before = &text[..from + at];
        let after = &text[before.len() + BEGIN.len()..];
        let is_label = |label: &&str| label.len() <= LONGEST_LABEL && !label.contains(['\n', '\r']);
        if let Some(label) = after.split("-----").next().filter(is_label).filter(|label| label.len() < after.len()) {
            return Some((before, label, &after[label.len() + "-----".len()..]));
        }
        from += at + BEGIN.len();
    }
    None
}

fn decode(body: &str) -> Result<Vec<u8>, PemBlockError> {
    // In text copied from a variable or a JSON string, a line break is two characters.
    let body = body.replace("\\r", "").replace("\\n", "\n");
    let is_header = |line: &&str| line.contains(':');
    let lines: String = body.lines().filter(|line| !is_header(line)).collect::<Vec<_>>().join("\n");
    base64(&lines).ok_or(PemBlockError::Base64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content(text: &str) -> Vec<Result<Vec<u8>, PemBlockError>> {
        blocks(text).0.into_iter().map(|block| block.content).collect()
    }

    #[test]
    fn blocks_are_read_however_their_lines_are_broken() {
        for text in [
            "-----BEGIN X-----\nAAEC\nAw==\n-----END X-----\n",
            "-----BEGIN X-----\r\nAAEC\r\nAw==\r\n-----END X-----\r\n",
            "-----BEGIN X-----\rAAECAw\r-----END X-----\r",
            "  -----BEGIN X-----  \n  AAEC \n\n Aw==\n  -----END X-----",
            "-----BEGIN X-----AAECAw==-----END X-----",
            "-----BEGIN X-----\\nAAEC\\nAw==\\n-----END X-----\\n",
            "-----BEGIN X----- AAEC Aw== -----END X-----",
            "-----BEGIN X-----\nProc-Type: 4,CLEAR\n\nAAECAw==\n-----END X-----",
        ] {
            assert_eq!(content(text), [Ok(vec![0, 1, 2, 3])], "{text}");
        }
    }

    #[test]
    fn a_broken_block_says_what_is_wrong_with_it() {
        assert_eq!(content("-----BEGIN X-----\nAAEC\n"), [Err(PemBlockError::NoEnd)]);
        assert_eq!(content("-----BEGIN X-----\nAAEC\n-----END Y-----\n"), [Err(PemBlockError::OtherEnd)]);
        assert_eq!(content("-----BEGIN X-----\n<html>\n-----END X-----\n"), [Err(PemBlockError::Base64)]);
        assert_eq!(content("-----BEGIN X-----\n-----END X-----\n"), [Err(PemBlockError::Base64)]);
        assert_eq!(content("-----BEGIN X\n-----BEGIN Y-----\nAAEC\n-----END Y-----"), [Ok(vec![0, 1, 2])]);
    }

    #[test]
    fn other_text_is_told_from_the_blocks() {
        let block = "-----BEGIN X-----\nAAEC\n-----END X-----\n";
        assert!(!blocks(block).1 && !blocks(&format!("\n{block}\n{block}\n")).1);
        for text in [format!("Bag Attributes\n{block}"), format!("{block}x"), format!("{block}x\n{block}")] {
            assert!(blocks(&text).1, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(-----BEGIN |-----END |X-----|[A-Z\\n:=é-]{0,9}){0,9}") {
            let _ = blocks(&text);
        }
    }
}
