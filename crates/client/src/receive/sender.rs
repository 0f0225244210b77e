//! Who a bundle is from: a contact, or a pipeline that sends in a contact's name.

use std::fmt;
use std::path::PathBuf;

use pouch_statement::{AgeRecipient, Delegation, Fingerprint, Name, Signed};

use crate::contacts::{AddressBook, Contact, Last};
use crate::error::Result;
use crate::home;
use crate::party::Party;

/// The last bundle from each pipeline, by its fingerprint: its numbers are its own.
const PIPELINES: &str = "pipelines-received";

/// Who sent a bundle.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The contact that it counts as from.
    pub contact: Contact,
    /// The contact's word for the key that signed, if that is not the contact's own.
    pub delegation: Option<Signed<Delegation>>,
}

impl Sender {
    /// Who signed.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.delegation.as_ref().map_or_else(|| self.contact.fingerprint(), |d| d.body().delegate())
    }

    /// The pipeline that sent it, as the contact calls it.
    #[must_use]
    pub fn pipeline(&self) -> Option<&Name> {
        self.delegation.as_ref().map(|delegation| &delegation.body().name)
    }

    /// What a receipt is sealed to.
    pub(super) fn age_recipient(&self) -> &AgeRecipient {
        match &self.delegation {
            Some(delegation) => &delegation.body().age_recipient,
            None => &self.contact.card().age_recipient,
        }
    }

    fn path(&self, party: &Party) -> PathBuf {
        party.home.state(PIPELINES).join(format!("{}.json", self.fingerprint()))
    }

    /// The last one from there.
    pub(super) fn last(&self, party: &Party) -> Result<Option<Last>> {
        match self.delegation {
            Some(_) => Ok(home::read_json(&self.path(party))?),
            None => Ok(self.contact.received),
        }
    }

    /// Remembers this as the last one from there, if it is.
    pub(super) fn note(&self, party: &Party, last: Last) -> Result<()> {
        if self.delegation.is_some() {
            home::private_folder(&party.home.state(PIPELINES))?;
            let _lock = party.home.lock()?;
            let before: Option<Last> = home::read_json(&self.path(party))?;
            let newer = before.is_none_or(|before| before.sequence < last.sequence);
            return if newer { Ok(home::write_json(&self.path(party), &last)?) } else { Ok(()) };
        }
        Ok(AddressBook::change(&party.home, |book| {
            // A contact that was removed meanwhile has no sequence to keep.
            let Some(contact) = book.by_fingerprint_mut(&self.contact.fingerprint()) else { return Ok(()) };
            if contact.received.is_none_or(|before| before.sequence < last.sequence) {
                contact.received = Some(last);
            }
            Ok(())
        })?)
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pipeline() {
            Some(name) => write!(f, "{} (pipeline {name})", self.contact.name),
            None => write!(f, "{}", self.contact.name),
        }
    }
}
