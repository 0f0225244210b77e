//! How many parts are on their way at once: as many as help.
//!
//! One or two connections fill a network that is near. Where each is slow (far away, or held down by something between),
//! more of them carry more, up to what memory allows: each has a part. So one more is tried now and then, and kept if
//! it brings a tenth more.

use tokio::time::Instant;

/// At first.
const FIRST: usize = 2;
/// At most. With the parts that are sealed or opened meanwhile this bounds memory.
const MOST: usize = 4;
/// What one more has to bring, in hundredths of what there was.
const WORTH: u128 = 110;
/// After how many windows one more is tried again.
const PATIENCE: u32 = 8;

/// Counts what comes through, in windows of two parts for each lane.
pub(crate) struct Lanes {
    now: usize,
    began: Instant,
    parts: usize,
    bytes: u64,
    /// Bytes per second with one lane less, if it is being tried whether one more helps.
    before: Option<u128>,
    /// Windows until one more is tried.
    rest: u32,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self { now: FIRST, began: Instant::now(), parts: 0, bytes: 0, before: None, rest: 0 }
    }

    /// How many parts may be on their way.
    pub(crate) fn open(&self) -> usize {
        self.now
    }

    /// A part is through.
    pub(crate) fn through(&mut self, bytes: u64) {
        self.parts += 1;
        self.bytes += bytes;
        if self.parts < 2 * self.now {
            return;
        }
        let micros = self.began.elapsed().as_micros().max(1);
        let rate = u128::from(self.bytes) * 1_000_000 / micros;
        (self.began, self.parts, self.bytes) = (Instant::now(), 0, 0);
        if self.before.take().is_some_and(|before| rate * 100 < before * WORTH) {
            self.now -= 1;
            self.rest = PATIENCE;
        }
        if self.rest > 0 {
            self.rest -= 1;
        } else if self.now < MOST {
            self.now += 1;
            self.before = Some(rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PART: u64 = 8 << 20;

    /// Sends so many parts over a network where each connection and all together carry at most so many MiB a second; gives how
    /// many there were at the end, and at most.
    async fn after(lanes: &mut Lanes, parts: u32, each: usize, all: usize) -> (usize, usize) {
        let mut most = 0;
        for _ in 0..parts {
            let rate = (lanes.open() * each).min(all) as f64;
            tokio::time::advance(Duration::from_secs_f64(8.0 / rate)).await;
            lanes.through(PART);
            most = most.max(lanes.open());
        }
        (lanes.open(), most)
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_as_many_as_help() {
        // 7 parts for the first window and that of the try; then it rests.
        assert_eq!(after(&mut Lanes::new(), 4 + 6, 100, 100).await, (2, 3), "the network is full");
        assert_eq!(after(&mut Lanes::new(), 4 + 6 + 8, 100, 300).await, (3, 4), "it is full with three");
        assert_eq!(after(&mut Lanes::new(), 300, 10, 1000).await, (4, 4), "each is slow");
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_is_tried_again_now_and_then() {
        let mut lanes = Lanes::new();
        assert_eq!(after(&mut lanes, 10, 100, 100).await.0, 2);
        assert_eq!(after(&mut lanes, 4 * (PATIENCE - 1), 100, 100).await, (2, 2), "not at once");
        // The network has become wider meanwhile.
        assert_eq!(after(&mut lanes, 60, 100, 1000).await.0, 4);
    }
}
