//! Watches the bytes of a connection. At the flush after a reply, it tells the waiter that the reply was delivered: a
//! login whose reply did not reach the caller may be repeated. It also counts the length lines of each head.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::length_lines::LengthLines;
use crate::logins::Waiter;

/// The state of one connection: the logins whose replies wait for a flush, and the length lines of the heads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    waiters: Arc<Mutex<Vec<Waiter>>>,
    lengths: Arc<Mutex<LengthLines>>,
}

impl Delivery {
    fn begin_write(&self, waiter: Waiter) {
        waiter.begin_write();
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).push(waiter);
    }

    fn flushed(&self) {
        let written = std::mem::take(&mut *self.waiters.lock().unwrap_or_else(PoisonError::into_inner));
        written.into_iter().for_each(Waiter::delivered);
    }

    /// Returns the length lines of the heads.
    pub(super) fn lengths(&self) -> MutexGuard<'_, LengthLines> {
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a reply. The first flush after the server has taken the data means that the reply was delivered.
pub(crate) struct ReplyBody {
    data: Option<Bytes>,
    waiter: Option<(Waiter, Delivery)>,
}

impl ReplyBody {
    /// Creates a body, with a waiter if it replies to a login.
    #[must_use]
    pub(crate) fn new(data: Bytes, waiter: Option<(Waiter, Delivery)>) -> Self {
        // The data is `Some` even if it is empty: otherwise the server would not poll the body, and the waiter would never
        // begin its write.
        Self { data: Some(data), waiter }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some((waiter, delivery)) = self.waiter.take() {
            delivery.begin_write(waiter);
        }
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(0)))
    }
}

/// A stream that reports its flushes and the bytes of its heads to a [`Delivery`].
pub(super) struct TrackedStream<S> {
    inner: S,
    delivery: Delivery,
}

impl<S> TrackedStream<S> {
    pub(super) fn new(inner: S, delivery: Delivery) -> Self {
        Self { inner, delivery }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
        this.delivery.lengths().read(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            this.delivery.flushed();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A request as a client may write it, and whether it has two lengths.
    fn request() -> impl Strategy<Value = (String, bool)> {
        let start = "(\r\n|\n){0,2}POST /[a-z:]{0,9} HTTP/1\\.1\r?\n(X-[a-z]{1,9}:[ \t]{0,3}[a-z:0-9]{0,30}\r?\n){0,3}";
        let body = proptest::collection::vec("[ -~\r\n:]{1,40}", 0..4);
        let head_end = ("[ \t]{0,3}0{0,20}", "[ \t]{0,2}\r?\n(Y: [a-z]{0,9}\r\n)?");
        let trailer = "(Content-Length: 9\r\n|T: u\r\n|T: u\n\r\nPOST / HTTP/1\\.1\r\n)?";
        (start, body, head_end, "(;[ -~]{0,9})?", trailer, 0..6_u8).prop_map(
            |(start, body, (before, after), extension, trailer, kind)| {
                let chunked: String =
                    body.iter().map(|chunk| format!("{:X}{extension}\r\n{chunk}\r\n", chunk.len())).collect();
                let (whole, length) = (body.concat(), body.concat().len());
                let lengths = match kind {
                    0 => return (format!("{start}\r\n"), false),
                    1 | 2 => format!("content-length:{before}{length}{after}"),
                    3 | 4 => format!("Transfer-Encoding: chunked{after}"),
                    _ => format!("Content-Length: {length}\r\ncontent-LENGTH: {length}{after}"),
                };
                let is_chunked = lengths.starts_with('T');
                let body = if is_chunked { format!("{chunked}0\r\n{trailer}\r\n") } else { whole };
                (format!("{start}{lengths}\r\n{body}"), kind == 5)
            },
        )
    }

    proptest! {
        #[test]
        fn the_length_lines_are_those_of_the_requests_that_the_library_reads(
            requests in proptest::collection::vec(request(), 1..6),
            size in 1..400_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(async {
                let (mut caller, stream) = tokio::io::duplex(1 << 20);
                let delivery = Delivery::default();
                let found = Mutex::new(Vec::new());
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                    found.lock().unwrap().push(delivery.lengths().take_is_ambiguous());
                    async move {
                        let _ = request.into_body().collect().await;
                        Ok::<_, Infallible>(http::Response::new(ReplyBody::new(Bytes::new(), None)))
                    }
                });
                let tracked = TrackedStream::new(stream, delivery.clone());
                let mut served = std::pin::pin!(http1::Builder::new().half_close(true).serve_connection(TokioIo::new(tracked), service));
                let all: String = requests.iter().map(|(text, _)| text.as_str()).collect();
                let send = async {
                    for part in all.as_bytes().chunks(size) {
                        caller.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    caller.shutdown().await.unwrap();
                    let _ = caller.read_to_end(&mut Vec::new()).await;
                };
                let _ = tokio::join!(served.as_mut(), send);
                found.into_inner().unwrap()
            });
            let expected: Vec<bool> = requests.iter().map(|(_, is_ambiguous)| *is_ambiguous).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
