//! How many parts are on their way at once: as many as help.
//!
//! One or two connections fill a network that is near. Where each is slow (far away, or held down by something between),
//! more of them carry more, up to what memory allows: each has a part. So one more is tried now and then, and kept if it
//! brings a tenth more; and one fewer, and kept if that costs less than a tenth.

use tokio::time::Instant;

/// At first, and at least.
const FEWEST: usize = 2;
/// At most. With the parts that are sealed or opened meanwhile this bounds memory.
pub(crate) const MOST: usize = 4;
/// Parts for each lane in a window.
const WINDOW: usize = 4;
/// Windows between two tries.
const PATIENCE: u32 = 4;

/// Measures what comes through, in windows.
pub(crate) struct Lanes {
    now: usize,
    /// When the first part before the window was through: what came before that had its lane to itself.
    began: Option<Instant>,
    parts: usize,
    bytes: u64,
    trying: Option<Try>,
    /// Windows until the next try, and whether that is one more.
    rest: u32,
    more: bool,
}

/// One more or one fewer, and the bytes per second before.
struct Try {
    more: bool,
    before: u128,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self { now: FEWEST, began: None, parts: 0, bytes: 0, trying: None, rest: 0, more: true }
    }

    /// How many parts may be on their way.
    pub(crate) fn open(&self) -> usize {
        self.now
    }

    /// A part of so many bytes is through; `beside` it others were on their way. If they were fewer than may be, something
    /// else is slower than the network, and nothing is learnt. A receive always has as many as may be: there a slow disk only
    /// keeps a try from paying.
    pub(crate) fn through(&mut self, bytes: u64, beside: usize) {
        self.parts += 1;
        self.bytes += bytes;
        let Some(began) = self.began.filter(|_| beside + 1 >= self.now) else { return self.begin() };
        if self.parts < WINDOW * self.now {
            return;
        }
        let rate = u128::from(self.bytes) * 1_000_000 / began.elapsed().as_micros().max(1);
        self.begin();
        self.judge(rate);
    }

    fn begin(&mut self) {
        (self.began, self.parts, self.bytes) = (Some(Instant::now()), 0, 0);
    }

    fn judge(&mut self, rate: u128) {
        match self.trying.take() {
            Some(Try { more: true, before }) if rate * 10 < before * 11 => {
                self.now -= 1;
                (self.rest, self.more) = (PATIENCE, false);
            }
            Some(Try { more: false, before }) => {
                self.now += usize::from(rate * 10 < before * 9);
                (self.rest, self.more) = (PATIENCE, true);
            }
            _ => {}
        }
        if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        let next = match self.more {
            true => self.now + 1,
            false => self.now - 1,
        };
        if (FEWEST..=MOST).contains(&next) {
            self.trying = Some(Try { more: self.more, before: rate });
            self.now = next;
        } else {
            (self.rest, self.more) = (PATIENCE, !self.more);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PART: u64 = 8 << 20;

    /// Sends so many parts over a network where each connection and all together carry at most so many MiB a second, give or
    /// take `noise` hundredths; gives how many there were, on average over the last half.
    async fn after(lanes: &mut Lanes, parts: u32, (each, all): (usize, usize), noise: u64) -> f64 {
        let (mut sum, mut random) = (0, 7_u64);
        for part in 0..parts {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let off = 1.0 + ((random >> 33) % (2 * noise + 1)) as f64 / 100.0 - noise as f64 / 100.0;
            let rate = (lanes.open() * each).min(all) as f64 * off;
            tokio::time::advance(Duration::from_secs_f64(8.0 / rate)).await;
            lanes.through(PART, lanes.open() - 1);
            sum += if part >= parts / 2 { lanes.open() } else { 0 };
        }
        sum as f64 / f64::from(parts - parts / 2)
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_as_many_as_help() {
        for noise in [0, 15] {
            let full = after(&mut Lanes::new(), 3000, (100, 100), noise).await;
            assert!((2.0..2.4).contains(&full), "the network is full: {full}");
            let three = after(&mut Lanes::new(), 3000, (100, 300), noise).await;
            assert!((2.7..3.3).contains(&three), "it is full with three: {three}");
            let slow = after(&mut Lanes::new(), 3000, (10, 1000), noise).await;
            assert!(slow > 3.6, "each is slow: {slow}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_network_can_do_may_change() {
        let mut lanes = Lanes::new();
        after(&mut lanes, 400, (10, 1000), 5).await;
        assert_eq!(lanes.open(), 4);
        assert!(after(&mut lanes, 1000, (100, 100), 5).await < 2.5);
        assert!(after(&mut lanes, 1000, (10, 1000), 5).await > 3.5);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_learnt_where_something_else_is_slower() {
        let mut lanes = Lanes::new();
        for seconds in 1..200 {
            tokio::time::advance(Duration::from_secs(1 + 5 * (seconds % 2))).await;
            lanes.through(PART, 0);
        }
        assert_eq!(lanes.open(), FEWEST);
    }
}
