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

    /// Refuses whoever was revoked, or has other keys, since they were looked up. It is the caller's turn.
    pub(crate) fn check_current(&self, party: &Party) -> Result<()> {
        let book = AddressBook::load(&party.home)?;
        let now = book.by_fingerprint(&self.contact.fingerprint()).ok_or(Error::KeysChanged)?;
        now.check_not_revoked()?;
        if now.fingerprint() == self.contact.fingerprint() { Ok(()) } else { Err(Error::KeysChanged) }
    }

    /// The next sequence number to them, and the manifest that it follows. It is the caller's turn.
    pub(crate) fn place(&self, party: &Party) -> Result<(u64, Option<Sha256Digest>)> {
        let last = AddressBook::load(&party.home)?.by_fingerprint(&self.contact.fingerprint()).and_then(|c| c.sent);
        let from = party.account().sequences_from;
        Ok(match last {
            Some(last) if last.sequence >= from => (last.sequence + 1, Some(last.manifest)),
            // What a home that was lost sent in between nobody here knows.
            last if from > 0 => (from + 1, Some(last.map_or_else(unknown, |last| last.manifest))),
            _ => (1, None),
        })
    }

    pub(crate) fn recipient(&self) -> Recipient {
        Recipient::new(&self.contact)
    }
}

/// The next manifest for this contact, signed, and the envelope around it. It is the caller's turn.
pub(super) fn address(
    party: &Party,
    identity: &Identity,
    to: &Addressee,
    sent: &Sent,
    purpose: &Purpose,
    sealed: &SealedBundle,
) -> Result<(Signed<Manifest>, Vec<u8>)> {
    party.check_current()?;
    to.check_current(party)?;
    let (sequence, previous) = to.place(party)?;
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
