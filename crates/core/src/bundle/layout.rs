//! How content is cut into parts: a fixed function of the part's number, so that a pipe of any length fits.

use super::padding::padded;

/// Bytes of padded content in each of the first parts.
pub const FIRST_PART_SIZE: u64 = 8 << 20;
/// After this many parts their size doubles…
const PARTS_PER_STEP: u32 = 4096;
/// …this many times at most.
const STEPS: u32 = 4;
/// The most parts of a bundle; about 6.5 TiB of content.
pub const MAX_PARTS: u32 = 65_536;

/// Lengths that no bundle has.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// More content than [`MAX_PARTS`] parts hold.
    #[error("{content_size} bytes of content are more than a bundle can hold")]
    TooLarge {
        /// Bytes of content before padding.
        content_size: u64,
    },
}

/// Bytes of padded content that part `number` holds when it is full: 8 MiB · 2^min(⌊n / 4096⌋, 4).
#[must_use]
pub const fn part_capacity(number: u32) -> u64 {
    let step = number / PARTS_PER_STEP;
    FIRST_PART_SIZE << if step < STEPS { step } else { STEPS }
}

/// Bytes of padded content in front of part `number`, if all parts before it are full.
pub(super) fn part_start(number: u32) -> u64 {
    let mut start = 0;
    let mut left = number;
    for step in 0..STEPS {
        let parts = left.min(PARTS_PER_STEP);
        start += u64::from(parts) * (FIRST_PART_SIZE << step);
        left -= parts;
    }
    start + u64::from(left) * (FIRST_PART_SIZE << STEPS)
}

/// The lengths of one bundle's content, all of which follow from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    content_size: u64,
    padded_size: u64,
    parts: u32,
}

impl Layout {
    /// The layout of `content_size` bytes before padding.
    ///
    /// # Errors
    /// When that is more than a bundle can hold.
    pub fn of(content_size: u64) -> Result<Self, LayoutError> {
        let padded_size = padded(content_size).ok_or(LayoutError::TooLarge { content_size })?;
        if padded_size > part_start(MAX_PARTS) {
            return Err(LayoutError::TooLarge { content_size });
        }
        // Within the step that holds the end, parts have one size.
        let last_step = (0..=STEPS).rev().find(|s| part_start(s * PARTS_PER_STEP) < padded_size).unwrap_or(0);
        let first = last_step * PARTS_PER_STEP;
        let beyond = (padded_size - part_start(first)).div_ceil(part_capacity(first));
        let parts = u32::try_from(beyond).map_err(|_| LayoutError::TooLarge { content_size })? + first;
        Ok(Self { content_size, padded_size, parts })
    }

    /// Bytes of the content before padding.
    #[must_use]
    pub const fn content_size(&self) -> u64 {
        self.content_size
    }

    /// Bytes of the content with its padding.
    #[must_use]
    pub const fn padded_size(&self) -> u64 {
        self.padded_size
    }

    /// Number of parts, at least one.
    #[must_use]
    pub const fn parts(&self) -> u32 {
        self.parts
    }

    /// Bytes of padded content in part `number`; `None` if there is no such part.
    #[must_use]
    pub fn part_size(&self, number: u32) -> Option<u64> {
        (number < self.parts).then(|| (self.padded_size - part_start(number)).min(part_capacity(number)))
    }

    /// The part that holds byte `offset` of the padded content, and the place in it; `None` behind the end.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Option<(u32, u64)> {
        if offset >= self.padded_size {
            return None;
        }
        let step = (0..=STEPS).rev().find(|s| part_start(s * PARTS_PER_STEP) <= offset)?;
        let first = step * PARTS_PER_STEP;
        let beyond = offset - part_start(first);
        let number = first + u32::try_from(beyond / part_capacity(first)).ok()?;
        Some((number, beyond % part_capacity(first)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_grow_by_their_number() {
        for (number, mib) in [(0, 8), (4095, 8), (4096, 16), (8192, 32), (12_288, 64), (16_384, 128), (65_535, 128)] {
            assert_eq!(part_capacity(number), mib << 20, "{number}");
        }
        let mut sum = 0;
        for number in 0..MAX_PARTS {
            assert_eq!(part_start(number), sum);
            sum += part_capacity(number);
        }
        assert_eq!(part_start(MAX_PARTS), sum);
        // The largest padded length that fits: 42 bits of exponent, so the lowest 36 are clear.
        let largest = sum & !((1 << 36) - 1);
        let layout = Layout::of(largest).unwrap();
        assert!(layout.parts() <= MAX_PARTS && layout.padded_size() == largest);
        assert_eq!(Layout::of(largest + 1), Err(LayoutError::TooLarge { content_size: largest + 1 }));
    }

    // attacks.md 14: a size at the end of the number range is an error, not an overflow.
    #[test]
    fn attack_14_impossible_sizes() {
        for size in [u64::MAX, u64::MAX - 1, 1 << 63] {
            assert_eq!(Layout::of(size), Err(LayoutError::TooLarge { content_size: size }));
        }
        assert_eq!(Layout::of(0).unwrap(), Layout { content_size: 0, padded_size: 4096, parts: 1 });
    }

    proptest! {
        #[test]
        fn parts_cover_the_content_exactly(content_size in 0u64..6 << 40) {
            let layout = Layout::of(content_size).unwrap();
            let last = layout.parts() - 1;
            let end = part_start(last) + layout.part_size(last).unwrap();
            prop_assert_eq!(end, layout.padded_size());
            prop_assert!(layout.part_size(last).unwrap() > 0);
            prop_assert_eq!(layout.part_size(layout.parts()), None);
            prop_assert_eq!(layout.locate(end), None);
            let (number, place) = layout.locate(content_size.min(end - 1)).unwrap();
            prop_assert_eq!(part_start(number) + place, content_size.min(end - 1));
            prop_assert!(place < layout.part_size(number).unwrap());
        }
    }
}
