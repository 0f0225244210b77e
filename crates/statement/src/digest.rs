//! Digests as they stand in statements: 32 bytes, written as 64 lower-case hexadecimal characters.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A text that is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a digest is 64 lower-case hexadecimal characters")]
pub struct DigestError;

pub(crate) fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    // In pieces and not by digits: an index holds a digest for each file.
    for some in bytes.chunks(32) {
        let mut text = [0u8; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(some) {
            for (place, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                *place = digit(nibble);
            }
        }
        let (text, _) = text.split_at(2 * some.len());
        f.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)?;
    }
    Ok(())
}

pub(crate) fn unhex(text: &str) -> Result<[u8; 32], DigestError> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return Err(DigestError);
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(DigestError),
    };
    let mut out = [0u8; 32];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        if let [high, low] = pair {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
    }
    Ok(out)
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From 32 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = DigestError;
            fn from_str(text: &str) -> Result<Self, DigestError> {
                unhex(text).map(Self)
            }
        }

        spelled!($name);
    };
}

digest! {
    /// SHA-256 (FIPS 180-4): statements, the index, keys and the log.
    Sha256Digest
}
digest! {
    /// BLAKE3, 32 bytes of output: content and sealed parts.
    Blake3Digest
}

impl Sha256Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of several pieces, one behind the other; the caller keeps them apart.
    #[must_use]
    pub fn of_all(pieces: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for piece in pieces {
            hash.update(piece);
        }
        Self(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_value_and_one_spelling() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sha256Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Sha256Digest>().unwrap(), Sha256Digest::of(b""));
        assert!(empty.to_uppercase().parse::<Sha256Digest>().is_err());
        assert!(empty[1..].parse::<Sha256Digest>().is_err());
        assert_eq!(Sha256Digest::of_all(&[b"a", b"b"]), Sha256Digest::of(b"ab"));
    }
}
