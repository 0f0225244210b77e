//! Fingerprints: what two people read to each other to know that a card is the right one.

use std::fmt;
use std::str::FromStr;

use bip39::{Language, Mnemonic};

use crate::digest::{DigestError, hex, unhex};
use crate::{PublicKey, Sha256Digest};

const DOMAIN: &[u8] = b"pouch.fingerprint.v1\n";

/// Why words are not a fingerprint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FingerprintError {
    /// A number of words other than twelve.
    #[error("a fingerprint has twelve words, this has {0}")]
    Count(usize),
    /// A word outside the list, or the checksum in the last word does not fit.
    #[error("a word is misspelt or out of place")]
    Words,
}

/// SHA-256(`pouch.fingerprint.v1\n` ‖ age recipient ‖ `\n` ‖ 32 bytes of the Ed25519 key).
///
/// It names the two keys, not the card, so a renewed card keeps it. People see it as twelve words of
/// the BIP-39 English list: the first 128 bits and BIP-39's four bits of checksum. Machines
/// always compare all 256 bits; people compare all twelve words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a pair of keys.
    #[must_use]
    pub fn of(age_recipient: &str, signing_key: &PublicKey) -> Self {
        let digest = Sha256Digest::of_all(&[DOMAIN, age_recipient.as_bytes(), b"\n", signing_key.as_bytes()]);
        Self(*digest.as_bytes())
    }

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

    /// Twelve words with hyphens between.
    #[must_use]
    pub fn words(&self) -> String {
        let (entropy, _) = self.0.split_at(16);
        // Sixteen bytes are a length that BIP-39 knows, so this cannot fail; hexadecimal would still be true.
        Mnemonic::from_entropy_in(Language::English, entropy)
            .map_or_else(|_| self.to_string(), |m| m.words().collect::<Vec<_>>().join("-"))
    }

    /// Whether `typed` spells this fingerprint's twelve words; case and what separates the words do not matter.
    ///
    /// # Errors
    /// When `typed` is not twelve words of the list with a fitting checksum, so that a slip is told from a mismatch.
    pub fn matches_words(&self, typed: &str) -> Result<bool, FingerprintError> {
        let words: Vec<String> =
            typed.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
        if words.len() != 12 {
            return Err(FingerprintError::Count(words.len()));
        }
        let parsed =
            Mnemonic::parse_in_normalized(Language::English, &words.join(" ")).map_err(|_| FingerprintError::Words)?;
        Ok(parsed.to_entropy().as_slice() == self.0.split_at(16).0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        unhex(text).map(Self)
    }
}

spelled!(Fingerprint);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_shown_in_full() {
        let fingerprint = Fingerprint::from_bytes([0xab; 32]);
        assert_eq!(fingerprint.to_string(), "ab".repeat(32));
        assert!(format!("{fingerprint:?}").contains(&"ab".repeat(32)));
    }

    #[test]
    fn words_are_bip39() {
        let zero = Fingerprint::from_bytes([0; 32]);
        let words = zero.words();
        assert_eq!(words, format!("{}about", "abandon-".repeat(11)));
        assert_eq!(zero.matches_words(&words.to_uppercase().replace('-', "  ")), Ok(true));
        assert_eq!(Fingerprint::from_bytes([1; 32]).matches_words(&words), Ok(false));
        assert_eq!(zero.matches_words("abandon about"), Err(FingerprintError::Count(2)));
        assert_eq!(zero.matches_words(&"abandon ".repeat(12)), Err(FingerprintError::Words));
    }
}
