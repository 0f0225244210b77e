//! Making proofs, from whatever holds the nodes of a tree.
//!
//! A proof is first worked out as ranges of leaves, by the recursions of RFC 6962 §2.1.1 and §2.1.2, then as the
//! perfect subtrees that make up these ranges, which never change once their leaves are there. So a source has to
//! know perfect subtrees only, of any size the tree ever had, and is asked once for all that a proof needs.

use core::ops::Range;

use crate::frontier::Frontier;
use crate::hash::{Hash, node_hash};
use crate::proof::{ConsistencyProof, InclusionProof};

/// The place of a perfect subtree: at `level` it covers 2^`level` leaves, and is the `index`-th such subtree from the
/// left. Level 0 is the leaves. The same coordinates as in C2SP tlog-tiles, before they are grouped into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    level: u32,
    index: u64,
}

impl NodeId {
    /// The node at a level and an index, unless its leaves would lie beyond 2⁶⁴ − 1.
    pub const fn new(level: u32, index: u64) -> Option<Self> {
        match 1_u64.checked_shl(level) {
            Some(width) if index < u64::MAX / width => Some(Self { level, index }),
            _ => None,
        }
    }

    /// Height above the leaves, 0 to 63.
    pub const fn level(self) -> u32 {
        self.level
    }

    /// Position among the nodes of its level, from 0.
    pub const fn index(self) -> u64 {
        self.index
    }

    /// The leaves beneath it.
    pub const fn leaves(self) -> Range<u64> {
        self.index << self.level..(self.index + 1) << self.level
    }
}

/// Something that holds the nodes of a tree: leaf hashes in memory now, tiles or a table of nodes later.
///
/// What it answers is not checked here, since whoever uses the proof does so against a root.
pub trait Nodes {
    /// Why nodes cannot be had.
    type Error: core::error::Error + 'static;

    /// The hashes of these perfect subtrees, one for each and in the same order. A proof takes a single call, of
    /// at most 128 nodes in no particular order, so that a source can fetch each tile once.
    ///
    /// # Errors
    ///
    /// When one of them is unknown, or the source cannot be read.
    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, Self::Error>;
}

/// A node above leaves that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tree has {have} leaves, but leaves {} to {} are needed", .node.leaves().start, .node.leaves().end - 1)]
pub struct MissingNode {
    /// The node asked for.
    pub node: NodeId,
    /// Number of leaves in the source.
    pub have: usize,
}

/// The leaf hashes of a tree, in order. Costs up to n hashes a proof: for journals, not for a relay's log.
impl Nodes for [Hash] {
    type Error = MissingNode;

    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, MissingNode> {
        let root = |&node: &NodeId| {
            let leaves = leaves_in(self, node.leaves()).ok_or(MissingNode { node, have: self.len() })?;
            Ok(root_of(leaves))
        };
        nodes.iter().map(root).collect()
    }
}

/// Why there is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProveError<E: core::error::Error + 'static> {
    /// The tree of that size has no such leaf.
    #[error("a log of size {size} has no entry {index}")]
    Index {
        /// The leaf asked for.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// The old size is 0, for which RFC 6962 defines no proof, or larger than the new one.
    #[error("no consistency proof leads from size {old} to size {new}")]
    Sizes {
        /// Size of the earlier tree.
        old: u64,
        /// Size of the later tree.
        new: u64,
    },
    /// The source failed.
    #[error("cannot read the nodes of the log")]
    Read(#[source] E),
    /// The source broke its contract.
    #[error("asked for {want} nodes of the log and was given {got}")]
    ReadCount {
        /// Nodes asked for.
        want: usize,
        /// Hashes given.
        got: usize,
    },
}

/// Proves that the tree of the first `size` leaves holds leaf `index` (from 0): PATH of RFC 6962 §2.1.1. `nodes` may
/// hold a larger tree.
///
/// # Errors
///
/// [`ProveError::Index`] when `index` is not below `size`; [`ProveError::Read`] and [`ProveError::ReadCount`] when
/// the source fails, as for a `size` beyond what it holds. An entry that is alone needs no node, so then nothing is
/// read.
pub fn prove_inclusion<N>(nodes: &N, index: u64, size: u64) -> Result<InclusionProof, ProveError<N::Error>>
where
    N: Nodes + ?Sized,
{
    if index >= size {
        return Err(ProveError::Index { index, size });
    }
    read_ranges(nodes, &inclusion_ranges(index, size)).map(InclusionProof::new)
}

/// Proves that the tree of the first `old` leaves is a prefix of the tree of the first `new` ones: PROOF of RFC 6962
/// §2.1.2. Empty when the sizes are equal. `nodes` may hold a larger tree.
///
/// # Errors
///
/// [`ProveError::Sizes`] unless 0 < `old` ≤ `new`; [`ProveError::Read`] and [`ProveError::ReadCount`] when the
/// source fails, as for a `new` beyond what it holds.
pub fn prove_consistency<N>(nodes: &N, old: u64, new: u64) -> Result<ConsistencyProof, ProveError<N::Error>>
where
    N: Nodes + ?Sized,
{
    if old == 0 || old > new {
        return Err(ProveError::Sizes { old, new });
    }
    read_ranges(nodes, &consistency_ranges(old, new)).map(ConsistencyProof::new)
}

/// The leaves in a range, if all of them are there.
pub(crate) fn leaves_in(leaves: &[Hash], range: Range<u64>) -> Option<&[Hash]> {
    leaves.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// The root over these leaf hashes.
pub(crate) fn root_of(leaves: &[Hash]) -> Hash {
    leaves.iter().copied().collect::<Frontier>().root()
}

/// The subtrees beside the path from a leaf to the root, lowest first. Needs `index < size`.
fn inclusion_ranges(index: u64, size: u64) -> Vec<Range<u64>> {
    let mut beside = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + left_width(end - start);
        if index < middle {
            beside.push(middle..end);
            end = middle;
        } else {
            beside.push(start..middle);
            start = middle;
        }
    }
    beside.reverse();
    beside
}

/// The subtrees that make up the old tree or stand beside it, lowest first. Needs `0 < old <= new`.
fn consistency_ranges(old: u64, new: u64) -> Vec<Range<u64>> {
    let mut beside = Vec::new();
    let (mut start, mut end) = (0, new);
    while old != end {
        let middle = start + left_width(end - start);
        if old <= middle {
            beside.push(middle..end);
            end = middle;
        } else {
            beside.push(start..middle);
            start = middle;
        }
    }
    // The subtree that ends where the old tree ends. At the left edge it is the old tree, whose root is known.
    if start > 0 {
        beside.push(start..end);
    }
    beside.reverse();
    beside
}

/// Leaves in the left child of a tree of `size` > 1: the largest power of two below `size` (k of RFC 6962 §2.1).
fn left_width(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The perfect subtrees of a range that is a subtree, from left to right, so that their widths fall.
fn perfect_nodes(range: Range<u64>) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let level = (range.end - start).ilog2();
        nodes.push(NodeId { level, index: start >> level });
        start += 1 << level;
    }
    nodes
}

/// The hash of each range, from one read.
fn read_ranges<N>(nodes: &N, ranges: &[Range<u64>]) -> Result<Vec<Hash>, ProveError<N::Error>>
where
    N: Nodes + ?Sized,
{
    let parts: Vec<Vec<NodeId>> = ranges.iter().cloned().map(perfect_nodes).collect();
    let wanted = parts.concat();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let hashes = nodes.read(&wanted).map_err(ProveError::Read)?;
    let mismatch = ProveError::ReadCount { want: wanted.len(), got: hashes.len() };
    let mut rest = hashes.as_slice();
    let mut proof = Vec::with_capacity(parts.len());
    for part in &parts {
        let Some((head, tail)) = rest.split_at_checked(part.len()) else {
            return Err(mismatch);
        };
        proof.extend(head.iter().copied().rev().reduce(|right, left| node_hash(&left, &right)));
        rest = tail;
    }
    if rest.is_empty() { Ok(proof) } else { Err(mismatch) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
    use super::*;
    use crate::hash::leaf_hash;

    #[test]
    fn the_example_of_rfc_6962_section_2_1_3() {
        assert_eq!(inclusion_ranges(0, 7), [1..2, 2..4, 4..7]);
        assert_eq!(inclusion_ranges(3, 7), [2..3, 0..2, 4..7]);
        assert_eq!(inclusion_ranges(4, 7), [5..6, 6..7, 0..4]);
        assert_eq!(inclusion_ranges(6, 7), [4..6, 0..4]);
        assert_eq!(consistency_ranges(3, 7), [2..3, 3..4, 0..2, 4..7]);
        assert_eq!(consistency_ranges(4, 7), [4..7]);
        assert_eq!(consistency_ranges(6, 7), [4..6, 6..7, 0..4]);
    }

    #[test]
    fn the_largest_trees_overflow_nothing() {
        for range in [inclusion_ranges(u64::MAX - 1, u64::MAX), consistency_ranges(u64::MAX - 1, u64::MAX)].concat() {
            for node in perfect_nodes(range) {
                assert_eq!(NodeId::new(node.level, node.index), Some(node));
                assert!(node.leaves().start < node.leaves().end);
            }
        }
    }

    #[test]
    fn a_node_beyond_any_tree_has_no_id() {
        assert_eq!(NodeId::new(0, u64::MAX - 1).unwrap().leaves(), u64::MAX - 1..u64::MAX);
        assert_eq!(NodeId::new(63, 0).unwrap().leaves(), 0..1 << 63);
        assert_eq!(NodeId::new(0, u64::MAX), None);
        assert_eq!(NodeId::new(63, 1), None);
        assert_eq!(NodeId::new(64, 0), None);
        assert_eq!(NodeId::new(1, u64::MAX / 2), None);
    }

    #[test]
    fn a_proof_that_cannot_be_is_an_error() {
        let leaves: Vec<Hash> = (0..5_u8).map(|byte| leaf_hash(&[byte])).collect();
        let leaves = leaves.as_slice();
        assert_eq!(prove_inclusion(leaves, 5, 5), Err(ProveError::Index { index: 5, size: 5 }));
        assert_eq!(prove_inclusion(leaves, 0, 0), Err(ProveError::Index { index: 0, size: 0 }));
        assert_eq!(prove_consistency(leaves, 0, 5), Err(ProveError::Sizes { old: 0, new: 5 }));
        assert_eq!(prove_consistency(leaves, 4, 3), Err(ProveError::Sizes { old: 4, new: 3 }));
        let missing = MissingNode { node: NodeId { level: 1, index: 2 }, have: 5 };
        assert_eq!(prove_inclusion(leaves, 0, 6), Err(ProveError::Read(missing)));
        assert_eq!(prove_consistency(leaves, 4, 6), Err(ProveError::Read(missing)));
        assert_eq!(missing.to_string(), "the tree has 5 leaves, but leaves 4 to 5 are needed");
    }

    #[test]
    fn a_source_that_answers_too_little_or_too_much_is_refused() {
        struct Answers(usize);
        impl Nodes for Answers {
            type Error = core::convert::Infallible;
            fn read(&self, _: &[NodeId]) -> Result<Vec<Hash>, Self::Error> {
                Ok(vec![leaf_hash(b""); self.0])
            }
        }
        // The ranges 1..2, 2..4 and 4..7 take four perfect subtrees.
        for got in [0, 3, 5] {
            assert_eq!(prove_inclusion(&Answers(got), 0, 7), Err(ProveError::ReadCount { want: 4, got }));
        }
        assert!(prove_inclusion(&Answers(4), 0, 7).is_ok());
    }
}
