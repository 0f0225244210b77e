//! The private keys of one party: made, stored (sealed with a passphrase or not), opened.

use std::io::{Read as _, Write as _};

use data_encoding::HEXLOWER;
use pouch_core::age::{self, Passphrase};
use pouch_statement::{RandomError, SigningKey};
use zeroize::Zeroizing;

use crate::home::{self, Home, HomeError};

const HEADER: &str = "# pouch identity v1";
const SIGNING_KEY: &str = "# signing-key: ";
const SEALED: &str = "identity.age";
const PLAIN: &str = "identity";
const DEVICE: &str = "device.key";
const NEXT_DEVICE: &str = "device.next";
/// An identity file has about 200 bytes; a longer one is not ours.
pub(crate) const MAX_IDENTITY: u64 = 4096;

/// Why an identity could not be opened or stored.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody yet.
    #[error("no identity here yet")]
    Missing,
    /// Somebody already.
    #[error("there is an identity here already")]
    Exists,
    /// The passphrase does not open it, or it is damaged; which of the two cannot be told without helping a guesser.
    #[error("the passphrase does not open the identity, or the identity file is damaged")]
    Locked,
    /// The file opens, but what is in it is not an identity.
    #[error("the identity file is damaged")]
    Damaged,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The age library failed.
    #[error(transparent)]
    Age(#[from] age::Error),
    /// The file system failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Whoever was asked for the passphrase gave none.
    #[error("{0}")]
    NoPassphrase(String),
}

/// The private keys: an age identity that opens, an Ed25519 key that signs. No Debug, no Clone; zeroized when dropped.
pub struct Identity {
    /// Opens envelopes.
    pub age: age::Identity,
    /// Signs statements.
    pub signing: SigningKey,
}

impl Identity {
    /// Fresh keys: what is sealed for them is safe from quantum computers too.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self { age: age::Identity::generate(), signing: SigningKey::generate()? })
    }

    /// Fresh keys of which the one that opens is classic, for tools that know no other.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate_classic() -> Result<Self, IdentityError> {
        Ok(Self { age: age::Identity::generate_x25519(), signing: SigningKey::generate()? })
    }

    /// The identity file's text (docs/format.md, "Identity file"), which is what an agent keeps.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(HEXLOWER.encode(self.signing.to_seed().as_ref()));
        let age = self.age.expose_secret_string();
        Zeroizing::new(format!("{HEADER}\n{SIGNING_KEY}{}\n{}\n", *seed, *age))
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != HEADER {
            return None;
        }
        let hex = lines.next()?.strip_prefix(SIGNING_KEY)?;
        let bytes = Zeroizing::new(HEXLOWER.decode(hex.as_bytes()).ok()?);
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().ok()?);
        let age = lines.next()?.parse().ok()?;
        if lines.next().is_some() {
            return None;
        }
        Some(Self { age, signing: SigningKey::from_seed(&seed) })
    }

    /// Stores the identity, sealed with a passphrase if one is given. Never replaces another.
    pub(crate) fn store(&self, home: &Home, passphrase: Option<&Passphrase>) -> Result<(), IdentityError> {
        if is_stored(home) {
            return Err(IdentityError::Exists);
        }
        let text = self.to_text();
        match passphrase {
            None => home::create_private(&home.config(PLAIN), text.as_bytes())?,
            Some(passphrase) => {
                let mut writer = age::encrypt(passphrase, Vec::new())?;
                let sealed = writer.write_all(text.as_bytes()).and_then(|()| writer.finish());
                home::create_private(&home.config(SEALED), &sealed.map_err(age::Error::Io)?)?;
            }
        }
        Ok(())
    }

    /// Opens the stored identity. `ask` is called once, and only if there is a passphrase to ask for.
    ///
    /// # Errors
    /// No identity, a wrong passphrase, or a damaged file.
    pub fn unlock(home: &Home, ask: impl FnOnce() -> Result<Passphrase, IdentityError>) -> Result<Self, IdentityError> {
        let text = match home::read(&home.config(PLAIN))? {
            Some(bytes) => Zeroizing::new(bytes),
            None => {
                let sealed = home::read(&home.config(SEALED))?.ok_or(IdentityError::Missing)?;
                let passphrase = ask()?;
                let reader = age::decrypt(&passphrase, sealed.as_slice()).map_err(|_| IdentityError::Locked)?;
                let mut text = Zeroizing::new(Vec::with_capacity(MAX_IDENTITY as usize));
                reader.take(MAX_IDENTITY).read_to_end(&mut text).map_err(|_| IdentityError::Locked)?;
                text
            }
        };
        std::str::from_utf8(&text).ok().and_then(Self::from_text).ok_or(IdentityError::Damaged)
    }
}

/// Whether an identity is stored, and if so, whether a passphrase protects it.
#[must_use]
pub fn is_protected(home: &Home) -> Option<bool> {
    if home.config(PLAIN).exists() {
        Some(false)
    } else if home.config(SEALED).exists() {
        Some(true)
    } else {
        None
    }
}

fn is_stored(home: &Home) -> bool {
    is_protected(home).is_some()
}

/// Stores the device key, which signs requests and opens nothing: kept without a passphrase so that polling asks none.
pub(crate) fn store_device(home: &Home, key: &SigningKey) -> Result<(), IdentityError> {
    Ok(home::create_private(&home.config(DEVICE), device_text(key).as_bytes())?)
}

fn device_text(key: &SigningKey) -> Zeroizing<String> {
    Zeroizing::new(HEXLOWER.encode(key.to_seed().as_ref()) + "\n")
}

/// The device key.
pub(crate) fn device(home: &Home) -> Result<SigningKey, IdentityError> {
    read_device(home, DEVICE)?.ok_or(IdentityError::Missing)
}

/// The device key that is going to take the place of the present one. Stored before anybody hears of it, so that a rotation
/// that was cut off goes on with the same key.
pub(crate) fn next_device(home: &Home) -> Result<SigningKey, IdentityError> {
    if let Some(key) = read_device(home, NEXT_DEVICE)? {
        return Ok(key);
    }
    let key = SigningKey::generate()?;
    home::create_private(&home.config(NEXT_DEVICE), device_text(&key).as_bytes())?;
    Ok(key)
}

/// Puts the next device key in the place of the present one.
pub(crate) fn use_next_device(home: &Home) -> Result<(), IdentityError> {
    let text = device_text(&read_device(home, NEXT_DEVICE)?.ok_or(IdentityError::Missing)?);
    home::write_private(&home.config(DEVICE), text.as_bytes())?;
    forget_next_device(home);
    Ok(())
}

/// The next device key is good for nothing, or is in its place.
pub(crate) fn forget_next_device(home: &Home) {
    let _ = std::fs::remove_file(home.config(NEXT_DEVICE));
}

fn read_device(home: &Home, name: &str) -> Result<Option<SigningKey>, IdentityError> {
    let Some(bytes) = home::read(&home.config(name))? else { return Ok(None) };
    let text = Zeroizing::new(bytes);
    let bytes = Zeroizing::new(HEXLOWER.decode(text.trim_ascii()).map_err(|_| IdentityError::Damaged)?);
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().map_err(|_| IdentityError::Damaged)?);
    Ok(Some(SigningKey::from_seed(&seed)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned())).with_work_factor(2).unwrap()
    }

    #[test]
    fn stored_and_opened_with_and_without_a_passphrase() {
        for (phrase, classic) in [(None, false), (Some("correct horse"), false), (None, true)] {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::open(Some(folder.path())).unwrap();
            home.create().unwrap();
            assert_eq!(is_protected(&home), None);
            let identity = if classic { Identity::generate_classic() } else { Identity::generate() }.unwrap();
            assert_eq!(identity.age.kind().is_post_quantum(), !classic);
            identity.store(&home, phrase.map(passphrase).as_ref()).unwrap();
            assert_eq!(is_protected(&home), Some(phrase.is_some()));
            assert!(matches!(identity.store(&home, None), Err(IdentityError::Exists)));
            let again = Identity::unlock(&home, || Ok(passphrase(phrase.unwrap()))).unwrap();
            assert_eq!(again.signing.public(), identity.signing.public());
            assert_eq!(again.age.recipient(), identity.age.recipient());
        }
    }

    // attacks.md 38: a wrong passphrase and a corrupt file are one error.
    #[test]
    fn attack_38_wrong_passphrase_and_corrupt_file_look_alike() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path())).unwrap();
        home.create().unwrap();
        Identity::generate().unwrap().store(&home, Some(&passphrase("right"))).unwrap();
        let wrong = Identity::unlock(&home, || Ok(passphrase("wrong"))).err().unwrap().to_string();
        let path = home.config(SEALED);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let corrupt = Identity::unlock(&home, || Ok(passphrase("right"))).err().unwrap().to_string();
        assert_eq!(wrong, corrupt);
    }
}
