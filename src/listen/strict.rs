//! One reading of where an HTTP/1.1 message ends: what could be read in two ways is refused.
//!
//! A caller that another proxy shares with strangers could hide a request in one that the two
//! proxies delimit differently. hyper is lenient where RFC 9112 lets servers be (a bare LF ends a
//! line, `Transfer-Encoding` beats `Content-Length`); here the lenient cases are errors.
//! The bytes are only looked at: the one that makes a message doubtful is replaced by NUL, which no
//! message may hold, so that hyper itself answers 400 and closes.

use std::io::{IoSlice, Result as IoResult};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most of a header line that is kept. Lines that matter for framing are shorter; one that is not
/// is refused.
const LINE_KEPT: usize = 48;
/// Most hex digits of a chunk's size: what fits in 64 bits.
const CHUNK_DIGITS_MAX: u8 = 16;

/// A stream of which only unambiguous HTTP/1.1 messages can be read.
pub(super) struct Strict<S> {
    stream: S,
    framing: Framing,
    broken: bool,
}

impl<S> Strict<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, framing: Framing::default(), broken: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Err(Doubtful(at)) = self.framing.read(&buf.filled()[before..]) {
            self.broken = true;
            buf.filled_mut()[before + at] = 0;
            buf.set_filled(before + at + 1);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The byte, counted from the first of those read, from which on a message is doubtful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubtful(usize);

/// Where in a stream of messages the reader is.
#[derive(Default)]
struct Framing {
    place: Place,
    head: Head,
}

/// What comes next.
#[derive(Clone, Copy, Default)]
enum Place {
    /// The rest of a line of a head.
    #[default]
    Line,
    /// The LF of such a line.
    LineLf,
    /// So many bytes of a body of known length.
    Body(u64),
    /// The rest of a chunk's size: what has come of it, and in how many digits.
    Size(u64, u8),
    /// The rest of the extensions of a chunk of this size.
    Extension(u64),
    /// The LF after these.
    SizeLf(u64),
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The CR after a chunk.
    ChunkCr,
    /// The LF after that.
    ChunkLf,
    /// The rest of a trailer line of which so many bytes, at most one, have come.
    Trailer(u8),
    /// The LF of such a line.
    TrailerLf(u8),
}

impl Framing {
    /// Goes on by `bytes`.
    fn read(&mut self, bytes: &[u8]) -> Result<(), Doubtful> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.place {
                Place::Line => self.line(rest),
                Place::Body(left) => self.skip(rest, left, Place::Body, Place::Line),
                Place::Chunk(left) => self.skip(rest, left, Place::Chunk, Place::ChunkCr),
                Place::LineLf
                | Place::Size(..)
                | Place::Extension(_)
                | Place::SizeLf(_)
                | Place::ChunkCr
                | Place::ChunkLf
                | Place::Trailer(_)
                | Place::TrailerLf(_) => match self.after(rest[0]) {
                    Some(place) => {
                        self.place = place;
                        1
                    }
                    None => return Err(Doubtful(at)),
                },
            };
        }
        Ok(())
    }

    /// Takes what there is of a line up to its CR, or to an LF, which `after` refuses.
    fn line(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        self.head.line.push(&bytes[..len.unwrap_or(bytes.len())]);
        match len {
            Some(len) if bytes[len] == b'\r' => {
                self.place = Place::LineLf;
                len + 1
            }
            // not the LF itself: in this place it is one without a CR
            Some(len) => {
                self.head.line.bare = true;
                self.place = Place::LineLf;
                len
            }
            None => bytes.len(),
        }
    }

    fn skip(
        &mut self,
        bytes: &[u8],
        left: u64,
        within: impl FnOnce(u64) -> Place,
        then: Place,
    ) -> usize {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - here as u64;
        self.place = if left == 0 { then } else { within(left) };
        here
    }

    /// The place after one byte; `None` when the byte may not be here.
    fn after(&mut self, byte: u8) -> Option<Place> {
        match (self.place, byte) {
            (Place::LineLf, b'\n') => self.head.end_line(),
            (Place::Size(size, digits), byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16)?;
                let size = size << 4 | u64::from(digit);
                (digits < CHUNK_DIGITS_MAX).then_some(Place::Size(size, digits + 1))
            }
            (Place::Size(size, 1..), b';') => Some(Place::Extension(size)),
            (Place::Size(size, 1..) | Place::Extension(size), b'\r') => Some(Place::SizeLf(size)),
            (Place::Extension(size), byte) => (byte != b'\n').then_some(Place::Extension(size)),
            (Place::SizeLf(0), b'\n') => Some(Place::Trailer(0)),
            (Place::SizeLf(size), b'\n') => Some(Place::Chunk(size)),
            (Place::ChunkCr, b'\r') => Some(Place::ChunkLf),
            (Place::ChunkLf, b'\n') => Some(Place::Size(0, 0)),
            (Place::Trailer(len), b'\r') => Some(Place::TrailerLf(len)),
            (Place::Trailer(0), b' ' | b'\t') => None,
            (Place::Trailer(_), byte) => (byte != b'\n').then_some(Place::Trailer(1)),
            (Place::TrailerLf(0), b'\n') => Some(Place::Line),
            (Place::TrailerLf(_), b'\n') => Some(Place::Trailer(0)),
            _ => None,
        }
    }
}

/// What is known of the head that is being read.
#[derive(Default)]
struct Head {
    line: Line,
    begun: bool,
    needs_host: bool,
    host: bool,
    body: Option<Body>,
}

#[derive(Clone, Copy)]
enum Body {
    Length(u64),
    Chunked,
}

impl Head {
    /// Takes the line that has ended; `None` when it may not be here.
    fn end_line(&mut self) -> Option<Place> {
        let line = std::mem::take(&mut self.line);
        if line.bare {
            return None;
        }
        match (line.len, self.begun) {
            // an empty line before a request is none of it (RFC 9112 section 2.2)
            (0, false) => {}
            (0, true) => return self.end(),
            (_, false) => {
                self.begun = true;
                self.needs_host = line.last == b'1';
            }
            (_, true) => self.field(&line)?,
        }
        Some(Place::Line)
    }

    /// Takes a header. hyper refuses a name that is no token, and a line without a colon.
    fn field(&mut self, line: &Line) -> Option<()> {
        let kept = line.kept();
        let colon = kept.iter().position(|byte| *byte == b':');
        let (name, value) = kept.split_at(colon.unwrap_or(kept.len()));
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"host") {
            return (!std::mem::replace(&mut self.host, true)).then_some(());
        }
        let is_length = name.eq_ignore_ascii_case(b"content-length");
        if !is_length && !name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Some(());
        }
        if self.body.is_some() || line.len > LINE_KEPT {
            return None;
        }
        let value = value.get(1..)?;
        let value = value.trim_ascii();
        self.body = Some(if is_length { length(value)? } else { chunked(value)? });
        Some(())
    }

    /// The place after the empty line.
    fn end(&mut self) -> Option<Place> {
        let head = std::mem::take(self);
        if head.needs_host && !head.host {
            return None;
        }
        Some(match head.body {
            None | Some(Body::Length(0)) => Place::Line,
            Some(Body::Length(len)) => Place::Body(len),
            Some(Body::Chunked) => Place::Size(0, 0),
        })
    }
}

/// A length is digits alone: no sign, no list of equal lengths.
fn length(value: &[u8]) -> Option<Body> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().map(Body::Length)
}

/// No other coding is known here, so none could be undone before the call goes on.
fn chunked(value: &[u8]) -> Option<Body> {
    value.eq_ignore_ascii_case(b"chunked").then_some(Body::Chunked)
}

/// The beginning of a line, and how it ends.
struct Line {
    begin: [u8; LINE_KEPT],
    /// Bytes in all.
    len: usize,
    last: u8,
    /// Whether it ends in an LF without a CR.
    bare: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self { begin: [0; LINE_KEPT], len: 0, last: 0, bare: false }
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.begin.get_mut(self.len..) {
            let here = room.len().min(bytes.len());
            room[..here].copy_from_slice(&bytes[..here]);
        }
        self.len += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    fn kept(&self) -> &[u8] {
        &self.begin[..self.len.min(LINE_KEPT)]
    }
}

#[cfg(test)]
mod tests;
