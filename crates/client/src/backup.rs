//! A backup of who I am and whom I know, and a home made from it (docs/format.md, "Backup").
//!
//! It holds no device key: a restored home makes its own, which the identity enrols. It holds neither journal nor transfers.

use pouch_core::age::Passphrase;
use pouch_protocol::DeviceKey;
use pouch_statement::{Detached, Name, Sha256Digest, SignedCard, SigningKey, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::clock::now;
use crate::contacts::AddressBook;
use crate::device;
use crate::error::{Error, Result};
use crate::home::{self, Home};
use crate::identity::{self, Identity, IdentityError};
use crate::journal::{Action, Ended, Event, Journal};
use crate::party::{self, Party, StoredAccount};
use crate::rotate;

const TYPE: &str = "pouch.backup.v1";
/// The restore that is not finished.
const RESTORING: &str = "restoring.json";
/// Sequence numbers of a restored home begin at a multiple of this, which no home reaches by sending.
pub const SEQUENCE_STEP: u64 = 1 << 32;

/// Why a backup was not made or taken.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something else, of another version, or not what was written.
    #[error("this is no backup of an identity, or one of another version: {0}")]
    Unreadable(String),
    /// Its parts do not belong together.
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
}

/// Who somebody is and whom they know.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    r#type: String,
    created: Timestamp,
    /// The text of the identity file, with all keys.
    identity: String,
    card: Detached,
    account: StoredAccount,
    rotations: Vec<Detached>,
    contacts: AddressBook,
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.identity.zeroize();
    }
}

impl Backup {
    /// Of a party, with its opened identity.
    ///
    /// # Errors
    /// Local state.
    pub fn of(party: &Party, identity: &Identity) -> Result<Self> {
        Ok(Self {
            r#type: TYPE.to_owned(),
            created: now(),
            identity: identity.to_text().to_string(),
            card: party.card().detached(),
            account: party.account().clone(),
            rotations: rotate::all(party)?,
            contacts: party.contacts()?,
        })
    }

    /// As it is sealed.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(serde_json::to_vec(self).map_err(crate::api::ApiError::Encode)?);
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what was sealed, and checks that its parts belong together: every card's signature among it.
    ///
    /// # Errors
    /// Not a backup, or a damaged one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let unreadable =
            |e: serde_json::Error| BackupError::Unreadable(format!("line {} column {}", e.line(), e.column()));
        let backup: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        if backup.r#type != TYPE {
            return Err(BackupError::Unreadable("its type".into()).into());
        }
        backup.opened()?;
        Ok(backup)
    }

    /// The name on the card.
    ///
    /// # Errors
    /// A damaged backup.
    pub fn name(&self) -> Result<Name> {
        Ok(self.opened()?.0.card().name.clone())
    }

    /// The card, and the identity with its keys first.
    fn opened(&self) -> Result<(SignedCard, Identity)> {
        let card = SignedCard::verify(&self.card)?;
        let identity = Identity::from_text(&self.identity).and_then(|all| all.beginning_with(&card.fingerprint()));
        let identity = identity.ok_or(BackupError::Damaged("its card is not its identity's"))?;
        if card.card().relay != self.account.relay {
            return Err(BackupError::Damaged("its card names another relay").into());
        }
        Ok((card, identity))
    }

    /// Where the sequence numbers of a home made from this begin: beyond all that any home of this identity can have used
    /// since. The random part keeps two homes from one backup apart.
    fn sequences_from(&self) -> Result<u64> {
        let sent = self.contacts.all().iter().filter_map(|contact| contact.sent).map(|last| last.sequence);
        let most = sent.max().unwrap_or(0).max(self.account.sequences_from);
        Ok(beyond(most, u16::from_le_bytes(pouch_statement::random()?)))
    }
}

/// A multiple of the step, at least one whole step beyond the end of the one in which `most` lies: contacts tell a restored
/// home by so many numbers that are missing, whatever was sent after the backup.
fn beyond(most: u64, random: u16) -> u64 {
    (most / SEQUENCE_STEP + 2 + u64::from(random)).saturating_mul(SEQUENCE_STEP)
}

/// What a restore did so far.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restoring {
    /// SHA-256 of the card: another backup is another one.
    card: Sha256Digest,
}

/// Makes a home of a backup: everything that is stored, and then a device key of its own. Without a relay the second half is
/// missing: the same again goes on.
///
/// # Errors
/// Somebody is here already. Once the home is made, [`enrol`] is what is left.
pub fn restore(home: &Home, backup: &Backup, passphrase: Option<&Passphrase>) -> Result<()> {
    let (card, identity) = backup.opened()?;
    let mark = Restoring { card: card.statement().digest() };
    let begun: Option<Restoring> = home::read_json(&home.config(RESTORING))?;
    let goes_on = begun.is_some_and(|begun| begun.card == mark.card);
    match (party::is_joined(home), goes_on) {
        (true, true) if Party::open(home)?.card().statement().digest() == mark.card => return Ok(()),
        (true, _) => return Err(Error::AlreadyJoined),
        (false, false) if identity::is_protected(home).is_some() => return Err(IdentityError::Exists.into()),
        (false, _) => {}
    }
    home.create()?;
    let lock = home.lock()?;
    home::write_json(&home.config(RESTORING), &mark)?;
    identity.restore(home, passphrase)?;
    party::store_card(home, &card)?;
    rotate::store(home, &backup.rotations)?;
    backup.contacts.store(home)?;
    if !identity::has_device(home)? {
        identity::store_device(home, &SigningKey::generate()?)?;
    }
    drop(lock);
    let journal = Journal::create(home)?;
    let account = StoredAccount { journal, sequences_from: backup.sequences_from()?, ..backup.account.clone() };
    let before = backup.account.journal;
    // From here on somebody is here.
    let party = Party::found(home, account)?;
    let event = Event { statement_sha256: Some(mark.card), ..Event::new(Action::Restored, Ended::Done) };
    let detail = format!("from a backup of {}; the journal before is {before}", backup.created.unix());
    Ok(party.journal().append(&Event { detail: Some(detail), ..event })?)
}

/// Has the relay take the device key of a restored home.
///
/// # Errors
/// The relay cannot be reached, or the identity is not the account's any more: its keys were replaced after the backup.
pub async fn enrol(party: &Party, identity: &Identity) -> Result<DeviceKey> {
    let key = device::enrol(party, identity, identity::device(&party.home)?, None).await?;
    home::remove(&party.home.config(RESTORING))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_home_is_told_by_how_many_numbers_are_missing() {
        for most in [0, 1, 5, SEQUENCE_STEP - 1, SEQUENCE_STEP, 7 * SEQUENCE_STEP + 9] {
            let last_of_before = most / SEQUENCE_STEP * SEQUENCE_STEP + SEQUENCE_STEP - 1;
            for random in [0, 1, u16::MAX] {
                let missing = beyond(most, random) - last_of_before;
                assert!(missing >= SEQUENCE_STEP, "{most} {random}");
            }
        }
        // docs/format.md, "Backup".
        assert_eq!((beyond(5, 0), beyond(5, u16::MAX)), (2 * SEQUENCE_STEP, 65_537 * SEQUENCE_STEP));
    }
}
