//! Receiving: envelope, verification, index, parts, publishing, receipt, in the order of docs/format.md, "Opening".

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use pouch_core::bundle::{
    Expected, InMemory, Manifest, OpenError, Opening, PouchFile, Released, Sink, SinkError, Staging,
    open_envelope, seal_receipt,
};
use pouch_protocol::{InboxItem, ProblemKind, ReceiptMessage};
use pouch_statement::{
    BundleId, Name, Outcome, Receipt, Sha256Digest, Signed, Stage, Timestamp, matches_prefix,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::api::{ApiError, RelayApi, receipt_message};
use crate::clock::now;
use crate::contacts::{AddressBook, Contact, Last};
use crate::error::{Error, Result};
use crate::home;
use crate::identity::Identity;
use crate::journal::{Action, Attempt, Ended, Event};
use crate::party::Party;
use crate::send::again;
use crate::transport::TransportError;
use crate::watch::Watch;

const RECEIVED: &str = "received";
const RECEIPTS: &str = "receipts";
const REFUSED: &str = "refused";
/// Parts fetched at once. With the one being opened and the one that waits this bounds memory to five parts.
const DOWNLOADS: usize = 3;
/// The longest pause between two looks into the inbox.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// A bundle in my mailbox, with my name for the account that the relay says it is from.
#[derive(Debug)]
pub struct Waiting {
    /// What the relay says.
    pub item: InboxItem,
    /// My name for that account's owner.
    pub from: Option<Name>,
}

/// What waits for me, oldest first.
///
/// # Errors
/// The relay cannot be reached.
pub async fn waiting(party: &Party, api: &RelayApi) -> Result<Vec<Waiting>> {
    let book = party.contacts()?;
    let items = api.inbox().await?;
    let named = |item: InboxItem| Waiting { from: book.by_mailbox(&item.sender).map(|c| c.name.clone()), item };
    Ok(items.into_iter().map(named).collect())
}

/// Finds the bundle that a person means: a prefix of what waits or was received before, or the only one that waits.
///
/// # Errors
/// Nothing, or several.
pub async fn find(party: &Party, api: &RelayApi, typed: Option<&str>) -> Result<BundleId> {
    let mut known: Vec<BundleId> = waiting(party, api).await?.into_iter().map(|w| w.item.bundle).collect();
    let prefix = typed.unwrap_or_default();
    if let Some(typed) = typed {
        known.extend(received_before(party)?);
        known.retain(|id| matches_prefix(&id.to_string(), typed));
        known.sort_unstable();
        known.dedup();
    }
    match known.as_slice() {
        [one] => Ok(*one),
        [] => match (typed, prefix.parse()) {
            (None, _) => Err(Error::NothingWaiting),
            (Some(_), Ok(whole)) => Ok(whole),
            (Some(typed), Err(_)) => Err(Error::NoBundle(typed.to_owned())),
        },
        _ => Err(Error::Ambiguous { prefix: prefix.to_owned(), found: known }),
    }
}

/// Waits for the oldest bundle, from a certain contact if one is named, at most `limit`.
///
/// # Errors
/// [`Error::NothingWaiting`] at the end of the time.
pub async fn next(party: &Party, api: &RelayApi, from: Option<&Name>, limit: Option<Duration>) -> Result<BundleId> {
    let begun = std::time::Instant::now();
    let mut pause = Duration::from_millis(250);
    loop {
        let waiting = waiting(party, api).await?;
        let wanted = |w: &&Waiting| from.is_none() || w.from.as_ref() == from;
        // What was refused stays in the list, but must not keep what comes after it from being received.
        let next = waiting.iter().filter(wanted).find(|w| !refused_path(party, w.item.bundle).exists());
        if let Some(one) = next {
            return Ok(one.item.bundle);
        }
        if limit.is_some_and(|limit| begun.elapsed() + pause > limit) {
            return Err(Error::NothingWaiting);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(MAX_PAUSE);
    }
}

/// Where a bundle's objects come from.
pub enum Source<'a> {
    /// A relay.
    Relay(&'a RelayApi, BundleId),
    /// A `.pouch` file.
    File(Box<PouchFile<File>>),
}

impl Source<'_> {
    /// A `.pouch` file that somebody carried here.
    ///
    /// # Errors
    /// Not readable, or not one.
    pub fn file(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::File(format!("cannot open {}", path.display()), e))?;
        Ok(Self::File(Box::new(PouchFile::open(file)?)))
    }

    fn bundle(&self) -> BundleId {
        match self {
            Self::Relay(_, bundle) => *bundle,
            Self::File(file) => file.bundle(),
        }
    }

    async fn envelope(&mut self) -> Result<Bytes> {
        match self {
            Self::Relay(api, bundle) => Ok(api.release(*bundle).await?),
            Self::File(file) => Ok(file.envelope()?.into()),
        }
    }

    async fn index(&mut self, size: u64) -> Result<Bytes> {
        match self {
            Self::Relay(api, bundle) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                Ok(again(|| api.get_index(*bundle, size)).await?)
            }
            Self::File(file) => Ok(file.index()?.into()),
        }
    }
}

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
    pub from: Contact,
    /// How it stands to the last one.
    pub order: Order,
    /// Manifest and index.
    pub opening: Opening,
}

/// Where verified content goes.
pub enum Target {
    /// A folder that does not exist yet.
    Folder(PathBuf),
    /// A writer, for a bundle of one file.
    Writer(Box<dyn std::io::Write + Send>),
    /// Memory, for a credential.
    Memory,
}

/// Where it went.
#[derive(Debug)]
pub enum Placed {
    /// Into this folder.
    Folder(PathBuf),
    /// Into the writer.
    Written,
    /// Here.
    Memory(Zeroizing<Vec<u8>>),
}

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
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceivedBefore {
    manifest: Sha256Digest,
    revision: u64,
    time: Timestamp,
}

fn received_before(party: &Party) -> Result<Vec<BundleId>> {
    let folder = party.home.state(RECEIVED);
    let names = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|e| e.ok()?.file_name().into_string().ok()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::File(format!("cannot list {}", folder.display()), e)),
    };
    Ok(names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}

/// Marks a bundle whose envelope or sender was refused: `next` passes it over, its id still receives it.
fn refused_path(party: &Party, bundle: BundleId) -> PathBuf {
    party.home.state(REFUSED).join(format!("{bundle}.json"))
}

/// What was received of this bundle before.
fn seen(party: &Party, bundle: BundleId) -> Result<Option<ReceivedBefore>> {
    Ok(home::read_json(&received_path(party, bundle))?)
}

fn received_path(party: &Party, bundle: BundleId) -> PathBuf {
    party.home.state(RECEIVED).join(format!("{bundle}.json"))
}

/// Opens a bundle as far as it can be judged before its parts: envelope, manifest, index. What fails is journaled, and
/// where the sender's manifest verified, answered with a receipt that says so.
///
/// # Errors
/// Whatever is not as it must be.
pub async fn open(party: &Party, identity: &Identity, source: &mut Source<'_>) -> Result<Ready> {
    let event = Event { bundle: Some(source.bundle()), ..failed() };
    let attempt = Attempt::begin(party.journal(), &event);
    match look_inside(party, identity, source).await {
        Ok(ready) => {
            // `take` goes on from here, or the caller only wanted to look.
            attempt.pass();
            Ok(ready)
        }
        Err(Refusal::Unsigned(error)) => {
            // The sender is not known to be the sender: nothing leaves, the journal has it.
            attempt.conclude(&Event { detail: Some(error.to_string()), ..event.clone() })?;
            if !matches!(error, Error::Api(_) | Error::Transport(_)) {
                home::private_folder(&party.home.state(REFUSED))?;
                home::write_json(&refused_path(party, source.bundle()), &now())?;
            }
            Err(error)
        }
        Err(Refusal::Signed(from, manifest, error)) => {
            attempt.pass();
            fail(party, identity, source, &from, &manifest, &error).await?;
            Err(error.into())
        }
    }
}

/// Why a bundle was not opened: before its manifest was verified, or after.
enum Refusal {
    Unsigned(Error),
    Signed(Box<Contact>, Box<Signed<Manifest>>, OpenError),
}

async fn look_inside(
    party: &Party,
    identity: &Identity,
    source: &mut Source<'_>,
) -> std::result::Result<Ready, Refusal> {
    let envelope = source.envelope().await.map_err(Refusal::Unsigned)?;
    let (from, verified) = verify(party, identity, source.bundle(), &envelope).map_err(Refusal::Unsigned)?;
    let manifest = verified.manifest().clone();
    let index = source.index(manifest.body().sealed_index_size).await.map_err(Refusal::Unsigned)?;
    match verified.open_index(&index) {
        Ok(opening) => Ok(Ready { order: order(&from, &manifest), from, opening }),
        Err(error) => Err(Refusal::Signed(Box::new(from), Box::new(manifest), error)),
    }
}

/// What is longer than all that was read of it is of the wrong size, and the sender is to know.
fn beyond(limit: usize) -> u64 {
    (limit as u64).saturating_add(1)
}

fn failed() -> Event {
    Event::new(Action::Received, Ended::Failed)
}

fn verify(
    party: &Party,
    identity: &Identity,
    bundle: BundleId,
    envelope: &[u8],
) -> Result<(Contact, pouch_core::bundle::Verified)> {
    let opened = open_envelope(envelope, &identity.age).map_err(OpenError::Envelope)?;
    let book = party.contacts()?;
    let from = book.by_fingerprint(&opened.claimed_sender()).ok_or(Error::UnknownSender)?.clone();
    let expected = Expected {
        me: &party.fingerprint(),
        sender: &from.fingerprint(),
        sender_key: &from.card().signing_key,
        bundle: Some(bundle),
        now: now(),
    };
    let verified = opened.verify(&expected).map_err(OpenError::Envelope)?;
    from.card.check_valid_at(now())?;
    let manifest = verified.manifest();
    if let Some(before) = seen(party, bundle)?
        && before.manifest != manifest.digest()
        && manifest.body().revision <= before.revision
    {
        return Err(Error::Replayed(bundle));
    }
    Ok((from, verified))
}

fn order(from: &Contact, manifest: &Signed<Manifest>) -> Order {
    let sequence = manifest.body().sequence;
    match from.received {
        None if sequence == 1 => Order::Next,
        None => Order::Gap { missing: sequence - 1 },
        Some(last) if last.manifest == manifest.digest() => Order::Next,
        Some(last) if sequence <= last.sequence => Order::Earlier,
        Some(last) if sequence > last.sequence + 1 => Order::Gap { missing: sequence - last.sequence - 1 },
        Some(last) if manifest.body().previous != Some(last.manifest) => Order::Fork,
        Some(_) => Order::Next,
    }
}

/// Fetches, verifies and places the content of a bundle, journals it and answers with a receipt.
///
/// # Errors
/// Nothing stands at the destination then; a bundle that is not what its sender signed is answered with a receipt that
/// says so.
pub async fn take(
    party: &Party,
    identity: &Identity,
    mut source: Source<'_>,
    ready: Ready,
    target: Target,
    watch: Arc<dyn Watch>,
) -> Result<(Placed, ReceiptState)> {
    let Ready { from, opening, .. } = ready;
    let manifest = opening.manifest().clone();
    let content = opening.files();
    let again = seen(party, manifest.body().bundle)?.is_some_and(|before| before.manifest == manifest.digest());
    let event = about(&manifest, &from, failed());
    let attempt = Attempt::begin(party.journal(), &event);
    let placed = place(&mut source, opening, target, watch.as_ref()).await;
    watch.done();
    match placed {
        Ok(placed) => {
            record(party, attempt, &from, &manifest, content, &placed)?;
            if again {
                return Ok((placed, ReceiptState::Before));
            }
            let receipt = sign_receipt(party, identity, &from, &manifest, Outcome::Verified, None)?;
            Ok((placed, deliver_receipt(party, &source, &from, &manifest, receipt).await?))
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
fn about(manifest: &Signed<Manifest>, from: &Contact, event: Event) -> Event {
    Event {
        bundle: Some(manifest.body().bundle),
        statement_sha256: Some(manifest.digest()),
        sealed_index_sha256: Some(manifest.body().sealed_index_sha256),
        ..event.with_peer(&from.name, from.fingerprint())
    }
}

async fn place(source: &mut Source<'_>, opening: Opening, target: Target, watch: &dyn Watch) -> Result<Placed> {
    watch.stage("receiving", Some(opening.index().layout().padded_size()));
    match target {
        Target::Folder(folder) => {
            let staging = Staging::new(&folder).map_err(|e| OpenError::Sink(SinkError::Stage(e)))?;
            let staged = drive(source, opening, staging, watch).await?;
            let published = staged.publish().map_err(|e| OpenError::Sink(SinkError::Stage(e)))?;
            Ok(Placed::Folder(published))
        }
        Target::Writer(to) => {
            drive(source, opening, Released::new(to), watch).await?;
            Ok(Placed::Written)
        }
        Target::Memory => Ok(Placed::Memory(drive(source, opening, InMemory::new(), watch).await?)),
    }
}

/// Feeds the parts to a worker thread that opens, checks and writes them in order.
async fn drive<S>(source: &mut Source<'_>, opening: Opening, sink: S, watch: &dyn Watch) -> Result<S::Done>
where
    S: Sink + Send + 'static,
    S::Done: Send + 'static,
{
    let specs: Vec<(u32, u64, u64)> =
        (0..).zip(opening.index().parts()).map(|(n, spec)| (n, spec.sealed_size, spec.size)).collect();
    let (parts, mut queue) = mpsc::channel::<(u32, Bytes)>(1);
    let worker = tokio::task::spawn_blocking(move || -> std::result::Result<Option<S::Done>, OpenError> {
        let total = opening.index().parts().len() as u32;
        let mut receiver = opening.receive(sink)?;
        while let Some((number, sealed)) = queue.blocking_recv() {
            receiver.accept(number, &sealed)?;
        }
        // The channel closes early when the transfer was given up; the sink cleans up when it is dropped.
        if receiver.due() == total { receiver.finish().map(Some) } else { Ok(None) }
    });
    let fed = match source {
        Source::Relay(api, bundle) => feed_from_relay(api, *bundle, &specs, &parts, watch).await,
        Source::File(file) => feed_from_file(file, &specs, &parts, watch).await,
    };
    drop(parts);
    // What the worker found wrong is the reason, not that it stopped listening.
    let done = worker.await.map_err(|_| Error::Worker)??;
    fed?;
    done.ok_or(Error::Worker)
}

async fn feed_from_relay(
    api: &RelayApi,
    bundle: BundleId,
    specs: &[(u32, u64, u64)],
    parts: &mpsc::Sender<(u32, Bytes)>,
    watch: &dyn Watch,
) -> Result<()> {
    let mut fetched = futures_util::stream::iter(specs)
        .map(|(number, sealed_size, size)| async move {
            let most = usize::try_from(*sealed_size).unwrap_or(usize::MAX);
            let sealed = again(|| api.get_part(bundle, *number, most)).await.map_err(|error| match error {
                ApiError::Transport(TransportError::TooLong(limit)) => {
                    let (number, wanted) = (*number, *sealed_size);
                    Error::Open(OpenError::PartSize { number, found: beyond(limit), wanted })
                }
                other => other.into(),
            })?;
            Ok::<_, Error>((*number, sealed, *size))
        })
        .buffered(DOWNLOADS);
    while let Some(part) = fetched.next().await {
        let (number, sealed, size) = part?;
        if parts.send((number, sealed)).await.is_err() {
            return Ok(());
        }
        watch.advance(size);
    }
    Ok(())
}

async fn feed_from_file(
    file: &mut PouchFile<File>,
    specs: &[(u32, u64, u64)],
    parts: &mpsc::Sender<(u32, Bytes)>,
    watch: &dyn Watch,
) -> Result<()> {
    for (number, _, size) in specs {
        let mut sealed = Vec::new();
        file.part(*number, &mut sealed)?;
        if parts.send((*number, sealed.into())).await.is_err() {
            return Ok(());
        }
        watch.advance(*size);
    }
    Ok(())
}

/// Journals a received bundle, and remembers it so that an older revision is told from it.
fn record(
    party: &Party,
    attempt: Attempt<'_>,
    from: &Contact,
    manifest: &Signed<Manifest>,
    (files, size): (u64, u64),
    placed: &Placed,
) -> Result<()> {
    let detail = match placed {
        Placed::Folder(path) => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Some(format!("into {}", whole.display()))
        }
        Placed::Written => Some("to standard output".into()),
        Placed::Memory(_) => Some("into memory".into()),
    };
    let event = Event::new(Action::Received, Ended::Done);
    let event = Event { size: Some(size), files: Some(files), detail, ..about(manifest, from, event) };
    attempt.conclude(&event)?;
    let body = manifest.body();
    home::private_folder(&party.home.state(RECEIVED))?;
    let seen = ReceivedBefore { manifest: manifest.digest(), revision: body.revision, time: now() };
    home::write_json(&received_path(party, body.bundle), &seen)?;
    note_order(party, from, manifest)
}

/// Remembers the manifest as the last one seen from its sender, if it is.
fn note_order(party: &Party, from: &Contact, manifest: &Signed<Manifest>) -> Result<()> {
    let last = Last { sequence: manifest.body().sequence, manifest: manifest.digest() };
    Ok(AddressBook::change(&party.home, |book| {
        let contact = book.named_mut(&from.name)?;
        if contact.received.is_none_or(|before| before.sequence < last.sequence) {
            contact.received = Some(last);
        }
        Ok(())
    })?)
}

/// Journals a bundle that failed, and where the fault is the bundle's, answers with a receipt that says at which stage.
async fn fail(
    party: &Party,
    identity: &Identity,
    source: &Source<'_>,
    from: &Contact,
    manifest: &Signed<Manifest>,
    error: &OpenError,
) -> Result<()> {
    let event = Event { stage: error.stage(), detail: Some(error.to_string()), ..failed() };
    party.journal().append(&about(manifest, from, event))?;
    if let Some(stage) = error.stage() {
        note_order(party, from, manifest)?;
        let receipt = sign_receipt(party, identity, from, manifest, Outcome::Failed, Some(stage))?;
        deliver_receipt(party, source, from, manifest, receipt).await?;
    }
    Ok(())
}

struct SealedReceipt {
    digest: Sha256Digest,
    message: ReceiptMessage,
}

fn sign_receipt(
    party: &Party,
    identity: &Identity,
    from: &Contact,
    manifest: &Signed<Manifest>,
    outcome: Outcome,
    stage: Option<Stage>,
) -> Result<SealedReceipt> {
    let receipt = Receipt {
        bundle: manifest.body().bundle,
        manifest_sha256: manifest.digest(),
        sender: from.fingerprint(),
        recipient: party.fingerprint(),
        outcome,
        stage,
        created: now(),
    };
    let receipt = Signed::sign(receipt, &identity.signing)?;
    let to = from.card().age_recipient.as_str().parse().map_err(|_| pouch_statement::CardError::Recipient)?;
    let (sealed, commitment) = seal_receipt(&receipt, &to).map_err(OpenError::Envelope)?;
    Ok(SealedReceipt { digest: receipt.digest(), message: receipt_message(outcome, &sealed, commitment) })
}

/// Hands the receipt to the relay; if that cannot be, keeps it for the next command. The bundle is received either way.
async fn deliver_receipt(
    party: &Party,
    source: &Source<'_>,
    from: &Contact,
    manifest: &Signed<Manifest>,
    receipt: SealedReceipt,
) -> Result<ReceiptState> {
    let Source::Relay(api, bundle) = source else { return Ok(ReceiptState::Carried) };
    let event = Event { bundle: Some(*bundle), ..Event::new(Action::ReceiptSent, Ended::Done) };
    let event = Event {
        statement_sha256: Some(receipt.digest),
        ..event.with_peer(&from.name, from.fingerprint())
    };
    let path = party.home.state(RECEIPTS).join(format!("{}.json", manifest.body().bundle));
    match put_receipt(api, *bundle, &receipt.message).await {
        Ok(()) => {
            // An older one that was kept says less than this one.
            let _ = std::fs::remove_file(&path);
            party.journal().append(&event)?;
            Ok(ReceiptState::Sent)
        }
        Err(error) => {
            home::private_folder(&party.home.state(RECEIPTS))?;
            home::write_json(&path, &receipt.message)?;
            party.journal().append(&Event { outcome: Ended::Failed, detail: Some(error.to_string()), ..event })?;
            Ok(ReceiptState::Kept)
        }
    }
}

async fn put_receipt(api: &RelayApi, bundle: BundleId, message: &ReceiptMessage) -> std::result::Result<(), ApiError> {
    again(|| api.put_receipt(bundle, message)).await
}

/// Sends receipts that could not be sent when they were signed. What the relay does not take any more is let go.
///
/// # Errors
/// Local state; a relay that cannot be reached is no error here.
pub async fn send_pending_receipts(party: &Party, api: &RelayApi) -> Result<()> {
    let folder = party.home.state(RECEIPTS);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(()) };
    for name in entries.filter_map(|e| e.ok()?.file_name().into_string().ok()) {
        let Some(bundle) = name.strip_suffix(".json").and_then(|n| n.parse::<BundleId>().ok()) else { continue };
        let path = folder.join(&name);
        let Some(message) = home::read_json::<ReceiptMessage>(&path)? else { continue };
        let event = Event { bundle: Some(bundle), ..Event::new(Action::ReceiptSent, Ended::Done) };
        let event = match api.put_receipt(bundle, &message).await {
            Ok(()) => event,
            Err(e) if is_final(&e) => Event { outcome: Ended::Failed, detail: Some(e.to_string()), ..event },
            Err(_) => continue,
        };
        party.journal().append(&event)?;
        let _ = std::fs::remove_file(&path);
    }
    Ok(())
}

fn is_final(error: &ApiError) -> bool {
    matches!(error.refused(), Some(ProblemKind::NotFound | ProblemKind::Gone | ProblemKind::Conflict))
}
