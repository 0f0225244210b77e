//! Objects on their way out: ranges (RFC 9110 §14), and a body that the store feeds as the client takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};
use http_body::{Body, Frame, SizeHint};

use crate::auth::single;
use crate::blob::BlobStream;

/// What of an object was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// `first..=last`.
    Range(u64, u64),
    /// Bytes that it does not have.
    Unsatisfiable,
}

/// Reads `Range` and `If-Range`. One range of bytes; what is malformed or of several ranges is ignored, as RFC 9110
/// §14.2 allows.
pub(crate) fn wanted(headers: &HeaderMap, etag: &str, length: u64) -> Wanted {
    let Some(range) = single(headers, RANGE.as_str()) else {
        return Wanted::Whole;
    };
    // Compared strongly (RFC 9110 §13.1.5); a date fits nothing, as objects have none.
    if headers.contains_key(IF_RANGE) && single(headers, IF_RANGE.as_str()) != Some(etag) {
        return Wanted::Whole;
    }
    parse(range, length).unwrap_or(Wanted::Whole)
}

fn parse(range: &str, length: u64) -> Option<Wanted> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (first, last) = match (first, last) {
        ("", suffix) => (length.saturating_sub(number(suffix)?), length.saturating_sub(1)),
        (first, "") => (number(first)?, u64::MAX),
        (first, last) => (number(first)?, number(last)?),
    };
    if first >= length {
        return Some(Wanted::Unsatisfiable);
    }
    (first <= last).then(|| Wanted::Range(first, last.min(length - 1)))
}

/// A piece of a blob as a response body of exactly `left` bytes.
pub(crate) struct ObjectBody {
    stream: BlobStream,
    left: u64,
}

impl ObjectBody {
    pub(crate) fn new(stream: BlobStream, length: u64) -> Self {
        Self { stream, left: length }
    }
}

impl Body for ObjectBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let outcome = match ready!(self.stream.as_mut().poll_next(cx)) {
            Some(Ok(bytes)) if bytes.len() as u64 <= self.left => Ok(bytes),
            Some(Ok(_)) => Err(io::Error::other("the store gave more than was asked for")),
            Some(Err(error)) => Err(error),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        Poll::Ready(Some(match outcome {
            Ok(bytes) => {
                self.left -= bytes.len() as u64;
                Ok(Frame::data(bytes))
            }
            Err(error) => {
                tracing::error!(%error, "an object cannot be read");
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditional::tests::headers;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes=0-0", Some(Wanted::Range(0, 0))),
            ("bytes=5-", Some(Wanted::Range(5, 9))),
            ("bytes=5-99", Some(Wanted::Range(5, 9))),
            ("bytes=-3", Some(Wanted::Range(7, 9))),
            ("bytes=-99", Some(Wanted::Range(0, 9))),
            ("bytes=10-", Some(Wanted::Unsatisfiable)),
            ("bytes=99999999999999999999999-", Some(Wanted::Unsatisfiable)),
            ("bytes=-0", Some(Wanted::Unsatisfiable)),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=+1-4", None),
            ("bytes=", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(parse(text, 10), expected, "{text}");
        }
        assert_eq!(parse("bytes=0-", 0), Some(Wanted::Unsatisfiable));
    }

    #[test]
    fn a_range_counts_for_the_object_that_is_meant() {
        let ask = |fields: &[(&'static str, &'static str)]| wanted(&headers(fields), "\"a\"", 10);
        let range = ("range", "bytes=1-2");
        assert_eq!(ask(&[range]), Wanted::Range(1, 2));
        assert_eq!(ask(&[range, ("if-range", "\"a\"")]), Wanted::Range(1, 2));
        for other in ["\"b\"", "W/\"a\"", "*", "Sat, 29 Oct 1994 19:43:31 GMT", ""] {
            assert_eq!(ask(&[range, ("if-range", other)]), Wanted::Whole, "{other}");
        }
        assert_eq!(ask(&[("if-range", "\"a\"")]), Wanted::Whole);
        assert_eq!(ask(&[range, range]), Wanted::Whole);
    }
}
