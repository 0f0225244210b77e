//! One-time links: the only thing that somebody needs in order to join.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use pouch_statement::{Detached, Fingerprint, RandomError, RelayOrigin, Sha256Digest};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const VERSION: u8 = 1;
const OWNER: u8 = 0;
const INVITATION: u8 = 1;
const MAX_PINS: usize = 2;
const CHECKSUM: usize = 4;
const ADMIT_INFO: &[u8] = b"pouch.link.admit.v1";
const CARD_INFO: &[u8] = b"pouch.link.card.v1";

/// Why a text is not a link. The text itself is a secret and never stands in an error.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LinkError {
    /// Not `https://RELAY/j#…`.
    #[error("a link looks like https://RELAY/j#SECRET; this does not")]
    Form,
    /// The part behind `#` is cut or mistyped.
    #[error("the link is incomplete or mistyped; copy it again, whole")]
    Damaged,
    /// From a newer pouch.
    #[error("the link is of version {0}, which this pouch does not know; install a newer one")]
    Version(u8),
}

/// 128 random bits that only the two people who share a link have. Zeroized when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct LinkSecret([u8; 16]);

impl LinkSecret {
    /// A fresh one.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn random() -> Result<Self, RandomError> {
        Ok(Self(pouch_statement::random()?))
    }

    fn derive(&self, info: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0u8; 32]);
        // RFC 5869 refuses only outputs above 8,160 bytes.
        let _ = Hkdf::<Sha256>::new(None, &self.0).expand(info, out.as_mut());
        out
    }

    /// The 32 bytes that are presented to the relay.
    #[must_use]
    pub fn admit(&self) -> Zeroizing<[u8; 32]> {
        self.derive(ADMIT_INFO)
    }

    /// What the relay stores of the admission secret.
    #[must_use]
    pub fn admit_sha256(&self) -> Sha256Digest {
        Sha256Digest::of(self.admit().as_ref())
    }

    /// The key under which cards are MACed; the relay cannot compute it.
    #[must_use]
    pub fn card_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive(CARD_INFO)
    }
}

/// Which side of a link a card belongs to, so that one side's MAC cannot be handed back as the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who made the link.
    Inviter,
    /// Who redeems it.
    Joiner,
}

/// HMAC-SHA256 over a card under a link's card key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CardMac(Sha256Digest);

impl CardMac {
    /// The MAC of `card` in `role` (docs/format.md, "Link").
    #[must_use]
    pub fn of(card_key: &[u8; 32], role: Role, card: &Detached) -> Self {
        let label: &[u8] = match role {
            Role::Inviter => b"inviter\n",
            Role::Joiner => b"joiner\n",
        };
        // A key shorter than the hash's block is padded with zeros (RFC 2104 §2); done here, nothing can fail.
        let mut block = Zeroizing::new([0u8; 64]);
        if let Some(head) = block.first_chunk_mut::<32>() {
            *head = *card_key;
        }
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
        mac.update(label);
        mac.update(card.statement.as_bytes());
        mac.update(card.signature.as_bytes());
        Self(Sha256Digest::from_bytes(mac.finalize().into_bytes().into()))
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

/// Who made a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inviter {
    /// The relay itself, for its owner.
    Relay,
    /// A member, whose fingerprint the joiner pins.
    Member(Fingerprint),
}

/// A one-time link (docs/format.md, "Link").
pub struct Link {
    /// Where.
    pub relay: RelayOrigin,
    /// The relay's key pins; empty if its certificate is publicly trusted.
    pub pins: Vec<Sha256Digest>,
    /// Who invites.
    pub inviter: Inviter,
    /// The secret.
    pub secret: LinkSecret,
}

fn base32() -> Option<Encoding> {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    spec.encoding().ok()
}

fn checksum(relay: &RelayOrigin, body: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256Digest::of_all(&[relay.to_string().as_bytes(), b"\n", body]);
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d]
}

impl Link {
    /// The link as text, a secret.
    #[must_use]
    pub fn expose_text(&self) -> Zeroizing<String> {
        let mut body = Zeroizing::new(vec![VERSION]);
        match &self.inviter {
            Inviter::Relay => body.push(OWNER),
            Inviter::Member(_) => body.push(INVITATION),
        }
        body.extend_from_slice(&self.secret.0);
        if let Inviter::Member(fingerprint) = &self.inviter {
            body.extend_from_slice(fingerprint.as_bytes());
        }
        body.push(self.pins.len() as u8);
        for pin in &self.pins {
            body.extend_from_slice(pin.as_bytes());
        }
        let sum = checksum(&self.relay, &body);
        body.extend_from_slice(&sum);
        let fragment = Zeroizing::new(base32().map(|e| e.encode(&body)).unwrap_or_default());
        Zeroizing::new(format!("{}/j#{}", self.relay, *fragment))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({}, secret withheld)", self.relay)
    }
}

impl FromStr for Link {
    type Err = LinkError;
    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (address, fragment) = text.trim().split_once('#').ok_or(LinkError::Form)?;
        let relay: RelayOrigin =
            address.strip_suffix("/j").ok_or(LinkError::Form)?.parse().map_err(|_| LinkError::Form)?;
        if fragment.len() > 512 {
            return Err(LinkError::Damaged);
        }
        let encoding = base32().ok_or(LinkError::Damaged)?;
        // Capitals are taken too, for whoever types it.
        let fragment = Zeroizing::new(fragment.to_ascii_lowercase());
        let bytes = Zeroizing::new(encoding.decode(fragment.as_bytes()).map_err(|_| LinkError::Damaged)?);
        let (body, sum) =
            bytes.len().checked_sub(CHECKSUM).and_then(|at| bytes.split_at_checked(at)).ok_or(LinkError::Damaged)?;
        if checksum(&relay, body) != sum {
            return Err(LinkError::Damaged);
        }
        let mut rest = body;
        let [version, kind] = take::<2>(&mut rest)?;
        if version != VERSION {
            return Err(LinkError::Version(version));
        }
        let secret = LinkSecret(take::<16>(&mut rest)?);
        let inviter = match kind {
            OWNER => Inviter::Relay,
            INVITATION => Inviter::Member(Fingerprint::from_bytes(take::<32>(&mut rest)?)),
            _ => return Err(LinkError::Damaged),
        };
        let [count] = take::<1>(&mut rest)?;
        if usize::from(count) > MAX_PINS {
            return Err(LinkError::Damaged);
        }
        let pins =
            (0..count).map(|_| take::<32>(&mut rest).map(Sha256Digest::from_bytes)).collect::<Result<Vec<_>, _>>()?;
        if rest.is_empty() { Ok(Self { relay, pins, inviter, secret }) } else { Err(LinkError::Damaged) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], LinkError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(LinkError::Damaged)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn link(pins: usize, inviter: Inviter) -> Link {
        Link {
            relay: "https://pouch.acme.example".parse().unwrap(),
            pins: vec![Sha256Digest::of(b"key"); pins],
            inviter,
            secret: LinkSecret([0x42; 16]),
        }
    }

    #[test]
    fn round_trip() {
        let bo = Inviter::Member(Fingerprint::from_bytes([8; 32]));
        for (pins, inviter) in [(0, Inviter::Relay), (2, Inviter::Relay), (0, bo), (1, bo), (2, bo)] {
            let text = link(pins, inviter).expose_text();
            let read: Link = text.parse().unwrap();
            assert_eq!((read.pins.len(), read.inviter, read.secret.0), (pins, inviter, [0x42; 16]));
            assert_eq!(read.relay.to_string(), "https://pouch.acme.example");
            let shouted: Link = text.replace("pouch.acme", "POUCH.acme").parse().unwrap();
            assert_eq!(shouted.relay, read.relay);
        }
    }

    // attacks.md 61: a link that was cut, mistyped or moved to another relay is refused before anything is sent.
    #[test]
    fn attack_61_damaged_links_are_noticed_and_not_echoed() {
        let text = link(1, Inviter::Member(Fingerprint::from_bytes([8; 32]))).expose_text();
        for end in 0..text.len() {
            let error = text.get(..end).unwrap().parse::<Link>().unwrap_err();
            assert!(!error.to_string().contains("4248"), "{error}");
        }
        for at in text.find('#').unwrap() + 1..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if *byte == b'7' { b'8' } else { b'7' };
            }
            assert!(String::from_utf8(bytes).unwrap().parse::<Link>().is_err(), "at {at}");
        }
        let moved = text.replace("pouch.acme.example", "evil.example");
        assert_eq!(moved.parse::<Link>().unwrap_err(), LinkError::Damaged);
        assert_eq!(text.replace("https", "http").parse::<Link>().unwrap_err(), LinkError::Form);
    }

    #[test]
    fn keys_and_roles_are_apart() {
        let secret = LinkSecret([1; 16]);
        assert_ne!(*secret.admit(), *secret.card_key());
        let card = Detached { statement: "a\n".into(), signature: "b\n".into() };
        let key = secret.card_key();
        let inviter = CardMac::of(&key, Role::Inviter, &card);
        assert!(inviter.matches(&CardMac::of(&key, Role::Inviter, &card)));
        assert!(!inviter.matches(&CardMac::of(&key, Role::Joiner, &card)));
        assert!(!inviter.matches(&CardMac::of(&LinkSecret([2; 16]).card_key(), Role::Inviter, &card)));
    }
}
