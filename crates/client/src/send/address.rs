//! Who may be sent to, and what is signed and sealed for them.

use pouch_core::bundle::{Manifest, SealedBundle, Terms, seal_delegated};
use pouch_statement::{Name, Sha256Digest, Signed};

use crate::clock::now;
use crate::contacts::{AddressBook, Contact, Verified};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::outbox::{Recipient, Sent};
use crate::party::Party;
use crate::send::Purpose;

/// A contact that may be sent to, and the keys that sending needs.
pub(crate) struct Addressee {
    pub(crate) contact: Contact,
    pub(crate) age: pouch_core::age::Recipient,
}

/// The contact of that name, if they may be sent to.
pub(crate) fn addressee(party: &Party, name: &Name) -> Result<Addressee> {
    Addressee::check(party.contacts()?.named(name)?.clone())
}

/// The digest of no manifest, where the one before is not known (docs/format.md, "Backup").
fn unknown() -> Sha256Digest {
    Sha256Digest::of(b"pouch.restored.v1\n")
}

/// Those of these names, if they may all be sent to on the relay where I am.
pub(super) fn addressees_here(party: &Party, names: &[Name]) -> Result<Vec<Addressee>> {
    if let Some(twice) =
        (1..names.len()).find_map(|n| names.get(n).filter(|name| names.iter().take(n).any(|m| m == *name)))
    {
        return Err(Error::NamedTwice(twice.clone()));
    }
    names.iter().map(|name| addressee_here(party, name)).collect()
}

/// [`addressee`], on the relay where I am.
pub(crate) fn addressee_here(party: &Party, name: &Name) -> Result<Addressee> {
    let to = addressee(party, name)?;
    let relay = &to.contact.card().relay;
    if relay == party.relay() { Ok(to) } else { Err(Error::OtherRelay(relay.clone())) }
}

impl Addressee {
    /// This contact, if they may be sent to.
    pub(crate) fn check(contact: Contact) -> Result<Self> {
        contact.check_not_revoked()?;
        if contact.verified == Verified::No {
            return Err(Error::Unverified(contact.name));
        }
        contact.card.check_valid_at(now())?;
        let age = contact.card().age_recipient.as_str().parse().map_err(|_| pouch_statement::CardError::Recipient)?;
        Ok(Self { contact, age })
    }

    pub(crate) fn recipient(&self) -> Recipient {
        Recipient::new(&self.contact)
    }
}

/// What the next manifests are numbered by. It is the caller's turn, and all that is open for their recipients is settled:
/// settling uses numbers up.
pub(crate) struct Places {
    book: AddressBook,
    /// No number is below this.
    from: u64,
}

impl Places {
    /// As they are now. Refuses where my keys are others by now: they are what the manifests are signed with.
    pub(crate) fn load(party: &Party) -> Result<Self> {
        party.check_current()?;
        Ok(Self { book: party.contacts()?, from: party.account().sequences_from })
    }

    /// The next sequence number to this contact, and the manifest that it follows. Refuses whoever was revoked, or has other
    /// keys, since they were looked up.
    pub(crate) fn next(&self, to: &Contact) -> Result<(u64, Option<Sha256Digest>)> {
        let now = self.book.by_fingerprint(&to.fingerprint()).ok_or(Error::KeysChanged)?;
        now.check_not_revoked()?;
        if now.fingerprint() != to.fingerprint() {
            return Err(Error::KeysChanged);
        }
        Ok(match now.sent {
            Some(last) if last.sequence >= self.from => (last.sequence + 1, Some(last.manifest)),
            // What a home that was lost sent in between nobody here knows.
            last if self.from > 0 => (self.from + 1, Some(last.map_or_else(unknown, |last| last.manifest))),
            _ => (1, None),
        })
    }
}

/// The next manifest for this contact, signed, and the envelope around it.
pub(super) fn address(
    party: &Party,
    identity: &Identity,
    (to, places): (&Addressee, &Places),
    sent: &Sent,
    purpose: &Purpose,
    sealed: &SealedBundle,
) -> Result<(Signed<Manifest>, Vec<u8>)> {
    let (sequence, previous) = places.next(&to.contact)?;
    let terms = Terms {
        bundle: sent.bundle,
        kind: purpose.kind,
        sender: party.fingerprint(),
        recipient: to.contact.fingerprint(),
        sequence,
        previous,
        revision: 1,
        created: now(),
        expires: sent.expires,
        note: purpose.note.clone(),
        due: purpose.due,
        answers: purpose.answers,
    };
    let manifest = Manifest::new(terms, &sealed.summary).sign(&identity.signing)?;
    let envelope = seal_delegated(&manifest, &sealed.key, party.delegation(), &to.age).map_err(Error::Envelope)?;
    Ok((manifest, envelope))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::contacts::{ContactError, Last, tests::contact};

    #[test]
    fn numbers_go_on_and_begin_beyond_what_a_lost_home_used() {
        let manifest = Sha256Digest::of(b"before");
        let next = |sequence: Option<u64>, from| {
            let sent = sequence.map(|sequence| Last { sequence, manifest, revision: 1 });
            let mut book = AddressBook::default();
            book.add(Contact { sent, ..contact("bo", 1, 1) }).unwrap();
            Places { book, from }.next(&contact("bo", 1, 1)).unwrap()
        };
        assert_eq!(next(None, 0), (1, None));
        assert_eq!(next(Some(7), 0), (8, Some(manifest)));
        assert_eq!(next(None, 100), (101, Some(unknown())));
        assert_eq!(next(Some(7), 100), (101, Some(manifest)));
        assert_eq!(next(Some(100), 100), (101, Some(manifest)));
        assert_eq!(next(Some(101), 100), (102, Some(manifest)));
    }

    // attacks.md 37: in its turn a send looks again.
    #[test]
    fn attack_37_nothing_is_numbered_for_who_is_revoked_gone_or_has_other_keys() {
        let places = |contacts: Vec<Contact>| {
            let mut book = AddressBook::default();
            contacts.into_iter().for_each(|contact| book.add(contact).unwrap());
            Places { book, from: 0 }
        };
        let bo = contact("bo", 1, 1);
        let revoked = Contact { revoked: Some(now()), ..bo.clone() };
        let refused = places(vec![revoked]).next(&bo);
        assert!(matches!(refused, Err(Error::Contact(ContactError::Revoked(_)))));
        assert!(matches!(places(vec![contact("cy", 2, 1)]).next(&bo), Err(Error::KeysChanged)));
        let former = crate::contacts::Former { card: bo.card.clone(), rotation: unknown(), until: now() };
        let rotated = Contact { former: vec![former], ..contact("bo", 3, 2) };
        assert!(matches!(places(vec![rotated]).next(&bo), Err(Error::KeysChanged)));
        assert!(places(vec![bo.clone()]).next(&bo).is_ok());
    }
}
