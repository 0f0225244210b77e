//! Recipients and identities: their strings, and the stanzas they make and open.

use std::fmt;
use std::str::FromStr;

use age::{Identity as _, Recipient as _};
use age_core::format::{FileKey, Stanza};
use age_core::primitives::bech32_decode;
use age_core::secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::error::{Error, Result};
use super::header::HeaderError;
use super::{hybrid, ssh};

mod file;
mod text;

pub use file::{IdentityFile, LockedIdentity, MAX_IDENTITY_FILE};
pub use text::KeyError;
pub(super) use text::other_ssh_type;
use text::{begins, begins_like_ssh, check_len, check_no_space, check_order, check_text, looks_secret};

/// Length of an X25519 recipient as a string: `age1`, 52 characters for 32 bytes, 6 of checksum.
const X25519_RECIPIENT_LEN: usize = 62;
/// Length of an X25519 identity as a string: `AGE-SECRET-KEY-1`, then as above.
const X25519_IDENTITY_LEN: usize = 74;

/// What kind of key a recipient or an identity is, and with it the stanza that is made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Classic: `age1…`, `AGE-SECRET-KEY-1…`. Whoever keeps a file until there is a large quantum computer opens it.
    X25519,
    /// Hybrid post-quantum, ML-KEM-768 and X25519: `age1pq1…`, `AGE-SECRET-KEY-PQ-1…`.
    Hybrid,
    /// An SSH key: `ssh-ed25519 AAAA…`, and a private key file of OpenSSH. Classic too.
    SshEd25519,
}

impl KeyKind {
    /// Whether what is sealed for such a key stays closed to a quantum computer, as far as is known.
    #[must_use]
    pub const fn is_post_quantum(self) -> bool {
        matches!(self, Self::Hybrid)
    }
}

/// For whom to seal: the public half of an [`Identity`], as the string `age1…` or `age1pq1…`, or
/// the line `ssh-ed25519 AAAA…`, whose comment is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(RecipientKind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum RecipientKind {
    X25519(age::x25519::Recipient),
    Hybrid(hybrid::Recipient),
    Ssh(ssh::Recipient),
}

impl Recipient {
    /// What kind of key it is.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match &self.0 {
            RecipientKind::X25519(_) => KeyKind::X25519,
            RecipientKind::Hybrid(_) => KeyKind::Hybrid,
            RecipientKind::Ssh(_) => KeyKind::SshEd25519,
        }
    }

    /// One stanza with the file key for this recipient (C2SP age, the section on its type).
    pub(super) fn wrap(&self, file_key: &FileKey) -> Result<Stanza> {
        match &self.0 {
            RecipientKind::X25519(recipient) => {
                let (stanzas, _) = recipient.wrap_file_key(file_key).map_err(|_| Error::Library)?;
                stanzas.into_iter().next().ok_or(Error::Library)
            }
            RecipientKind::Hybrid(recipient) => recipient.wrap(file_key),
            RecipientKind::Ssh(recipient) => recipient.wrap(file_key),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            RecipientKind::X25519(recipient) => recipient.fmt(f),
            RecipientKind::Hybrid(recipient) => recipient.fmt(f),
            RecipientKind::Ssh(recipient) => recipient.fmt(f),
        }
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
        if begins_like_ssh(text) {
            return ssh::Recipient::parse(text).map(|recipient| Self(RecipientKind::Ssh(recipient)));
        }
        check_no_space(text)?;
        let (prefix, _) = text.rsplit_once('1').ok_or(KeyError::UnknownPrefix)?;
        let hybrid = prefix.eq_ignore_ascii_case("age1pq");
        if !hybrid && begins(prefix, "age1") {
            return Err(KeyError::Plugin);
        } else if !hybrid && !prefix.eq_ignore_ascii_case("age") {
            return Err(KeyError::UnknownPrefix);
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(KeyError::Uppercase);
        }
        if hybrid {
            check_len(text, hybrid::RECIPIENT_LEN)?;
            let recipient = hybrid::Recipient::parse(text)?;
            check_order(recipient.point())?;
            return Ok(Self(RecipientKind::Hybrid(recipient)));
        }
        check_len(text, X25519_RECIPIENT_LEN)?;
        let recipient: age::x25519::Recipient = text.parse().map_err(|_| KeyError::Checksum)?;
        // Four bits of the last character carry nothing; fingerprints are over the string.
        if recipient.to_string() != text {
            return Err(KeyError::NotCanonical);
        }
        let point = bech32_decode(text, |_| (), |_| Ok(()), |_, bytes| Ok(bytes.collect::<Vec<u8>>()));
        check_order(&point.map_err(|()| KeyError::Checksum)?)?;
        Ok(Self(RecipientKind::X25519(recipient)))
    }
}

/// What opens: a secret key, as the string `AGE-SECRET-KEY-1…` or `AGE-SECRET-KEY-PQ-1…`, or a private key file of
/// OpenSSH without a passphrase. Wiped when dropped. What has a passphrase is an [`IdentityFile`].
///
/// It has no `Debug`, `Display` or `Clone`, so that it does not get where it should not:
///
/// ```compile_fail
/// println!("{:?}", pouch_core::age::Identity::generate());
/// ```
pub struct Identity(IdentityKind);

enum IdentityKind {
    X25519(age::x25519::Identity),
    Hybrid(hybrid::Identity),
    Ssh(Box<ssh::Identity>),
}

impl Identity {
    /// A new hybrid post-quantum identity from the operating system's random bytes.
    ///
    /// # Panics
    ///
    /// When the operating system has no random bytes to give.
    #[must_use]
    pub fn generate() -> Self {
        Self(IdentityKind::Hybrid(hybrid::Identity::generate().expect("random bytes")))
    }

    /// A new classic identity, for whom must be reached with older tools, and for the one-time keys of bundles.
    ///
    /// # Panics
    ///
    /// When the operating system has no random bytes to give.
    #[must_use]
    pub fn generate_x25519() -> Self {
        Self(IdentityKind::X25519(age::x25519::Identity::generate()))
    }

    /// What kind of key it is.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match &self.0 {
            IdentityKind::X25519(_) => KeyKind::X25519,
            IdentityKind::Hybrid(_) => KeyKind::Hybrid,
            IdentityKind::Ssh(_) => KeyKind::SshEd25519,
        }
    }

    /// The public half.
    pub fn recipient(&self) -> Recipient {
        match &self.0 {
            IdentityKind::X25519(identity) => Recipient(RecipientKind::X25519(identity.to_public())),
            IdentityKind::Hybrid(identity) => Recipient(RecipientKind::Hybrid(identity.recipient().clone())),
            IdentityKind::Ssh(identity) => Recipient(RecipientKind::Ssh(identity.recipient().clone())),
        }
    }

    /// The secret, as the string that [`from_str`](Self::from_str) takes.
    pub fn expose_secret_string(&self) -> Zeroizing<String> {
        match &self.0 {
            IdentityKind::X25519(identity) => Zeroizing::new(identity.to_string().expose_secret().to_owned()),
            IdentityKind::Hybrid(identity) => identity.expose_secret_string(),
            IdentityKind::Ssh(identity) => identity.expose_secret_string(),
        }
    }

    /// The file key, if one of the stanzas is for this identity.
    ///
    /// # Errors
    ///
    /// A stanza of this identity's type breaks the rules of its type.
    pub(super) fn unwrap(&self, stanzas: &[Stanza]) -> Result<Option<FileKey>> {
        match &self.0 {
            IdentityKind::X25519(identity) => match identity.unwrap_stanzas(stanzas) {
                None => Ok(None),
                Some(Ok(file_key)) => Ok(Some(file_key)),
                Some(Err(_)) => Err(HeaderError::Stanza.into()),
            },
            IdentityKind::Hybrid(identity) => identity.unwrap(stanzas),
            IdentityKind::Ssh(identity) => identity.unwrap(stanzas),
        }
    }
}

impl FromStr for Identity {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if begins(text, "age1") || begins_like_ssh(text) {
            return Err(KeyError::NotSecret);
        }
        check_text(text)?;
        if ssh::is_pem(text) {
            return match ssh::parse_private(text)? {
                ssh::PrivateFile::Open(identity) => Ok(Self(IdentityKind::Ssh(identity))),
                ssh::PrivateFile::Locked(_) => Err(KeyError::Locked),
            };
        }
        check_no_space(text)?;
        let (prefix, _) = text.rsplit_once('1').ok_or(KeyError::UnknownPrefix)?;
        let hybrid = prefix.eq_ignore_ascii_case("age-secret-key-pq-");
        if begins(prefix, "age-plugin-") {
            return Err(KeyError::Plugin);
        } else if !hybrid && !prefix.eq_ignore_ascii_case("age-secret-key-") {
            return Err(KeyError::UnknownPrefix);
        }
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(KeyError::Lowercase);
        }
        if hybrid {
            check_len(text, hybrid::IDENTITY_LEN)?;
            return Ok(Self(IdentityKind::Hybrid(hybrid::Identity::parse(text)?)));
        }
        check_len(text, X25519_IDENTITY_LEN)?;
        let identity = Self(IdentityKind::X25519(text.parse().map_err(|_| KeyError::Checksum)?));
        if identity.expose_secret_string().as_str() != text {
            return Err(KeyError::NotCanonical);
        }
        Ok(identity)
    }
}

/// The identities in the text of an identity file: one a line, `#` comments and blank lines aside; or one private key
/// of OpenSSH. See [`IdentityFile`] for those with a passphrase.
///
/// # Errors
///
/// The first line that holds anything else, by number; no identity at all; [`KeyError::Locked`].
pub fn parse_identities(text: &str) -> Result<Vec<Identity>> {
    if ssh::is_pem(text) { Ok(vec![text.parse()?]) } else { parse_lines(text) }
}

/// The recipients in the text of a recipients file: one a line, `#` comments and blank lines aside. A `.pub` file of
/// `ssh-keygen` is one.
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

#[cfg(test)]
mod tests;
