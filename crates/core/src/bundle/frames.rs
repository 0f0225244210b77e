//! Compressed content: which frame holds which bytes, where each frame lies, and the padding behind the last one.
//!
//! Frames are of one length before compression, so that any byte of any file is found by division; their lengths behind it
//! stand in the index. Parts are cut from the frames as they are from any other content, at fixed lengths: what a relay
//! sees of compression is one padded length.

use std::iter;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes of content in a frame before compression; the last one has what remains.
pub const FRAME_SIZE: u64 = 4 << 20;
/// The header of a skippable frame (RFC 8878, §3.1.2): four bytes of magic number, four of length.
pub(super) const SKIPPABLE_HEADER: u64 = 8;
/// The first of the magic numbers that such a frame may have.
const SKIPPABLE_MAGIC: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();
/// Bytes of a skippable frame in front of another one, which follows only where one length field cannot say all.
const SKIPPABLE_STEP: u64 = 1 << 31;

/// How the content is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Zstandard (RFC 8878), frame by frame.
    Zstd,
}

/// The most bytes of a frame that holds `raw` bytes, which is at most [`FRAME_SIZE`].
pub(super) const fn max_frame(raw: u64) -> u64 {
    raw + raw / 256 + 64
}

/// Where each frame lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    raw_size: u64,
    /// Where each frame ends in the compressed content.
    ends: Vec<u64>,
}

impl Frames {
    /// The number of frames that hold `raw_size` bytes: at least one.
    pub(super) const fn count(raw_size: u64) -> u64 {
        if raw_size == 0 { 1 } else { raw_size.div_ceil(FRAME_SIZE) }
    }

    /// For content of `raw_size` bytes, no frame known yet.
    pub(super) const fn new(raw_size: u64) -> Self {
        Self { raw_size, ends: Vec::new() }
    }

    /// Puts a frame of `size` bytes behind the others; `None` if there is none of this length, or none at all.
    pub(super) fn push(&mut self, size: u64) -> Option<()> {
        let raw = self.raw(self.ends.len())?;
        if size == 0 || size > max_frame(raw.end - raw.start) {
            return None;
        }
        self.ends.push(self.end().checked_add(size)?);
        Some(())
    }

    /// Whether all frames are known.
    pub(super) fn is_complete(&self) -> bool {
        self.ends.len() as u64 == Self::count(self.raw_size)
    }

    /// Bytes of the content before compression.
    #[must_use]
    pub const fn raw_size(&self) -> u64 {
        self.raw_size
    }

    /// Bytes of each frame.
    pub fn sizes(&self) -> impl ExactSizeIterator<Item = u64> {
        (0..self.ends.len()).map(|number| self.packed(number).map_or(0, |frame| frame.end - frame.start))
    }

    /// Which bytes of the content frame `number` holds.
    pub(super) fn raw(&self, number: usize) -> Option<Range<u64>> {
        let number = number as u64;
        (number < Self::count(self.raw_size))
            .then(|| number * FRAME_SIZE..self.raw_size.min((number + 1).saturating_mul(FRAME_SIZE)))
    }

    /// Where frame `number` lies in the compressed content.
    pub(super) fn packed(&self, number: usize) -> Option<Range<u64>> {
        let end = self.ends.get(number).copied()?;
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before).copied());
        Some(start.unwrap_or(0)..end)
    }

    /// The frame that byte `at` of the compressed content belongs to; `None` behind the last one.
    pub(super) fn at(&self, at: u64) -> Option<usize> {
        let number = self.ends.partition_point(|end| *end <= at);
        (number < self.ends.len()).then_some(number)
    }

    /// The frames that hold the bytes `raw` of the content, which are not none.
    pub(super) fn holding(raw: &Range<u64>) -> Range<usize> {
        let first = (raw.start / FRAME_SIZE) as usize;
        first..raw.end.div_ceil(FRAME_SIZE) as usize
    }

    /// Where the last frame ends.
    pub(super) fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Bytes of the compressed content: the frames, and the header of the skippable frame that the padding is.
    pub(super) fn content_size(&self) -> Option<u64> {
        self.end().checked_add(SKIPPABLE_HEADER)
    }
}

/// What stands behind the last frame: skippable frames of zeros, nearly always one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    start: u64,
    end: u64,
}

impl Tail {
    /// From `start`, where the frames end, to the end of the padded content, which has room for a header.
    pub(super) const fn new(start: u64, padded_size: u64) -> Self {
        Self { start, end: padded_size }
    }

    /// Each header, and where it stands.
    fn headers(self) -> impl Iterator<Item = (u64, [u8; 8])> {
        let step = move |at: u64| {
            let left = self.end.saturating_sub(at);
            if u32::try_from(left).is_ok() { left } else { SKIPPABLE_STEP }
        };
        iter::successors(Some(self.start), move |at| Some(at + step(*at))).take_while(move |at| *at < self.end).map(
            move |at| {
                let length = step(at).saturating_sub(SKIPPABLE_HEADER) as u32;
                let ([a, b, c, d], [e, f, g, h]) = (SKIPPABLE_MAGIC, length.to_le_bytes());
                (at, [a, b, c, d, e, f, g, h])
            },
        )
    }

    /// Writes what stands from byte `at` of the padded content on.
    pub(super) fn fill(self, at: u64, room: &mut [u8]) {
        room.fill(0);
        for (start, header) in self.headers() {
            for (place, byte) in (start..).zip(header) {
                let place = place.checked_sub(at).and_then(|place| room.get_mut(usize::try_from(place).ok()?));
                if let Some(room) = place {
                    *room = byte;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::padding::padded;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_found_by_any_byte() {
        for (raw, count) in [(0, 1), (1, 1), (FRAME_SIZE, 1), (FRAME_SIZE + 1, 2), (3 * FRAME_SIZE, 3)] {
            assert_eq!(Frames::count(raw), count, "{raw}");
        }
        let mut frames = Frames::new(2 * FRAME_SIZE + 5);
        for size in [100, max_frame(FRAME_SIZE), max_frame(5)] {
            assert!(!frames.is_complete());
            frames.push(size).unwrap();
        }
        assert!(frames.is_complete());
        assert_eq!(frames.push(1), None);
        assert_eq!(frames.sizes().collect::<Vec<_>>(), [100, max_frame(FRAME_SIZE), max_frame(5)]);
        assert_eq!(frames.raw(2), Some(2 * FRAME_SIZE..2 * FRAME_SIZE + 5));
        assert_eq!((frames.raw(3), frames.packed(3)), (None, None));
        let end = 100 + max_frame(FRAME_SIZE) + max_frame(5);
        assert_eq!((frames.end(), frames.content_size()), (end, Some(end + 8)));
        for (at, number) in [(0, Some(0)), (99, Some(0)), (100, Some(1)), (end - 1, Some(2)), (end, None)] {
            assert_eq!(frames.at(at), number, "{at}");
        }
        assert_eq!(Frames::holding(&(0..1)), 0..1);
        assert_eq!(Frames::holding(&(FRAME_SIZE - 1..FRAME_SIZE + 1)), 0..2);
        assert_eq!(Frames::holding(&(FRAME_SIZE..2 * FRAME_SIZE)), 1..2);
    }

    // attacks.md 12, 14: no frame is longer than its content can need, and none is empty.
    #[test]
    fn attack_14_frames_of_impossible_lengths() {
        for size in [0, max_frame(7) + 1, u64::MAX] {
            assert_eq!(Frames::new(7).push(size), None, "{size}");
        }
        let mut full = Frames::new(FRAME_SIZE);
        assert_eq!(full.push(max_frame(FRAME_SIZE) + 1), None);
        full.push(max_frame(FRAME_SIZE)).unwrap();
    }

    #[test]
    fn no_compressor_needs_more() {
        for raw in [0, 1, 1000, 1 << 17, (1 << 17) + 1, FRAME_SIZE - 1, FRAME_SIZE] {
            assert!(zstd_safe::compress_bound(raw as usize) as u64 <= max_frame(raw), "{raw}");
        }
    }

    #[test]
    fn the_padding_is_skippable_frames() {
        let mut room = [7; 20];
        Tail::new(100, 116).fill(96, &mut room);
        assert_eq!(room, *b"\0\0\0\0\x50\x2a\x4d\x18\x08\0\0\0\0\0\0\0\0\0\0\0");
        // Any stretch of it, also one that begins within the header.
        let mut few = [7; 3];
        Tail::new(100, 116).fill(102, &mut few);
        assert_eq!(few, *b"\x4d\x18\x08");
    }

    proptest! {
        // One behind the other they end where the content does, whatever its length.
        #[test]
        fn skippable_frames_add_up(frames in prop_oneof![0u64..1 << 44, 0u64..10_000]) {
            let end = padded(frames + SKIPPABLE_HEADER).unwrap();
            let mut at = frames;
            let mut count = 0;
            for (start, header) in Tail::new(frames, end).headers() {
                prop_assert_eq!(start, at);
                prop_assert_eq!(&header[..4], SKIPPABLE_MAGIC);
                at += 8 + u64::from(u32::from_le_bytes(header[4..].try_into().unwrap()));
                count += 1;
            }
            prop_assert_eq!(at, end);
            prop_assert!(count == 1 || end - frames > u64::from(u32::MAX));
        }
    }
}
