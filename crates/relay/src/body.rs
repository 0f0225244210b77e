//! Request bodies: read frame by frame, bounded, and only as long as they make progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

/// What a body must bring, in either direction, in each progress interval; less is somebody who only holds the connection
/// (attacks.md 46).
pub(crate) const PROGRESS_BYTES: usize = 16 << 10;
/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Too slow.
    #[error("the body makes no progress")]
    Stalled,
    /// The connection broke, or the framing is bad.
    #[error("the body broke off")]
    Broken,
    /// Longer than the route takes.
    #[error("the body is longer than this route takes")]
    TooLong,
}

/// The body of the request that is being answered; its clones are the same body.
#[derive(Clone)]
pub(crate) struct Upload {
    reader: Arc<Mutex<Reader>>,
    received: Arc<AtomicU64>,
}

struct Reader {
    body: Body,
    done: bool,
    progress: Duration,
    /// The end of the present interval and the bytes still missing in it.
    deadline: Option<Instant>,
    missing: usize,
}

impl Upload {
    pub(crate) fn new(body: Body, progress: Duration) -> Self {
        let reader = Reader { body, done: false, progress, deadline: None, missing: PROGRESS_BYTES };
        Self { reader: Arc::new(Mutex::new(reader)), received: Arc::default() }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&self) -> Result<Option<Bytes>, BodyError> {
        let next = self.reader.lock().await.next().await?;
        if let Some(bytes) = &next {
            self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(next)
    }

    /// How many bytes of it came so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The whole body, if it is not longer than `limit`.
    pub(crate) async fn collect(&self, limit: usize) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(BodyError::TooLong);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Reads on to the end without keeping anything, so that an answer given early is not lost in a reset connection;
    /// `false` if more than `limit` bytes are left or they do not come in `time`.
    pub(crate) async fn drain(&self, limit: u64, time: Duration) -> bool {
        let drain = async {
            let mut left = limit;
            loop {
                match self.next().await {
                    Ok(None) => return true,
                    Ok(Some(bytes)) if bytes.len() as u64 <= left => left -= bytes.len() as u64,
                    _ => return false,
                }
            }
        };
        timeout(time, drain).await.unwrap_or(false)
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        while !self.done {
            let progress = self.progress;
            let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + progress);
            match timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(BodyError::Stalled),
                Ok(None) => self.done = true,
                Ok(Some(Err(_))) => {
                    self.done = true;
                    return Err(BodyError::Broken);
                }
                Ok(Some(Ok(frame))) => {
                    // Trailers are no part of any message here.
                    let Ok(bytes) = frame.into_data() else {
                        continue;
                    };
                    self.missing = self.missing.saturating_sub(bytes.len());
                    if self.missing == 0 {
                        (self.deadline, self.missing) = (None, PROGRESS_BYTES);
                    }
                    return Ok(Some(bytes));
                }
            }
        }
        Ok(None)
    }
}
