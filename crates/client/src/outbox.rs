//! What I sent: my own state of each bundle, receipts as they come in, and withdrawing.

mod amend;
mod receipt;
mod recipient;
mod revoke;
mod unfinished;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_core::age;
use pouch_core::bundle::{self, EntryKind, ItemKind, Kind, Scan, SealedBundle};
use pouch_protocol::{BundleState, ProblemKind};
use pouch_statement::{Blake3Digest, BundleId, Detached, Name, Outcome, Receipt, Signed, Stage, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use self::amend::{Readdressed, add, extend, needs_reseal, reseal};
pub use self::receipt::{awaits_receipt, refresh, wait_receipt};
pub use self::recipient::{FormerKey, Recipient};
pub use self::revoke::revoke;
pub use self::unfinished::forget;
use crate::api::RelayApi;
use crate::contacts::{AddressBook, Contact, Last};
use crate::error::{Error, Result};
use crate::home;
use crate::identity::Identity;
use crate::journal::{Action, Ended, Event};
use crate::party::Party;
use crate::requests;
use crate::send::{Purpose, say};
use crate::transfer::{self, Last as ToSay, Standing, Transfer};
use crate::typed;
use crate::watch::Unwatched;

const FOLDER: &str = "outbox";
/// When all of it was looked at by a send; and after how many seconds the next one does.
const LOOKED: &str = "looked";
const LOOK_AT_ALL: u64 = 3600;

/// Where a bundle of mine stands, as I know it without asking the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Begun and not finished: interrupted, or still running.
    Sending,
    /// About to be committed, and the relay's answer is not known: it may be delivered. [`settle`] finds out.
    Committing,
    /// Committed on the relay.
    Sent,
    /// Written to a file.
    Carried,
    /// The relay says that it never was delivered. Kept all the same: a relay's word is no reason to forget a key.
    Undelivered,
    /// Withdrawn, by me.
    Revoked,
}

/// A bundle of mine. What it holds and what opens it is sealed to my own identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// The bundle.
    pub bundle: BundleId,
    /// What it is for.
    pub kind: Kind,
    /// Of a request: by when files are to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// The request that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answers: Option<BundleId>,
    /// Where it stands.
    pub progress: Progress,
    /// When it was begun.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Bytes of content.
    pub size: u64,
    /// Files.
    pub files: u64,
    /// Its recipients.
    pub recipients: Vec<Recipient>,
    /// What it is marked with, if nothing else is to be delivered under its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) once: Option<Blake3Digest>,
    /// [`Private`], sealed to my own recipient; base64. Absent until everything is sealed.
    private: Option<String>,
}

/// What only I may read about a bundle of mine.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Private {
    /// The bundle key: adds recipients and re-seals without touching a part.
    bundle_key: String,
    /// The newest manifest for each recipient: all that the next revision, or another recipient's, says but for its times.
    #[zeroize(skip)]
    manifests: Vec<Detached>,
}

impl Private {
    fn new(key: &age::Identity, manifests: Vec<Detached>) -> Self {
        Self { bundle_key: key.expose_secret_string().to_string(), manifests }
    }

    /// Sealed to myself, in base64.
    fn seal(&self, party: &Party) -> Result<String> {
        let text = Zeroizing::new(serde_json::to_vec(self).map_err(crate::api::ApiError::Encode)?);
        Ok(STANDARD.encode(age::seal_to_vec(party.recipient(), &text)?))
    }
}

/// What a recipient said, verified.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// Where it failed.
    pub stage: Option<Stage>,
    /// When the recipient signed.
    pub created: Timestamp,
}

impl Sent {
    /// A bundle that is about to be sent.
    pub(crate) fn begin(bundle: BundleId, purpose: &Purpose, expires: Timestamp, recipients: Vec<Recipient>) -> Self {
        Self {
            bundle,
            kind: purpose.kind,
            due: purpose.due,
            answers: purpose.answers,
            progress: Progress::Sending,
            created: crate::clock::now(),
            expires,
            size: 0,
            files: 0,
            recipients,
            once: None,
            private: None,
        }
    }

    /// Writes the state down, for the one that sends. What other processes noted meanwhile stays: a receipt, an answer, and
    /// that the bundle is withdrawn.
    pub(crate) fn store(&mut self, party: &Party) -> Result<()> {
        home::private_folder(&party.home.state(FOLDER))?;
        let path = path(party, self.bundle);
        let _lock = party.home.lock()?;
        if let Some(there) = home::read_json::<Self>(&path)? {
            if there.progress == Progress::Revoked {
                self.progress = Progress::Revoked;
            }
            for noted in there.recipients {
                let Some(mine) = self.recipients.iter_mut().find(|r| r.mailbox == noted.mailbox) else { continue };
                mine.receipt = mine.receipt.take().or(noted.receipt);
                mine.answer = mine.answer.or(noted.answer);
                mine.unfetched |= noted.unfetched;
            }
        }
        Ok(home::write_json(&path, self)?)
    }

    /// Changes the state as it is on disk now, for everybody but the one that sends: between reading it and this, another
    /// process may have written it. A state that is gone stays gone.
    pub(crate) fn change(&mut self, party: &Party, change: impl FnOnce(&mut Self)) -> Result<()> {
        let path = path(party, self.bundle);
        let _lock = party.home.lock()?;
        let there = home::read_json::<Self>(&path)?;
        let gone = there.is_none();
        *self = there.unwrap_or_else(|| self.clone());
        change(self);
        if gone { Ok(()) } else { Ok(home::write_json(&path, self)?) }
    }

    /// Writes down, before anything is delivered, what is being delivered: an answer that is lost, or a crash, then costs
    /// neither the bundle key nor the digest that a receipt must name.
    pub(crate) fn commit_to(
        &mut self,
        party: &Party,
        manifests: &[Signed<bundle::Manifest>],
        key: &age::Identity,
        progress: Progress,
    ) -> Result<()> {
        self.private = Some(Private::new(key, manifests.iter().map(Signed::detached).collect()).seal(party)?);
        for manifest in manifests {
            let to = &manifest.body().recipient;
            let Some(recipient) = self.recipients.iter_mut().find(|r| r.fingerprint == *to) else { continue };
            recipient.sequence = Some(manifest.body().sequence);
            recipient.manifest_sha256 = Some(manifest.digest());
        }
        self.progress = progress;
        self.store(party)
    }

    /// What is known of it without what opens or addresses it again.
    pub(crate) fn without_keys(&self) -> Self {
        Self { private: None, ..self.clone() }
    }

    /// Whether only the relay knows what became of it.
    fn is_open(&self) -> bool {
        matches!(self.progress, Progress::Committing | Progress::Undelivered)
    }

    /// The next manifest for each recipient follows this bundle's.
    pub(crate) fn advance(&self, party: &Party) -> Result<()> {
        Ok(AddressBook::change(&party.home, |book| {
            for recipient in &self.recipients {
                let (Some(sequence), Some(manifest)) = (recipient.sequence, recipient.first_manifest()) else {
                    continue;
                };
                // A contact that was removed meanwhile has no sequence to keep.
                let Some(contact) = book.by_fingerprint_mut(&recipient.fingerprint) else { continue };
                if contact.sent.is_none_or(|before| before.sequence < sequence) {
                    contact.sent = Some(Last { sequence, manifest, revision: 1 });
                }
            }
            Ok(())
        })?)
    }

    /// Notes with the request that this answers that it is answered: once it is delivered, and before the state says so. What
    /// is cut off in between is settled again.
    pub(crate) fn note_answer(&self, party: &Party) -> Result<()> {
        self.answers.map_or(Ok(()), |request| requests::answered(party, request, self.bundle))
    }

    /// Removes the state of a send that came to nothing; the journal keeps the attempt.
    pub(crate) fn forget(&self, party: &Party) -> Result<()> {
        let path = path(party, self.bundle);
        let _lock = party.home.lock()?;
        Ok(home::remove(&path)?)
    }

    /// Notes what is going to be sealed.
    pub(crate) fn outline(&mut self, scan: &Scan) {
        self.files = scan.items().filter(|item| item.kind != ItemKind::Folder).count() as u64;
        self.size = scan.bytes();
    }

    /// Notes what was sealed.
    pub(crate) fn describe(&mut self, sealed: &SealedBundle) {
        let files = sealed.index.entries().iter().filter(|e| e.kind != EntryKind::Folder);
        (self.files, self.size) = files.fold((0, 0), |(count, bytes), e| (count + 1, bytes + e.size()));
    }

    /// The recipient's verdict, as stored.
    #[must_use]
    pub fn verdict(&self, recipient: &Recipient) -> Option<Verdict> {
        let receipt = recipient.check(recipient.receipt.as_ref()?).ok()?;
        let Receipt { outcome, stage, created, .. } = *receipt.body();
        Some(Verdict { outcome, stage, created })
    }
}

fn path(party: &Party, bundle: BundleId) -> PathBuf {
    party.home.state(FOLDER).join(format!("{bundle}.json"))
}

/// One of my bundles, if it is there.
///
/// # Errors
/// A damaged state.
pub(crate) fn load(party: &Party, bundle: BundleId) -> Result<Option<Sent>> {
    Ok(home::read_json(&path(party, bundle))?)
}

fn bundles(party: &Party) -> Result<Vec<BundleId>> {
    Ok(home::bundles(&party.home.state(FOLDER), ".json")?)
}

fn loaded(party: &Party, bundles: Vec<BundleId>) -> Result<Vec<Sent>> {
    let mut sent = Vec::new();
    for bundle in bundles {
        sent.extend(load(party, bundle)?);
    }
    Ok(sent)
}

/// All my bundles, newest first.
///
/// # Errors
/// A damaged state.
pub fn list(party: &Party) -> Result<Vec<Sent>> {
    let mut sent = loaded(party, bundles(party)?)?;
    sent.sort_by(|a, b| b.created.cmp(&a.created).then(a.bundle.cmp(&b.bundle)));
    Ok(sent)
}

/// The one bundle whose id begins with what was typed.
///
/// # Errors
/// None, or several.
pub fn find(party: &Party, typed: &str) -> Result<Sent> {
    let found = typed::only(bundles(party)?, |bundle| *bundle, typed, Error::NoBundle)?;
    load(party, found)?.ok_or_else(|| Error::NoBundle(typed.to_owned()))
}

/// Finds out whether a bundle was delivered whose commit got no answer. `false`: the relay says that it was not. One that the
/// relay has whole, and that can go on, stays open.
///
/// # Errors
/// The relay cannot be reached.
pub async fn settle(party: &Party, api: &RelayApi, sent: &mut Sent) -> Result<bool> {
    settle_as(party, api, None, sent).await
}

/// [`settle`]; with an identity what can go on goes on, so that nothing stays open.
pub(crate) async fn settle_as(
    party: &Party,
    api: &RelayApi,
    identity: Option<&Identity>,
    sent: &mut Sent,
) -> Result<bool> {
    if !sent.is_open() {
        return Ok(true);
    }
    // Another process may be committing it this moment. In its turn nothing is settled, and afterwards nothing is open.
    let _turn = party.home.sending_turn().await?;
    match load(party, sent.bundle)? {
        Some(now) => *sent = now,
        None => return Ok(false),
    }
    settle_in_turn(party, api, identity, sent).await
}

/// Keeps one from being delivered that may not be yet: then it is undelivered. `true`: it is delivered.
///
/// # Errors
/// The relay cannot be reached.
pub(crate) async fn hold_back(party: &Party, api: &RelayApi, sent: &mut Sent) -> Result<bool> {
    let _turn = party.home.sending_turn().await?;
    sent.change(party, |_| {})?;
    match api.bundle(sent.bundle).await {
        Ok(status) if status.state == BundleState::Pending => api.delete_bundle(sent.bundle).await?,
        Err(e) if e.refused() != Some(ProblemKind::NotFound) => return Err(e.into()),
        _ => {}
    }
    settle_in_turn(party, api, None, sent).await
}

async fn settle_in_turn(party: &Party, api: &RelayApi, identity: Option<&Identity>, sent: &mut Sent) -> Result<bool> {
    if !sent.is_open() {
        return Ok(true);
    }
    let delivered = match api.bundle(sent.bundle).await {
        Ok(status) if status.state == BundleState::Pending && sent.progress == Progress::Committing => match identity {
            Some(identity) => say_the_rest(party, api, identity, sent.bundle).await?,
            None if transfer::standing(party, sent.bundle)? == Standing::Lost => false,
            None => return Ok(true),
        },
        Ok(status) => status.committed.is_some(),
        Err(e) if e.refused() == Some(ProblemKind::NotFound) => false,
        Err(e) => return Err(e.into()),
    };
    let found = if delivered { Progress::Sent } else { Progress::Undelivered };
    if sent.progress == found {
        return Ok(delivered);
    }
    let outcome = if delivered { Ended::Done } else { Ended::Failed };
    for to in &sent.recipients {
        let event = Event { bundle: Some(sent.bundle), ..Event::new(Action::Settled, outcome) };
        let event = Event { statement_sha256: to.manifest_sha256, ..event };
        party.journal().append(&event.with_peer(&to.name, to.fingerprint))?;
    }
    // The number is used up either way: the envelope left this machine, and no other manifest may bear it.
    sent.advance(party)?;
    if delivered {
        sent.note_answer(party)?;
    }
    sent.change(party, |sent| {
        if sent.is_open() {
            sent.progress = found;
        }
    })?;
    clear_transfer(party, sent)?;
    Ok(delivered)
}

/// Ends a send that was interrupted before its commit was heard. `false`: nothing is left of it, or the relay says no.
async fn say_the_rest(party: &Party, api: &RelayApi, identity: &Identity, bundle: BundleId) -> Result<bool> {
    let transfer = Transfer::open(party, identity, bundle)?;
    let Some(last) = transfer.as_ref().and_then(|transfer| transfer.last.as_ref()) else { return Ok(false) };
    if revoked_among(party, last)?.is_some() {
        return Ok(api.delete_bundle(bundle).await.map(|()| false)?);
    }
    match say(api, bundle, last, &Unwatched).await {
        Ok(()) => Ok(true),
        Err(Error::Api(error)) if error.is_final() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Somebody among those that it is for who is revoked by now.
pub(crate) fn revoked_among(party: &Party, last: &ToSay) -> Result<Option<Name>> {
    let book = party.contacts()?;
    let contacts = last.envelopes.iter().filter_map(|one| book.by_mailbox(&one.mailbox));
    Ok(contacts.filter(|contact| contact.revoked.is_some()).map(|contact| contact.name.clone()).next())
}

/// Settles what is open for these recipients, in the turn that the caller has, so that the next manifest for each follows the
/// last that was delivered.
pub(crate) async fn settle_for(party: &Party, api: &RelayApi, identity: &Identity, to: &[&Contact]) -> Result<()> {
    let theirs = |r: &Recipient| to.iter().any(|contact| contact.is_or_was(&r.fingerprint));
    for mut sent in unsettled(party)? {
        if sent.progress == Progress::Committing && sent.recipients.iter().any(theirs) {
            settle_in_turn(party, api, Some(identity), &mut sent).await?;
        }
    }
    Ok(())
}

/// Those that may be open: of which there is a transfer. Every [`LOOK_AT_ALL`] seconds all of them, so that keys are forgotten; and
/// for a pipeline, whose transfers end with its run, and as long as a commit is open whose transfer is gone. So a send does not
/// read years of states.
fn unsettled(party: &Party) -> Result<Vec<Sent>> {
    let looked = party.home.state(FOLDER).join(LOOKED);
    let now = crate::clock::now();
    let recent = |at: Timestamp| at <= now && now.since(at) < LOOK_AT_ALL;
    let all = party.pipeline.is_some() || !home::read_json(&looked).ok().flatten().is_some_and(recent);
    let mut found = loaded(party, if all { bundles(party)? } else { transfer::list(party)? })?;
    forget_keys(party, &mut found)?;
    if all && party.pipeline.is_none() {
        let transfers = transfer::list(party)?;
        let has_transfer = |sent: &Sent| sent.progress != Progress::Committing || transfers.contains(&sent.bundle);
        if found.iter().all(has_transfer) {
            home::write_json(&looked, &now)?;
        }
    }
    Ok(found)
}

/// Forgets what opens those of `list` that are over, by my own clock: nobody can be addressed with them any
/// more, and no send can go on. What a crash left of a send that is over goes, too.
///
/// # Errors
/// A state that cannot be written.
pub fn forget_keys(party: &Party, list: &mut [Sent]) -> Result<()> {
    let now = crate::clock::now();
    for sent in list.iter_mut().filter(|sent| sent.private.is_some() && sent.expires <= now) {
        sent.change(party, |sent| {
            if sent.expires <= now {
                sent.private = None;
            }
        })?;
    }
    for bundle in transfer::list(party)? {
        if let Some(sent) = list.iter().find(|sent| sent.bundle == bundle) {
            clear_transfer(party, sent)?;
        }
    }
    Ok(())
}

/// Removes what is left of a send that is over.
pub(crate) fn clear_transfer(party: &Party, sent: &Sent) -> Result<()> {
    match sent.progress {
        Progress::Sent | Progress::Carried | Progress::Revoked => transfer::discard(party, sent.bundle),
        Progress::Undelivered => transfer::put_away(party, sent.bundle),
        Progress::Sending if sent.expires <= crate::clock::now() => transfer::put_away(party, sent.bundle),
        // A commit is settled first, however long ago it was.
        Progress::Sending | Progress::Committing => Ok(()),
    }
}
