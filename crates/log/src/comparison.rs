//! A log held against a head remembered from earlier: the whole verdict on a journal, and where the damage lies.
//!
//! The frontier of a remembered head holds the hash of each perfect subtree, and these are compared one by one. So
//! damage is narrowed down to the subtrees that differ; how narrow they are follows from the size (13 leaves: 0..8,
//! 8..12 and 12..13). Somebody who remembers several heads can compare with each: leaves below the largest head that
//! is still met are sound.

use core::ops::Range;

use crate::frontier::{Frontier, Head};
use crate::hash::Hash;
use crate::tree::{leaves_in, root_of};

/// A head of a log as it was, with its frontier where that was kept.
///
/// From a [`Head`] alone it is known whether the log has changed, but not where, and of a shortened log not even
/// whether the rest is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    head: Head,
    /// Has the size and the root of `head`.
    frontier: Option<Frontier>,
}

/// A frontier that is not that of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the frontier has size {} and root {}, but the head has size {} and root {}",
    .frontier.size, .frontier.root, .head.size, .head.root
)]
pub struct RememberedError {
    /// The head, which may be vouched for from elsewhere.
    pub head: Head,
    /// Size and root of the frontier.
    pub frontier: Head,
}

impl Remembered {
    /// A head and its frontier that were kept apart, such as a signed head and a local file.
    ///
    /// # Errors
    ///
    /// [`RememberedError`] when the frontier has another size or root: then one of the two is damaged, and nothing
    /// should be concluded from the frontier.
    pub fn new(head: Head, frontier: Frontier) -> Result<Self, RememberedError> {
        let remembered = Self::from(frontier);
        if remembered.head == head { Ok(remembered) } else { Err(RememberedError { head, frontier: remembered.head }) }
    }

    /// Size and root.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// The largest known subtrees, from left to right, that cover the log as it was.
    fn subtrees(&self) -> Vec<(Range<u64>, Hash)> {
        match &self.frontier {
            // An empty frontier has no subtree, and its root was derived from it: there is nothing to compare.
            Some(frontier) => frontier.subtrees().collect(),
            None => vec![(0..self.head.size, self.head.root)],
        }
    }
}

impl From<Frontier> for Remembered {
    fn from(frontier: Frontier) -> Self {
        Self { head: frontier.head(), frontier: Some(frontier) }
    }
}

impl From<Head> for Remembered {
    fn from(head: Head) -> Self {
        Self { head, frontier: None }
    }
}

/// How a log stands to a remembered head. `have` is its number of leaves now, `want` that of the head.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Exactly the remembered log.
    Intact,
    /// The remembered log with more leaves after it. Those are not vouched for.
    Extended {
        /// Number of new leaves.
        by: u64,
    },
    /// The tail is gone, and nothing before it is known to differ.
    Truncated {
        /// Leaves now.
        have: u64,
        /// Leaves remembered.
        want: u64,
        /// The leaves `0..verified` are known to be unchanged. `verified..have` cannot be told, because the subtree
        /// that they belonged to is incomplete; without a frontier it is all of them.
        verified: u64,
    },
    /// Leaves were changed, reordered, removed or put in, somewhere in `spans`.
    ///
    /// A removal or an insertion moves all leaves behind it, so then every span from its place on is named. What is
    /// beyond `have` is missing besides, and not named.
    Altered {
        /// Leaves now.
        have: u64,
        /// Leaves remembered.
        want: u64,
        /// The remembered subtrees that differ, in order: in each, at least one leaf is not the remembered one.
        /// Without a frontier `0..want`.
        spans: Vec<Range<u64>>,
    },
    /// Two or more remembered subtrees could be compared and not one of them is still there: the log was written
    /// anew, or leaves were removed or put in near its beginning.
    ///
    /// Needs two subtrees as evidence, so a log of 2ⁿ leaves, or one without a frontier, is only ever
    /// [`Comparison::Altered`].
    Rewritten {
        /// Leaves now.
        have: u64,
        /// Leaves remembered.
        want: u64,
    },
}

impl Comparison {
    /// Whether everything remembered is still there: intact or extended.
    pub const fn is_sound(&self) -> bool {
        matches!(self, Self::Intact | Self::Extended { .. })
    }
}

/// Compares the leaf hashes that a log has now, from its first on, with what is remembered of it. One hash for each
/// leaf.
///
/// `leaves` must come from the records themselves, not from a stored copy of their hashes, or else an edited record
/// goes unnoticed.
pub fn compare(leaves: &[Hash], remembered: &Remembered) -> Comparison {
    let (have, want) = (leaves.len() as u64, remembered.head.size);
    let (mut same, mut verified, mut spans) = (0_usize, 0, Vec::new());
    for (range, hash) in remembered.subtrees() {
        let Some(now) = leaves_in(leaves, range.clone()) else {
            break;
        };
        if root_of(now) == hash {
            same += 1;
            verified = range.end;
        } else {
            spans.push(range);
        }
    }
    match (spans.len(), same) {
        (0, _) if have == want => Comparison::Intact,
        (0, _) if have > want => Comparison::Extended { by: have - want },
        // No span differs and subtrees are taken in order, so the last that matched ends a matching prefix.
        (0, _) => Comparison::Truncated { have, want, verified },
        (2.., 0) => Comparison::Rewritten { have, want },
        _ => Comparison::Altered { have, want, spans },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::single_range_in_vec_init)]
    use super::*;
    use crate::hash::{empty_root, leaf_hash};

    fn leaves(size: u64) -> Vec<Hash> {
        (0..size).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    fn remembered(size: u64) -> Remembered {
        leaves(size).into_iter().collect::<Frontier>().into()
    }

    /// Attack 58: a journal record edited, deleted, reordered; the tail cut; the whole rewritten.
    #[test]
    fn attack_58_is_told_apart() {
        let head = remembered(13);
        assert_eq!(compare(&leaves(13), &head), Comparison::Intact);
        assert_eq!(compare(&leaves(20), &head), Comparison::Extended { by: 7 });

        let mut edited = leaves(13);
        edited[9] = leaf_hash(b"edited");
        assert_eq!(compare(&edited, &head), Comparison::Altered { have: 13, want: 13, spans: vec![8..12] });

        let mut deleted = leaves(13);
        deleted.remove(9);
        assert_eq!(compare(&deleted, &head), Comparison::Altered { have: 12, want: 13, spans: vec![8..12] });

        let mut reordered = leaves(13);
        reordered.swap(1, 12);
        assert_eq!(compare(&reordered, &head), Comparison::Altered { have: 13, want: 13, spans: vec![0..8, 12..13] });

        assert_eq!(compare(&leaves(12), &head), Comparison::Truncated { have: 12, want: 13, verified: 12 });
        assert_eq!(compare(&leaves(10), &head), Comparison::Truncated { have: 10, want: 13, verified: 8 });
        assert_eq!(compare(&[], &head), Comparison::Truncated { have: 0, want: 13, verified: 0 });

        let rewritten: Vec<Hash> = (0..15_u8).map(|byte| leaf_hash(&[byte])).collect();
        assert_eq!(compare(&rewritten, &head), Comparison::Rewritten { have: 15, want: 13 });
    }

    #[test]
    fn a_bare_head_tells_that_but_not_where() {
        let head = Remembered::from(remembered(13).head());
        assert_eq!(compare(&leaves(13), &head), Comparison::Intact);
        assert_eq!(compare(&leaves(14), &head), Comparison::Extended { by: 1 });
        assert_eq!(compare(&leaves(12), &head), Comparison::Truncated { have: 12, want: 13, verified: 0 });
        let mut edited = leaves(14);
        edited[12] = leaf_hash(b"edited");
        assert_eq!(compare(&edited, &head), Comparison::Altered { have: 14, want: 13, spans: vec![0..13] });
    }

    #[test]
    fn every_log_extends_the_empty_one() {
        for head in [remembered(0), Head { size: 0, root: empty_root() }.into()] {
            assert_eq!(compare(&[], &head), Comparison::Intact);
            assert_eq!(compare(&leaves(3), &head), Comparison::Extended { by: 3 });
        }
        // A head of size 0 with another root was never the head of a log.
        let impossible = Head { size: 0, root: leaf_hash(b"") }.into();
        assert!(!compare(&[], &impossible).is_sound());
        assert!(!compare(&leaves(3), &impossible).is_sound());
    }

    #[test]
    fn a_frontier_must_belong_to_its_head() {
        let (frontier, other): (Frontier, Frontier) =
            (leaves(3).into_iter().collect(), leaves(4).into_iter().collect());
        assert_eq!(Remembered::new(frontier.head(), frontier.clone()), Ok(remembered(3)));
        let error = RememberedError { head: other.head(), frontier: frontier.head() };
        assert_eq!(Remembered::new(other.head(), frontier), Err(error));
    }
}
