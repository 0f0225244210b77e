//! The digest of a file whose pieces come on several threads and in any order.
//!
//! BLAKE3 is a tree over chunks of 1,024 bytes ("BLAKE3: one function, fast everywhere", §2.1): each piece gives the
//! values of the subtrees that lie in it, and the few bytes at its ends that share a chunk with the next piece. Joined,
//! they give the digest that hashing from front to back gives.

use std::collections::BTreeMap;

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, max_subtree_len, merge_subtrees_non_root,
    merge_subtrees_root,
};
use pouch_statement::Blake3Digest;

/// Bytes of a chunk.
const CHUNK: u64 = blake3::CHUNK_LEN as u64;

/// A subtree: where it begins in the file, its bytes, its value.
type Node = (u64, u64, ChainingValue);

/// Hashes the bytes of one piece, in order.
pub(super) struct PieceHasher {
    /// Bytes of the file.
    size: u64,
    /// Where the next byte stands in the file.
    at: u64,
    /// Where the piece ends.
    till: u64,
    step: Step,
    piece: Piece,
}

enum Step {
    /// Between two steps.
    Next,
    /// Within a subtree: where it began, bytes of it that are still to come.
    Node { start: u64, left: u64, hasher: Box<blake3::Hasher> },
    /// Within a chunk that is not whole in this piece: bytes that are still to come.
    Edge { left: u64 },
}

/// What a hashed piece leaves.
#[derive(Clone, Default)]
pub(super) struct Piece {
    len: u64,
    nodes: Vec<Node>,
    /// Bytes of chunks that other pieces have a share in, with their place in the file.
    edges: Vec<(u64, Vec<u8>)>,
}

impl PieceHasher {
    /// For the bytes `at..till` of a file of `size` bytes; not for all of them.
    pub(super) fn new(size: u64, at: u64, till: u64) -> Self {
        Self { size, at, till, step: Step::Next, piece: Piece::default() }
    }

    /// Takes the next bytes; not more than the piece has.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if matches!(self.step, Step::Next) {
                self.step = self.next_step();
            }
            let (Step::Node { left, .. } | Step::Edge { left }) = &mut self.step else { return };
            let (now, rest) = bytes.split_at(usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len()));
            *left -= now.len() as u64;
            let ended = *left == 0;
            match &mut self.step {
                Step::Node { hasher, .. } => {
                    hasher.update(now);
                }
                _ => {
                    if let Some((_, edge)) = self.piece.edges.last_mut() {
                        edge.extend_from_slice(now);
                    }
                }
            }
            self.at += now.len() as u64;
            self.piece.len += now.len() as u64;
            if ended && let Step::Node { start, hasher, .. } = std::mem::replace(&mut self.step, Step::Next) {
                self.piece.nodes.push((start, self.at - start, hasher.finalize_non_root()));
            }
            bytes = rest;
        }
    }

    /// The largest subtree that begins here and ends in this piece, or what this piece has of a chunk.
    fn next_step(&mut self) -> Step {
        let (at, left) = (self.at, self.till - self.at);
        let to_border = CHUNK - at % CHUNK;
        if to_border < CHUNK || (left < CHUNK && self.till < self.size) {
            self.piece.edges.push((at, Vec::new()));
            return Step::Edge { left: left.min(to_border) };
        }
        let most = max_subtree_len(at).unwrap_or(u64::MAX);
        // The last subtree of a file may be of any length; others have a power of two of chunks.
        let whole = self.till == self.size && left <= most;
        let left = if whole { left } else { most.min(1 << left.ilog2()) };
        let mut hasher = Box::new(blake3::Hasher::new());
        hasher.set_input_offset(at);
        Step::Node { start: at, left, hasher }
    }

    /// The piece, when all its bytes have come.
    pub(super) fn finish(self) -> Piece {
        self.piece
    }
}

impl Piece {
    /// Adds to `hasher` what says which bytes these are, and of which file: of one with this number and digest.
    pub(super) fn commit(&self, file: usize, digest: &Blake3Digest, hasher: &mut blake3::Hasher) {
        hasher.update(&(file as u64).to_le_bytes()).update(digest.as_bytes()).update(&self.len.to_le_bytes());
        self.tell(hasher);
    }

    /// Gives all of the piece to `hasher`: two pieces that do are one.
    pub(super) fn tell(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&(self.nodes.len() as u64).to_le_bytes());
        for (start, len, value) in &self.nodes {
            hasher.update(&start.to_le_bytes()).update(&len.to_le_bytes()).update(value);
        }
        for (at, bytes) in &self.edges {
            hasher.update(&at.to_le_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
    }
}

/// A file whose pieces are being joined.
pub(super) struct Spread {
    size: u64,
    /// Bytes of pieces that have not come.
    missing: u64,
    /// Subtrees by where they begin; two that have a parent in the tree are replaced by it at once.
    nodes: BTreeMap<u64, (u64, ChainingValue)>,
    /// Chunks that have not all their bytes.
    chunks: BTreeMap<u64, (u64, Vec<u8>)>,
    /// Of a file that is one chunk.
    only: Option<blake3::Hash>,
}

impl Spread {
    /// A file of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Self { size, missing: size, nodes: BTreeMap::new(), chunks: BTreeMap::new(), only: None }
    }

    /// Joins a piece; each comes once. The digest, when it was the last.
    pub(super) fn add(&mut self, piece: Piece) -> Option<Blake3Digest> {
        self.missing = self.missing.saturating_sub(piece.len);
        for (start, len, value) in piece.nodes {
            self.insert(start, len, value);
        }
        for (at, bytes) in piece.edges {
            self.edge(at, &bytes);
        }
        if self.missing > 0 { None } else { self.root().map(|root| Blake3Digest::from_bytes(*root.as_bytes())) }
    }

    fn edge(&mut self, at: u64, bytes: &[u8]) {
        let start = at - at % CHUNK;
        let len = CHUNK.min(self.size - start);
        let (have, chunk) = self.chunks.entry(start).or_insert_with(|| (0, vec![0; len as usize]));
        let place = (at - start) as usize;
        if let Some(room) = chunk.get_mut(place..place + bytes.len()) {
            room.copy_from_slice(bytes);
            *have += bytes.len() as u64;
        }
        if *have == len
            && let Some((_, chunk)) = self.chunks.remove(&start)
        {
            if self.size <= CHUNK {
                self.only = Some(blake3::hash(&chunk));
                return;
            }
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(start).update(&chunk);
            self.insert(start, len, hasher.finalize_non_root());
        }
    }

    fn insert(&mut self, mut start: u64, mut len: u64, mut value: ChainingValue) {
        // The parent of two whole subtrees, but never the root, which is made otherwise.
        while len >= CHUNK && len.is_power_of_two() && 2 * len < self.size {
            let beside = start ^ len;
            let Some((_, other)) = self.nodes.get(&beside).copied().filter(|(found, _)| *found == len) else { break };
            self.nodes.remove(&beside);
            let (left, right) = if start < beside { (value, other) } else { (other, value) };
            value = merge_subtrees_non_root(&left, &right, Mode::Hash);
            (start, len) = (start.min(beside), 2 * len);
        }
        self.nodes.insert(start, (len, value));
    }

    fn root(&self) -> Option<blake3::Hash> {
        if self.size <= CHUNK {
            return self.only;
        }
        let left = left_subtree_len(self.size);
        let (front, back) = (self.node(0, left)?, self.node(left, self.size - left)?);
        Some(merge_subtrees_root(&front, &back, Mode::Hash))
    }

    /// The value of the subtree over these bytes, joined from those that are there.
    fn node(&self, start: u64, len: u64) -> Option<ChainingValue> {
        match self.nodes.get(&start) {
            Some((found, value)) if *found == len => Some(*value),
            _ if len <= CHUNK => None,
            _ => {
                let left = left_subtree_len(len);
                let (front, back) = (self.node(start, left)?, self.node(start + left, len - left)?);
                Some(merge_subtrees_non_root(&front, &back, Mode::Hash))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn piece(bytes: &[u8], from: usize, till: usize, step: usize) -> Piece {
        let mut hasher = PieceHasher::new(bytes.len() as u64, from as u64, till as u64);
        bytes[from..till].chunks(step).for_each(|now| hasher.update(now));
        hasher.finish()
    }

    /// Cuts at `cuts`, hashes each piece in steps, joins them in the order of `keys`, and compares.
    fn check(bytes: &[u8], cuts: &[usize], step: usize, keys: &[u64]) {
        let mut borders: Vec<usize> = cuts.iter().copied().chain([0, bytes.len()]).collect();
        borders.sort_unstable();
        borders.dedup();
        let mut pieces: Vec<_> = borders.windows(2).map(|w| piece(bytes, w[0], w[1], step)).collect();
        let mut spread = Spread::new(bytes.len() as u64);
        let mut digest = None;
        for number in 0..pieces.len() {
            assert!(digest.is_none());
            let next = (keys.get(number).copied().unwrap_or(0) % pieces.len() as u64) as usize;
            digest = spread.add(pieces.swap_remove(next));
        }
        assert_eq!(digest, Some(Blake3Digest::from_bytes(*blake3::hash(bytes).as_bytes())));
    }

    #[test]
    fn every_cut_around_the_borders_of_chunks() {
        let bytes: Vec<u8> = (0..20 * 1024 + 7).map(|i| (i % 251) as u8).collect();
        for size in
            [2, 512, 1023, 1024, 1025, 1536, 2047, 2048, 2049, 3072, 4096, 5120, 8192, 8193, 9 * 1024, 20 * 1024 + 7]
        {
            let cuts = [1, 511, 512, 1023, 1024, 1025, 1536, 2048, 2560, 3072, 4096, 4608, 7168, 8191, size - 1];
            for cut in cuts.into_iter().filter(|cut| *cut < size) {
                for order in [0, 1] {
                    check(&bytes[..size], &[cut], 300, &[order]);
                    check(&bytes[..size], &[cut, size / 2 + 1], size, &[order, order]);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_cuts_and_any_order_give_the_digest(
            size in 2usize..200_000,
            // Parts are cut at multiples of 512; other places must do as well.
            blocks in proptest::collection::vec(0usize..390, 1..8),
            shift in prop_oneof![3 => Just(0usize), 1 => 0usize..512],
            step in 1usize..70_000,
            keys in proptest::collection::vec(any::<u64>(), 0..10),
        ) {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 7 % 253) as u8).collect();
            let cuts: Vec<_> = blocks.iter().map(|b| b * 512 + shift).filter(|c| *c < size).collect();
            prop_assume!(cuts.iter().any(|c| *c > 0));
            check(&bytes, &cuts, step, &keys);
        }
    }
}
