//! SSH keys of type ssh-ed25519, to seal for and to open with, as the age command does it.
//!
//! An Ed25519 key is a point of the same curve that X25519 computes on, so it is converted. The stanza names the key
//! with four bytes of its digest, so unlike age's own keys it is not anonymous. Files of private keys are read by the
//! `ssh-key` crate. No other type is taken: RSA would bring in a library with an open advisory.

use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_core::secrecy::ExposeSecret;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use hkdf::Hkdf;
use pouch_statement::PublicKey;
use sha2::{Digest, Sha256};
use ssh_key::{Kdf, LineEnding, PrivateKey};
use x25519_dalek::{PublicKey as Point, StaticSecret, x25519};
use zeroize::{Zeroize, Zeroizing};

use super::aead::{Aead, KEY_LEN, NONCE_LEN, TAG_LEN};
use super::error::{Error, Result};
use super::header::HeaderError;
use super::keys::{KeyError, other_ssh_type};

/// First argument of the stanza, and the type of the key (RFC 8709).
const STANZA_TAG: &str = "ssh-ed25519";
/// Most rounds of bcrypt-pbkdf that are computed: `ssh-keygen` takes 16 or 24 if nobody asks for more.
pub(super) const MAX_ROUNDS: u32 = 4096;

/// What stands in front of the 32 bytes of a key in its wire form (RFC 8709, section 4).
const WIRE_PREFIX: &[u8; 19] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";
const LABEL: &[u8] = b"age-encryption.org/v1/ssh-ed25519";
/// The wrapping key is used once, for the share is fresh.
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];
const PEM_BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const PEM_END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// Most characters of a private key file; one of type ssh-ed25519 has some 400.
const MAX_PEM: usize = 16 * 1024;

/// The public half, as the line `ssh-ed25519 AAAA…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipient {
    key: PublicKey,
    /// The same point as X25519 knows it.
    point: [u8; 32],
}

impl Recipient {
    fn new(key: PublicKey) -> Result<Self, KeyError> {
        let edwards = ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| KeyError::NotCanonical)?;
        Ok(Self { key, point: edwards.to_montgomery().to_bytes() })
    }

    /// From a line as in `id_ed25519.pub`: type, key, and perhaps a comment, which is passed over.
    pub(super) fn parse(line: &str) -> Result<Self, KeyError> {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next().unwrap_or_default();
        if let Some(kind) = other_ssh_type(kind) {
            return Err(KeyError::SshType { kind });
        }
        if kind != STANZA_TAG || line.chars().any(char::is_control) || line.starts_with(char::is_whitespace) {
            return Err(KeyError::SshLine);
        }
        let wire = BASE64_STANDARD.decode(words.next().unwrap_or_default()).map_err(|_| KeyError::SshLine)?;
        let bytes = wire.strip_prefix(WIRE_PREFIX).and_then(|key| key.try_into().ok()).ok_or(KeyError::SshLine)?;
        let key = PublicKey::from_bytes(bytes).map_err(|error| match error {
            pouch_statement::KeyError::Weak => KeyError::LowOrder,
            _ => KeyError::NotCanonical,
        })?;
        Self::new(key)
    }

    fn wire(&self) -> [u8; 51] {
        let mut wire = [0; 51];
        let pieces = WIRE_PREFIX.iter().chain(self.key.as_bytes());
        wire.iter_mut().zip(pieces).for_each(|(to, from)| *to = *from);
        wire
    }

    /// The four bytes by which a stanza says whose it is.
    fn tag(&self) -> String {
        let digest = Sha256::digest(self.wire());
        BASE64_STANDARD_NO_PAD.encode(digest.get(..4).unwrap_or_default())
    }

    /// One stanza with the file key for this recipient.
    pub(super) fn wrap(&self, file_key: &FileKey) -> Result<Stanza> {
        let mut drawn = Zeroizing::new([0; 32]);
        getrandom::fill(drawn.as_mut()).map_err(|_| Error::Random)?;
        let ephemeral = StaticSecret::from(*drawn);
        let share = Point::from(&ephemeral).to_bytes();
        let shared = ephemeral.diffie_hellman(&Point::from(self.point));
        if !shared.was_contributory() {
            return Err(KeyError::LowOrder.into());
        }
        let mut body = vec![0; FILE_KEY_BYTES + TAG_LEN];
        self.wrap_key(&share, shared.as_bytes())?.seal(NONCE, file_key.expose_secret(), &mut body)?;
        Ok(Stanza { tag: STANZA_TAG.to_owned(), args: vec![self.tag(), BASE64_STANDARD_NO_PAD.encode(share)], body })
    }

    /// The shared secret is multiplied with a number that depends on the whole SSH key, then hashed with both shares.
    fn wrap_key(&self, share: &[u8; 32], shared: &[u8; 32]) -> Result<Aead> {
        let mut tweak = Zeroizing::new([0; 32]);
        let hkdf = Hkdf::<Sha256>::new(Some(&self.wire()), &[]);
        hkdf.expand(LABEL, tweak.as_mut()).map_err(|_| Error::Library)?;
        let tweaked = Zeroizing::new(x25519(*tweak, *shared));
        let salt = [share.as_slice(), &self.point].concat();
        let mut key = Zeroizing::new([0; KEY_LEN]);
        let hkdf = Hkdf::<Sha256>::new(Some(&salt), tweaked.as_slice());
        hkdf.expand(LABEL, key.as_mut()).map_err(|_| Error::Library)?;
        Aead::new(&key)
    }
}

/// The line without a comment.
impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

/// The private half.
pub(super) struct Identity {
    scalar: Zeroizing<[u8; 32]>,
    recipient: Recipient,
    pem: Zeroizing<String>,
}

impl Identity {
    fn new(key: &PrivateKey) -> Result<Self, KeyError> {
        let pair = key.key_data().ed25519().ok_or(KeyError::SshPrivate)?;
        let seed = Zeroizing::new(pair.private.to_bytes());
        let secret = ed25519_dalek::SigningKey::from_bytes(&seed);
        // A file may hold a public key that is not the private one's.
        if secret.verifying_key().as_bytes() != pair.public.as_ref() {
            return Err(KeyError::SshPrivate);
        }
        let key_bytes = PublicKey::from_bytes(secret.verifying_key().as_bytes()).map_err(|_| KeyError::SshPrivate)?;
        let pem = key.to_openssh(LineEnding::LF).map_err(|_| KeyError::SshPrivate)?;
        let mut scalar = secret.to_scalar_bytes();
        let identity = Self { scalar: Zeroizing::new(scalar), recipient: Recipient::new(key_bytes)?, pem };
        scalar.zeroize();
        Ok(identity)
    }

    /// The public half.
    pub(super) fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The key in the format of OpenSSH, without a passphrase.
    pub(super) fn expose_secret_string(&self) -> Zeroizing<String> {
        self.pem.clone()
    }

    /// The file key, if one of the stanzas is for this identity.
    pub(super) fn unwrap(&self, stanzas: &[Stanza]) -> Result<Option<FileKey>> {
        let tag = self.recipient.tag();
        for stanza in stanzas.iter().filter(|stanza| stanza.tag == STANZA_TAG) {
            let (whose, share, body) = parse_stanza(stanza)?;
            if whose != tag {
                continue;
            }
            let secret = StaticSecret::from(*self.scalar);
            let shared = secret.diffie_hellman(&Point::from(share));
            if !shared.was_contributory() {
                return Err(HeaderError::Stanza.into());
            }
            let key = self.recipient.wrap_key(&share, shared.as_bytes())?;
            // Four bytes may be another key's by chance.
            let file_key =
                FileKey::try_init_with_mut(|plain| if key.open(NONCE, body, plain) { Ok(()) } else { Err(()) });
            if let Ok(file_key) = file_key {
                return Ok(Some(file_key));
            }
        }
        Ok(None)
    }
}

type Parsed<'a> = (&'a str, [u8; 32], &'a [u8; FILE_KEY_BYTES + TAG_LEN]);

/// Four bytes of a digest, a share, a wrapped file key, each in its only form.
fn parse_stanza(stanza: &Stanza) -> Result<Parsed<'_>> {
    let [whose, share] = stanza.args.as_slice() else {
        return Err(HeaderError::Stanza.into());
    };
    let tag = BASE64_STANDARD_NO_PAD.decode(whose).ok().and_then(|tag| <[u8; 4]>::try_from(tag).ok());
    let share = BASE64_STANDARD_NO_PAD.decode(share).ok().and_then(|share| share.try_into().ok());
    let body = stanza.body.as_slice().try_into().ok();
    let (_, (share, body)) = tag.zip(share.zip(body)).ok_or(HeaderError::Stanza)?;
    Ok((whose, share, body))
}

/// A private key file, read.
pub(super) enum PrivateFile {
    /// It has no passphrase.
    Open(Box<Identity>),
    /// It has one.
    Locked(Locked),
}

/// A private key under its passphrase.
pub(super) struct Locked(Box<PrivateKey>);

impl Locked {
    /// Opens it. A wrong passphrase and damage look alike.
    pub(super) fn unlock(&self, passphrase: &str) -> Result<Identity> {
        let key = self.0.decrypt(passphrase).map_err(|_| Error::NotUnlocked)?;
        Ok(Identity::new(&key)?)
    }

    /// Whether one of the stanzas names this key, by four bytes: the public half stands in the clear.
    pub(super) fn is_named(&self, stanzas: &[Stanza]) -> Result<bool> {
        let public = self.0.public_key().key_data().ed25519().ok_or(KeyError::SshPrivate)?;
        let key = PublicKey::from_bytes(public.as_ref()).map_err(|_| KeyError::SshPrivate)?;
        let tag = Recipient::new(key)?.tag();
        for stanza in stanzas.iter().filter(|stanza| stanza.tag == STANZA_TAG) {
            if parse_stanza(stanza)?.0 == tag {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether the text is, or should be, a private key file in some PEM form.
pub(super) fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN ") && text.contains("PRIVATE KEY-----")
}

/// Reads a private key file in the format of OpenSSH.
pub(super) fn parse_private(pem: &str) -> Result<PrivateFile, KeyError> {
    let pem = pem.trim();
    if pem.len() > MAX_PEM {
        return Err(KeyError::SshPrivate);
    }
    for (begin, kind) in [("RSA", "ssh-rsa"), ("EC", "ecdsa-sha2-nistp256"), ("DSA", "ssh-dss")] {
        if pem.starts_with(&format!("-----BEGIN {begin} PRIVATE KEY-----")) {
            return Err(KeyError::SshType { kind });
        }
    }
    if let Some(kind) = type_of(pem).as_deref().and_then(other_ssh_type) {
        return Err(KeyError::SshType { kind });
    }
    let key = PrivateKey::from_openssh(pem).map_err(|_| KeyError::SshPrivate)?;
    if let Kdf::Bcrypt { rounds, .. } = key.kdf()
        && *rounds > MAX_ROUNDS
    {
        return Err(KeyError::ExcessiveRounds { rounds: *rounds, max: MAX_ROUNDS });
    }
    if key.is_encrypted() {
        Ok(PrivateFile::Locked(Locked(Box::new(key))))
    } else {
        Ok(PrivateFile::Open(Box::new(Identity::new(&key)?)))
    }
}

/// The type that the public half of a file names, which stands unencrypted behind cipher, KDF, its options and the
/// number of keys (OpenSSH, PROTOCOL.key). For naming what is refused; the file is not checked here.
fn type_of(pem: &str) -> Option<String> {
    let body = pem.strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(body.as_bytes()).ok()?);
    let mut rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    for _ in 0..3 {
        rest = field(rest)?.1;
    }
    let (public, _) = field(rest.get(4..)?)?;
    String::from_utf8(field(public)?.0.to_vec()).ok()
}

/// One field of an SSH structure, a length and as many bytes (RFC 4251, section 5), and what is behind it.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests;
