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
    /// An SSH key of another type than ssh-ed25519.
    #[error("it is an ssh key of type {kind}; of ssh keys only ssh-ed25519 can be used")]
    SshType {
        /// The type, as OpenSSH names it.
        kind: &'static str,
    },
    /// The line of an `ssh-ed25519` key that does not hold one.
    #[error("it is not a complete ssh-ed25519 public key")]
    SshLine,
    /// An SSH private key that is damaged, or not in OpenSSH's own format.
    #[error("it is not a readable private key in the format of OpenSSH")]
    SshPrivate,
    /// A private key file whose passphrase must be asked for first.
    #[error("it is locked with a passphrase")]
    Locked,
    /// A private key file that asks for more work than is allowed; nothing was computed.
    #[error("its passphrase needs {rounds} rounds of bcrypt, and {max} is the most that is allowed")]
    ExcessiveRounds {
        /// Rounds of bcrypt-pbkdf that the file asks for.
        rounds: u32,
        /// The most that is allowed.
        max: u32,
    },
    /// Bytes that are no text.
    #[error("it is not text")]
    NotText,
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

/// Types of SSH keys that are refused by name: RSA and ECDSA would need more cryptography than all else here, a
/// security key cannot decrypt, and a certificate is not a key.
const OTHER_SSH_TYPES: [&str; 13] = [
    "ssh-rsa-cert-v01@openssh.com",
    "ssh-rsa",
    "ssh-dss-cert-v01@openssh.com",
    "ssh-dss",
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
];

/// The type of an SSH key that cannot be used, by its exact name.
pub(in crate::age) fn other_ssh_type(name: &str) -> Option<&'static str> {
    OTHER_SSH_TYPES.into_iter().find(|known| *known == name)
}

pub(super) fn begins(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Public keys of SSH, which have spaces in them.
pub(super) fn begins_like_ssh(text: &str) -> bool {
    ["ssh-", "sk-ssh-", "sk-ecdsa-", "ecdsa-sha2-"].iter().any(|prefix| text.starts_with(prefix))
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
