//! Sending: read, seal and upload at once, then sign one manifest for each recipient and deliver.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pouch_core::bundle::{
    Compression, Content, Kind, Manifest, PouchWriter, SealError, SealedBundle, SealedPart, Sealer, Terms,
    seal_envelope,
};
use pouch_protocol::{Commit, NewBundle, PartField, parts_digest};
use pouch_statement::{BundleId, Name, Note, Sha256Digest, Signed, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::api::{ApiError, RelayApi};
use crate::clock::now;
use crate::contacts::{AddressBook, Contact, Verified};
use crate::error::{Error, Result, Span};
use crate::home::Lock;
use crate::identity::Identity;
use crate::journal::{Action, Attempt, Ended, Event};
use crate::outbox::{self, Progress, Recipient, Sent};
use crate::party::Party;
use crate::pause::Pause;
use crate::watch::Watch;

/// Uploads at once. With those being sealed and the one that waits this bounds memory to eight parts.
const UPLOADS: usize = 3;
/// Threads that seal or open at most: what they do is faster than any network then, and each holds a part.
const MAX_THREADS: usize = 4;
/// How often a request without side effects is tried.
const TRIES: u32 = 4;
/// The first and the longest pause between two of them.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// The longest that a relay may ask for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// What to send, and how.
pub struct Request {
    /// The content.
    pub content: Content,
    /// How to compress it, if at all. Passed over for a credential, whose size would tell of it.
    pub compression: Option<Compression>,
    /// To whom: my name for them.
    pub to: Name,
    /// What it is for.
    pub kind: Kind,
    /// A remark, sealed and signed with the manifest.
    pub note: Option<Note>,
    /// When it ends.
    pub expires: Timestamp,
    /// Delete it on the relay after receipt.
    pub burn: bool,
}

impl Request {
    /// How it will be compressed: as it was asked for, but a credential never.
    #[must_use]
    pub fn compressed(&self) -> Option<Compression> {
        self.compression.filter(|_| self.kind != Kind::Credential)
    }
}

/// A contact that may be sent to, and the keys that sending needs.
pub(crate) struct Addressee {
    pub(crate) contact: Contact,
    pub(crate) age: pouch_core::age::Recipient,
}

/// The contact of that name, if they may be sent to.
pub(crate) fn addressee(party: &Party, name: &Name) -> Result<Addressee> {
    Addressee::check(party.contacts()?.named(name)?.clone())
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
        if contact.verified == Verified::No {
            return Err(Error::Unverified(contact.name));
        }
        contact.card.check_valid_at(now())?;
        let age = contact.card().age_recipient.as_str().parse().map_err(|_| pouch_statement::CardError::Recipient)?;
        Ok(Self { contact, age })
    }

    /// The next sequence number to them, and the manifest that it follows. It is the caller's turn.
    pub(crate) fn place(&self, party: &Party) -> Result<(u64, Option<Sha256Digest>)> {
        let last = AddressBook::load(&party.home)?.by_fingerprint(&self.contact.fingerprint()).and_then(|c| c.sent);
        Ok((last.map_or(1, |l| l.sequence + 1), last.map(|l| l.manifest)))
    }

    pub(crate) fn recipient(&self) -> Recipient {
        Recipient {
            name: self.contact.name.clone(),
            fingerprint: self.contact.fingerprint(),
            signing_key: self.contact.card().signing_key,
            mailbox: self.contact.card().mailbox,
            sequence: None,
            manifest_sha256: None,
            earlier: Vec::new(),
            receipt: None,
        }
    }
}

/// Sends through the relay. When this returns, the recipient's mailbox has it and the journal says so.
///
/// # Errors
/// Also journaled. What was uploaded for nothing is deleted, or collected by the relay.
pub async fn send(
    party: &Party,
    api: &RelayApi,
    identity: &Identity,
    request: Request,
    watch: Arc<dyn Watch>,
) -> Result<Sent> {
    let to = addressee_here(party, &request.to)?;
    let mut sent = Sent::begin(BundleId::random()?, request.kind, request.expires, vec![to.recipient()]);
    sent.store(party)?;
    let event = begun(&to, sent.bundle);
    let attempt = Attempt::begin(party.journal(), &event);
    let result = upload(party, api, identity, request, &to, &mut sent, watch.as_ref()).await;
    watch.done();
    finish(party, attempt, &event, &mut sent, &result)?;
    if let Err(error) = result {
        if sent.progress != Progress::Sending {
            return Err(error);
        }
        // Best effort: the relay forgets what was never committed in any case.
        let _ = api.delete_bundle(sent.bundle).await;
        sent.forget(party)?;
        return Err(error);
    }
    Ok(sent)
}

fn begun(to: &Addressee, bundle: BundleId) -> Event {
    let event = Event { bundle: Some(bundle), ..Event::new(Action::Sent, Ended::Done) };
    event.with_peer(&to.contact.name, to.contact.fingerprint())
}

/// Journals the attempt, then stores the state: a record comes before any word of success.
fn finish(
    party: &Party,
    attempt: Attempt<'_>,
    begun: &Event,
    sent: &mut Sent,
    result: &Result<Delivered>,
) -> Result<()> {
    let event = begun.clone();
    match result {
        Ok(delivered) => {
            attempt.conclude(&Event {
                statement_sha256: Some(delivered.manifest),
                sealed_index_sha256: Some(delivered.sealed_index),
                size: Some(sent.size),
                files: Some(sent.files),
                ..event
            })?;
            sent.store(party)
        }
        Err(error) => {
            Ok(attempt.conclude(&Event { outcome: Ended::Failed, detail: Some(error.to_string()), ..event })?)
        }
    }
}

/// What the journal keeps of a delivery; and the turn, which ends once it is journaled and stored: until then another
/// send would take it for one whose end is not known.
struct Delivered {
    manifest: Sha256Digest,
    sealed_index: Sha256Digest,
    _turn: Lock,
}

async fn upload(
    party: &Party,
    api: &RelayApi,
    identity: &Identity,
    request: Request,
    to: &Addressee,
    sent: &mut Sent,
    watch: &dyn Watch,
) -> Result<Delivered> {
    let bundle = sent.bundle;
    let compression = request.compressed();
    let Request { content, burn, note, .. } = request;
    check_lifetime(api, sent.expires).await?;
    let mailbox = to.contact.card().mailbox;
    let new = NewBundle { bundle, expires: sent.expires, burn, recipients: vec![mailbox] };
    again(|| api.new_bundle(&new)).await?;
    let (mut sealed, parts_sha256) = upload_parts(api, bundle, content, compression, watch).await?;
    sent.describe(&sealed);
    let index = Bytes::from(std::mem::take(&mut sealed.sealed_index));
    again(|| api.put_index(bundle, index.clone())).await?;
    // From the sequence number to the commit no other send of this home may number a manifest.
    let turn = party.home.sending_turn().await?;
    outbox::settle_for(party, api, &to.contact.fingerprint()).await?;
    let (manifest, envelope) = address(party, identity, to, sent, note, &sealed)?;
    let envelope = Bytes::from(envelope);
    again(|| api.put_envelope(bundle, mailbox, envelope.clone())).await?;
    let commit = Commit {
        parts: sealed.summary.layout.parts(),
        parts_sha256,
        index_sha256: sealed.summary.sealed_index_sha256,
        recipients: vec![mailbox],
    };
    sent.commit_to(party, &manifest, &sealed.key, Progress::Committing)?;
    // The same commit again has no effect, so a lost answer is asked for again.
    match again(|| api.commit(bundle, &commit)).await {
        Ok(()) => {}
        Err(error) if error.refused().is_some() && !error.is_passing() => {
            // The relay says no, but the envelope is out of our hands.
            sent.advance(party)?;
            sent.progress = Progress::Undelivered;
            sent.store(party)?;
            return Err(error.into());
        }
        Err(_) => return Err(Error::Unsettled(bundle)),
    }
    sent.progress = Progress::Sent;
    sent.advance(party)?;
    Ok(Delivered { manifest: manifest.digest(), sealed_index: sealed.summary.sealed_index_sha256, _turn: turn })
}

/// Refuses what the relay would refuse, before anything is read or sealed. By the relay's clock, as the relay will.
pub(crate) async fn check_lifetime(api: &RelayApi, expires: Timestamp) -> Result<()> {
    let limits = again(|| api.limits()).await?;
    let limit = limits.max_lifetime;
    if expires.since(limits.time) > limit { Err(Error::Lifetime(Span(limit))) } else { Ok(()) }
}

/// Journals an attempt that ended before it was one: the relay could not be asked who answered my invitations, or what it
/// answered was wrong.
///
/// # Errors
/// Local state.
pub fn never_begun(party: &Party, to: &Name, reason: &str) -> Result<()> {
    let event = Event { detail: Some(reason.to_owned()), ..Event::new(Action::Sent, Ended::Failed) };
    let event = match party.contacts()?.named(to) {
        Ok(contact) => event.with_peer(to, contact.fingerprint()),
        Err(_) => Event { peer: Some(to.clone()), ..event },
    };
    Ok(party.journal().append(&event)?)
}

/// The next manifest for this contact, signed, and the envelope around it. It is the caller's turn.
fn address(
    party: &Party,
    identity: &Identity,
    to: &Addressee,
    sent: &Sent,
    note: Option<Note>,
    sealed: &SealedBundle,
) -> Result<(Signed<Manifest>, Vec<u8>)> {
    let (sequence, previous) = to.place(party)?;
    let terms = Terms {
        bundle: sent.bundle,
        kind: sent.kind,
        sender: party.fingerprint(),
        recipient: to.contact.fingerprint(),
        sequence,
        previous,
        revision: 1,
        created: now(),
        expires: sent.expires,
        note,
    };
    let manifest = Manifest::new(terms, &sealed.summary).sign(&identity.signing)?;
    let envelope = seal_envelope(&manifest, &sealed.key, &to.age).map_err(Error::Envelope)?;
    Ok((manifest, envelope))
}

type SealWorker = JoinHandle<std::result::Result<SealedBundle, SealError>>;

/// How many threads seal or open.
pub(crate) fn threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores.min(MAX_THREADS)).unwrap_or(NonZeroUsize::MIN)
}

/// The memory of parts that are out of the house, for the next ones.
#[derive(Clone, Default)]
struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, memory: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

/// Reads and seals on threads of their own; sealed parts come out of the channel in order, and the bundle behind the last
/// one.
fn seal_in_background(
    content: Content,
    compression: Option<Compression>,
    spare: Spare,
) -> (mpsc::Receiver<SealedPart>, SealWorker) {
    let (parts, queue) = mpsc::channel(1);
    let worker = tokio::task::spawn_blocking(move || {
        let sealer = Sealer::compressing(content, compression)?;
        sealer.seal_all(threads(), |part| {
            let next = SealedPart { sealed: spare.take(), ..SealedPart::default() };
            parts.blocking_send(std::mem::replace(part, next)).map_err(|_| SealError::Unfinished)
        })?;
        sealer.finish()
    });
    (queue, worker)
}

/// What all parts will cover, if it is known before the end.
fn planned(content: &Content, compression: Option<Compression>) -> Option<u64> {
    match (content, compression) {
        (Content::Tree(scan), None) => Some(scan.layout().padded_size()),
        (Content::Tree(scan), Some(_)) => Some(scan.layout().content_size()),
        (Content::Stream { .. }, _) => None,
    }
}

async fn upload_parts(
    api: &RelayApi,
    bundle: BundleId,
    content: Content,
    compression: Option<Compression>,
    watch: &dyn Watch,
) -> Result<(SealedBundle, Sha256Digest)> {
    watch.stage("sending", planned(&content, compression));
    let spare = Spare::default();
    let (mut queue, worker) = seal_in_background(content, compression, spare.clone());
    let mut uploads = FuturesUnordered::new();
    let mut digests = Vec::new();
    loop {
        tokio::select! {
            part = queue.recv(), if uploads.len() < UPLOADS => {
                let Some(part) = part else { break };
                let field = PartField { number: part.number, length: part.sealed.len() as u64, blake3: part.blake3 };
                digests.push((field.length, field.blake3));
                let sealed = Bytes::from(part.sealed);
                let (covers, spare) = (part.covers, spare.clone());
                uploads.push(async move {
                    again(|| api.put_part(bundle, field, sealed.clone())).await?;
                    if sealed.is_unique() {
                        spare.give(sealed.into());
                    }
                    Ok::<_, ApiError>(covers)
                });
            }
            Some(done) = uploads.next(), if !uploads.is_empty() => watch.advance(done?),
        }
    }
    while let Some(done) = uploads.next().await {
        watch.advance(done?);
    }
    let sealed = worker.await.map_err(|_| Error::Worker)??;
    let digest = parts_digest(digests.iter().map(|(length, blake3)| (*length, blake3)));
    Ok((sealed, digest))
}

/// Tries a request that may safely come twice again after the network or the relay failed for the moment.
pub(crate) async fn again<T, F>(mut request: impl FnMut() -> F) -> std::result::Result<T, ApiError>
where
    F: Future<Output = std::result::Result<T, ApiError>>,
{
    let mut pause = Pause::new(FIRST_PAUSE, MAX_PAUSE);
    for _ in 1..TRIES {
        match request().await {
            // Whoever asks for a longer pause than this is asked again by the user, who is told how long.
            Err(error) if error.is_passing() && error.retry_after().is_none_or(|wait| wait <= MAX_WAIT) => {
                tokio::time::sleep(pause.after(Some(&error))).await;
            }
            other => return other,
        }
    }
    request().await
}

/// Seals into a `.pouch` file instead: the same bundle, carried by anyone. The file appears whole or not at all.
///
/// # Errors
/// Also journaled. An existing file is not replaced.
pub async fn send_to_file(
    party: &Party,
    identity: &Identity,
    request: Request,
    out: &Path,
    watch: &dyn Watch,
) -> Result<Sent> {
    let to = addressee(party, &request.to)?;
    let mut sent = Sent::begin(BundleId::random()?, request.kind, request.expires, vec![to.recipient()]);
    let event = begun(&to, sent.bundle);
    let attempt = Attempt::begin(party.journal(), &event);
    let result = write_file(party, identity, request, &to, &mut sent, out, watch).await;
    watch.done();
    finish(party, attempt, &event, &mut sent, &result)?;
    result.map(|_| sent)
}

async fn write_file(
    party: &Party,
    identity: &Identity,
    request: Request,
    to: &Addressee,
    sent: &mut Sent,
    out: &Path,
    watch: &dyn Watch,
) -> Result<Delivered> {
    let compression = request.compressed();
    let Request { content, note, .. } = request;
    watch.stage("sealing", planned(&content, compression));
    let mut writer = PouchWriter::create(out, sent.bundle)?;
    // Read on another thread: input that does not come must not keep an interruption from clearing the file away.
    let spare = Spare::default();
    let (mut queue, worker) = seal_in_background(content, compression, spare.clone());
    while let Some(part) = queue.recv().await {
        writer.add_part(part.number, &part.sealed)?;
        watch.advance(part.covers);
        spare.give(part.sealed);
    }
    let sealed = worker.await.map_err(|_| Error::Worker)??;
    sent.describe(&sealed);
    let turn = party.home.sending_turn().await?;
    let (manifest, envelope) = address(party, identity, to, sent, note, &sealed)?;
    sent.commit_to(party, &manifest, &sealed.key, Progress::Carried)?;
    if let Err(error) = writer.finish(&sealed.sealed_index, &envelope) {
        sent.forget(party)?;
        return Err(error.into());
    }
    sent.advance(party)?;
    Ok(Delivered { manifest: manifest.digest(), sealed_index: sealed.summary.sealed_index_sha256, _turn: turn })
}
