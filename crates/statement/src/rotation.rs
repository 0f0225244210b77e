//! Rotations: new keys in the place of old ones, by the word of both.

use serde::{Deserialize, Serialize};

use crate::sshsig::{sign_detached, verify_detached};
use crate::{
    Card, CardError, Detached, Fingerprint, Sha256Digest, Signed, SignedCard, SigningKey, Statement, StatementError,
    Timestamp,
};

/// How each of the two armors begins (PROTOCOL.sshsig).
const ARMOR: &str = "-----BEGIN SSH SIGNATURE-----\n";

/// Why a rotation was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RotationError {
    /// Not a statement of type rotation, or one of its two signatures is not good.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The new card is not one.
    #[error("the new card is not good: {0}")]
    Card(#[from] CardError),
    /// It is about other keys than those of the card that it was held against.
    #[error("it is about other keys than the ones that are known")]
    OtherKeys,
    /// One of the two keys stays, so that the two signatures say no more than one.
    #[error("it does not replace both keys")]
    SameKeys,
    /// The new card's serial number is not higher.
    #[error("the new card's serial number is not higher than the old one's")]
    Serial,
    /// What is sealed for the new key would be weaker.
    #[error("it leads from a hybrid key to a classic one")]
    Weaker,
    /// The new card names another mailbox or relay.
    #[error("the new card names another mailbox or relay")]
    OtherMailbox,
}

/// The word of an identity, and of the one that takes its place, that the same person has both (docs/format.md,
/// "Rotation").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The identity whose keys go.
    pub previous: Fingerprint,
    /// The new card, signed by itself. When it was made is when the keys changed.
    pub card: Detached,
}

impl Statement for Rotation {
    const TYPE: &'static str = "pouch.rotation.v1";
}

/// A rotation that was held against the old card: both signatures, and what it may change.
#[derive(Clone, Debug)]
pub struct SignedRotation {
    statement: Signed<Rotation>,
    /// By the new key; that of `statement` is by the old one.
    by_new: String,
    card: SignedCard,
}

impl SignedRotation {
    /// Signs the rotation from `old`, whose key is `old_key`, to `new`.
    ///
    /// # Errors
    /// What nobody may accept, or keys that are not the cards'.
    pub fn sign(
        old: &SignedCard,
        old_key: &SigningKey,
        new: Card,
        new_key: &SigningKey,
    ) -> Result<Self, RotationError> {
        let card = SignedCard::sign(new, new_key)?;
        check(old, &card)?;
        if old.card().signing_key != old_key.public() {
            return Err(StatementError::Signature(crate::SignatureError::Key).into());
        }
        let body = Rotation { previous: old.fingerprint(), card: card.detached() };
        let statement = Signed::sign(body, old_key)?;
        let by_new = sign_detached(Rotation::TYPE, statement.bytes(), new_key).map_err(StatementError::from)?;
        Ok(Self { statement, by_new, card })
    }

    /// Checks a rotation against the card whose keys go: form, both signatures, the new card's own, and what may change.
    ///
    /// # Errors
    /// Each check has its own.
    pub fn verify(detached: &Detached, old: &SignedCard) -> Result<Self, RotationError> {
        let armor = || RotationError::from(StatementError::Signature(crate::SignatureError::Armor));
        let second = detached.signature.rfind(ARMOR).filter(|at| *at > 0).ok_or_else(armor)?;
        let (by_old, by_new) = detached.signature.split_at_checked(second).ok_or_else(armor)?;
        let bytes = detached.statement.as_bytes();
        if RotationClaim::read(detached)?.previous != old.fingerprint() {
            return Err(RotationError::OtherKeys);
        }
        let statement = Signed::<Rotation>::verify(bytes, by_old, &old.card().signing_key)?;
        let card = SignedCard::verify(&statement.body().card)?;
        verify_detached(Rotation::TYPE, bytes, by_new, &card.card().signing_key).map_err(StatementError::from)?;
        check(old, &card)?;
        Ok(Self { statement, by_new: by_new.to_owned(), card })
    }

    /// The new card.
    #[must_use]
    pub fn card(&self) -> &SignedCard {
        &self.card
    }

    /// When the keys changed.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.card.card().created
    }

    /// SHA-256 of the statement's bytes.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        self.statement.digest()
    }

    /// Statement and both armors, that of the old key first, as they travel.
    #[must_use]
    pub fn detached(&self) -> Detached {
        let Detached { statement, signature } = self.statement.detached();
        Detached { statement, signature: signature + &self.by_new }
    }
}

/// What a rotation says, by nobody's word yet: for looking up the card to hold it against, for nothing else.
#[derive(Clone, Debug)]
pub struct RotationClaim {
    /// Whose keys it says that it replaces.
    pub previous: Fingerprint,
    /// SHA-256 of the new card's statement.
    pub card: Sha256Digest,
}

impl RotationClaim {
    /// Reads it.
    ///
    /// # Errors
    /// Not a rotation in its canonical form.
    pub fn read(detached: &Detached) -> Result<Self, StatementError> {
        let Rotation { previous, card } = crate::signed::decode(detached.statement.as_bytes())?;
        Ok(Self { previous, card: Sha256Digest::of(card.statement.as_bytes()) })
    }
}

fn check(old: &SignedCard, new: &SignedCard) -> Result<(), RotationError> {
    let (old, new) = (old.card(), new.card());
    if old.signing_key == new.signing_key || old.age_recipient == new.age_recipient {
        return Err(RotationError::SameKeys);
    }
    if new.serial <= old.serial {
        return Err(RotationError::Serial);
    }
    if old.age_recipient.is_post_quantum() && !new.age_recipient.is_post_quantum() {
        return Err(RotationError::Weaker);
    }
    if (old.mailbox, &old.relay) == (new.mailbox, &new.relay) { Ok(()) } else { Err(RotationError::OtherMailbox) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{MailboxId, SignatureError};

    const CLASSIC: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const OTHER: &str = "age1qqqqqqqqq";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn card(key: &SigningKey, recipient: &str, serial: u64) -> Card {
        Card {
            name: "ada".parse().unwrap(),
            age_recipient: recipient.parse().unwrap(),
            signing_key: key.public(),
            relay: "https://pouch.acme.example".parse().unwrap(),
            relay_pins: vec![],
            mailbox: MailboxId::from_bytes([9; 16]),
            serial,
            created: Timestamp::from_unix(1000).unwrap(),
            expires: Timestamp::from_unix(2000).unwrap(),
        }
    }

    fn old() -> SignedCard {
        SignedCard::sign(card(&key(1), CLASSIC, 1), &key(1)).unwrap()
    }

    fn rotation() -> SignedRotation {
        SignedRotation::sign(&old(), &key(1), card(&key(2), OTHER, 2), &key(2)).unwrap()
    }

    /// What somebody signs who keeps to none of the rules.
    fn forged(old: &SignedCard, new: Card, new_key: &SigningKey, signers: [&SigningKey; 2]) -> Detached {
        let card = Signed::sign(new, new_key).unwrap().detached();
        let [first, second] = signers;
        let statement = Signed::sign(Rotation { previous: old.fingerprint(), card }, first).unwrap();
        let second = sign_detached(Rotation::TYPE, statement.bytes(), second).unwrap();
        let Detached { statement, signature } = statement.detached();
        Detached { statement, signature: signature + &second }
    }

    #[test]
    fn it_travels_as_text_and_is_verified_against_the_old_card() {
        let text = rotation().detached().to_text();
        let again = SignedRotation::verify(&Detached::from_text(&text).unwrap(), &old()).unwrap();
        assert_eq!((again.digest(), again.card().card().serial), (rotation().digest(), 2));
        let claim = RotationClaim::read(&again.detached()).unwrap();
        assert_eq!((claim.previous, claim.card), (old().fingerprint(), again.card().statement().digest()));
    }

    // Whoever has stolen the old key alone cannot pass somebody else's card off as its owner's, nor whoever has a new one.
    #[test]
    fn attack_a_rotation_signed_by_one_key_only_is_refused() {
        let (old, one, two) = (old(), key(1), key(2));
        let new = card(&two, OTHER, 2);
        assert!(SignedRotation::verify(&forged(&old, new.clone(), &two, [&one, &two]), &old).is_ok());
        let mismatch = RotationError::Statement(StatementError::Signature(SignatureError::Key));
        for signers in [[&one, &one], [&two, &two], [&two, &one]] {
            let error = SignedRotation::verify(&forged(&old, new.clone(), &two, signers), &old).unwrap_err();
            assert_eq!(error, mismatch);
        }
        let good = rotation().detached();
        let second = good.signature.rfind(ARMOR).unwrap();
        let (by_old, by_new) = good.signature.split_at(second);
        for signature in [by_old, by_new, "", ARMOR] {
            let bad = Detached { signature: signature.to_owned(), ..good.clone() };
            let error = SignedRotation::verify(&bad, &old).unwrap_err();
            assert!(matches!(error, RotationError::Statement(StatementError::Signature(_))), "{error}");
        }
        let three = Detached { signature: good.signature.clone() + by_new, ..good.clone() };
        assert!(SignedRotation::verify(&three, &old).is_err());
    }

    #[test]
    fn attack_somebody_elses_rotation_is_refused() {
        let carol = SignedCard::sign(card(&key(3), CLASSIC, 1), &key(3)).unwrap();
        let theirs = SignedRotation::sign(&carol, &key(3), card(&key(4), OTHER, 2), &key(4)).unwrap();
        assert_eq!(SignedRotation::verify(&theirs.detached(), &old()).unwrap_err(), RotationError::OtherKeys);
        // With the right fingerprint in it.
        let forged = forged(&old(), card(&key(4), OTHER, 2), &key(4), [&key(3), &key(4)]);
        assert!(SignedRotation::verify(&forged, &old()).is_err());
    }

    /// Neither can be made through the API nor read when both keys signed it by other means.
    #[test]
    fn attack_37_what_a_rotation_may_not_change_is_refused() {
        let hybrid = format!("age1pq1{}", "q".repeat(1952));
        let (one, two) = (key(1), key(2));
        let strong = SignedCard::sign(card(&one, &hybrid, 5), &one).unwrap();
        let good = card(&two, OTHER, 6);
        let (mailbox, relay) = (MailboxId::from_bytes([8; 16]), "https://relay.example".parse().unwrap());
        let cases = [
            (strong.clone(), good.clone(), RotationError::Weaker),
            (strong, Card { serial: 5, ..card(&two, &hybrid.replace("qq", "pp"), 5) }, RotationError::Serial),
            (old(), Card { serial: 1, ..good.clone() }, RotationError::Serial),
            (old(), card(&two, CLASSIC, 2), RotationError::SameKeys),
            (old(), Card { mailbox, ..good.clone() }, RotationError::OtherMailbox),
            (old(), Card { relay, ..good.clone() }, RotationError::OtherMailbox),
        ];
        for (old, new, expected) in cases {
            assert_eq!(SignedRotation::sign(&old, &one, new.clone(), &two).unwrap_err(), expected);
            let forged = forged(&old, new, &two, [&one, &two]);
            assert_eq!(SignedRotation::verify(&forged, &old).unwrap_err(), expected);
        }
        let same = Card { signing_key: one.public(), ..good };
        assert_eq!(SignedRotation::sign(&old(), &one, same, &one).unwrap_err(), RotationError::SameKeys);
    }
}
