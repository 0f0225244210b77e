//! The three hashes of RFC 6962 §2.1 and the type that holds them.

use core::fmt;
use core::str::FromStr;

use sha2::{Digest, Sha256};

/// Put before an entry's data (RFC 6962 §2.1), so that no entry can pass for an inner node.
const LEAF_PREFIX: [u8; 1] = [0x00];
/// Put before the two children of an inner node (RFC 6962 §2.1).
const NODE_PREFIX: [u8; 1] = [0x01];

/// A node of the tree: a leaf hash, the hash of a subtree, or a root. 32 bytes of SHA-256.
///
/// As text it is 64 lowercase hexadecimal digits, and no other spelling is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; Hash::LEN]);

/// A text that is not a [`struct@Hash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not 64 bytes long.
    #[error("a hash has 64 hexadecimal digits, not {got}")]
    Length {
        /// Length of the text in bytes.
        got: usize,
    },
    /// Something else than `0`–`9` or `a`–`f`.
    #[error("not a lowercase hexadecimal digit in byte {byte} of a hash")]
    Digit {
        /// Which of the 32 bytes is misspelt, from 0.
        byte: usize,
    },
}

impl Hash {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; Hash::LEN] {
        &self.0
    }
}

impl From<[u8; Hash::LEN]> for Hash {
    fn from(bytes: [u8; Hash::LEN]) -> Self {
        Self(bytes)
    }
}

impl From<Hash> for [u8; Hash::LEN] {
    fn from(hash: Hash) -> Self {
        hash.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != Self::LEN || !rest.is_empty() {
            return Err(HashError::Length { got: text.len() });
        }
        let mut bytes = [0; Self::LEN];
        for (byte, (slot, &[high, low])) in bytes.iter_mut().zip(pairs).enumerate() {
            *slot = match (digit(high), digit(low)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(HashError::Digit { byte }),
            };
        }
        Ok(Self(bytes))
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

/// The hash of an entry: SHA-256(0x00 ‖ `data`), RFC 6962 §2.1.
pub fn leaf_hash(data: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update(LEAF_PREFIX).chain_update(data).finalize().into())
}

/// The hash of an inner node: SHA-256(0x01 ‖ `left` ‖ `right`), RFC 6962 §2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update(NODE_PREFIX).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root of a tree without entries: SHA-256 of nothing, RFC 6962 §2.1.
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EMPTY_LEAF: &str = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";

    #[test]
    fn text_survives_a_round_trip() {
        let hash: Hash = EMPTY_LEAF.parse().unwrap();
        assert_eq!(hash, leaf_hash(b""));
        assert_eq!(hash.to_string(), EMPTY_LEAF);
        assert_eq!(Hash::from(*hash.as_bytes()), hash);
    }

    #[test]
    fn only_lowercase_hex_of_the_right_length_is_read() {
        let of = |text: &str| text.parse::<Hash>().unwrap_err();
        assert_eq!(of(""), HashError::Length { got: 0 });
        assert_eq!(of(&EMPTY_LEAF[1..]), HashError::Length { got: 63 });
        assert_eq!(of(&format!("{EMPTY_LEAF}0")), HashError::Length { got: 65 });
        assert_eq!(of(&format!("{EMPTY_LEAF}\n")), HashError::Length { got: 65 });
        assert_eq!(of(&EMPTY_LEAF.replace('b', "B")), HashError::Digit { byte: 2 });
        assert_eq!(of(&EMPTY_LEAF.replace("1d", "+d")), HashError::Digit { byte: 18 });
        // 64 bytes, but not 64 characters: must not split a character.
        assert_eq!(of(&"é".repeat(32)), HashError::Digit { byte: 0 });
    }

    #[test]
    fn leaf_node_and_nothing_are_three_domains() {
        let (left, right) = (leaf_hash(b"l"), leaf_hash(b"r"));
        let joined = [*left.as_bytes(), *right.as_bytes()].concat();
        assert_ne!(node_hash(&left, &right), leaf_hash(&joined));
        assert_ne!(node_hash(&left, &right), node_hash(&right, &left));
        assert_ne!(empty_root(), leaf_hash(b""));
    }
}
