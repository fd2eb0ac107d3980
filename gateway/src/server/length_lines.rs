//! Counts the header lines that give the length of a request's body: `Content-Length` and `Transfer-Encoding`. A request
//! with two of them is ambiguous: a proxy and the gateway could read different bodies (request smuggling).
//!
//! PURE. The HTTP library drops the second line before the routes see it, so this file watches the bytes of the
//! connection. A pipelined head can arrive in one read with the request before it. So this file also finds the end of each
//! body (RFC 9112 section 6.3). The library closes the connection at the first invalid byte.

use std::collections::VecDeque;

/// The number of bytes of the longer name, with its colon.
const LONGEST_NAME: usize = "transfer-encoding:".len();

/// The bytes of a connection, and the heads that have arrived.
#[derive(Debug, Default)]
pub(crate) struct LengthLines {
    part: MessagePart,
    line: HeadLine,
    head: ArrivingHead,
    /// For each head that no request has taken, whether it is ambiguous.
    arrived: VecDeque<bool>,
}

/// The part of a message to which the next byte belongs.
#[derive(Debug, Default)]
enum MessagePart {
    #[default]
    Head,
    /// This number of bytes of a body have not arrived.
    Body(u64),
    ChunkSize,
    /// This number of bytes of a chunk and its line end have not arrived.
    Chunk(u64),
    Trailers,
}

/// The current line of a head, of a chunk's size or of the trailers.
#[derive(Debug, Default)]
struct HeadLine {
    /// The bytes up to the first colon, at most [`LONGEST_NAME`], in lower case and without the line's end.
    name: Vec<u8>,
    /// The decimal number after the name, or the hexadecimal number with which the line begins.
    number: u64,
    number_has_ended: bool,
    /// Whether a carriage return (CR) has arrived. A line feed (LF) must follow it.
    has_return: bool,
}

#[derive(Debug, Default)]
struct ArrivingHead {
    has_lines: bool,
    lengths: usize,
    body: MessagePart,
}

impl LengthLines {
    /// Reads the next bytes of the connection.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while let [byte, rest @ ..] = bytes {
            bytes = match self.part {
                MessagePart::Body(missing) => self.skip(bytes, missing, MessagePart::Body, MessagePart::Head),
                MessagePart::Chunk(missing) => self.skip(bytes, missing, MessagePart::Chunk, MessagePart::ChunkSize),
                _ => {
                    self.read_byte_of_line(*byte);
                    rest
                }
            };
        }
    }

    /// Whether the next head has more than one length line. Each request takes its head.
    #[must_use]
    pub(crate) fn take_is_ambiguous(&mut self) -> bool {
        // The bytes of a request have always been read before. If they were not understood, the request is ambiguous.
        self.arrived.pop_front() != Some(false)
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], missing: u64, same: fn(u64) -> MessagePart, next: MessagePart) -> &'a [u8] {
        let skipped = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
        let missing = missing - u64::try_from(skipped).unwrap_or(missing);
        self.part = if missing == 0 { next } else { same(missing) };
        &bytes[skipped..]
    }

    fn read_byte_of_line(&mut self, byte: u8) {
        match (byte, &self.part) {
            // The library ends a line of the trailers only at CR LF.
            (b'\n', MessagePart::Trailers) if !self.line.has_return => self.line.push(byte),
            (b'\n', _) => self.end_line(),
            (b'\r', _) => self.line.has_return = true,
            (_, MessagePart::ChunkSize) => self.line.push_size(byte),
            _ => self.line.push(byte),
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        match self.part {
            MessagePart::ChunkSize if line.number == 0 => self.part = MessagePart::Trailers,
            MessagePart::ChunkSize => self.part = MessagePart::Chunk(line.number.saturating_add(2)),
            MessagePart::Trailers if line.name.is_empty() => self.part = MessagePart::Head,
            MessagePart::Trailers => {}
            // Empty lines before the request line do not end a head (RFC 9112 section 2.2).
            _ if line.name.is_empty() && self.head.has_lines => {
                let head = std::mem::take(&mut self.head);
                self.arrived.push_back(head.lengths > 1);
                self.part = head.body;
            }
            _ => self.head.end_line(&line),
        }
    }
}

impl ArrivingHead {
    fn end_line(&mut self, line: &HeadLine) {
        self.has_lines |= !line.name.is_empty();
        match line.name.as_slice() {
            b"content-length:" => self.body = MessagePart::Body(line.number),
            b"transfer-encoding:" => self.body = MessagePart::ChunkSize,
            _ => return,
        }
        self.lengths += 1;
    }
}

impl HeadLine {
    fn push(&mut self, byte: u8) {
        if self.name.ends_with(b":") {
            self.add_digit(byte, 10);
        } else if self.name.len() < LONGEST_NAME {
            self.name.push(byte.to_ascii_lowercase());
        }
    }

    /// Reads a byte of a chunk's size. Extensions may follow the size.
    fn push_size(&mut self, byte: u8) {
        self.number_has_ended |= !byte.is_ascii_hexdigit();
        if !self.number_has_ended {
            self.add_digit(byte, 16);
        }
    }

    fn add_digit(&mut self, byte: u8, radix: u32) {
        if let Some(digit) = char::from(byte).to_digit(radix) {
            self.number = self.number.saturating_mul(radix.into()).saturating_add(digit.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "POST / HTTP/1.1\r\n";

    /// Reads a text as a whole and byte by byte, and returns for each head whether it is ambiguous.
    fn heads(text: &str) -> Vec<bool> {
        let (mut whole, mut single) = (LengthLines::default(), LengthLines::default());
        whole.read(text.as_bytes());
        text.as_bytes().iter().for_each(|byte| single.read(&[*byte]));
        assert_eq!(whole.arrived, single.arrived, "{text:?}");
        whole.arrived.into()
    }

    #[test]
    fn two_length_lines_of_any_kind_are_ambiguous() {
        for (head, ambiguous) in [
            ("Content-Length: 1\r\n\r\nContent-Length: 2\r\n", false),
            ("Transfer-Encoding: chunked\r\n\r\n", false),
            ("X-Content-Length: 1\r\nContent-Lengths: 3\r\nContent-Length: 2\r\n\r\n", false),
            ("Content-Length: 1\r\nContent-Length: 1\r\n\r\n", true),
            ("transfer-encoding:chunked\r\nX: y\r\ncontent-length: 4\r\n\r\n", true),
            ("Content-Length: 4\nTransfer-Encoding: chunked\n\n", true),
        ] {
            assert_eq!(heads(&format!("{LINE}{head}")), [ambiguous], "{head}");
        }
        assert_eq!(heads(&format!("\r\n\r\n{LINE}Content-Length: 1\r\nContent-Length: 1\r\n\r\n")), [true]);
        assert_eq!(heads(&format!("{LINE}Content-Length: 1\r\nContent-Length: 1\r\n")), [false; 0]);
    }

    #[test]
    fn the_head_after_each_kind_of_body_is_found() {
        let ambiguous = format!("{LINE}Content-Length: 0\r\nContent-Length: 0\r\n\r\n");
        for first in [
            "X: y\r\n\r\n",
            "Content-Length: 0\r\n\r\n",
            "Content-Length:  0004 \r\n\r\n\r\n\r\n",
            "Content-Length: 12\r\n\r\nX: y\r\n\r\nX: y",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n00A;a=b\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1 ;2\r\nx\r\n0;1\r\nContent-Length: 7\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\nPOST / HTTP/1.1\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\n\r\nPOST / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(heads(&format!("{LINE}{first}{ambiguous}")), [false, true], "{first}");
            assert_eq!(heads(&format!("{LINE}{first}{LINE}{first}{ambiguous}")), [false, false, true], "{first}");
        }
    }

    #[test]
    fn each_request_takes_its_head() {
        let mut lengths = LengthLines::default();
        lengths.read(format!("{LINE}\r\n{LINE}Content-Length: 0\r\nContent-Length: 0\r\n\r\n").as_bytes());
        assert_eq!([(); 3].map(|()| lengths.take_is_ambiguous()), [false, true, true]);
    }
}
