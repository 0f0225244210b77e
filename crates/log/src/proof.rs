//! Checking proofs against heads.
//!
//! A proof is only hashes. Index, sizes and roots come from elsewhere and must be trusted together: a root does not
//! commit to the size of its tree (trees of 3 and of 4 leaves prove their first leaf alike), so both belong to one
//! signed head.

use crate::frontier::Head;
use crate::hash::{Hash, node_hash};

/// A Merkle audit path (RFC 6962 §2.1.1): the siblings from a leaf up to the root, lowest first, at most 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InclusionProof(Vec<Hash>);

/// A Merkle consistency proof (RFC 6962 §2.1.2) between two heads of one log, lowest node first, at most 65.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsistencyProof(Vec<Hash>);

/// A proof that proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The head's tree has no such leaf.
    #[error("a log of size {size} has no entry {index}")]
    Index {
        /// The leaf to be proved.
        index: u64,
        /// Size of the head.
        size: u64,
    },
    /// The old head is empty, and then there is nothing to prove, or larger than the new one.
    #[error("no consistency proof leads from size {old} to size {new}")]
    Sizes {
        /// Size of the earlier head.
        old: u64,
        /// Size of the later head.
        new: u64,
    },
    /// Hashes are missing.
    #[error("proof of {hashes} hashes is too short")]
    TooShort {
        /// Hashes in the proof.
        hashes: usize,
    },
    /// Hashes are left over.
    #[error("proof of {hashes} hashes is too long")]
    TooLong {
        /// Hashes in the proof.
        hashes: usize,
    },
    /// The proof leads to another root than the head's: altered leaf, proof or log.
    #[error("proof leads to root {computed}, but the log of size {size} has root {want}")]
    Root {
        /// Size of the head that is not met.
        size: u64,
        /// Root of that head.
        want: Hash,
        /// Root that follows from the proof.
        computed: Hash,
    },
    /// Two heads of one size with different roots: if both are signed, evidence against the signer.
    #[error("two different logs of size {size}, with roots {old} and {new}")]
    Fork {
        /// Size of both.
        size: u64,
        /// Root of the earlier head.
        old: Hash,
        /// Root of the later head.
        new: Hash,
    },
}

impl InclusionProof {
    /// A proof from its hashes, lowest first. Whether they prove anything is for [`InclusionProof::verify`].
    pub const fn new(hashes: Vec<Hash>) -> Self {
        Self(hashes)
    }

    /// The hashes, lowest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Checks that the log with this head holds `leaf_hash` as entry `index` (from 0). Algorithm of RFC 9162
    /// §2.1.3.2.
    ///
    /// # Errors
    ///
    /// [`ProofError::Index`], [`ProofError::TooShort`], [`ProofError::TooLong`] or [`ProofError::Root`].
    pub fn verify(&self, index: u64, leaf_hash: &Hash, head: &Head) -> Result<(), ProofError> {
        if index >= head.size {
            return Err(ProofError::Index { index, size: head.size });
        }
        // Position of the node reached and of the last node, both on the level reached.
        let (mut at, mut last) = (index, head.size - 1);
        let mut computed = *leaf_hash;
        for sibling in &self.0 {
            if last == 0 {
                return Err(ProofError::TooLong { hashes: self.0.len() });
            }
            if at & 1 == 1 || at == last {
                computed = node_hash(sibling, &computed);
                // A last node without a right sibling rises unchanged until it is one.
                let risen = at.trailing_zeros();
                (at, last) = (at >> risen, last >> risen);
            } else {
                computed = node_hash(&computed, sibling);
            }
            (at, last) = (at >> 1, last >> 1);
        }
        if last != 0 {
            return Err(ProofError::TooShort { hashes: self.0.len() });
        }
        meets(head, computed)
    }
}

impl ConsistencyProof {
    /// A proof from its hashes, lowest first. Whether they prove anything is for [`ConsistencyProof::verify`].
    pub const fn new(hashes: Vec<Hash>) -> Self {
        Self(hashes)
    }

    /// The hashes, lowest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Checks that the log of `new` begins with the whole log of `old`. Algorithm of RFC 9162 §2.1.4.2; heads of
    /// equal size must be equal and take an empty proof. Every log extends the empty one, so from an `old` of size 0
    /// no proof is defined and none is accepted: do not ask for one.
    ///
    /// # Errors
    ///
    /// [`ProofError::Sizes`] unless 0 < `old.size` ≤ `new.size`; [`ProofError::Fork`], [`ProofError::TooShort`],
    /// [`ProofError::TooLong`], or [`ProofError::Root`] with the size of the head that the proof does not meet.
    pub fn verify(&self, old: &Head, new: &Head) -> Result<(), ProofError> {
        if old.size == 0 || old.size > new.size {
            return Err(ProofError::Sizes { old: old.size, new: new.size });
        }
        let hashes = self.0.len();
        if old.size == new.size {
            return match (old.root == new.root, hashes) {
                (false, _) => Err(ProofError::Fork { size: old.size, old: old.root, new: new.root }),
                (true, 0) => Ok(()),
                (true, _) => Err(ProofError::TooLong { hashes }),
            };
        }
        // A perfect old tree is a node of the new one and is left out of the proof.
        let (start, siblings) = if old.size.is_power_of_two() {
            (old.root, self.0.as_slice())
        } else {
            let (first, rest) = self.0.split_first().ok_or(ProofError::TooShort { hashes })?;
            (*first, rest)
        };
        let (old_root, new_root) = roots_from(start, siblings, old.size, new.size).map_err(|length| match length {
            Length::Short => ProofError::TooShort { hashes },
            Length::Long => ProofError::TooLong { hashes },
        })?;
        meets(old, old_root)?;
        meets(new, new_root)
    }
}

enum Length {
    Short,
    Long,
}

/// The roots of the old and the new tree that follow from `start`, the subtree that ends where the old tree ends, and
/// its siblings. Needs `0 < old < new`.
fn roots_from(start: Hash, siblings: &[Hash], old: u64, new: u64) -> Result<(Hash, Hash), Length> {
    // Position of the node reached and of the last node, on the level reached: at first that of `start`.
    let risen = (old - 1).trailing_ones();
    let (mut at, mut last) = ((old - 1) >> risen, (new - 1) >> risen);
    let (mut old_root, mut new_root) = (start, start);
    for sibling in siblings {
        if last == 0 {
            return Err(Length::Long);
        }
        if at & 1 == 1 || at == last {
            old_root = node_hash(sibling, &old_root);
            new_root = node_hash(sibling, &new_root);
            let risen = at.trailing_zeros();
            (at, last) = (at >> risen, last >> risen);
        } else {
            // Right of the old tree: only the new one has it.
            new_root = node_hash(&new_root, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last == 0 { Ok((old_root, new_root)) } else { Err(Length::Short) }
}

fn meets(head: &Head, computed: Hash) -> Result<(), ProofError> {
    if computed == head.root { Ok(()) } else { Err(ProofError::Root { size: head.size, want: head.root, computed }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{empty_root, leaf_hash};

    #[test]
    fn an_empty_log_proves_nothing() {
        let empty = Head { size: 0, root: empty_root() };
        let one = Head { size: 1, root: leaf_hash(b"") };
        let index = Err(ProofError::Index { index: 0, size: 0 });
        assert_eq!(InclusionProof::default().verify(0, &leaf_hash(b""), &empty), index);
        for new in [empty, one] {
            let sizes = Err(ProofError::Sizes { old: 0, new: new.size });
            assert_eq!(ConsistencyProof::default().verify(&empty, &new), sizes);
        }
    }

    #[test]
    fn two_heads_of_one_size_are_a_fork() {
        let (a, b) = (Head { size: 1, root: leaf_hash(b"a") }, Head { size: 1, root: leaf_hash(b"b") });
        let fork = Err(ProofError::Fork { size: 1, old: a.root, new: b.root });
        assert_eq!(ConsistencyProof::default().verify(&a, &b), fork);
        assert_eq!(ConsistencyProof::default().verify(&a, &a), Ok(()));
    }

    #[test]
    fn the_largest_sizes_end_without_overflow() {
        let root = leaf_hash(b"");
        let huge = Head { size: u64::MAX, root };
        for hashes in 0..70 {
            let hashes = vec![root; hashes];
            for size in [1, 2, 3, u64::MAX / 2, 1 << 63, u64::MAX - 1] {
                assert!(ConsistencyProof::new(hashes.clone()).verify(&Head { size, root }, &huge).is_err());
                assert!(InclusionProof::new(hashes.clone()).verify(size, &root, &huge).is_err());
            }
            assert!(InclusionProof::new(hashes).verify(0, &root, &huge).is_err());
        }
    }
}
