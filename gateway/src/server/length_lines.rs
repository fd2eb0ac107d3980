//! Counts the header lines that give the length of a request's body: `Content-Length` and `Transfer-Encoding`. A request
//! with two of them is ambiguous: a proxy and the gateway could read different bodies (request smuggling).
//!
//! PURE. The HTTP library drops the second line before the routes see it, so this file watches the bytes of the
//! connection. It does not watch a pipelined head, which arrives before the reply to the last request. The library reads
//! that head by RFC 9112 section 6.3.

/// The number of bytes of the longer name, with its colon.
const LONGEST_NAME: usize = "transfer-encoding:".len();

/// The number of length lines in the arriving head.
#[derive(Debug, Default)]
pub(crate) struct LengthLines {
    /// The first bytes of the current line, at most [`LONGEST_NAME`], in lower case and without the line's end.
    line: Vec<u8>,
    has_lines: bool,
    is_complete: bool,
    lengths: usize,
}

impl LengthLines {
    /// Reads the next bytes of the connection.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.is_complete {
                return;
            }
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                byte if self.line.len() < LONGEST_NAME => self.line.push(byte.to_ascii_lowercase()),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            // Empty lines before the request line do not end a head (RFC 9112 section 2.2).
            self.is_complete = self.has_lines;
        }
        let is_length = self.line.starts_with(b"content-length:") || self.line == b"transfer-encoding:";
        self.lengths += usize::from(is_length);
        self.has_lines |= !self.line.is_empty();
        self.line.clear();
    }

    /// Whether the head has more than one length line.
    #[must_use]
    pub(crate) fn are_ambiguous(&self) -> bool {
        self.lengths > 1
    }

    /// Forgets this head. The next bytes belong to the next head.
    pub(crate) fn begin_next(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_ambiguous(parts: &[&str]) -> bool {
        let mut lengths = LengthLines::default();
        parts.iter().for_each(|part| lengths.read(part.as_bytes()));
        lengths.are_ambiguous()
    }

    #[test]
    fn two_length_lines_of_any_kind_are_ambiguous() {
        let line = "POST / HTTP/1.1\r\n";
        for (head, ambiguous) in [
            ("Content-Length: 1\r\n\r\nContent-Length: 2\r\n", false),
            ("Transfer-Encoding: chunked\r\n\r\n", false),
            ("X-Content-Length: 1\r\nContent-Lengths: 3\r\nContent-Length: 2\r\n\r\n", false),
            ("Content-Length: 1\r\nContent-Length: 1\r\n\r\n", true),
            ("transfer-encoding:chunked\r\nX: y\r\ncontent-length: 4\r\n\r\n", true),
            ("Content-Length: 4\nTransfer-Encoding: chunked\n\n", true),
        ] {
            let whole = format!("{line}{head}");
            assert_eq!(are_ambiguous(&[&whole]), ambiguous, "{head}");
            let bytes: Vec<String> = whole.chars().map(String::from).collect();
            let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
            assert_eq!(are_ambiguous(&bytes), ambiguous, "{head}, byte by byte");
        }
        assert!(are_ambiguous(&["\r\n\r\n", line, "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"]));
    }

    #[test]
    fn each_head_is_counted_separately() {
        let mut lengths = LengthLines::default();
        lengths.read(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n");
        lengths.begin_next();
        lengths.read(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n");
        assert!(!lengths.are_ambiguous());
        lengths.begin_next();
        lengths.read(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n");
        assert!(lengths.are_ambiguous());
    }
}
