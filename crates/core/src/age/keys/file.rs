//! Identity files: lines of keys, a private key of SSH, and either of them under a passphrase.

use std::io::Read;

use zeroize::Zeroizing;

use super::super::error::{Error, Result};
use super::super::header::Header;
use super::super::passphrase::Passphrase;
use super::super::read::{Source, decrypt};
use super::super::ssh;
use super::{Identity, IdentityKind, KeyError, parse_identities};

/// Most bytes of an identity file.
pub const MAX_IDENTITY_FILE: usize = 1 << 20;

/// What an identity file holds.
pub enum IdentityFile {
    /// Identities, ready to open with.
    Open(Vec<Identity>),
    /// Identities under a passphrase, which must be asked for first.
    Locked(LockedIdentity),
}

impl IdentityFile {
    /// Reads a file of lines (as [`parse_identities`] does), of an SSH private key, or of identities that age sealed
    /// with a passphrase, armored or not. Nothing is computed with a passphrase yet.
    ///
    /// # Errors
    ///
    /// Whatever is none of these, by the reason; more than [`MAX_IDENTITY_FILE`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_IDENTITY_FILE {
            return Err(Error::LongKeyFile { limit: MAX_IDENTITY_FILE });
        }
        if bytes.starts_with(b"age-encryption.org/") || bytes.trim_ascii_start().starts_with(b"-----BEGIN AGE ") {
            return Ok(Self::Locked(LockedIdentity(Lock::Age(bytes.to_vec()))));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::Key(KeyError::NotText))?;
        if !ssh::is_pem(text) {
            return Ok(Self::Open(parse_identities(text)?));
        }
        Ok(match ssh::parse_private(text)? {
            ssh::PrivateFile::Open(identity) => Self::Open(vec![Identity(IdentityKind::Ssh(identity))]),
            ssh::PrivateFile::Locked(locked) => Self::Locked(LockedIdentity(Lock::Ssh(locked))),
        })
    }
}

/// Identities under a passphrase.
pub struct LockedIdentity(Lock);

enum Lock {
    /// An age file, sealed with the passphrase.
    Age(Vec<u8>),
    /// A private key of SSH.
    Ssh(ssh::Locked),
}

impl LockedIdentity {
    /// Whether it may open `input`, an age file, as far as that shows without the passphrase: a file names the keys of SSH
    /// that it is for. Reads the header.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the header, or with the public half of the key.
    pub fn may_open(&self, input: impl Read) -> Result<bool> {
        let header = Header::read(&mut Source::recognise(input)?)?;
        match &self.0 {
            Lock::Ssh(locked) => locked.is_named(&header.stanzas),
            Lock::Age(_) => Ok(true),
        }
    }

    /// Opens them.
    ///
    /// # Errors
    ///
    /// [`Error::NotUnlocked`] for a wrong passphrase, which in an SSH key looks like damage; more work than the
    /// passphrase allows; and, once it is open, what [`parse_identities`] reports.
    pub fn unlock(&self, passphrase: &Passphrase) -> Result<Vec<Identity>> {
        let sealed = match &self.0 {
            Lock::Ssh(locked) => {
                return Ok(vec![Identity(IdentityKind::Ssh(Box::new(locked.unlock(passphrase.expose_secret())?)))]);
            }
            Lock::Age(sealed) => sealed,
        };
        let reader = decrypt(passphrase, sealed.as_slice()).map_err(|error| match error {
            Error::NoMatch => Error::NotUnlocked,
            other => other,
        })?;
        // What is inside is shorter than the file, so no copy stays behind in memory that was given back.
        let mut text = Zeroizing::new(Vec::with_capacity(sealed.len() + 1));
        reader.take(sealed.len() as u64).read_to_end(&mut text)?;
        parse_identities(std::str::from_utf8(&text).map_err(|_| Error::Key(KeyError::NotText))?)
    }
}
