//! Somebody that I do not deal with any more: nothing is sent to them, nothing taken from them, and what they have not fetched
//! is withdrawn.

use pouch_protocol::{BundleState, Delivery};
use pouch_statement::{BundleId, Name, Outcome};

use super::AddressBook;
use crate::api::RelayApi;
use crate::clock::now;
use crate::error::Result;
use crate::journal::{Action, Ended, Event};
use crate::outbox::{self, Progress};
use crate::party::Party;
use crate::pipeline;
use crate::transfer;

/// What became of the bundles that were sent to somebody who is revoked now.
#[derive(Debug, Default)]
pub struct Withdrawn {
    /// Withdrawn before they had fetched the envelope.
    pub in_time: Vec<BundleId>,
    /// They had the envelope, or may have it: it cannot be called back.
    pub too_late: Vec<BundleId>,
    /// Left as they are, because somebody else is waiting for them, too.
    pub shared: Vec<BundleId>,
    /// Held back from everybody: nobody had got it yet, and what was piped in for others, too, is kept.
    pub kept: Vec<BundleId>,
    /// Pipelines of mine that sent to them, and to whom else: ended.
    pub pipelines: Vec<Name>,
}

/// Marks a contact as revoked: from then on, nothing is sent to them and nothing is taken from them.
///
/// # Errors
/// Nobody of that name, or local state.
pub async fn mark(party: &Party, name: &Name) -> Result<()> {
    // Not while a send addresses them.
    let _turn = party.home.sending_turn().await?;
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
        let open = matches!(sent.progress, Progress::Sent | Progress::Committing | Progress::Undelivered);
        if !open || !sent.recipients.iter().any(theirs) {
            continue;
        }
        outbox::settle(party, api, &mut sent).await?;
        let status = match api.bundle(sent.bundle).await {
            Ok(status) => status,
            // Over for so long that the relay has forgotten it.
            Err(error) if error.refused() == Some(pouch_protocol::ProblemKind::NotFound) => continue,
            Err(error) => return Err(error.into()),
        };
        // One that only lacks its commit is as good as there: whoever goes on with it would deliver it.
        if !matches!(status.state, BundleState::Committed | BundleState::Pending) {
            continue;
        }
        // By the relay's word: one that says it of who still waits could as well keep it from them.
        let got = |d: &Delivery| d.receipt.as_ref().is_some_and(|receipt| receipt.outcome == Outcome::Verified);
        let got = |r: &outbox::Recipient| status.deliveries.iter().any(|d| d.mailbox == r.mailbox && got(d));
        if status.state == BundleState::Committed && !sent.recipients.iter().all(|r| theirs(r) || got(r)) {
            withdrawn.shared.push(sent.bundle);
            continue;
        }
        let for_others = sent.recipients.iter().any(|r| !theirs(r));
        if status.state == BundleState::Pending && for_others && transfer::keeps(party, sent.bundle)? {
            // Unless it was delivered this moment.
            let delivered = outbox::hold_back(party, api, &mut sent).await?;
            if delivered {
                withdrawn.shared.push(sent.bundle)
            } else {
                withdrawn.kept.push(sent.bundle)
            }
            continue;
        }
        let had = outbox::revoke(party, api, &mut sent).await?;
        let had = sent.recipients.iter().any(|r| theirs(r) && had.contains(&r.name));
        if had { withdrawn.too_late.push(sent.bundle) } else { withdrawn.in_time.push(sent.bundle) }
    }
    for pipeline in pipeline::to(api, contact.card().mailbox).await? {
        pipeline::end(party, api, &pipeline).await?;
        withdrawn.pipelines.push(pipeline.name);
    }
    Ok(withdrawn)
}
