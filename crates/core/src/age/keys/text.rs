//! What the text of a key must be before anything is decoded, and how it is refused.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};

/// What is wrong with the text of a recipient or an identity. It never repeats any of that text, which may
/// be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// The text begins with U+FEFF, as some editors write it.
    #[error("it begins with a byte order mark")]
    ByteOrderMark,
    /// A space, tab or line break in or around the text.
    #[error("there is white space in it")]
    Whitespace,
    /// A secret key where a recipient belongs.
    #[error("it is a secret key, and a recipient belongs here")]
    SecretKey,
    /// A recipient where a secret key belongs.
    #[error("it is a recipient, and a secret key belongs here")]
    NotSecret,
    /// An SSH key, which this version cannot use.
    #[error("ssh keys are not supported yet")]
    Ssh,
    /// A key of an age plugin.
    #[error("keys of age plugins are not supported")]
    Plugin,
    /// Not the beginning of any key.
    #[error("it does not begin like an age key")]
    UnknownPrefix,
    /// Capitals in a recipient.
    #[error("a recipient is written in lower case")]
    Uppercase,
    /// Small letters in a secret key.
    #[error("a secret key is written in upper case")]
    Lowercase,
    /// Cut, or with something appended.
    #[error("it has {found} characters instead of {expected}")]
    WrongLength {
        /// Characters of such a key.
        expected: usize,
        /// Characters that are there.
        found: usize,
    },
    /// A character is wrong.
    #[error("its checksum is wrong, so it has a typing error")]
    Checksum,
    /// The same key is written otherwise.
    #[error("it is not written in the canonical way")]
    NotCanonical,
    /// A point of low order: whatever is sealed for it, anybody can open.
    #[error("it is a weak key, which anybody could open")]
    LowOrder,
}

pub(super) fn begins(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

pub(super) fn looks_secret(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    begins(text, "age-secret-key-") || begins(text, "age-plugin-") || text.contains("PRIVATE KEY")
}

/// What no key of any type may have.
pub(super) fn check_text(text: &str) -> Result<(), KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.starts_with('\u{feff}') {
        return Err(KeyError::ByteOrderMark);
    }
    // These have spaces in them.
    if ["ssh-", "sk-ssh-", "ecdsa-sha2-"].iter().any(|prefix| begins(text, prefix)) || text.contains("PRIVATE KEY") {
        return Err(KeyError::Ssh);
    }
    Ok(())
}

pub(super) fn check_no_space(text: &str) -> Result<(), KeyError> {
    if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err(KeyError::Whitespace);
    }
    Ok(())
}

pub(super) fn check_len(text: &str, expected: usize) -> Result<(), KeyError> {
    match text.chars().count() {
        found if found == expected => Ok(()),
        found => Err(KeyError::WrongLength { expected, found }),
    }
}

/// Refuses the points for which every X25519 shared secret is zero (RFC 7748, section 6.1). Sealing for one
/// would give the content away, and the `age` crate panics on it.
pub(super) fn check_order(point: &[u8]) -> Result<(), KeyError> {
    // Any scalar will do: clamping makes it a multiple of the cofactor.
    let scalar = PrivateKey::from_private_key(&X25519, &[1; 32]).map_err(|_| KeyError::LowOrder)?;
    agree(&scalar, UnparsedPublicKey::new(&X25519, point), KeyError::LowOrder, |_| Ok(()))
}
