//! A limit on bytes a second, over all that one process sends and receives.

use std::convert::Infallible;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::lanes;

/// Bytes that go out at once.
const CHUNK: usize = 16 << 10;
/// Requests that share the rate at most, for how long one of them may take.
const SHARERS: u64 = lanes::MOST as u64;

/// Hands out turns so that no more bytes pass than the rate allows.
pub(super) struct Pace {
    rate: NonZeroU64,
    /// When the bytes that have had their turn will have passed.
    next: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(rate: NonZeroU64) -> Self {
        Self { rate, next: Mutex::new(Instant::now()) }
    }

    fn lasts(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate.get() as f64)
    }

    /// When so many bytes more may pass.
    pub(super) fn turn(&self, bytes: usize) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(Instant::now());
        *next = turn + self.lasts(bytes as u64);
        turn
    }

    /// How long a body of this length may take beside others.
    pub(super) fn patience(&self, length: usize) -> Duration {
        self.lasts(SHARERS * length as u64)
    }
}

/// A body that takes its turns. Its length is known.
pub(super) struct Paced {
    left: Bytes,
    pace: Arc<Pace>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(body: Bytes, pace: Arc<Pace>) -> Self {
        Self { left: body, pace, waiting: None }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = this.left.len().min(CHUNK);
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep_until(this.pace.turn(length))));
        ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(Some(Ok(Frame::data(this.left.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_the_rate_and_none_is_lost() {
        let pace = Arc::new(Pace::new(NonZeroU64::new(100_000).unwrap()));
        let body: Bytes = (0..1_000_000u32).map(|n| n as u8).collect();
        let begun = Instant::now();
        let bodies = [(); 2].map(|()| Paced::new(body.clone(), Arc::clone(&pace)));
        assert_eq!(bodies[0].size_hint().exact(), Some(1_000_000));
        for collected in futures_util::future::join_all(bodies.map(BodyExt::collect)).await {
            assert!(collected.unwrap().to_bytes() == body);
        }
        // Both together; the last turn begins before its bytes have passed.
        let took = begun.elapsed().as_secs_f64();
        assert!((19.0..20.0).contains(&took), "{took}");
        // What was not used is not saved up.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        sleep_until(pace.turn(100_000)).await;
        sleep_until(pace.turn(1)).await;
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }
}
