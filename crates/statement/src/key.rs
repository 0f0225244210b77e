//! Ed25519 keys (RFC 8032) that sign statements and requests.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, VerifyingKey};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use zeroize::Zeroizing;

use crate::RandomError;

/// Why bytes or a text are not an acceptable public key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not a canonical encoding of a point on the curve.
    #[error("not a canonical ed25519 public key")]
    Encoding,
    /// A key of small order: signatures under it prove nothing.
    #[error("the ed25519 public key has small order")]
    Weak,
    /// Not the line `ssh-ed25519 BASE64`.
    #[error("not an ssh-ed25519 public key line without a comment")]
    Line,
}

/// An Ed25519 key pair that signs. The public half always comes from the private one, so signing
/// for another public key cannot be expressed (attacks.md 29). Zeroized when dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A fresh key.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate() -> Result<Self, RandomError> {
        let seed = Zeroizing::new(crate::random::<32>()?);
        Ok(Self::from_seed(&seed))
    }

    /// From the 32 bytes of RFC 8032's private key.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The 32 bytes of RFC 8032's private key, for sealed storage.
    #[must_use]
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs bytes as they are (Ed25519, no prehash): 64 bytes. Callers own the separation of domains;
    /// statements go through [`crate::Signed`].
    #[must_use]
    pub fn sign_raw(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }
}

/// An Ed25519 public key: canonical and not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From 32 bytes.
    ///
    /// # Errors
    /// Refuses non-canonical encodings and points of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        if !canonical(bytes) {
            return Err(KeyError::Encoding);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Encoding)?;
        if key.is_weak() { Err(KeyError::Weak) } else { Ok(Self(key)) }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Checks 64 bytes of raw signature over `bytes` by the strict rules (`verify_strict`: canonical S, no
    /// small-order points, cofactorless).
    #[must_use]
    pub fn verify_raw(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }

    pub(crate) fn key_data(&self) -> KeyData {
        KeyData::Ed25519(Ed25519PublicKey(*self.as_bytes()))
    }
}

/// y < 2^255 − 19 (RFC 8032 §5.1.3): a second spelling of a key would be a second key to whoever compares bytes.
fn canonical(bytes: &[u8; 32]) -> bool {
    let mut y = *bytes;
    if let Some(top) = y.last_mut() {
        *top &= 0x7f;
    }
    let [low, middle @ .., high] = y;
    !(high == 0x7f && middle.iter().all(|b| *b == 0xff) && low >= 0xed)
}

/// The line `ssh-ed25519 BASE64` as OpenSSH writes it, without a comment.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = ssh_key::PublicKey::new(self.key_data(), "").to_openssh().map_err(|_| fmt::Error)?;
        f.write_str(&line)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parsed = ssh_key::PublicKey::from_openssh(text).map_err(|_| KeyError::Line)?;
        let KeyData::Ed25519(key) = parsed.key_data() else { return Err(KeyError::Line) };
        let key = Self::from_bytes(&key.0)?;
        if key.to_string() == text { Ok(key) } else { Err(KeyError::Line) }
    }
}

spelled!(PublicKey);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_seed_makes_its_key_again() {
        let key = SigningKey::generate().unwrap();
        assert_eq!(SigningKey::from_seed(&key.to_seed()).public(), key.public());
        assert_eq!(*SigningKey::from_seed(&[7; 32]).to_seed(), [7; 32]);
    }

    #[test]
    fn the_line_is_openssh_and_has_one_spelling() {
        let key = SigningKey::from_seed(&[7; 32]).public();
        let line = key.to_string();
        assert!(line.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"), "{line}");
        assert_eq!(line.parse::<PublicKey>().unwrap(), key);
        assert_eq!(format!("{line} bo@laptop").parse::<PublicKey>(), Err(KeyError::Line));
        assert_eq!(format!(" {line}").parse::<PublicKey>(), Err(KeyError::Line));
    }

    // attacks.md 22: non-canonical and small-order material is refused.
    #[test]
    fn attack_22_weak_and_non_canonical_keys() {
        let mut identity_point = [0u8; 32];
        identity_point[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity_point), Err(KeyError::Weak));
        let mut beyond = [0xffu8; 32];
        beyond[0] = 0xee; // 1 + p: the identity point spelt a second way
        beyond[31] = 0x7f;
        assert_eq!(PublicKey::from_bytes(&beyond), Err(KeyError::Encoding));
    }

    // attacks.md 22: at and around p = 2^255 - 19, with and without the sign bit.
    #[test]
    fn attack_22_only_reduced_coordinates_are_canonical() {
        let spelt = |low: u8, middle: u8, high: u8| {
            let mut bytes = [0xff_u8; 32];
            (bytes[0], bytes[15], bytes[31]) = (low, middle, high);
            canonical(&bytes)
        };
        for low in [0xed, 0xee, 0xff] {
            assert!(!spelt(low, 0xff, 0x7f) && !spelt(low, 0xff, 0xff), "p and beyond");
            assert!(spelt(low, 0xfe, 0x7f) && spelt(low, 0xfe, 0xff), "smaller in the middle");
            assert!(spelt(low, 0xff, 0x7e) && spelt(low, 0xff, 0x00) && spelt(low, 0xff, 0x80), "smaller at the top");
        }
        assert!(spelt(0xec, 0xff, 0x7f) && spelt(0xec, 0xff, 0xff), "p - 1");
    }

    #[test]
    fn a_key_is_shown_for_debugging() {
        let key = SigningKey::from_seed(&[7; 32]).public();
        assert_eq!(format!("{key:?}"), format!("PublicKey({key})"));
    }

    // attacks.md 22: a signature whose S is not reduced is refused.
    #[test]
    fn attack_22_non_canonical_s() {
        let key = SigningKey::from_seed(&[9; 32]);
        let mut signature = key.sign_raw(b"x");
        assert!(key.public().verify_raw(b"x", &signature));
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0u16;
        for i in 0..32 {
            let sum = u16::from(signature[32 + i]) + u16::from(order[i]) + carry;
            signature[32 + i] = sum as u8;
            carry = sum >> 8;
        }
        assert!(!key.public().verify_raw(b"x", &signature));
    }
}
