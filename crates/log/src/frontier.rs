//! The right edge of a tree: what must be kept of it to append to it and to know its root.

use core::ops::Range;

use crate::hash::{Hash, HashError, empty_root, node_hash};

/// The largest size of a [`Frontier`] that is read: 2⁶³ − 1 leaves. What is beyond can only be damage, and so no
/// number of appends can overflow the size.
pub const MAX_SIZE: u64 = u64::MAX >> 1;

/// First line of an encoded frontier, with its version.
const HEADER: &str = "pouch.frontier.v1";

/// How much of an unknown first line an error repeats, in characters.
const FOUND_CHARS: usize = 40;

/// What one tree of one size comes down to. Not signed: a checkpoint is a signed head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of leaves.
    pub size: u64,
    /// Root hash of the tree over these leaves.
    pub root: Hash,
}

/// A tree reduced to its perfect subtrees from left to right, one for each bit set in its size: the largest first,
/// at most 63 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// As many as `size` has bits set.
    hashes: Vec<Hash>,
}

/// A text that is not an encoded [`Frontier`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    /// The last line does not end in a newline: cut short, or empty.
    #[error("frontier does not end in a newline")]
    Unterminated,
    /// Another version, or something else altogether.
    #[error("not a frontier of version {HEADER}: it begins with {found:?}")]
    Version {
        /// The beginning of the first line.
        found: String,
    },
    /// The second line is not a decimal number without sign and leading zeros, or more than [`MAX_SIZE`].
    #[error("frontier has no valid size")]
    Size,
    /// Not one hash for each bit set in the size.
    #[error("a frontier of size {size} has {want} hashes, not {got}")]
    HashCount {
        /// The size it names.
        size: u64,
        /// Bits set in that size.
        want: usize,
        /// Lines after the size.
        got: usize,
    },
    /// One of the hashes cannot be read.
    #[error("bad hash in line {line} of a frontier")]
    Hash {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: HashError,
    },
}

impl Frontier {
    /// The frontier of the empty tree.
    pub const fn new() -> Self {
        Self { size: 0, hashes: Vec::new() }
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds one leaf hash at the right. O(1) hashes on average, O(log n) at most.
    pub fn append(&mut self, leaf_hash: Hash) {
        // As in a binary counter: each trailing 1 of the size is a subtree as large as what is carried.
        let mut carried = leaf_hash;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.hashes.pop() {
                carried = node_hash(&left, &carried);
            }
        }
        self.hashes.push(carried);
        self.size += 1;
    }

    /// The root: MTH of RFC 6962 §2.1. O(log n) hashes.
    pub fn root(&self) -> Hash {
        let from_the_right = self.hashes.iter().copied().rev();
        from_the_right.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }

    /// Size and root.
    pub fn head(&self) -> Head {
        Head { size: self.size, root: self.root() }
    }

    /// The perfect subtrees from left to right: the leaves that each covers, and its hash. Together they cover
    /// `0..size` without a gap.
    pub fn subtrees(&self) -> impl Iterator<Item = (Range<u64>, Hash)> {
        let size = self.size;
        let widths = (0..u64::BITS).rev().map(|bit| 1_u64 << bit).filter(move |width| size & width != 0);
        let ranges = widths.scan(0, |end, width| {
            let start = *end;
            *end += width;
            Some(start..*end)
        });
        ranges.zip(self.hashes.iter().copied())
    }

    /// The one canonical text of this frontier: the line `pouch.frontier.v1`, the size in decimal, and one line of
    /// 64 hexadecimal digits for each hash, the largest subtree first. Every line ends in a newline.
    pub fn encode(&self) -> String {
        let mut text = format!("{HEADER}\n{}\n", self.size);
        for hash in &self.hashes {
            text.push_str(&format!("{hash}\n"));
        }
        text
    }

    /// Reads what [`Frontier::encode`] writes, and nothing else: two texts never give the same frontier.
    ///
    /// # Errors
    ///
    /// [`FrontierError`] for another version, a size that is not canonical or beyond [`MAX_SIZE`], any other number
    /// of hashes than bits set in the size, or a bad hash.
    pub fn decode(text: &str) -> Result<Self, FrontierError> {
        let mut lines = text.strip_suffix('\n').ok_or(FrontierError::Unterminated)?.split('\n');
        let header = lines.next().unwrap_or_default();
        if header != HEADER {
            return Err(FrontierError::Version { found: header.chars().take(FOUND_CHARS).collect() });
        }
        let size = lines.next().and_then(parse_size).ok_or(FrontierError::Size)?;
        // Counted before anything is allocated for them.
        let (want, got) = (size.count_ones() as usize, lines.clone().count());
        if want != got {
            return Err(FrontierError::HashCount { size, want, got });
        }
        let read = |(line, text): (usize, &str)| text.parse().map_err(|source| FrontierError::Hash { line, source });
        let hashes = (3..).zip(lines).map(read).collect::<Result<_, _>>()?;
        Ok(Self { size, hashes })
    }
}

impl Extend<Hash> for Frontier {
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaf_hashes: I) {
        leaf_hashes.into_iter().for_each(|hash| self.append(hash));
    }
}

impl FromIterator<Hash> for Frontier {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaf_hashes: I) -> Self {
        let mut frontier = Self::new();
        frontier.extend(leaf_hashes);
        frontier
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let size: u64 = text.parse().ok()?;
    // `parse` also takes a plus sign and leading zeros, which would give one size two spellings.
    (size <= MAX_SIZE && size.to_string() == text).then_some(size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
    use super::*;
    use crate::hash::leaf_hash;

    fn frontier(size: u64) -> Frontier {
        (0..size).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    #[test]
    fn text_survives_a_round_trip_and_goes_on() {
        for size in 0..70 {
            let mut read = Frontier::decode(&frontier(size).encode()).unwrap();
            assert_eq!(read, frontier(size));
            read.append(leaf_hash(&size.to_be_bytes()));
            assert_eq!(read, frontier(size + 1));
        }
    }

    #[test]
    fn the_text_is_pinned() {
        assert_eq!(Frontier::new().encode(), "pouch.frontier.v1\n0\n");
        let leaf = leaf_hash(b"");
        let three: Frontier = [leaf; 3].into_iter().collect();
        assert_eq!(three.encode(), format!("pouch.frontier.v1\n3\n{}\n{leaf}\n", node_hash(&leaf, &leaf)));
    }

    #[test]
    fn other_texts_are_refused() {
        let hash = leaf_hash(b"");
        let of = |text: &str| Frontier::decode(text).unwrap_err();
        assert_eq!(of(""), FrontierError::Unterminated);
        assert_eq!(of("pouch.frontier.v1\n0"), FrontierError::Unterminated);
        assert_eq!(of("pouch.frontier.v2\n0\n"), FrontierError::Version { found: "pouch.frontier.v2".into() });
        assert_eq!(of("pouch.frontier.v1\r\n0\n"), FrontierError::Version { found: "pouch.frontier.v1\r".into() });
        assert_eq!(of(&format!("{}\n", "é".repeat(99))), FrontierError::Version { found: "é".repeat(40) });
        for size in ["", " 0", "+1", "01", "-1", "0x1", "1 ", "9223372036854775808", "18446744073709551616"] {
            assert_eq!(of(&format!("pouch.frontier.v1\n{size}\n{hash}\n")), FrontierError::Size, "{size:?}");
        }
        assert_eq!(of("pouch.frontier.v1\n"), FrontierError::Size);
        for (size, want, got) in [(0, 0, 1), (1, 1, 0), (1, 1, 2), (2, 1, 2), (3, 2, 1), (MAX_SIZE, 63, 62)] {
            let text = format!("pouch.frontier.v1\n{size}\n{}", format!("{hash}\n").repeat(got));
            assert_eq!(of(&text), FrontierError::HashCount { size, want, got });
        }
        let bad = format!("pouch.frontier.v1\n3\n{hash}\n{}\n", hash.to_string().to_uppercase());
        assert!(matches!(of(&bad), FrontierError::Hash { line: 4, .. }));
        assert!(matches!(of("pouch.frontier.v1\n1\n\n"), FrontierError::Hash { line: 3, .. }));
    }

    #[test]
    fn the_largest_frontier_can_be_read_and_appended_to() {
        let text = format!("pouch.frontier.v1\n{MAX_SIZE}\n{}", format!("{}\n", leaf_hash(b"")).repeat(63));
        let mut largest = Frontier::decode(&text).unwrap();
        assert_eq!(largest.subtrees().last().unwrap().0, MAX_SIZE - 1..MAX_SIZE);
        largest.append(leaf_hash(b""));
        assert_eq!((largest.size(), largest.hashes.len()), (1 << 63, 1));
    }

    #[test]
    fn subtrees_cover_the_leaves_in_order() {
        let ranges = |size| frontier(size).subtrees().map(|(range, _)| range).collect::<Vec<_>>();
        assert_eq!(ranges(0), []);
        assert_eq!(ranges(8), [0..8]);
        assert_eq!(ranges(13), [0..8, 8..12, 12..13]);
    }
}
