//! The append-only Merkle tree behind pouch's journals and the relay's log (RFC 6962 §2.1), and what follows from
//! it: roots, proofs, and a verdict on a log that should still agree with a remembered head.
//!
//! Everything here is a function of its arguments: no files, no network, no clock, no randomness, no signatures.
//!
//! | module | concept |
//! | --- | --- |
//! | `event` | [`event_leaf`]: the salted commitment to an event, which is what a log holds as an entry |
//! | `hash` | [`struct@Hash`], [`leaf_hash`], [`node_hash`], [`empty_root`] |
//! | `frontier` | [`Frontier`]: the right edge of a tree, enough to append to it; [`Head`]: size and root |
//! | `tree` | [`prove_inclusion`], [`prove_consistency`] over any source of [`Nodes`] |
//! | `proof` | [`InclusionProof`], [`ConsistencyProof`] and their verification |
//! | `comparison` | [`compare`]: intact, extended, truncated, altered or rewritten |
//!
//! Three kinds of 32 bytes occur, in this order: the *event leaf* (salted digest of an event, the entry's data), its
//! *leaf hash* and the *node hashes* above it. Only the latter two are a [`struct@Hash`].
//!
//! # Example
//!
//! A journal appends events without reading itself again, proves one of them, and is later held against its head.
//!
//! ```
//! use pouch_log::{Comparison, Domain, Frontier, Hash, Remembered};
//! use pouch_log::{compare, event_leaf, leaf_hash, prove_consistency, prove_inclusion};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut frontier = Frontier::new();
//! let mut leaves: Vec<Hash> = Vec::new();
//! for (salt, event) in [([1; 32], "sent"), ([2; 32], "fetched"), ([3; 32], "received")] {
//!     let leaf = leaf_hash(&event_leaf(Domain::EVENT_V1, &salt, event.as_bytes()));
//!     frontier.append(leaf);
//!     leaves.push(leaf);
//! }
//! let head = frontier.head();
//! let remembered = Remembered::from(Frontier::decode(&frontier.encode())?);
//!
//! // Somebody who holds the head checks that it commits to the second event.
//! let proof = prove_inclusion(leaves.as_slice(), 1, head.size)?;
//! proof.verify(1, &leaf_hash(&event_leaf(Domain::EVENT_V1, &[2; 32], b"fetched")), &head)?;
//!
//! // The log grows; the new head still contains the old one.
//! let more = leaf_hash(&event_leaf(Domain::EVENT_V1, &[4; 32], b"expired"));
//! frontier.append(more);
//! leaves.push(more);
//! prove_consistency(leaves.as_slice(), head.size, frontier.size())?.verify(&head, &frontier.head())?;
//! assert_eq!(compare(&leaves, &remembered), Comparison::Extended { by: 1 });
//!
//! // A record edited in place is found, and where.
//! leaves[2] = more;
//! assert_eq!(
//!     compare(&leaves, &remembered),
//!     Comparison::Altered { have: 4, want: 3, spans: vec![2..3] },
//! );
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** this crate depends on no other crate of pouch, so that a witness or an auditor can use it alone.

mod comparison;
mod event;
mod frontier;
mod hash;
mod proof;
mod tree;

pub use comparison::{Comparison, Remembered, RememberedError, compare};
pub use event::{Domain, DomainError, event_leaf};
pub use frontier::{Frontier, FrontierError, Head, MAX_SIZE};
pub use hash::{Hash, HashError, empty_root, leaf_hash, node_hash};
pub use proof::{ConsistencyProof, InclusionProof, ProofError};
pub use tree::{MissingNode, NodeId, Nodes, ProveError, prove_consistency, prove_inclusion};
