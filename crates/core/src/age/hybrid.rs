//! Hybrid post-quantum keys: ML-KEM-768 beside X25519 (C2SP age, "The mlkem768x25519 recipient type").
//!
//! The KEM is MLKEM768-X25519 of draft-ietf-hpke-pq-03, also known as X-Wing; around it stands HPKE in base mode
//! (RFC 9180) for one message. That is four calls of HKDF and is written out here: the traits of the `hpke` crate
//! want private keys that can be cloned, and randomness that cannot fail.

use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_core::primitives::{bech32_decode, bech32_encode};
use age_core::secrecy::ExposeSecret;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bech32::Hrp;
use hkdf::{Hkdf, HkdfExtract};
use ml_kem::kem::{Decapsulate, DecapsulationKey, EncapsulationKey};
use ml_kem::{Ciphertext, EncapsulateDeterministic, Encoded, EncodedSizeUser, KemCore, MlKem768, MlKem768Params};
use sha2::Sha256;
use sha3::digest::{ExtendableOutputReset, Update, XofReader};
use sha3::{Digest, Sha3_256, Shake256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use super::aead::{Aead, KEY_LEN, NONCE_LEN, TAG_LEN};
use super::error::{Error, Result};
use super::header::HeaderError;
use super::keys::KeyError;

/// Characters of a recipient: `age1pq1`, 1946 for 1216 bytes, 6 of checksum.
pub(super) const RECIPIENT_LEN: usize = 1959;
/// Characters of an identity: `AGE-SECRET-KEY-PQ-1`, 52 for 32 bytes, 6 of checksum.
pub(super) const IDENTITY_LEN: usize = 77;
/// First argument of the stanza.
const STANZA_TAG: &str = "mlkem768x25519";

const RECIPIENT_HRP: Hrp = Hrp::parse_unchecked("age1pq");
const IDENTITY_HRP: Hrp = Hrp::parse_unchecked("age-secret-key-pq-");

/// FIPS 203, table 3, ML-KEM-768.
const ML_KEM_PUBLIC_LEN: usize = 1184;
const X25519_LEN: usize = 32;
const SHARE_LEN: usize = 1088 + X25519_LEN;
const SEED_LEN: usize = 32;
/// What one encapsulation draws: ML-KEM's message, and the X25519 ephemeral secret.
const DRAWN_LEN: usize = 64;

const INFO: &[u8] = b"age-encryption.org/mlkem768x25519";
/// Ends what both shared secrets are hashed with (draft-ietf-hpke-pq-03).
const KEM_LABEL: &[u8] = br"\.//^\";
/// KEM MLKEM768-X25519, KDF HKDF-SHA256, AEAD ChaCha20Poly1305 (RFC 9180, section 5.1).
const SUITE: &[u8; 10] = b"HPKE\x64\x7a\x00\x01\x00\x03";

type Secret = Zeroizing<[u8; 32]>;

/// The public half: an ML-KEM-768 encapsulation key and an X25519 point, both checked.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Recipient {
    ml_kem: Box<[u8; ML_KEM_PUBLIC_LEN]>,
    point: [u8; X25519_LEN],
}

impl Recipient {
    /// From a string whose beginning, case and length were checked.
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = bech32_decode(text, |_| (), |_| Ok(()), |_, bytes| Ok(bytes.collect::<Vec<u8>>()));
        let bytes = bytes.map_err(|()| KeyError::Checksum)?;
        let (ml_kem, point) = bytes.split_first_chunk::<ML_KEM_PUBLIC_LEN>().ok_or(KeyError::Checksum)?;
        let recipient = Self { ml_kem: Box::new(*ml_kem), point: point.try_into().map_err(|_| KeyError::Checksum)? };
        // Twice canonical: the string, and each coefficient below q (FIPS 203, section 7.2). The library reduces what
        // is not, so that what it writes again differs.
        let key = recipient.encapsulation_key().map_err(|_| KeyError::Checksum)?;
        if key.as_bytes().as_slice() != ml_kem || recipient.to_string() != text {
            return Err(KeyError::NotCanonical);
        }
        Ok(recipient)
    }

    /// The X25519 half, for the check of its order.
    pub(super) fn point(&self) -> &[u8; X25519_LEN] {
        &self.point
    }

    fn encapsulation_key(&self) -> Result<EncapsulationKey<MlKem768Params>> {
        let bytes = Encoded::<EncapsulationKey<MlKem768Params>>::try_from(self.ml_kem.as_slice());
        Ok(EncapsulationKey::from_bytes(&bytes.map_err(|_| Error::Library)?))
    }

    /// One stanza with the file key for this recipient.
    pub(super) fn wrap(&self, file_key: &FileKey) -> Result<Stanza> {
        let mut drawn = Zeroizing::new([0; DRAWN_LEN]);
        getrandom::fill(drawn.as_mut()).map_err(|_| Error::Random)?;
        let (share, shared) = self.encapsulate(&drawn)?;
        let (key, nonce) = key_schedule(SUITE, &shared, INFO)?;
        let mut body = vec![0; FILE_KEY_BYTES + TAG_LEN];
        Aead::new(&key)?.seal(nonce, file_key.expose_secret(), &mut body)?;
        Ok(Stanza { tag: STANZA_TAG.to_owned(), args: vec![BASE64_STANDARD_NO_PAD.encode(share)], body })
    }

    fn encapsulate(&self, drawn: &[u8; DRAWN_LEN]) -> Result<([u8; SHARE_LEN], Secret)> {
        let (message, ephemeral) = halves(drawn)?;
        // First of all, for the file key must not be wrapped under a secret that anybody knows half of.
        let ephemeral = StaticSecret::from(*ephemeral);
        let x25519 = ephemeral.diffie_hellman(&PublicKey::from(self.point));
        if !x25519.was_contributory() {
            return Err(KeyError::LowOrder.into());
        }
        let mut message = ml_kem::B32::from(*message);
        let sealed = self.encapsulation_key()?.encapsulate_deterministic(&message);
        message.as_mut_slice().zeroize();
        let (ciphertext, mut ml_kem) = sealed.map_err(|()| Error::Library)?;
        let public = PublicKey::from(&ephemeral);
        let shared = combine(ml_kem.as_slice(), x25519.as_bytes(), public.as_bytes(), &self.point);
        ml_kem.as_mut_slice().zeroize();
        let mut share = [0; SHARE_LEN];
        let (first, second) = share.split_at_mut_checked(SHARE_LEN - X25519_LEN).ok_or(Error::Library)?;
        first.copy_from_slice(ciphertext.as_slice());
        second.copy_from_slice(public.as_bytes());
        Ok((share, shared))
    }
}

/// The string `age1pq1…`.
impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&bech32_encode(RECIPIENT_HRP, &[self.ml_kem.as_slice(), &self.point].concat()))
    }
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The private half: 32 bytes, from which the keys are made anew each time, so that no more has to be kept and wiped.
pub(super) struct Identity {
    /// In a box, for a value that is moved leaves a copy behind.
    seed: Box<Secret>,
    recipient: Recipient,
}

impl Identity {
    /// A new one from the operating system's random bytes.
    pub(super) fn generate() -> Result<Self> {
        let mut seed = Box::new(Zeroizing::new([0; SEED_LEN]));
        getrandom::fill(seed.as_mut_slice()).map_err(|_| Error::Random)?;
        Self::from_seed(seed)
    }

    fn from_seed(seed: Box<Secret>) -> Result<Self> {
        let Keys { ml_kem, x25519 } = expand(&seed)?;
        let public = ml_kem.encapsulation_key().as_bytes();
        let recipient = Recipient {
            ml_kem: Box::new(public.as_slice().try_into().map_err(|_| Error::Library)?),
            point: PublicKey::from(&x25519).to_bytes(),
        };
        Ok(Self { seed, recipient })
    }

    /// From a string whose beginning, case and length were checked.
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let seed = bech32_decode(
            text,
            |_| KeyError::Checksum,
            |_| Ok(()),
            |_, bytes| {
                let mut seed = Box::new(Zeroizing::new([0; SEED_LEN]));
                seed.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                Ok(seed)
            },
        )?;
        let identity = Self::from_seed(seed).map_err(|_| KeyError::Checksum)?;
        if *identity.expose_secret_string() == text { Ok(identity) } else { Err(KeyError::NotCanonical) }
    }

    /// The string `AGE-SECRET-KEY-PQ-1…`.
    pub(super) fn expose_secret_string(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(bech32_encode(IDENTITY_HRP, self.seed.as_slice()));
        text.make_ascii_uppercase();
        text
    }

    /// The public half.
    pub(super) fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The file key, if one of the stanzas is for this identity.
    pub(super) fn unwrap(&self, stanzas: &[Stanza]) -> Result<Option<FileKey>> {
        let mut mine = stanzas.iter().filter(|stanza| stanza.tag == STANZA_TAG).peekable();
        if mine.peek().is_none() {
            return Ok(None);
        }
        let keys = expand(&self.seed)?;
        for stanza in mine {
            let (share, body) = parse_stanza(stanza)?;
            let (key, nonce) = key_schedule(SUITE, &keys.decapsulate(&share, &self.recipient.point)?, INFO)?;
            let key = Aead::new(&key)?;
            // A stanza for another key decapsulates to something that opens nothing (FIPS 203, implicit rejection).
            let file_key =
                FileKey::try_init_with_mut(|plain| if key.open(nonce, body, plain) { Ok(()) } else { Err(()) });
            if let Ok(file_key) = file_key {
                return Ok(Some(file_key));
            }
        }
        Ok(None)
    }
}

/// Bytes that SHAKE256 gives at a time (FIPS 202, section 6.2).
const SHAKE256_BLOCK: usize = 136;

/// The private keys that a seed stands for, for as long as one header takes. Both wipe themselves.
struct Keys {
    ml_kem: Box<DecapsulationKey<MlKem768Params>>,
    x25519: StaticSecret,
}

/// SHAKE256(seed) gives ML-KEM's d and z, then the X25519 secret (draft-ietf-hpke-pq-03).
fn expand(seed: &Secret) -> Result<Keys> {
    let mut all = Zeroizing::new([0; 96]);
    let mut hash = Shake256::default();
    Update::update(&mut hash, seed.as_slice());
    let mut reader = hash.finalize_xof_reset();
    reader.read(all.as_mut());
    // States wipe themselves, buffers do not: the seed is still in the one of the hash, what it gave in the reader's.
    Update::update(&mut hash, &[0; SEED_LEN]);
    reader.read(&mut [0; SHAKE256_BLOCK]);
    std::hint::black_box((&hash, &reader));
    let (ml_kem, x25519) = all.split_first_chunk::<64>().ok_or(Error::Library)?;
    let (d, z) = halves(ml_kem)?;
    let (mut d, mut z) = (ml_kem::B32::from(*d), ml_kem::B32::from(*z));
    let (ml_kem, _) = MlKem768::generate_deterministic(&d, &z);
    d.as_mut_slice().zeroize();
    z.as_mut_slice().zeroize();
    let x25519 = StaticSecret::from(<[u8; X25519_LEN]>::try_from(x25519).map_err(|_| Error::Library)?);
    Ok(Keys { ml_kem: Box::new(ml_kem), x25519 })
}

impl Keys {
    fn decapsulate(&self, share: &[u8; SHARE_LEN], mine: &[u8; X25519_LEN]) -> Result<Secret> {
        let (ciphertext, point) = share.split_last_chunk::<X25519_LEN>().ok_or(Error::Library)?;
        let x25519 = self.x25519.diffie_hellman(&PublicKey::from(*point));
        if !x25519.was_contributory() {
            return Err(HeaderError::Stanza.into());
        }
        let ciphertext = Ciphertext::<MlKem768>::try_from(ciphertext).map_err(|_| Error::Library)?;
        let mut ml_kem = self.ml_kem.decapsulate(&ciphertext).map_err(|()| Error::Library)?;
        let shared = combine(ml_kem.as_slice(), x25519.as_bytes(), point, mine);
        ml_kem.as_mut_slice().zeroize();
        Ok(shared)
    }
}

/// One share of 1120 bytes, one wrapped file key, both in their only form; anything else is refused before any work.
fn parse_stanza(stanza: &Stanza) -> Result<([u8; SHARE_LEN], &[u8; FILE_KEY_BYTES + TAG_LEN])> {
    let [share] = stanza.args.as_slice() else {
        return Err(HeaderError::Stanza.into());
    };
    let share = BASE64_STANDARD_NO_PAD.decode(share).ok().and_then(|share| share.try_into().ok());
    let body = stanza.body.as_slice().try_into().ok();
    Ok(share.zip(body).ok_or(HeaderError::Stanza)?)
}

fn halves(bytes: &[u8; 64]) -> Result<(&[u8; 32], &[u8; 32])> {
    let (first, second) = bytes.split_first_chunk().ok_or(Error::Library)?;
    Ok((first, second.try_into().map_err(|_| Error::Library)?))
}

/// SHA3-256 over both shared secrets, the X25519 share, the X25519 recipient and the label.
fn combine(ml_kem: &[u8], x25519: &[u8; 32], share: &[u8; X25519_LEN], point: &[u8; X25519_LEN]) -> Secret {
    let mut hash = Sha3_256::default();
    for piece in [ml_kem, x25519, share, point, KEM_LABEL] {
        Digest::update(&mut hash, piece);
    }
    let mut shared = Zeroizing::new([0; 32]);
    hash.finalize_into(shared.as_mut_slice().into());
    shared
}

/// The key and the nonce of the first message in HPKE's base mode, without a pre-shared key (RFC 9180, section 5.1).
fn key_schedule(suite: &[u8; 10], shared: &Secret, info: &[u8]) -> Result<(Zeroizing<[u8; KEY_LEN]>, [u8; NONCE_LEN])> {
    let (psk_id_hash, _) = labeled_extract(suite, &[], b"psk_id_hash", &[]);
    let (info_hash, _) = labeled_extract(suite, &[], b"info_hash", info);
    let context = [&[0][..], psk_id_hash.as_slice(), info_hash.as_slice()].concat();
    let (_, secret) = labeled_extract(suite, shared.as_slice(), b"secret", &[]);
    let mut key = Zeroizing::new([0; KEY_LEN]);
    labeled_expand(suite, &secret, b"key", &context, key.as_mut())?;
    let mut nonce = [0; NONCE_LEN];
    labeled_expand(suite, &secret, b"base_nonce", &context, &mut nonce)?;
    Ok((key, nonce))
}

/// RFC 9180, section 4: `LabeledExtract`.
fn labeled_extract(suite: &[u8; 10], salt: &[u8], label: &[u8], ikm: &[u8]) -> (Secret, Hkdf<Sha256>) {
    let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
    for piece in [b"HPKE-v1", suite.as_slice(), label, ikm] {
        extract.input_ikm(piece);
    }
    let (mut output, hkdf) = extract.finalize();
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(output.as_slice());
    output.as_mut_slice().zeroize();
    (key, hkdf)
}

/// RFC 9180, section 4: `LabeledExpand`.
fn labeled_expand(suite: &[u8; 10], key: &Hkdf<Sha256>, label: &[u8], info: &[u8], output: &mut [u8]) -> Result<()> {
    let len = u16::try_from(output.len()).map_err(|_| Error::Library)?.to_be_bytes();
    key.expand_multi_info(&[&len, b"HPKE-v1", suite, label, info], output).map_err(|_| Error::Library)
}

#[cfg(test)]
mod tests;
