//! My receipts: signed, sealed to the sender, kept until the relay has them.

use std::path::PathBuf;

use pouch_core::bundle::{Manifest, OpenError, seal_receipt};
use pouch_protocol::{ProblemKind, ReceiptMessage};
use pouch_statement::{BundleId, Fingerprint, Name, Outcome, Receipt, Sha256Digest, Signed, Stage};
use serde::{Deserialize, Serialize};

use super::{Sender, Source};
use crate::api::{ApiError, RelayApi, receipt_message};
use crate::clock::now;
use crate::error::Result;
use crate::home;
use crate::identity::{Identity, IdentityError};
use crate::journal::{Action, Ended, Event};
use crate::party::Party;
use crate::send::again;

const RECEIPTS: &str = "receipts";

/// What became of the receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptState {
    /// The relay has it.
    Sent,
    /// It goes with the next command that reaches the relay.
    Kept,
    /// One was signed when this bundle was received before.
    Before,
    /// The bundle was carried: no relay waits for one.
    Carried,
    /// Only some of the bundle was taken, and a receipt is for all of it.
    Partial,
}

/// A receipt, signed and sealed to the sender, as it is kept until the relay has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedReceipt {
    bundle: BundleId,
    to: Name,
    fingerprint: Fingerprint,
    sha256: Sha256Digest,
    message: ReceiptMessage,
}

fn path(party: &Party, bundle: BundleId) -> PathBuf {
    party.home.state(RECEIPTS).join(format!("{bundle}.json"))
}

/// Signs a receipt and seals it to the sender.
pub(super) fn sign(
    identity: &Identity,
    from: &Sender,
    manifest: &Signed<Manifest>,
    outcome: Outcome,
    stage: Option<Stage>,
) -> Result<SealedReceipt> {
    let receipt = Receipt {
        bundle: manifest.body().bundle,
        manifest_sha256: manifest.digest(),
        sender: manifest.body().sender,
        recipient: manifest.body().recipient,
        outcome,
        stage,
        created: now(),
    };
    // The sender holds it against the key that it was addressed to, which I may have changed since.
    let (_, key) = identity.keys_of(&manifest.body().recipient).ok_or(IdentityError::Damaged)?;
    let receipt = Signed::sign(receipt, key)?;
    let to = from.age_recipient().as_str().parse().map_err(|_| pouch_statement::CardError::Recipient)?;
    let (sealed, commitment) = seal_receipt(&receipt, &to).map_err(OpenError::Envelope)?;
    Ok(SealedReceipt {
        bundle: receipt.body().bundle,
        to: from.contact.name.clone(),
        fingerprint: from.contact.fingerprint(),
        sha256: receipt.digest(),
        message: receipt_message(outcome, &sealed, commitment),
    })
}

impl SealedReceipt {
    fn event(&self) -> Event {
        let event = Event::new(Action::ReceiptSent, Ended::Done).with_peer(&self.to, self.fingerprint);
        Event { bundle: Some(self.bundle), statement_sha256: Some(self.sha256), ..event }
    }

    /// Keeps the receipt until the relay has it: before the bundle counts as received, so that neither a crash nor a
    /// broken line can lose it. A bundle that was carried has no relay that waits for one.
    pub(super) fn keep(&self, party: &Party, source: &Source<'_>) -> Result<()> {
        if matches!(source, Source::File(_)) {
            return Ok(());
        }
        home::private_folder(&party.home.state(RECEIPTS))?;
        Ok(home::write_json(&path(party, self.bundle), self)?)
    }

    /// Hands the kept receipt to the relay; if that cannot be, the next command does. The bundle is received either way.
    pub(super) async fn deliver(&self, party: &Party, source: &Source<'_>) -> Result<ReceiptState> {
        let Source::Relay(api, bundle) = source else { return Ok(ReceiptState::Carried) };
        match again(|| api.put_receipt(*bundle, &self.message)).await {
            Ok(()) => {
                self.done(party, self.event())?;
                Ok(ReceiptState::Sent)
            }
            Err(error) => {
                party.journal().append(&self.event().failed(error))?;
                Ok(ReceiptState::Kept)
            }
        }
    }

    /// Journals the end and lets the kept receipt go.
    fn done(&self, party: &Party, event: Event) -> Result<()> {
        party.journal().append(&event)?;
        let _ = std::fs::remove_file(path(party, self.bundle));
        Ok(())
    }
}

/// Sends receipts that could not be sent when they were signed. What the relay does not take any more is let go.
///
/// # Errors
/// Local state; a relay that cannot be reached is no error here.
pub async fn send_pending_receipts(party: &Party, api: &RelayApi) -> Result<()> {
    for bundle in home::bundles(&party.home.state(RECEIPTS), ".json")? {
        let Some(receipt) = home::read_json::<SealedReceipt>(&path(party, bundle))? else { continue };
        match api.put_receipt(receipt.bundle, &receipt.message).await {
            Ok(()) => receipt.done(party, receipt.event())?,
            Err(error) if is_final(&error) => {
                receipt.done(party, receipt.event().failed(error))?;
            }
            // The others would fare no better; the command itself will tell.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

fn is_final(error: &ApiError) -> bool {
    use ProblemKind as P;
    matches!(
        error.refused(),
        Some(P::NotFound | P::Gone | P::Conflict | P::BadRequest | P::TooLarge | P::Forbidden | P::Digest)
    )
}
