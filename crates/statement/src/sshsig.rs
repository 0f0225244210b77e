//! Detached SSHSIG signatures (OpenSSH `PROTOCOL.sshsig`), one strict profile of them.
//!
//! Version 1, `ssh-ed25519`, `sha512`, empty reserved field, one namespace for each kind of statement.
//! The armor has exactly one accepted spelling: the one that encoding the decoded signature gives.

use ssh_key::{Algorithm, HashAlg, LineEnding, Signature, SshSig};

use crate::{PublicKey, SigningKey};

/// The longest armored signature that is looked at, in bytes; ours have about 300.
const MAX_ARMOR: usize = 1024;

/// Why a signature was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignatureError {
    /// Not an SSHSIG in its one spelling.
    #[error("not an armored ssh signature in canonical form")]
    Armor,
    /// Another version, key type, hash, or something in the reserved field.
    #[error("the ssh signature is not of the profile: version 1, ssh-ed25519, sha512, nothing reserved")]
    Profile,
    /// Made for another purpose.
    #[error("the signature was made for another kind of statement than {wanted}")]
    Namespace {
        /// The namespace that was wanted.
        wanted: &'static str,
    },
    /// Made by another key.
    #[error("the signature is by another key")]
    Key,
    /// Does not verify.
    #[error("the signature does not fit the bytes")]
    Mismatch,
    /// Could not be made; a defect.
    #[error("the signature could not be encoded")]
    Encode,
}

/// Signs `bytes` under `namespace` and gives the armor, which ends in a line feed.
///
/// # Errors
/// [`SignatureError::Encode`], which would be a defect.
pub fn sign_detached(namespace: &'static str, bytes: &[u8], key: &SigningKey) -> Result<String, SignatureError> {
    let data = SshSig::signed_data(namespace, HashAlg::Sha512, bytes).map_err(|_| SignatureError::Encode)?;
    let signature = Signature::new(Algorithm::Ed25519, key.sign_raw(&data).to_vec());
    signature
        .and_then(|s| SshSig::new(key.public().key_data(), namespace, HashAlg::Sha512, s))
        .and_then(|s| s.to_pem(LineEnding::LF))
        .map(|pem| if pem.ends_with('\n') { pem } else { pem + "\n" })
        .map_err(|_| SignatureError::Encode)
}

/// Verifies that `armor` is `key`'s signature over exactly `bytes` for `namespace`.
///
/// # Errors
/// Each way of not being that has its own error.
pub fn verify_detached(
    namespace: &'static str,
    bytes: &[u8],
    armor: &str,
    key: &PublicKey,
) -> Result<(), SignatureError> {
    if armor.len() > MAX_ARMOR {
        return Err(SignatureError::Armor);
    }
    let parsed = SshSig::from_pem(armor).map_err(|_| SignatureError::Armor)?;
    let again = parsed.to_pem(LineEnding::LF).map_err(|_| SignatureError::Armor)?;
    if again.trim_end_matches('\n') != armor.strip_suffix('\n').unwrap_or("") {
        return Err(SignatureError::Armor);
    }
    let ours = parsed.version() == 1
        && parsed.algorithm() == Algorithm::Ed25519
        && parsed.hash_alg() == HashAlg::Sha512
        && parsed.reserved().is_empty()
        && parsed.signature().algorithm() == Algorithm::Ed25519;
    if !ours {
        return Err(SignatureError::Profile);
    }
    if parsed.namespace() != namespace {
        return Err(SignatureError::Namespace { wanted: namespace });
    }
    if *parsed.public_key() != key.key_data() {
        return Err(SignatureError::Key);
    }
    let raw: &[u8; 64] = parsed.signature_bytes().try_into().map_err(|_| SignatureError::Profile)?;
    let data = SshSig::signed_data(namespace, HashAlg::Sha512, bytes).map_err(|_| SignatureError::Mismatch)?;
    if key.verify_raw(&data, raw) { Ok(()) } else { Err(SignatureError::Mismatch) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NS: &str = "pouch.test.v1";

    #[test]
    fn round_trip_and_refusals() {
        let key = SigningKey::from_seed(&[1; 32]);
        let other = SigningKey::from_seed(&[2; 32]);
        let armor = sign_detached(NS, b"hello", &key).unwrap();
        assert!(armor.starts_with("-----BEGIN SSH SIGNATURE-----\n"));
        assert!(armor.ends_with("-----END SSH SIGNATURE-----\n"));
        assert_eq!(verify_detached(NS, b"hello", &armor, &key.public()), Ok(()));
        assert_eq!(verify_detached(NS, b"hullo", &armor, &key.public()), Err(SignatureError::Mismatch));
        assert_eq!(verify_detached(NS, b"hello", &armor, &other.public()), Err(SignatureError::Key));
        // attacks.md 26: a signature of one kind offered as another.
        assert_eq!(
            verify_detached("pouch.other.v1", b"hello", &armor, &key.public()),
            Err(SignatureError::Namespace { wanted: "pouch.other.v1" })
        );
        for spelling in [armor.replace('\n', "\r\n"), format!("{armor}\n"), format!(" {armor}"), armor.trim().into()] {
            assert_eq!(verify_detached(NS, b"hello", &spelling, &key.public()), Err(SignatureError::Armor));
        }
        let huge = format!("{armor}{}", "A".repeat(2000));
        assert_eq!(verify_detached(NS, b"hello", &huge, &key.public()), Err(SignatureError::Armor));
    }

    #[test]
    fn sha256_and_a_filled_reserved_field_are_outside_the_profile() {
        let key = SigningKey::from_seed(&[1; 32]);
        let data = SshSig::signed_data(NS, HashAlg::Sha256, b"hello").unwrap();
        let raw = Signature::new(Algorithm::Ed25519, key.sign_raw(&data).to_vec()).unwrap();
        let sig = SshSig::new(key.public().key_data(), NS, HashAlg::Sha256, raw).unwrap();
        let armor = sig.to_pem(LineEnding::LF).unwrap();
        let armor = if armor.ends_with('\n') { armor } else { armor + "\n" };
        assert_eq!(verify_detached(NS, b"hello", &armor, &key.public()), Err(SignatureError::Profile));
    }

    // attacks.md 18, 28: every flipped bit of the armor is an error, never a panic.
    #[test]
    fn attack_18_28_any_flipped_bit_of_a_signature_is_refused() {
        let key = SigningKey::from_seed(&[1; 32]);
        let armor = sign_detached(NS, b"hello", &key).unwrap().into_bytes();
        for bit in 0..armor.len() * 8 {
            let mut bad = armor.clone();
            if let Some(byte) = bad.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            if let Ok(text) = std::str::from_utf8(&bad) {
                assert!(verify_detached(NS, b"hello", text, &key.public()).is_err(), "bit {bit}");
            }
        }
    }
}
