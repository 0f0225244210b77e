//! Receiving: envelope, verification, index, parts, publishing, receipt, in the order of docs/format.md, "Opening".

mod near;
mod place;
mod receipt;
mod sender;
mod source;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use pouch_core::bundle::{Chosen, Expected, Kind, Manifest, OpenError, Opening, open_envelope};
use pouch_statement::{BundleId, Fingerprint, Name, Outcome, Sha256Digest, Signed, Timestamp};
use serde::{Deserialize, Serialize};

use self::place::place;
pub use self::place::{Placed, Target, forget, kept};
pub use self::receipt::{ReceiptState, send_pending_receipts};
pub use self::sender::Sender;
pub use self::source::Source;
use crate::clock::now;
use crate::contacts::{ContactError, Last};
use crate::error::{Class, Error, Result};
use crate::evidence::Evidence;
use crate::home;
use crate::identity::Identity;
use crate::inbox::{self, RECEIVED};
use crate::journal::{Action, Attempt, Ended, Event};
use crate::party::Party;
use crate::requests;
use crate::watch::Watch;

/// How a bundle stands to the one received last from the same sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The next one.
    Next,
    /// Some before it have not come yet, or never will.
    Gap {
        /// How many.
        missing: u64,
    },
    /// One from before the last.
    Earlier,
    /// The next one, but it does not follow the manifest that I have.
    Fork,
}

/// A bundle whose envelope, manifest and index are verified: it can be looked at before anything is fetched.
pub struct Ready {
    /// Who sent it.
    pub from: Sender,
    /// How it stands to the last one.
    pub order: Order,
    /// It was received before.
    pub again: bool,
    /// Manifest and index.
    pub opening: Opening,
}

impl Ready {
    /// The entries at these paths, files or folders with all beneath them; all entries if there are no paths.
    ///
    /// # Errors
    /// [`Error::NoEntry`], with names that are near.
    fn choose(&self, paths: &[String]) -> Result<Chosen> {
        let index = self.opening.index();
        if paths.is_empty() {
            return Ok(Chosen::all());
        }
        Chosen::at(index, paths).map_err(|error| Error::NoEntry { near: near::near(index, &error.path), error })
    }
}

/// What was received.
#[derive(Debug)]
pub struct Taken {
    /// Where it went.
    pub placed: Placed,
    /// What became of the receipt.
    pub receipt: ReceiptState,
    /// Number of files.
    pub files: u64,
    /// Bytes in them.
    pub size: u64,
    /// Bytes of them that a receive which was cut off had left.
    pub resumed: u64,
    /// The request that it answers, and whether I made it.
    pub answers: Option<(BundleId, bool)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceivedBefore {
    sender: Fingerprint,
    manifest: Sha256Digest,
    revision: u64,
    time: Timestamp,
}

/// What was received of this bundle before.
fn seen(party: &Party, bundle: BundleId) -> Result<Option<ReceivedBefore>> {
    Ok(home::read_json(&received_path(party, bundle))?)
}

fn received_path(party: &Party, bundle: BundleId) -> PathBuf {
    party.home.state(RECEIVED).join(format!("{bundle}.json"))
}

/// Opens a bundle as far as it can be judged before its parts: envelope, manifest, index. With `wanted`, only one from
/// that contact. What fails is journaled, and where the sender's manifest verified, answered with a receipt that says so.
///
/// # Errors
/// Whatever is not as it must be.
pub async fn open(party: &Party, identity: &Identity, source: &mut Source<'_>, wanted: Option<&Name>) -> Result<Ready> {
    let bundle = source.bundle();
    let event = Event { bundle: Some(bundle), ..failed() };
    let attempt = Attempt::begin(party.journal(), &event);
    match look_inside(party, identity, source, wanted).await {
        Ok(ready) => {
            // `take` goes on from here, or the caller only wanted to look; either way the relay released the envelope.
            let opened = Event::new(Action::Opened, Ended::Done);
            attempt.conclude(&about(ready.opening.manifest(), &ready.from, opened))?;
            inbox::unmark(party, bundle);
            Ok(ready)
        }
        Err(Refusal::NoAnswer(error)) => {
            attempt.conclude(&Event { detail: Some(error.to_string()), ..event.clone() })?;
            Err(error)
        }
        Err(Refusal::Unsigned(error, envelope)) => {
            // The sender is not known to be the sender: nothing leaves, the journal and the evidence stay here.
            let mut detail = error.to_string();
            let no_sender = matches!(error, Error::UnknownSender | Error::Contact(ContactError::Revoked(_)));
            if matches!(error.class(), Class::Evidence) || no_sender {
                let object = Evidence::of(bundle, &envelope);
                object.keep(party)?;
                detail = format!("{detail}; kept in {}", object.name());
                inbox::mark_refused(party, bundle)?;
            }
            attempt.conclude(&Event { detail: Some(detail), ..event.clone() })?;
            Err(error)
        }
        Err(Refusal::Signed(from, manifest, error)) => {
            attempt.pass();
            fail(party, identity, source, &from, &manifest, &error).await?;
            Err(error.into())
        }
    }
}

/// Why a bundle was not opened.
enum Refusal {
    /// An object could not be had.
    NoAnswer(Error),
    /// The envelope or its manifest is not right, or not from whom it must be.
    Unsigned(Error, Bytes),
    /// The manifest is right, the index is not.
    Signed(Box<Sender>, Box<Signed<Manifest>>, OpenError),
}

async fn look_inside(
    party: &Party,
    identity: &Identity,
    source: &mut Source<'_>,
    wanted: Option<&Name>,
) -> std::result::Result<Ready, Refusal> {
    let envelope = source.envelope().await.map_err(Refusal::NoAnswer)?;
    let (from, verified) = verify(party, identity, source.bundle(), &envelope, wanted)
        .map_err(|error| Refusal::Unsigned(error, envelope))?;
    let manifest = verified.manifest().clone();
    let index = match source.index(manifest.body().sealed_index_size).await {
        Ok(index) => index,
        // Longer than it may be: the sender is to know of it as of any wrong index.
        Err(Error::Open(error)) => return Err(Refusal::Signed(Box::new(from), Box::new(manifest), error)),
        Err(error) => return Err(Refusal::NoAnswer(error)),
    };
    match verified.open_index(&index) {
        Ok(opening) => {
            let again = seen(party, source.bundle()).map_err(Refusal::NoAnswer)?;
            let again = again.is_some_and(|before| before.manifest == manifest.digest());
            let order = order(party, &from, &manifest).map_err(Refusal::NoAnswer)?;
            Ok(Ready { order, from, again, opening })
        }
        Err(error) => Err(Refusal::Signed(Box::new(from), Box::new(manifest), error)),
    }
}

fn failed() -> Event {
    Event::new(Action::Received, Ended::Failed)
}

fn verify(
    party: &Party,
    identity: &Identity,
    bundle: BundleId,
    envelope: &[u8],
    wanted: Option<&Name>,
) -> Result<(Sender, pouch_core::bundle::Verified)> {
    // One that was sealed for a key that I had before is for me as well.
    let opened = identity.first(|key, _| open_envelope(envelope, key)).map_err(OpenError::Envelope)?;
    let book = party.contacts()?;
    let claimed = opened.claimed_sender();
    let contact = book.by_fingerprint(&claimed).ok_or(Error::UnknownSender)?.clone();
    let (sender_key, until) = contact.key_of(&claimed).ok_or(Error::UnknownSender)?;
    // Whom the relay says it is from counts for nothing; this does.
    if let Some(wanted) = wanted.filter(|wanted| **wanted != contact.name) {
        return Err(Error::OtherSender { wanted: wanted.clone(), found: contact.name });
    }
    contact.check_not_revoked()?;
    let to = opened.claimed_recipient();
    let expected = Expected {
        me: if identity.is_or_was(&to) { &to } else { &party.fingerprint() },
        sender: &claimed,
        sender_key: &sender_key,
        bundle: Some(bundle),
        now: now(),
    };
    let verified = opened.verify(&expected).map_err(OpenError::Envelope)?;
    contact.card.check_valid_at(now())?;
    let from = Sender { contact, delegation: verified.delegation().cloned() };
    let manifest = verified.manifest();
    // What a former key said of others' keys counts no more: whoever has it could say it today with a date of before.
    if until.is_some_and(|until| manifest.body().created > until || from.delegation.is_some()) {
        return Err(Error::FormerKey(from.contact.name));
    }
    if let Some(before) = seen(party, bundle)?
        && (before.sender == from.fingerprint() || from.contact.is_or_was(&before.sender))
        && before.manifest != manifest.digest()
        && manifest.body().revision <= before.revision
    {
        return Err(Error::Replayed(bundle));
    }
    Ok((from, verified))
}

fn order(party: &Party, from: &Sender, manifest: &Signed<Manifest>) -> Result<Order> {
    let sequence = manifest.body().sequence;
    Ok(match from.last(party)? {
        None if sequence == 1 => Order::Next,
        None => Order::Gap { missing: sequence - 1 },
        Some(last) if last.manifest == manifest.digest() => Order::Next,
        Some(last) if sequence <= last.sequence => Order::Earlier,
        Some(last) if sequence > last.sequence + 1 => Order::Gap { missing: sequence - last.sequence - 1 },
        // What it follows is the first revision, which I may not have.
        Some(last) if last.revision == 1 && manifest.body().previous != Some(last.manifest) => Order::Fork,
        Some(_) => Order::Next,
    })
}

/// Fetches, verifies and places a bundle, or what is at the paths `only` of it, and journals it. The whole of it is
/// answered with a receipt; less is not, because a receipt says that all of it was verified: the bundle waits as before.
///
/// On its way to a folder, what is verified stays hidden beside it when this is dropped or cannot go on for lack of network
/// or room, and the next call for the same goes on with it. A request goes to where requests are kept, whatever the target.
///
/// # Errors
/// Nothing stands at the destination then; a bundle that is not what its sender signed is answered with a receipt that
/// says so.
pub async fn take(
    party: &Party,
    identity: &Identity,
    mut source: Source<'_>,
    ready: Ready,
    only: &[String],
    target: Target,
    watch: Arc<dyn Watch>,
) -> Result<Taken> {
    let chosen = ready.choose(only)?;
    let Ready { from, opening, again, .. } = ready;
    let manifest = opening.manifest().clone();
    // Also where the paths add up to all of it: padding is looked at with the whole alone.
    let whole = only.is_empty();
    let target = if manifest.body().kind == Kind::Request { Target::Memory } else { target };
    let (files, size) = chosen.files(opening.index()).fold((0, 0), |(n, size), (_, e)| (n + 1, size + e.size()));
    let event = about(&manifest, &from, failed());
    let attempt = Attempt::begin(party.journal(), &event);
    let placed = place(&mut source, opening, (only, chosen), target, watch.as_ref()).await;
    watch.done();
    match placed {
        Ok((placed, resumed)) => {
            let action = if whole { Action::Received } else { Action::Extracted };
            let event = Event { size: Some(size), files: Some(files), ..Event::new(action, Ended::Done) };
            let event = Event { detail: Some(placed.to_string()), ..about(&manifest, &from, event) };
            let taken = |placed, receipt, answers| Taken { placed, receipt, files, size, resumed, answers };
            if !whole {
                attempt.conclude(&event)?;
                return Ok(taken(placed, ReceiptState::Partial, None));
            }
            let receipt = receipt::sign(identity, &from, &manifest, Outcome::Verified, None)?;
            if !again {
                receipt.keep(party, &source)?;
            }
            attempt.conclude(&event)?;
            requests::keep(party, &from.contact, &manifest)?;
            let answers = answers(party, &from, &manifest)?;
            remember(party, &from, &manifest)?;
            let state = if again { ReceiptState::Before } else { receipt.deliver(party, &source).await? };
            Ok(taken(placed, state, answers))
        }
        Err(Error::Open(error)) => {
            attempt.pass();
            fail(party, identity, &source, &from, &manifest, &error).await?;
            Err(error.into())
        }
        Err(error) => {
            attempt.conclude(&Event { detail: Some(error.to_string()), ..event.clone() })?;
            Err(error)
        }
    }
}

/// An event about this manifest and its sender.
fn about(manifest: &Signed<Manifest>, from: &Sender, event: Event) -> Event {
    Event {
        bundle: Some(manifest.body().bundle),
        statement_sha256: Some(manifest.digest()),
        sealed_index_sha256: Some(manifest.body().sealed_index_sha256),
        pipeline: from.pipeline().cloned(),
        ..event.with_peer(&from.contact.name, from.contact.fingerprint())
    }
}

/// Which request this answers, and whether I made it; noted with that request.
fn answers(party: &Party, from: &Sender, manifest: &Signed<Manifest>) -> Result<Option<(BundleId, bool)>> {
    let Manifest { bundle, answers: Some(request), .. } = *manifest.body() else { return Ok(None) };
    Ok(Some((request, requests::is_answered(party, &from.contact, request, bundle)?)))
}

/// Remembers a received bundle, so that an older revision is told from it.
fn remember(party: &Party, from: &Sender, manifest: &Signed<Manifest>) -> Result<()> {
    let body = manifest.body();
    home::private_folder(&party.home.state(RECEIVED))?;
    let seen = ReceivedBefore {
        sender: from.fingerprint(),
        manifest: manifest.digest(),
        revision: body.revision,
        time: now(),
    };
    home::write_json(&received_path(party, body.bundle), &seen)?;
    inbox::unmark_failed(party, body.bundle);
    note_order(party, from, manifest)
}

/// Remembers the manifest as the last one seen from its sender, if it is.
fn note_order(party: &Party, from: &Sender, manifest: &Signed<Manifest>) -> Result<()> {
    let Manifest { sequence, revision, .. } = *manifest.body();
    from.note(party, Last { sequence, manifest: manifest.digest(), revision })
}

/// Journals a bundle that failed, and where the fault is the bundle's, answers with a receipt that says at which stage.
async fn fail(
    party: &Party,
    identity: &Identity,
    source: &Source<'_>,
    from: &Sender,
    manifest: &Signed<Manifest>,
    error: &OpenError,
) -> Result<()> {
    let event = Event { stage: error.stage(), detail: Some(error.to_string()), ..failed() };
    party.journal().append(&about(manifest, from, event))?;
    if let Some(stage) = error.stage() {
        note_order(party, from, manifest)?;
        let receipt = receipt::sign(identity, from, manifest, Outcome::Failed, Some(stage))?;
        receipt.keep(party, source)?;
        inbox::mark_failed(party, manifest.body().bundle);
        receipt.deliver(party, source).await?;
    }
    Ok(())
}
