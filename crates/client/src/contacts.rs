//! The address book: other people's cards as pinned, with how and when they were verified.

pub mod revoke;
pub mod rotation;

use pouch_statement::{
    Card, CardError, Detached, Fingerprint, MailboxId, Name, PublicKey, Sha256Digest, SignedCard, SignedRotation,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::home::{self, Home, HomeError};

const FILE: &str = "contacts.json";

/// What can go wrong with contacts.
#[derive(Debug, thiserror::Error)]
pub enum ContactError {
    /// Nobody of that name.
    #[error("no contact named {0}")]
    Unknown(Name),
    /// The name is taken by somebody else.
    #[error("{0} is the name of another contact; choose a name that is free")]
    NameTaken(Name),
    /// Already there under another name.
    #[error("this card is pinned already, as {0}")]
    Pinned(Name),
    /// Another key under a name that is pinned.
    #[error("the card for {name} has another key than the one that is pinned ({pinned})")]
    KeyChanged {
        /// The contact.
        name: Name,
        /// The pinned fingerprint's words.
        pinned: String,
    },
    /// A classic card under a name that is pinned with a hybrid one.
    #[error(
        "the card for {name} is classic, and the pinned one ({pinned}) is hybrid: what is sealed for it would be weaker"
    )]
    Downgrade {
        /// The contact.
        name: Name,
        /// The pinned fingerprint's words.
        pinned: String,
    },
    /// Two cards of one identity with one serial number, or an older one.
    #[error("the card for {name} is older than the pinned one, or another one under the same serial number")]
    Stale {
        /// The contact.
        name: Name,
    },
    /// The card itself is bad.
    #[error(transparent)]
    Card(#[from] CardError),
    /// Somebody that I do not deal with any more.
    #[error("{0} is revoked: nothing is sent to them and nothing taken from them")]
    Revoked(Name),
    /// My own card.
    #[error("this is your own card")]
    Myself,
    /// State on disk.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// How a contact's fingerprint came to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verified {
    /// Both cards were exchanged under the secret of a one-time link.
    Link,
    /// The twelve words were compared.
    Words,
    /// Not yet.
    No,
}

/// The last bundle in one direction: what the next one's manifest follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Last {
    /// Its sequence number.
    pub sequence: u64,
    /// Digest of its manifest.
    pub manifest: Sha256Digest,
    /// Its revision. Of what I sent it is always the first, which the next manifest names.
    #[serde(default = "first")]
    pub revision: u64,
}

fn first() -> u64 {
    1
}

/// Keys that a contact had before.
#[derive(Clone, Debug)]
pub struct Former {
    /// The card with those keys.
    pub card: SignedCard,
    /// Digest of the rotation that replaced them.
    pub rotation: Sha256Digest,
    /// When that was: what is signed with them is from before.
    pub until: Timestamp,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormerRow {
    card: Detached,
    rotation: Sha256Digest,
    until: Timestamp,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: Name,
    card: Detached,
    verified: Verified,
    verified_at: Option<Timestamp>,
    added: Timestamp,
    sent: Option<Last>,
    received: Option<Last>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<FormerRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Timestamp>,
}

/// One contact.
#[derive(Clone, Debug)]
pub struct Contact {
    /// My name for them.
    pub name: Name,
    /// Their card, its own signature checked on each load.
    pub card: SignedCard,
    /// How they were verified.
    pub verified: Verified,
    /// When.
    pub verified_at: Option<Timestamp>,
    /// When they were added.
    pub added: Timestamp,
    /// The last bundle that I sent them.
    pub sent: Option<Last>,
    /// The last bundle that I received from them.
    pub received: Option<Last>,
    /// Keys that they had before, oldest first.
    pub former: Vec<Former>,
    /// Since when I send them nothing and take nothing from them.
    pub revoked: Option<Timestamp>,
}

impl Contact {
    /// A contact not met before.
    #[must_use]
    pub fn new(name: Name, card: SignedCard, verified: Verified, now: Timestamp) -> Self {
        let verified_at = (verified != Verified::No).then_some(now);
        Self {
            name,
            card,
            verified,
            verified_at,
            added: now,
            sent: None,
            received: None,
            former: Vec::new(),
            revoked: None,
        }
    }

    /// Their fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.card.fingerprint()
    }

    /// What their card says.
    #[must_use]
    pub fn card(&self) -> &Card {
        self.card.card()
    }

    /// Whether this is, or was, their fingerprint.
    #[must_use]
    pub fn is_or_was(&self, fingerprint: &Fingerprint) -> bool {
        self.key_of(fingerprint).is_some()
    }

    /// The key that statements of this fingerprint are signed with, and if it is a former one, until when it was theirs.
    #[must_use]
    pub fn key_of(&self, fingerprint: &Fingerprint) -> Option<(PublicKey, Option<Timestamp>)> {
        if self.fingerprint() == *fingerprint {
            return Some((self.card().signing_key, None));
        }
        let former = self.former.iter().find(|former| former.card.fingerprint() == *fingerprint)?;
        Some((former.card.card().signing_key, Some(former.until)))
    }

    /// Takes the new card of a rotation that was verified against the present one.
    pub(crate) fn rotate(&mut self, rotation: &SignedRotation) {
        let card = std::mem::replace(&mut self.card, rotation.card().clone());
        self.former.push(Former { card, rotation: rotation.digest(), until: rotation.time() });
    }

    /// Refuses somebody who is revoked.
    pub(crate) fn check_not_revoked(&self) -> Result<(), ContactError> {
        if self.revoked.is_some() { Err(ContactError::Revoked(self.name.clone())) } else { Ok(()) }
    }
}

/// The address book, loaded whole; changes go through [`AddressBook::change`] under the state's lock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(into = "Vec<Row>", try_from = "Vec<Row>")]
pub struct AddressBook {
    contacts: Vec<Contact>,
}

/// What a name looks like: the same for names that look alike. Prototypes of letters may be capitals.
fn looks(name: &Name) -> String {
    let folded = name.to_string().to_lowercase();
    unicode_security::skeleton(&folded).flat_map(char::to_lowercase).collect()
}

impl AddressBook {
    /// Loads the book. Every card's signature is checked again.
    ///
    /// # Errors
    /// A book that is damaged.
    pub fn load(home: &Home) -> Result<Self, ContactError> {
        let rows: Vec<Row> = home::read_json(&home.config(FILE))?.unwrap_or_default();
        Ok(Self::try_from(rows)?)
    }

    /// Loads, changes and stores the book while holding the lock, so that two processes lose nothing of each other's.
    ///
    /// # Errors
    /// What the change refuses, or the file system.
    pub fn change<R>(
        home: &Home,
        change: impl FnOnce(&mut Self) -> Result<R, ContactError>,
    ) -> Result<R, ContactError> {
        let _lock = home.lock()?;
        let mut book = Self::load(home)?;
        let result = change(&mut book)?;
        book.store(home)?;
        Ok(result)
    }

    /// Stores the book; the caller has the lock.
    pub(crate) fn store(&self, home: &Home) -> Result<(), HomeError> {
        home::write_json(&home.config(FILE), &self)
    }

    /// All contacts, by name.
    #[must_use]
    pub fn all(&self) -> &[Contact] {
        &self.contacts
    }

    /// The contact of this name.
    ///
    /// # Errors
    /// [`ContactError::Unknown`].
    pub fn named(&self, name: &Name) -> Result<&Contact, ContactError> {
        self.contacts.iter().find(|c| c.name == *name).ok_or_else(|| ContactError::Unknown(name.clone()))
    }

    /// A name, other than this one, that a person could take for it (UTS #39, "Confusable Detection"; case counts for nothing).
    #[must_use]
    pub fn alike(&self, name: &Name) -> Option<&Name> {
        let mine = looks(name);
        self.contacts.iter().map(|contact| &contact.name).find(|other| *other != name && looks(other) == mine)
    }

    /// The contact who has this fingerprint, or had it before.
    #[must_use]
    pub fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<&Contact> {
        self.contacts.iter().find(|c| c.is_or_was(fingerprint))
    }

    /// The contact with this mailbox: for showing names beside the relay's word, never for trust.
    #[must_use]
    pub fn by_mailbox(&self, mailbox: &MailboxId) -> Option<&Contact> {
        self.contacts.iter().find(|c| c.card().mailbox == *mailbox)
    }

    /// For a change: the contact of this name.
    ///
    /// # Errors
    /// [`ContactError::Unknown`].
    pub fn named_mut(&mut self, name: &Name) -> Result<&mut Contact, ContactError> {
        self.contacts.iter_mut().find(|c| c.name == *name).ok_or_else(|| ContactError::Unknown(name.clone()))
    }

    /// For a change: the contact who has this fingerprint, or had it before.
    #[must_use]
    pub fn by_fingerprint_mut(&mut self, fingerprint: &Fingerprint) -> Option<&mut Contact> {
        self.contacts.iter_mut().find(|c| c.is_or_was(fingerprint))
    }

    /// Adds a contact, or takes a renewed card with the same keys and a higher serial for one that is there.
    ///
    /// # Errors
    /// Another key under a pinned name is a hard stop, all the more a weaker one; so are a stale card and a name that
    /// is taken.
    pub fn add(&mut self, new: Contact) -> Result<(), ContactError> {
        if let Some(old) = self.contacts.iter_mut().find(|c| c.is_or_was(&new.fingerprint())) {
            old.check_not_revoked()?;
            if old.name != new.name {
                return Err(ContactError::Pinned(old.name.clone()));
            }
            return old.renew(new);
        }
        if let Some(old) = self.contacts.iter().find(|c| c.name == new.name) {
            let (name, pinned) = (new.name, old.fingerprint().words());
            let weaker = old.card().age_recipient.is_post_quantum() && !new.card.card().age_recipient.is_post_quantum();
            return Err(match weaker {
                true => ContactError::Downgrade { name, pinned },
                false => ContactError::KeyChanged { name, pinned },
            });
        }
        let at = self.contacts.partition_point(|c| c.name < new.name);
        self.contacts.insert(at, new);
        Ok(())
    }

    /// Removes a contact.
    ///
    /// # Errors
    /// [`ContactError::Unknown`].
    pub fn remove(&mut self, name: &Name) -> Result<Contact, ContactError> {
        match self.contacts.iter().position(|c| c.name == *name) {
            Some(at) => Ok(self.contacts.remove(at)),
            None => Err(ContactError::Unknown(name.clone())),
        }
    }
}

impl Contact {
    fn renew(&mut self, new: Self) -> Result<(), ContactError> {
        let same = new.card.statement().digest() == self.card.statement().digest();
        if !same {
            // Keys of before do not come back, whatever serial the card has.
            if new.fingerprint() != self.fingerprint() || new.card().serial <= self.card().serial {
                return Err(ContactError::Stale { name: new.name });
            }
            self.card = new.card;
        }
        if new.verified != Verified::No && self.verified == Verified::No {
            self.verified = new.verified;
            self.verified_at = new.verified_at;
        }
        Ok(())
    }
}

impl TryFrom<Vec<Row>> for AddressBook {
    type Error = CardError;
    fn try_from(rows: Vec<Row>) -> Result<Self, CardError> {
        Ok(Self { contacts: rows.into_iter().map(Contact::try_from).collect::<Result<_, _>>()? })
    }
}

impl From<AddressBook> for Vec<Row> {
    fn from(book: AddressBook) -> Self {
        book.contacts.iter().map(Row::from).collect()
    }
}

impl TryFrom<Row> for Contact {
    type Error = CardError;
    fn try_from(row: Row) -> Result<Self, CardError> {
        Ok(Self {
            name: row.name,
            card: SignedCard::verify(&row.card)?,
            verified: row.verified,
            verified_at: row.verified_at,
            added: row.added,
            sent: row.sent,
            received: row.received,
            former: row.former.into_iter().map(Former::try_from).collect::<Result<_, _>>()?,
            revoked: row.revoked,
        })
    }
}

impl From<&Contact> for Row {
    fn from(contact: &Contact) -> Self {
        Self {
            name: contact.name.clone(),
            card: contact.card.detached(),
            verified: contact.verified,
            verified_at: contact.verified_at,
            added: contact.added,
            sent: contact.sent,
            received: contact.received,
            former: contact.former.iter().map(FormerRow::from).collect(),
            revoked: contact.revoked,
        }
    }
}

impl TryFrom<FormerRow> for Former {
    type Error = CardError;
    fn try_from(row: FormerRow) -> Result<Self, CardError> {
        Ok(Self { card: SignedCard::verify(&row.card)?, rotation: row.rotation, until: row.until })
    }
}

impl From<&Former> for FormerRow {
    fn from(former: &Former) -> Self {
        Self { card: former.card.detached(), rotation: former.rotation, until: former.until }
    }
}

#[cfg(test)]
pub(crate) mod tests;
