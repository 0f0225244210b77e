//! The private keys of one party: made, stored (sealed with a passphrase or not), opened.

use std::io::{Read as _, Write as _};

use data_encoding::HEXLOWER;
use pouch_core::age::{self, Passphrase};
use pouch_statement::{
    Detached, Fingerprint, RandomError, Signed, SigningKey, Statement, StatementError, verify_detached,
};
use zeroize::Zeroizing;

use crate::home::{self, Home, HomeError};

const HEADER: &str = "# pouch identity v1";
const SIGNING_KEY: &str = "# signing-key: ";
const SEALED: &str = "identity.age";
const PLAIN: &str = "identity";
const DEVICE: &str = "device.key";
const NEXT_DEVICE: &str = "device.next";
/// Keys have about 200 bytes, and a file those of [`MAX_KEYS`] at most; a longer one is not ours.
pub(crate) const MAX_IDENTITY: u64 = 16 << 10;
/// The present keys and those before.
const MAX_KEYS: usize = 64;

/// Why an identity could not be opened or stored.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody yet.
    #[error("no identity here yet")]
    Missing,
    /// Somebody already.
    #[error("there is an identity here already")]
    Exists,
    /// A rotation more than there is room for.
    #[error("an identity has had {MAX_KEYS} keys at most; begin a new one")]
    TooMany,
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
    /// Those of before, which open what was sealed then; and those that a rotation made that is not finished.
    others: Vec<Keys>,
}

/// A pair of keys that are not the present ones.
struct Keys {
    age: age::Identity,
    signing: SigningKey,
}

impl Identity {
    /// Fresh keys: what is sealed for them is safe from quantum computers too.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self { age: age::Identity::generate(), signing: SigningKey::generate()?, others: Vec::new() })
    }

    /// Fresh keys of which the one that opens is classic, for tools that know no other.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate_classic() -> Result<Self, IdentityError> {
        Ok(Self { age: age::Identity::generate_x25519(), signing: SigningKey::generate()?, others: Vec::new() })
    }

    /// The identity file's text (docs/format.md, "Identity file"), which is what an agent keeps.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_IDENTITY as usize));
        text.push_str(HEADER);
        for (age, signing) in self.each() {
            let seed = Zeroizing::new(HEXLOWER.encode(signing.to_seed().as_ref()));
            let age = age.expose_secret_string();
            for piece in ["\n", SIGNING_KEY, seed.as_str(), "\n", age.as_str()] {
                text.push_str(piece);
            }
        }
        text.push('\n');
        text
    }

    /// All keys, the present ones first.
    fn each(&self) -> impl Iterator<Item = (&age::Identity, &SigningKey)> {
        std::iter::once((&self.age, &self.signing)).chain(self.others.iter().map(|keys| (&keys.age, &keys.signing)))
    }

    /// All keys that open, the present one first.
    #[must_use]
    pub fn opening(&self) -> Vec<&age::Identity> {
        self.each().map(|(age, _)| age).collect()
    }

    /// The keys of this fingerprint, present or not.
    pub(crate) fn keys_of(&self, fingerprint: &Fingerprint) -> Option<(&age::Identity, &SigningKey)> {
        self.each().find(|(age, signing)| fingerprint_of(age, signing) == *fingerprint)
    }

    /// Whether these are, or were, my keys.
    pub(crate) fn is_or_was(&self, fingerprint: &Fingerprint) -> bool {
        self.keys_of(fingerprint).is_some()
    }

    /// Of all these keys, those at `present` first; `None` if there are not so many.
    fn of(mut all: Vec<Keys>, present: usize) -> Option<Self> {
        if present >= all.len() {
            return None;
        }
        let Keys { age, signing } = all.remove(present);
        Some(Self { age, signing, others: all })
    }

    /// With the keys of this fingerprint as the present ones; `None` if it has no such keys.
    pub(crate) fn beginning_with(self, fingerprint: &Fingerprint) -> Option<Self> {
        let at = self.each().position(|(age, signing)| fingerprint_of(age, signing) == *fingerprint)?;
        let mut all = vec![Keys { age: self.age, signing: self.signing }];
        all.extend(self.others);
        Self::of(all, at)
    }

    /// With the keys of `new` beside its own.
    pub(crate) fn with_keys_of(mut self, new: Self) -> Result<Self, IdentityError> {
        self.others.push(Keys { age: new.age, signing: new.signing });
        if self.others.len() < MAX_KEYS { Ok(self) } else { Err(IdentityError::TooMany) }
    }

    /// A statement that I signed, whichever my key was then.
    pub(crate) fn verify<T: Statement>(&self, statement: &Detached) -> Result<Signed<T>, StatementError> {
        let Detached { statement, signature } = statement;
        self.first(|_, key| Signed::verify(statement.as_bytes(), signature, &key.public()))
    }

    /// Whether I signed these bytes, whichever my key was then.
    pub(crate) fn has_signed(&self, namespace: &'static str, bytes: &[u8], armor: &str) -> bool {
        self.first(|_, key| verify_detached(namespace, bytes, armor, &key.public())).is_ok()
    }

    /// Opens what was sealed to me, whichever my key was then.
    pub(crate) fn open_part(&self, sealed: &[u8], plain: &mut Vec<u8>) -> age::Result<()> {
        self.first(|age, _| age::open_part(age, sealed, plain))
    }

    /// What `with` makes of the first keys with which it succeeds; the error is that of the present ones.
    pub(crate) fn first<T, E>(
        &self,
        mut with: impl FnMut(&age::Identity, &SigningKey) -> Result<T, E>,
    ) -> Result<T, E> {
        let error = match with(&self.age, &self.signing) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        self.others.iter().find_map(|keys| with(&keys.age, &keys.signing).ok()).ok_or(error)
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != HEADER {
            return None;
        }
        let mut all = Vec::new();
        while let Some(line) = lines.next() {
            let hex = line.strip_prefix(SIGNING_KEY)?;
            let bytes = Zeroizing::new(HEXLOWER.decode(hex.as_bytes()).ok()?);
            let seed: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().ok()?);
            all.push(Keys { age: lines.next()?.parse().ok()?, signing: SigningKey::from_seed(&seed) });
        }
        if all.len() > MAX_KEYS { None } else { Self::of(all, 0) }
    }

    /// Stores the identity, sealed with a passphrase if one is given. Never replaces another.
    pub(crate) fn store(&self, home: &Home, passphrase: Option<&Passphrase>) -> Result<(), IdentityError> {
        if is_stored(home) {
            return Err(IdentityError::Exists);
        }
        let (name, bytes) = self.at_rest(passphrase)?;
        Ok(home::create_private(&home.config(name), &bytes)?)
    }

    /// Stores the identity in place of what is stored, which it must hold, under the same passphrase.
    pub(crate) fn replace(&self, home: &Home, passphrase: Option<&Passphrase>) -> Result<(), IdentityError> {
        if is_protected(home) != Some(passphrase.is_some()) {
            return Err(IdentityError::Missing);
        }
        let (name, bytes) = self.at_rest(passphrase)?;
        Ok(home::write_private(&home.config(name), &bytes)?)
    }

    /// Stores the identity in a home that is being restored, in place of what a restore that was cut off left.
    pub(crate) fn restore(&self, home: &Home, passphrase: Option<&Passphrase>) -> Result<(), IdentityError> {
        let (name, bytes) = self.at_rest(passphrase)?;
        let other = home.config(if passphrase.is_some() { PLAIN } else { SEALED });
        if other.exists() {
            let failed = |source| HomeError::Io { doing: "cannot remove", path: other.clone(), source };
            std::fs::remove_file(&other).map_err(failed)?;
        }
        Ok(home::write_private(&home.config(name), &bytes)?)
    }

    /// The file's name and content.
    fn at_rest(&self, passphrase: Option<&Passphrase>) -> Result<(&'static str, Zeroizing<Vec<u8>>), IdentityError> {
        let text = self.to_text();
        let Some(passphrase) = passphrase else {
            return Ok((PLAIN, Zeroizing::new(text.as_bytes().to_vec())));
        };
        let mut writer = age::encrypt(passphrase, Vec::new())?;
        let sealed = writer.write_all(text.as_bytes()).and_then(|()| writer.finish());
        Ok((SEALED, Zeroizing::new(sealed.map_err(age::Error::Io)?)))
    }

    /// Opens the stored identity. `ask` is called once, and only if there is a passphrase to ask for.
    ///
    /// # Errors
    /// No identity, a wrong passphrase, or a damaged file.
    pub fn unlock(home: &Home, ask: impl FnOnce() -> Result<Passphrase, IdentityError>) -> Result<Self, IdentityError> {
        match Stored::read(home)? {
            Stored::Plain(text) => Self::from_bytes(&text),
            Stored::Sealed(sealed) => Self::unseal(&sealed, &ask()?),
        }
    }

    /// As [`Identity::unlock`], with the passphrase if there is one.
    pub(crate) fn unlock_with(home: &Home, passphrase: Option<&Passphrase>) -> Result<Self, IdentityError> {
        match (Stored::read(home)?, passphrase) {
            (Stored::Plain(text), None) => Self::from_bytes(&text),
            (Stored::Sealed(sealed), Some(passphrase)) => Self::unseal(&sealed, passphrase),
            _ => Err(IdentityError::Locked),
        }
    }

    fn unseal(sealed: &[u8], passphrase: &Passphrase) -> Result<Self, IdentityError> {
        let reader = age::decrypt(passphrase, sealed).map_err(|_| IdentityError::Locked)?;
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_IDENTITY as usize));
        reader.take(MAX_IDENTITY).read_to_end(&mut text).map_err(|_| IdentityError::Locked)?;
        Self::from_bytes(&text)
    }

    fn from_bytes(text: &[u8]) -> Result<Self, IdentityError> {
        std::str::from_utf8(text).ok().and_then(Self::from_text).ok_or(IdentityError::Damaged)
    }
}

/// An identity file as it lies there.
enum Stored {
    Plain(Zeroizing<Vec<u8>>),
    Sealed(Vec<u8>),
}

impl Stored {
    fn read(home: &Home) -> Result<Self, IdentityError> {
        if let Some(bytes) = home::read(&home.config(PLAIN))? {
            return Ok(Self::Plain(Zeroizing::new(bytes)));
        }
        home::read(&home.config(SEALED))?.map(Self::Sealed).ok_or(IdentityError::Missing)
    }
}

/// The fingerprint of a pair of keys.
pub(crate) fn fingerprint_of(age: &age::Identity, signing: &SigningKey) -> Fingerprint {
    Fingerprint::of(&age.recipient().to_string(), &signing.public())
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

/// Whether there is a device key.
pub(crate) fn has_device(home: &Home) -> Result<bool, IdentityError> {
    Ok(read_device(home, DEVICE)?.is_some())
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

    #[test]
    fn keys_of_before_stay_and_whichever_is_wanted_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path())).unwrap();
        home.create().unwrap();
        let first = |identity: &Identity| fingerprint_of(&identity.age, &identity.signing);
        let (old, new) = (Identity::generate_classic().unwrap(), Identity::generate().unwrap());
        let (before, after) = (first(&old), first(&new));
        old.store(&home, None).unwrap();
        let sealed = age::seal_to_vec(&old.age.recipient(), b"of then").unwrap();
        old.with_keys_of(new).unwrap().replace(&home, None).unwrap();
        for (wanted, other) in [(before, after), (after, before)] {
            let identity = Identity::unlock_with(&home, None).unwrap().beginning_with(&wanted).unwrap();
            assert!(first(&identity) == wanted && identity.is_or_was(&other));
            let mut plain = Vec::new();
            identity.open_part(&sealed, &mut plain).unwrap();
            assert_eq!(plain, b"of then");
        }
        let ring = Identity::unlock_with(&home, None).unwrap();
        assert!(ring.beginning_with(&Fingerprint::from_bytes([1; 32])).is_none());
        // A passphrase neither comes nor goes by the way.
        let ring = Identity::unlock_with(&home, None).unwrap();
        assert!(ring.replace(&home, Some(&passphrase("x"))).is_err());
        assert!(Identity::unlock_with(&home, Some(&passphrase("x"))).is_err());
    }

    #[test]
    fn a_full_ring_is_refused_before_it_is_stored() {
        let mut ring = Identity::generate_classic().unwrap();
        for _ in 1..MAX_KEYS {
            ring = ring.with_keys_of(Identity::generate_classic().unwrap()).unwrap();
        }
        let text = ring.to_text();
        assert!(text.len() as u64 <= MAX_IDENTITY && Identity::from_text(&text).is_some());
        assert!(matches!(ring.with_keys_of(Identity::generate().unwrap()), Err(IdentityError::TooMany)));
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
