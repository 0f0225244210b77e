//! Somebody that I do not deal with any more: nothing is sent to them, nothing taken from them, and what they have not fetched is
//! withdrawn.

use pouch_protocol::BundleState;
use pouch_statement::{BundleId, Name};

use super::AddressBook;
use crate::api::RelayApi;
use crate::clock::now;
use crate::error::Result;
use crate::journal::{Action, Ended, Event};
use crate::outbox::{self, Progress};
use crate::party::Party;

/// What became of the bundles that were sent to somebody who is revoked now.
#[derive(Debug, Default)]
pub struct Withdrawn {
    /// Withdrawn before they had fetched the envelope.
    pub in_time: Vec<BundleId>,
    /// They had the envelope, or may have it: it cannot be called back.
    pub too_late: Vec<BundleId>,
    /// Left as they are, because somebody else is waiting for them, too.
    pub shared: Vec<BundleId>,
}

/// Marks a contact as revoked: from then on, nothing is sent to them and nothing is taken from them.
///
/// # Errors
/// Nobody of that name, or local state.
pub fn mark(party: &Party, name: &Name) -> Result<()> {
    let event = Event::new(Action::ContactRevoked, Ended::Done);
    let changed = AddressBook::change(&party.home, |book| {
        let contact = book.named_mut(name)?;
        let first = contact.revoked.is_none();
        contact.revoked.get_or_insert(now());
        Ok((contact.fingerprint(), first))
    });
    let (fingerprint, first) = changed?;
    if first { Ok(party.journal().append(&event.with_peer(name, fingerprint))?) } else { Ok(()) }
}

/// Withdraws what a revoked contact may still fetch.
///
/// # Errors
/// The relay cannot be reached: the same again goes on from there.
pub async fn withdraw(party: &Party, api: &RelayApi, name: &Name) -> Result<Withdrawn> {
    let contact = party.contacts()?.named(name)?.clone();
    let mut withdrawn = Withdrawn::default();
    for mut sent in outbox::list(party)? {
        let theirs = |r: &outbox::Recipient| contact.is_or_was(&r.fingerprint);
        if !matches!(sent.progress, Progress::Sent | Progress::Committing) || !sent.recipients.iter().any(theirs) {
            continue;
        }
        if sent.progress == Progress::Committing && !outbox::settle(party, api, &mut sent).await? {
            continue;
        }
        let status = match api.bundle(sent.bundle).await {
            Ok(status) => status,
            // Over for so long that the relay has forgotten it.
            Err(error) if error.refused() == Some(pouch_protocol::ProblemKind::NotFound) => continue,
            Err(error) => return Err(error.into()),
        };
        if status.state != BundleState::Committed {
            continue;
        }
        if !sent.recipients.iter().all(theirs) {
            withdrawn.shared.push(sent.bundle);
            continue;
        }
        let had = outbox::revoke(party, api, &mut sent).await?;
        if had.is_empty() { withdrawn.in_time.push(sent.bundle) } else { withdrawn.too_late.push(sent.bundle) }
    }
    Ok(withdrawn)
}
