//! Receipts for my bundles: fetched, verified, stored, journaled; and waiting for them.

use std::borrow::Borrow;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_core::bundle;
use pouch_protocol::{BundleStatus, ProblemKind, ReceiptMessage};
use pouch_statement::{BundleId, MailboxId, Outcome, Receipt, Signed};

use super::{Progress, Recipient, Sent, Verdict, settle};
use crate::api::RelayApi;
use crate::error::{Error, Result};
use crate::evidence::Evidence;
use crate::identity::Identity;
use crate::journal::{Action, Ended, Event};
use crate::party::Party;
use crate::pause::Pause;

/// The first and the longest pause between two looks for a receipt.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Where a bundle stands on the relay, with receipts fetched, verified, stored and journaled. `unlock` is called only
/// if a receipt came that was not opened yet.
///
/// # Errors
/// The relay cannot be reached, or a receipt is not right: that is evidence and nothing is stored of it.
pub async fn refresh<K: Borrow<Identity>>(
    party: &Party,
    api: &RelayApi,
    sent: &mut Sent,
    unlock: impl FnOnce() -> Result<K>,
) -> Result<BundleStatus> {
    if !settle(party, api, sent).await? {
        return Err(Error::NeverDelivered(sent.bundle));
    }
    let asked = api.bundle(sent.bundle).await;
    if matches!(&asked, Err(error) if error.refused() == Some(ProblemKind::NotFound)) {
        fetched(party, sent)?;
    }
    let status = asked?;
    let news: Vec<(MailboxId, ReceiptMessage)> = status
        .deliveries
        .iter()
        .filter_map(|d| d.receipt.clone().map(|r| (d.mailbox, r)))
        .filter(|(mailbox, message)| is_news(sent, mailbox, message))
        .collect();
    if news.is_empty() {
        fetched(party, sent)?;
    } else {
        let identity = unlock()?;
        for (mailbox, message) in news {
            take_receipt(party, sent, mailbox, &message, identity.borrow())?;
        }
    }
    Ok(status)
}

/// Of what was withdrawn, the relay has no more receipts that were not fetched.
fn fetched(party: &Party, sent: &mut Sent) -> Result<()> {
    if !sent.recipients.iter().any(|r| r.unfetched) {
        return Ok(());
    }
    sent.change(party, |sent| sent.recipients.iter_mut().for_each(|r| r.unfetched = false))
}

/// A receipt is news if there was none, or if a failure may have been followed by success. Success is final: a relay
/// that brings up an older failure again takes nothing back.
pub(super) fn is_news(sent: &Sent, mailbox: &MailboxId, message: &ReceiptMessage) -> bool {
    sent.recipients.iter().any(|r| {
        let news = |v: Verdict| v.outcome == Outcome::Failed && message.outcome == Outcome::Verified;
        r.mailbox == *mailbox && sent.verdict(r).is_none_or(news)
    })
}

fn take_receipt(
    party: &Party,
    sent: &mut Sent,
    mailbox: MailboxId,
    message: &ReceiptMessage,
    identity: &Identity,
) -> Result<()> {
    let bundle = sent.bundle;
    let Some(recipient) = sent.recipients.iter().find(|r| r.mailbox == mailbox) else { return Ok(()) };
    let event = Event { bundle: Some(bundle), ..Event::new(Action::ReceiptReceived, Ended::Done) }
        .with_peer(&recipient.name, recipient.fingerprint);
    match open_receipt(bundle, recipient, message, identity) {
        Ok(receipt) => {
            let event = Event { statement_sha256: Some(receipt.digest()), stage: receipt.body().stage, ..event };
            party.journal().append(&event)?;
            sent.change(party, |sent| {
                // Another process may have been first, with this one or with the success that followed a failure.
                if is_news(sent, &mailbox, message)
                    && let Some(recipient) = sent.recipients.iter_mut().find(|r| r.mailbox == mailbox)
                {
                    recipient.receipt = Some(receipt.detached());
                    recipient.unfetched = false;
                }
            })
        }
        Err(reason) => {
            let object = Evidence::of(bundle, message.sealed.as_bytes());
            // The relay shows it again each time it is asked; one record of it is enough. The record comes before what
            // tells that there is one, so that it is not lost in between.
            if !object.is_kept(party) {
                party.journal().append(&event.failed(format!("{reason}; kept in {}", object.name())))?;
                object.keep(party)?;
            }
            sent.change(party, |sent| sent.recipients.iter_mut().for_each(|r| r.unfetched &= r.mailbox != mailbox))?;
            Err(Error::BadReceipt(bundle, reason))
        }
    }
}

fn open_receipt(
    bundle: BundleId,
    recipient: &Recipient,
    message: &ReceiptMessage,
    identity: &Identity,
) -> std::result::Result<Signed<Receipt>, String> {
    let sealed = STANDARD.decode(&message.sealed).map_err(|_| "not base64".to_owned())?;
    let (detached, commitment) =
        identity.first(|key, _| bundle::open_receipt(&sealed, key)).map_err(|e| e.to_string())?;
    if commitment != message.commitment {
        return Err("it is not what was committed to".into());
    }
    let receipt = recipient.check(&detached).map_err(|e| e.to_string())?;
    let body = receipt.body();
    let fits = body.bundle == bundle
        && recipient.was_sent(&body.manifest_sha256)
        && identity.is_or_was(&body.sender)
        && body.outcome == message.outcome
        && (body.outcome == Outcome::Failed) == body.stage.is_some();
    if fits { Ok(receipt) } else { Err("it is about another bundle, manifest, sender or outcome".into()) }
}

/// Whether asking the relay may bring news: it was delivered, and no receipt says yet that it was verified; or it was
/// withdrawn, and the relay has one that was not fetched.
#[must_use]
pub fn awaits_receipt(sent: &Sent) -> bool {
    let verified = |r: &Recipient| sent.verdict(r).is_some_and(|v| v.outcome == Outcome::Verified);
    match sent.progress {
        Progress::Sent => !sent.recipients.iter().all(verified),
        Progress::Revoked => sent.recipients.iter().any(|r| r.unfetched),
        _ => false,
    }
}

/// Waits until every recipient's receipt is there and verified, at most `limit`.
///
/// # Errors
/// [`Error::NoReceipt`] at the end of the time.
pub async fn wait_receipt(
    party: &Party,
    api: &RelayApi,
    sent: &mut Sent,
    mut unlock: impl FnMut() -> Result<Identity>,
    limit: Duration,
) -> Result<()> {
    let begun = Instant::now();
    let mut pause = Pause::new(FIRST_PAUSE, MAX_PAUSE);
    loop {
        let failed = match refresh(party, api, sent, &mut unlock).await {
            // A pipeline that waits for hours rides out what passes.
            Err(Error::Api(error)) if error.is_passing() => Some(error),
            other => other.map(|_| None)?,
        };
        if sent.recipients.iter().all(|r| r.receipt.is_some()) {
            return Ok(());
        }
        let left = limit.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(Error::NoReceipt(limit.as_secs()));
        }
        tokio::time::sleep(pause.after(failed.as_ref()).min(left)).await;
    }
}
