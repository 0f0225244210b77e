//! Cards: the public half of an identity, signed by itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    Detached, Fingerprint, MailboxId, Name, PublicKey, RelayOrigin, Sha256Digest, Signed, SigningKey, Statement,
    StatementError, Timestamp,
};

/// Room for a hybrid recipient (1,959 characters) and little more.
const MAX_RECIPIENT: usize = 2048;
/// How a hybrid recipient begins (C2SP age, "The mlkem768x25519 recipient type").
const HYBRID: &str = "age1pq1";
/// A relay's certificate key of today and the next one.
const MAX_PINS: usize = 2;

/// Why a card was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CardError {
    /// Not a statement of type card, or its own signature is not good.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The age recipient is not one.
    #[error("the card's age recipient is not an age1… string")]
    Recipient,
    /// More pins than the present and the next key.
    #[error("the card names {0} relay keys, at most {MAX_PINS} have a place")]
    Pins(usize),
    /// It ends before it begins.
    #[error("the card expires before it was made")]
    Validity,
    /// Serial numbers begin at one.
    #[error("the card's serial number is zero")]
    Serial,
    /// Used before it was made: the signer's or our clock is wrong.
    #[error("the card is dated {0} s in the future; compare the clocks")]
    NotYetValid(u64),
    /// Used after its end.
    #[error("the card expired; ask its owner for a new one")]
    Expired,
}

/// An `age1…` string: bech32 characters in lower case. What it encodes is the encryption library's to judge.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct AgeRecipient(String);

impl AgeRecipient {
    /// The string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a hybrid recipient, for which what is sealed stays closed to a quantum computer, as far as is
    /// known; every other one is classic.
    #[must_use]
    pub fn is_post_quantum(&self) -> bool {
        self.0.starts_with(HYBRID)
    }
}

impl FromStr for AgeRecipient {
    type Err = CardError;
    fn from_str(text: &str) -> Result<Self, CardError> {
        let tail = text.strip_prefix("age1").ok_or(CardError::Recipient)?;
        let plain = tail.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if plain && tail.len() >= 6 && text.len() <= MAX_RECIPIENT {
            Ok(Self(text.to_owned()))
        } else {
            Err(CardError::Recipient)
        }
    }
}

impl fmt::Display for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AgeRecipient {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The public half of an identity (docs/format.md, "Card").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// What the owner calls themselves; the address book has its own name for them.
    pub name: Name,
    /// Where bundles for them are sealed to.
    pub age_recipient: AgeRecipient,
    /// What their statements are signed with.
    pub signing_key: PublicKey,
    /// The relay they have an account on.
    pub relay: RelayOrigin,
    /// SHA-256 of the relay's SubjectPublicKeyInfo, present and next key; only for a self-signed relay.
    pub relay_pins: Vec<Sha256Digest>,
    /// Their mailbox on it.
    pub mailbox: MailboxId,
    /// Raised by one with each new card of the same identity; begins at 1.
    pub serial: u64,
    /// When the card was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

impl Statement for Card {
    const TYPE: &'static str = "pouch.card.v1";
}

impl Card {
    /// The fingerprint of the card's two keys.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.age_recipient.as_str(), &self.signing_key)
    }

    fn check(&self) -> Result<(), CardError> {
        if self.relay_pins.len() > MAX_PINS {
            return Err(CardError::Pins(self.relay_pins.len()));
        }
        if self.serial == 0 {
            return Err(CardError::Serial);
        }
        if self.expires <= self.created { Err(CardError::Validity) } else { Ok(()) }
    }
}

/// How far a statement's date may lie in the future before the clocks are called wrong, in seconds.
const CLOCK_TOLERANCE: u64 = 300;

/// A card whose own signature was checked.
#[derive(Clone, Debug)]
pub struct SignedCard(Signed<Card>);

impl SignedCard {
    /// Signs a card with the key that it names.
    ///
    /// # Errors
    /// When the card breaks its own rules, or `key` is not the card's.
    pub fn sign(card: Card, key: &SigningKey) -> Result<Self, CardError> {
        card.check()?;
        if card.signing_key != key.public() {
            return Err(CardError::Statement(crate::SignatureError::Key.into()));
        }
        Ok(Self(Signed::sign(card, key)?))
    }

    /// Checks form, rules and the card's own signature. Whose card it is, the caller must know from elsewhere.
    ///
    /// # Errors
    /// Everything that is not a well-formed, self-signed card.
    pub fn verify(detached: &Detached) -> Result<Self, CardError> {
        let signed =
            Signed::<Card>::verify_with(detached.statement.as_bytes(), &detached.signature, |c| c.signing_key)?;
        signed.body().check()?;
        Ok(Self(signed))
    }

    /// Checks that the card may be used at `now`.
    ///
    /// # Errors
    /// Dated in the future beyond the tolerance for clocks (five minutes), or expired.
    pub fn check_valid_at(&self, now: Timestamp) -> Result<(), CardError> {
        let card = self.card();
        let ahead = card.created.since(now);
        if ahead > CLOCK_TOLERANCE {
            return Err(CardError::NotYetValid(ahead));
        }
        if now >= card.expires { Err(CardError::Expired) } else { Ok(()) }
    }

    /// What the card says.
    #[must_use]
    pub fn card(&self) -> &Card {
        self.0.body()
    }

    /// Shorthand for the card's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.card().fingerprint()
    }

    /// The statement with bytes and digest.
    #[must_use]
    pub fn statement(&self) -> &Signed<Card> {
        &self.0
    }

    /// Card and signature as they travel.
    #[must_use]
    pub fn detached(&self) -> Detached {
        self.0.detached()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::SignatureError;

    fn card(key: &SigningKey) -> Card {
        Card {
            name: "ada".parse().unwrap(),
            age_recipient: "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".parse().unwrap(),
            signing_key: key.public(),
            relay: "https://pouch.acme.example".parse().unwrap(),
            relay_pins: vec![],
            mailbox: MailboxId::from_bytes([9; 16]),
            serial: 1,
            created: Timestamp::from_unix(1000).unwrap(),
            expires: Timestamp::from_unix(2000).unwrap(),
        }
    }

    #[test]
    fn a_card_keeps_its_fingerprint_when_renewed() {
        let key = SigningKey::from_seed(&[1; 32]);
        let old = SignedCard::sign(card(&key), &key).unwrap();
        let new = SignedCard::sign(Card { serial: 2, name: "Ada L".parse().unwrap(), ..card(&key) }, &key).unwrap();
        assert_eq!(old.fingerprint(), new.fingerprint());
        assert_eq!(SignedCard::verify(&old.detached()).unwrap().card(), old.card());
    }

    /// Neither can be made through the API nor read when somebody signed it by other means.
    #[test]
    fn a_card_that_breaks_its_own_rules_is_refused() {
        let key = SigningKey::from_seed(&[1; 32]);
        let (good, pin) = (card(&key), Sha256Digest::of(b"key"));
        let broken = [
            (Card { relay_pins: vec![pin; MAX_PINS + 1], ..good.clone() }, CardError::Pins(MAX_PINS + 1)),
            (Card { serial: 0, ..good.clone() }, CardError::Serial),
            (Card { expires: good.created, ..good.clone() }, CardError::Validity),
        ];
        for (card, error) in broken {
            assert_eq!(SignedCard::sign(card.clone(), &key).unwrap_err(), error);
            let signed = Signed::sign(card, &key).unwrap().detached();
            assert_eq!(SignedCard::verify(&signed).unwrap_err(), error);
        }
        assert!(SignedCard::sign(Card { relay_pins: vec![pin; MAX_PINS], ..good.clone() }, &key).is_ok());
        let shortest = Card { expires: Timestamp::from_unix(good.created.unix() + 1).unwrap(), ..good };
        assert!(SignedCard::sign(shortest, &key).is_ok());
    }

    #[test]
    fn a_recipient_is_shown_as_it_was_read() {
        let text = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        let recipient: AgeRecipient = text.parse().unwrap();
        assert_eq!(recipient.to_string(), text);
        assert!(format!("{recipient:?}").contains(text));
    }

    // attacks.md 29: the API cannot sign under a public key that is not the private key's.
    #[test]
    fn attack_29_a_card_with_another_key_cannot_be_signed() {
        let (key, other) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let error = SignedCard::sign(card(&other), &key).unwrap_err();
        assert_eq!(error, CardError::Statement(StatementError::Signature(SignatureError::Key)));
    }

    // attacks.md 25: a signature replaced by the attacker's own.
    #[test]
    fn attack_25_a_card_signed_by_somebody_else_is_refused() {
        let (key, other) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let good = SignedCard::sign(card(&key), &key).unwrap().detached();
        let signature = crate::sign_detached(Card::TYPE, good.statement.as_bytes(), &other).unwrap();
        assert!(SignedCard::verify(&Detached { signature, ..good.clone() }).is_err());
        assert!(SignedCard::verify(&Detached { signature: String::new(), ..good }).is_err());
    }

    // attacks.md 32: a clock off by years is an explicit error in both directions.
    #[test]
    fn attack_32_validity_is_checked_against_the_clock() {
        let key = SigningKey::from_seed(&[1; 32]);
        let signed = SignedCard::sign(card(&key), &key).unwrap();
        let at = |s| signed.check_valid_at(Timestamp::from_unix(s).unwrap());
        assert_eq!(at(1500), Ok(()));
        assert_eq!(at(1000 - CLOCK_TOLERANCE), Ok(()));
        assert_eq!(at(0), Err(CardError::NotYetValid(1000)));
        assert_eq!(at(2000), Err(CardError::Expired));
    }

    #[test]
    fn a_hybrid_recipient_fits_and_is_told_apart() {
        let hybrid = format!("age1pq1{}", "q".repeat(1952));
        assert!(hybrid.parse::<AgeRecipient>().unwrap().is_post_quantum());
        assert_eq!("q".repeat(2049).replacen("qqqq", "age1", 1).parse::<AgeRecipient>(), Err(CardError::Recipient));
        let key = SigningKey::from_seed(&[1; 32]);
        let card = Card { age_recipient: hybrid.parse().unwrap(), ..card(&key) };
        let signed = SignedCard::sign(card, &key).unwrap();
        assert!(signed.statement().bytes().len() < 2600);
        assert_eq!(SignedCard::verify(&signed.detached()).unwrap().fingerprint(), signed.fingerprint());
        for classic in ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "age1pqqqqqqqqq"] {
            assert!(!classic.parse::<AgeRecipient>().unwrap().is_post_quantum());
        }
    }

    // attacks.md 34: a secret key where a recipient belongs.
    #[test]
    fn attack_34_only_recipients_are_recipients() {
        for bad in ["AGE-SECRET-KEY-1QQQ", "age1", "age1QQQQQQQQQQ", "\u{feff}age1qqqqqqqq", "age1qqq qqqqqq"] {
            let error = bad.parse::<AgeRecipient>().unwrap_err();
            assert_eq!(error, CardError::Recipient);
            assert!(!error.to_string().contains("SECRET"));
        }
    }
}
