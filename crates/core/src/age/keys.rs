//! Recipients and identities: their strings, and the stanzas they make and open.

use std::fmt;
use std::str::FromStr;

use age::{Identity as _, Recipient as _};
use age_core::format::{FileKey, Stanza};
use age_core::primitives::bech32_decode;
use age_core::secrecy::ExposeSecret;
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use zeroize::Zeroizing;

use super::error::{Error, Result};
use super::header::HeaderError;

/// Length of an X25519 recipient as a string: `age1`, 52 characters for 32 bytes, 6 of checksum.
const X25519_RECIPIENT_LEN: usize = 62;
/// Length of an X25519 identity as a string: `AGE-SECRET-KEY-1`, then as above.
const X25519_IDENTITY_LEN: usize = 74;

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
    /// A hybrid post-quantum key (`age1pq1…`), which this version cannot use.
    #[error("hybrid post-quantum keys are not supported yet")]
    Hybrid,
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

/// For whom to seal: the public half of an [`Identity`], as the string `age1…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(RecipientKind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum RecipientKind {
    X25519(age::x25519::Recipient),
}

impl Recipient {
    /// One stanza with the file key for this recipient (C2SP age, "X25519 recipient stanza").
    pub(super) fn wrap(&self, file_key: &FileKey) -> Result<Stanza> {
        let RecipientKind::X25519(recipient) = &self.0;
        let (stanzas, _) = recipient.wrap_file_key(file_key).map_err(|_| Error::Library)?;
        stanzas.into_iter().next().ok_or(Error::Library)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecipientKind::X25519(recipient) = &self.0;
        recipient.fmt(f)
    }
}

impl FromStr for Recipient {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // First of all, for whoever pasted it must learn that it is a secret.
        if looks_secret(text) {
            return Err(KeyError::SecretKey);
        }
        check_text(text)?;
        let (prefix, _) = text.rsplit_once('1').ok_or(KeyError::UnknownPrefix)?;
        if prefix.eq_ignore_ascii_case("age1pq") {
            return Err(KeyError::Hybrid);
        } else if begins(prefix, "age1") {
            return Err(KeyError::Plugin);
        } else if !prefix.eq_ignore_ascii_case("age") {
            return Err(KeyError::UnknownPrefix);
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(KeyError::Uppercase);
        }
        check_len(text, X25519_RECIPIENT_LEN)?;
        let recipient: age::x25519::Recipient = text.parse().map_err(|_| KeyError::Checksum)?;
        // Four bits of the last character carry nothing; fingerprints are over the string.
        if recipient.to_string() != text {
            return Err(KeyError::NotCanonical);
        }
        check_order(text)?;
        Ok(Self(RecipientKind::X25519(recipient)))
    }
}

/// What opens: a secret key, as the string `AGE-SECRET-KEY-1…`. Wiped when dropped.
///
/// It has no `Debug`, `Display` or `Clone`, so that it does not get where it should not:
///
/// ```compile_fail
/// println!("{:?}", pouch_core::age::Identity::generate());
/// ```
pub struct Identity(IdentityKind);

enum IdentityKind {
    X25519(age::x25519::Identity),
}

impl Identity {
    /// A new X25519 identity from the operating system's random bytes.
    pub fn generate() -> Self {
        Self(IdentityKind::X25519(age::x25519::Identity::generate()))
    }

    /// The public half.
    pub fn recipient(&self) -> Recipient {
        let IdentityKind::X25519(identity) = &self.0;
        Recipient(RecipientKind::X25519(identity.to_public()))
    }

    /// The secret, as the string that [`from_str`](Self::from_str) takes.
    pub fn expose_secret_string(&self) -> Zeroizing<String> {
        let IdentityKind::X25519(identity) = &self.0;
        Zeroizing::new(identity.to_string().expose_secret().to_owned())
    }

    /// The file key, if one of the stanzas is for this identity.
    ///
    /// # Errors
    ///
    /// A stanza of this identity's type breaks the rules of its type.
    pub(super) fn unwrap(&self, stanzas: &[Stanza]) -> Result<Option<FileKey>> {
        let IdentityKind::X25519(identity) = &self.0;
        match identity.unwrap_stanzas(stanzas) {
            None => Ok(None),
            Some(Ok(file_key)) => Ok(Some(file_key)),
            Some(Err(_)) => Err(HeaderError::Stanza.into()),
        }
    }
}

impl FromStr for Identity {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if begins(text, "age1") {
            return Err(KeyError::NotSecret);
        }
        check_text(text)?;
        let (prefix, _) = text.rsplit_once('1').ok_or(KeyError::UnknownPrefix)?;
        if prefix.eq_ignore_ascii_case("age-secret-key-pq-") {
            return Err(KeyError::Hybrid);
        } else if begins(prefix, "age-plugin-") {
            return Err(KeyError::Plugin);
        } else if !prefix.eq_ignore_ascii_case("age-secret-key-") {
            return Err(KeyError::UnknownPrefix);
        }
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(KeyError::Lowercase);
        }
        check_len(text, X25519_IDENTITY_LEN)?;
        let identity = Self(IdentityKind::X25519(text.parse().map_err(|_| KeyError::Checksum)?));
        if identity.expose_secret_string().as_str() != text {
            return Err(KeyError::NotCanonical);
        }
        Ok(identity)
    }
}

/// The identities in the text of an identity file: one a line, `#` comments and blank lines aside.
///
/// # Errors
///
/// The first line that holds anything else, by number; or no identity at all.
pub fn parse_identities(text: &str) -> Result<Vec<Identity>> {
    parse_lines(text)
}

/// The recipients in the text of a recipients file: one a line, `#` comments and blank lines aside.
///
/// # Errors
///
/// The first line that holds anything else, by number; or no recipient at all.
pub fn parse_recipients(text: &str) -> Result<Vec<Recipient>> {
    parse_lines(text)
}

fn parse_lines<T: FromStr<Err = KeyError>>(text: &str) -> Result<Vec<T>> {
    let keys = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.starts_with('#') && !line.trim().is_empty())
        .map(|(text, line)| text.parse().map_err(|reason| Error::KeyLine { line, reason }))
        .collect::<Result<Vec<T>>>()?;
    if keys.is_empty() { Err(Error::NoKeys) } else { Ok(keys) }
}

fn begins(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn looks_secret(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    begins(text, "age-secret-key-") || begins(text, "age-plugin-") || text.contains("PRIVATE KEY")
}

/// What no key of any type may have, and the types with a form of their own.
fn check_text(text: &str) -> Result<(), KeyError> {
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
    if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err(KeyError::Whitespace);
    }
    Ok(())
}

fn check_len(text: &str, expected: usize) -> Result<(), KeyError> {
    match text.chars().count() {
        found if found == expected => Ok(()),
        found => Err(KeyError::WrongLength { expected, found }),
    }
}

/// Refuses the points for which every X25519 shared secret is zero (RFC 7748, section 6.1). Sealing for one
/// would give the content away, and the `age` crate panics on it.
fn check_order(recipient: &str) -> Result<(), KeyError> {
    let decoded = bech32_decode(recipient, |_| (), |_| Ok(()), |_, bytes| Ok(bytes.collect::<Vec<u8>>()));
    let point = decoded.map_err(|()| KeyError::Checksum)?;
    // Any scalar will do: clamping makes it a multiple of the cofactor.
    let scalar = PrivateKey::from_private_key(&X25519, &[1; 32]).map_err(|_| KeyError::LowOrder)?;
    agree(&scalar, UnparsedPublicKey::new(&X25519, point), KeyError::LowOrder, |_| Ok(()))
}

#[cfg(test)]
mod tests;
