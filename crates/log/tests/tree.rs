//! Roots and proofs against the definitions of RFC 6962 §2.1, and against everything that is not a proof.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::Cell;
use std::collections::BTreeMap;

use pouch_log::{
    Comparison, ConsistencyProof, Frontier, Hash, Head, InclusionProof, MissingNode, NodeId, Nodes, Remembered,
    compare, empty_root, leaf_hash, node_hash, prove_consistency, prove_inclusion,
};
use proptest::prelude::*;

/// The entries and roots that Certificate Transparency's implementations have in common.
const ENTRIES: [&[u8]; 8] = [b"", b"\x00", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// Leaves that all differ.
fn leaves(size: usize) -> Vec<Hash> {
    (0..size).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

/// MTH, word for word from RFC 6962 §2.1.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
        }
    }
}

fn head(leaves: &[Hash], size: usize) -> Head {
    Head { size: size as u64, root: naive_root(&leaves[..size]) }
}

fn inclusion(leaves: &[Hash], index: usize, size: usize) -> InclusionProof {
    prove_inclusion(leaves, index as u64, size as u64).unwrap()
}

fn consistency(leaves: &[Hash], old: usize, new: usize) -> ConsistencyProof {
    prove_consistency(leaves, old as u64, new as u64).unwrap()
}

/// The proofs next to a proof: a bit flipped, a hash dropped, doubled, put in or swapped, nothing, all of it twice.
fn mutations(hashes: &[Hash], bit: usize, extra: Hash) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for at in 0..hashes.len() {
        let mut bytes = *hashes[at].as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut flipped = hashes.to_vec();
        flipped[at] = bytes.into();
        let mut dropped = hashes.to_vec();
        dropped.remove(at);
        let mut doubled = hashes.to_vec();
        doubled.insert(at, hashes[at]);
        let mut rotated = hashes.to_vec();
        rotated.swap(at, (at + 1) % hashes.len());
        all.extend([flipped, dropped, doubled, rotated]);
    }
    for at in 0..=hashes.len() {
        let mut added = hashes.to_vec();
        added.insert(at, extra);
        all.push(added);
    }
    all.extend([Vec::new(), hashes.repeat(2)]);
    all.retain(|mutated| mutated != hashes);
    all
}

#[test]
fn roots_of_certificate_transparency() {
    let mut frontier = Frontier::new();
    for (size, want) in ROOTS.iter().enumerate() {
        assert_eq!(frontier.head(), Head { size: size as u64, root: want.parse().unwrap() });
        if let Some(entry) = ENTRIES.get(size) {
            frontier.append(leaf_hash(entry));
        }
    }
}

#[test]
fn frontier_agrees_with_the_definition_at_every_size() {
    let leaves = leaves(300);
    let mut frontier = Frontier::new();
    for size in 0..=leaves.len() {
        assert_eq!(frontier.head(), head(&leaves, size));
        let covered = frontier.subtrees().inspect(|(range, hash)| {
            assert_eq!(*hash, naive_root(&leaves[range.start as usize..range.end as usize]));
        });
        assert_eq!(covered.map(|(range, _)| range.end - range.start).sum::<u64>(), size as u64);
        assert_eq!(Frontier::decode(&frontier.encode()).as_ref(), Ok(&frontier));
        frontier.extend(leaves.get(size).copied());
    }
}

/// A log that stores its perfect subtrees only, as tiles do, and counts how often it is read.
struct Stored {
    nodes: BTreeMap<NodeId, Hash>,
    reads: Cell<usize>,
}

impl Stored {
    fn new(leaves: &[Hash]) -> Self {
        let mut nodes = BTreeMap::new();
        for level in 0..=leaves.len().ilog2() {
            for (index, beneath) in (0..).zip(leaves.chunks_exact(1 << level)) {
                nodes.insert(NodeId::new(level, index).unwrap(), naive_root(beneath));
            }
        }
        Self { nodes, reads: Cell::new(0) }
    }
}

impl Nodes for Stored {
    type Error = MissingNode;

    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, MissingNode> {
        assert!(nodes.len() <= 128);
        self.reads.set(self.reads.get() + 1);
        let stored = |node: &NodeId| self.nodes.get(node).copied().ok_or(MissingNode { node: *node, have: 0 });
        nodes.iter().map(stored).collect()
    }
}

#[test]
fn stored_nodes_prove_the_same_as_leaves_with_one_read() {
    let leaves = leaves(50);
    let stored = Stored::new(&leaves);
    for size in 1..=50 {
        for at in 0..size {
            let by_nodes = prove_inclusion(&stored, at, size).unwrap();
            assert_eq!(by_nodes, prove_inclusion(leaves.as_slice(), at, size).unwrap());
            assert!(stored.reads.take() <= 1);
            let by_nodes = prove_consistency(&stored, at + 1, size).unwrap();
            assert_eq!(by_nodes, prove_consistency(leaves.as_slice(), at + 1, size).unwrap());
            assert!(stored.reads.take() <= 1);
        }
    }
}

/// An index is bound by the proof. A size is not, where trees of both sizes give the path the same shape: the
/// verifier's head is what binds it.
#[test]
fn every_inclusion_proof_verifies_for_its_leaf_alone() {
    let leaves = leaves(40);
    for size in 1..=leaves.len() {
        let head = head(&leaves, size);
        for index in 0..size {
            let proof = inclusion(&leaves, index, size);
            for other in 0..=size + 1 {
                let verdict = proof.verify(other as u64, &leaves[index], &head);
                assert_eq!(verdict.is_ok(), other == index, "leaf {index} of {size} as {other}");
            }
            for other in (0..=leaves.len()).filter(|other| *other != size) {
                let wrong = Head { size: other as u64, ..head };
                if proof.verify(index as u64, &leaves[index], &wrong).is_ok() {
                    let hashes = inclusion(&leaves, index, other).hashes().len();
                    assert_eq!(hashes, proof.hashes().len(), "leaf {index} of {size} in {other}");
                }
            }
        }
    }
}

#[test]
fn every_consistency_proof_verifies_for_its_old_size_alone() {
    let leaves = leaves(40);
    for new in 1..=leaves.len() {
        for old in 1..=new {
            let proof = consistency(&leaves, old, new);
            let (from, to) = (head(&leaves, old), head(&leaves, new));
            for other in 0..=new + 1 {
                let verdict = proof.verify(&Head { size: other as u64, ..from }, &to);
                assert_eq!(verdict.is_ok(), other == old, "{old} as {other} in {new}");
            }
            for other in (0..=leaves.len()).filter(|other| *other != new) {
                if proof.verify(&from, &Head { size: other as u64, ..to }).is_ok() {
                    let hashes = consistency(&leaves, old, other).hashes().len();
                    assert_eq!(hashes, proof.hashes().len(), "{old} in {new} as {other}");
                }
            }
        }
    }
}

proptest! {
    // A failing case is printed, and belongs into a test of its own rather than into a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_inclusion_proof_is_refused(
        (size, index) in (1_usize..300).prop_flat_map(|size| (Just(size), 0..size)),
        bit in 0_usize..256,
        other in any::<[u8; 32]>(),
    ) {
        let leaves = leaves(size);
        let (head, leaf, at) = (head(&leaves, size), leaves[index], index as u64);
        let proof = inclusion(&leaves, index, size);
        prop_assert_eq!(proof.verify(at, &leaf, &head), Ok(()));

        for mutated in mutations(proof.hashes(), bit, other.into()) {
            prop_assert!(InclusionProof::new(mutated).verify(at, &leaf, &head).is_err());
        }
        let wrong_root = Head { root: other.into(), ..head };
        let wrong_size = Head { size: at, ..head };
        prop_assert!(proof.verify(at, &leaf, &wrong_root).is_err());
        prop_assert!(proof.verify(at, &leaf, &wrong_size).is_err());
        prop_assert!(proof.verify(at, &other.into(), &head).is_err());
        prop_assert!(proof.verify(at ^ (1 << (bit % 64)), &leaf, &head).is_err());
    }

    #[test]
    fn a_mutated_consistency_proof_is_refused(
        (new, old) in (1_usize..300).prop_flat_map(|new| (Just(new), 1..=new)),
        bit in 0_usize..256,
        other in any::<[u8; 32]>(),
    ) {
        let leaves = leaves(new);
        let (from, to) = (head(&leaves, old), head(&leaves, new));
        let proof = consistency(&leaves, old, new);
        prop_assert_eq!(proof.verify(&from, &to), Ok(()));

        for mutated in mutations(proof.hashes(), bit, other.into()) {
            prop_assert!(ConsistencyProof::new(mutated).verify(&from, &to).is_err());
        }
        let (wrong_from, wrong_to) = (Head { root: other.into(), ..from }, Head { root: other.into(), ..to });
        prop_assert!(proof.verify(&wrong_from, &to).is_err());
        prop_assert!(proof.verify(&from, &wrong_to).is_err());
        if old != new {
            prop_assert!(proof.verify(&to, &from).is_err());
        }
    }

    #[test]
    fn a_log_that_is_no_longer_what_it_was_is_noticed(
        (want, at) in (1_usize..200).prop_flat_map(|want| (Just(want), 0..want)),
        appended in 0_usize..20,
    ) {
        let original = leaves(want + appended);
        let remembered = Remembered::from(original[..want].iter().copied().collect::<Frontier>());
        let verdict = compare(&original, &remembered);
        prop_assert!(verdict.is_sound());
        prop_assert_eq!(verdict == Comparison::Intact, appended == 0);

        let cut = compare(&original[..at], &remembered);
        let told = matches!(cut, Comparison::Truncated { have, verified, .. } if have == at as u64 && verified <= have);
        prop_assert!(told, "{:?}", cut);

        let mut edited = original.clone();
        edited[at] = leaf_hash(b"edited");
        match compare(&edited, &remembered) {
            Comparison::Altered { spans, .. } => {
                prop_assert!(matches!(spans.as_slice(), [span] if span.contains(&(at as u64))));
            }
            other => prop_assert!(false, "{:?}", other),
        }

        let mut deleted = original;
        deleted.remove(at);
        let verdict = compare(&deleted, &remembered);
        prop_assert!(!verdict.is_sound());
        if let Comparison::Altered { spans, .. } = verdict {
            prop_assert!(spans[0].contains(&(at as u64)));
        }
    }
}
