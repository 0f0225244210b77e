//! Sending: read, seal and upload at once, then sign one manifest for each recipient and deliver. What is interrupted goes on
//! with the next send of the same thing, what was piped in and kept with [`resumed`].

mod address;
mod again;
mod commit;
mod deliver;
mod file;
mod once;
mod ongoing;
mod upload;

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use pouch_core::bundle::{Compression, Content, Kind, Scan, ScanOptions, SealError, SourceError};
use pouch_protocol::ProblemKind;
use pouch_statement::{Blake3Digest, BundleId, Fingerprint, Name, Note, Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};

pub(crate) use self::address::{Addressee, Places, addressee_here};
pub(crate) use self::again::{again, ride_out};
pub(crate) use self::commit::say;
pub use self::file::send_to_file;
pub use self::once::{Once, OnceKey};
pub(crate) use self::upload::threads;

use self::address::addressees_here;
use self::deliver::{Sending, Stop};
use self::ongoing::Ongoing;
use self::upload::planned;
use crate::api::RelayApi;
use crate::clock::now;
use crate::error::{Error, Hindrance, Result, Span};
use crate::home::Lock;
use crate::identity::Identity;
use crate::journal::{Action, Attempt, Ended, Event};
use crate::outbox::{self, Progress, Sent};
use crate::party::Party;
use crate::pipeline;
use crate::spool::{self, Fresh, Spool};
use crate::transfer::{Files, Plan, Source};
use crate::watch::{News, Watch};

/// What a bundle is for: what its manifest says of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purpose {
    /// What it is.
    pub kind: Kind,
    /// A remark, sealed and signed with the manifest.
    pub note: Option<Note>,
    /// Of a request: by when files are to be sent.
    pub due: Option<Timestamp>,
    /// The request that this answers.
    pub answers: Option<BundleId>,
}

/// What to send, and how.
pub struct Request {
    /// The content.
    pub content: Content,
    /// Where files come from, so that they can be read again after an interruption. `None`: it cannot go on then,
    /// unless `spool` keeps it.
    pub source: Option<Source>,
    /// Keep a stream, sealed, until it is delivered, so that it can be read again.
    pub spool: bool,
    /// How to compress it, if at all. Passed over for a credential, whose size would tell of it.
    pub compression: Option<Compression>,
    /// To whom: my names for them.
    pub to: Vec<Name>,
    /// What it is for.
    pub purpose: Purpose,
    /// For how many seconds it may be fetched.
    pub lifetime: u64,
    /// Delete it on the relay after receipt.
    pub burn: bool,
    /// Go on with this one, which was interrupted, or fail. `None`: with whichever is the same, or begin.
    pub resume: Option<BundleId>,
    /// What was piped in for others and is kept may go to these instead.
    pub readdressed: bool,
    /// Deliver nothing if something was delivered to the same recipients under the same key.
    pub once: Option<Once>,
}

/// What a send led to.
#[derive(Debug)]
pub struct Delivery {
    /// The bundle.
    pub sent: Sent,
    /// It was delivered before, under the same key, and nothing was sent now.
    pub again: bool,
}

impl Request {
    /// How it will be compressed: as it was asked for, but a credential never.
    #[must_use]
    pub fn compressed(&self) -> Option<Compression> {
        self.compression.filter(|_| self.purpose.kind != Kind::Credential)
    }
}

impl Source {
    /// These paths, made absolute.
    ///
    /// # Errors
    /// The current folder is not known.
    pub fn new(paths: &[PathBuf], options: ScanOptions) -> std::io::Result<Self> {
        // The same with a slash at the end and without, unless that is what follows a link.
        let plain = |path: PathBuf| {
            let plain: PathBuf = path.components().collect();
            if plain.is_symlink() { path } else { plain }
        };
        let bytes = |path: &PathBuf| Ok(plain(std::path::absolute(path)?).as_os_str().as_bytes().to_vec());
        let paths = paths.iter().map(bytes).collect::<std::io::Result<_>>()?;
        Ok(Self::Files(Files { paths, dereference: options.dereference, skip_special: options.skip_special }))
    }

    /// What is there now.
    ///
    /// # Errors
    /// As [`Scan::new`]; a kept stream that cannot be read.
    fn content(&self, party: &Party, identity: &Identity) -> Result<Content> {
        match self {
            Self::Files(files) => Ok(Content::Tree(files.scan().map_err(SealError::from)?)),
            Self::Spool(spool) => spool.content(party, identity),
        }
    }

    /// The kept stream, if it is one.
    pub(crate) fn spool(&self) -> Option<&Spool> {
        match self {
            Self::Files(_) => None,
            Self::Spool(spool) => Some(spool),
        }
    }
}

impl Files {
    fn scan(&self) -> std::result::Result<Scan, SourceError> {
        let path = |bytes: &Vec<u8>| PathBuf::from(std::ffi::OsString::from_vec(bytes.clone()));
        let paths: Vec<PathBuf> = self.paths.iter().map(path).collect();
        Scan::new(&paths, ScanOptions { dereference: self.dereference, skip_special: self.skip_special })
    }
}

/// What an interrupted send was to send: the request that goes on with it.
///
/// # Errors
/// Nothing is left of it, somebody sends it, a recipient is no contact any more, or the source cannot be listed. With `to`: it
/// is not a stream that is kept.
pub fn resumed(party: &Party, identity: &Identity, sent: &Sent, to: Option<Vec<Name>>) -> Result<Request> {
    let plan = ongoing::plan(party, identity, sent)?;
    if to.is_some() && plan.source.spool().is_none() {
        return Err(Error::NotResumable(sent.bundle, Hindrance::Files));
    }
    let book = party.contacts()?;
    let name = |to: &Fingerprint| {
        let contact = book.by_fingerprint(to).ok_or(Hindrance::NoContact)?;
        // With other keys it is another plan; but what was piped in nobody can send once more.
        let same = contact.fingerprint() == *to || plan.source.spool().is_some();
        same.then(|| contact.name.clone()).ok_or(Hindrance::OtherKeys)
    };
    let same = || plan.to.iter().map(name).collect::<std::result::Result<Vec<Name>, _>>();
    let readdressed = to.is_some();
    let to = to.map_or_else(same, Ok).map_err(|why| Error::NotResumable(sent.bundle, why))?;
    Ok(Request {
        content: plan.source.content(party, identity)?,
        source: Some(plan.source),
        spool: false,
        compression: plan.compression,
        to,
        purpose: plan.purpose,
        lifetime: plan.lifetime,
        burn: plan.burn,
        resume: Some(sent.bundle),
        readdressed,
        once: plan.once,
    })
}

/// Sends through the relay. When this returns, the recipients' mailboxes have it and the journal says so.
///
/// # Errors
/// Also journaled. After what may pass, the same again goes on from there; what was piped in and kept stays whatever the error
/// is, and [`resumed`] goes on with it. Otherwise, and if the content cannot be read again, what was uploaded for nothing is
/// deleted, or collected by the relay.
pub async fn send(
    party: &Party,
    api: &RelayApi,
    identity: &Identity,
    request: Request,
    watch: Arc<dyn Watch>,
) -> Result<Delivery> {
    let to = addressees_here(party, &request.to)?;
    let compression = request.compressed();
    let Request { content, source, spool, purpose, lifetime, burn, resume, readdressed, once, .. } = request;
    // A pipeline's word counts no longer than its delegation.
    let left = party.delegation().map(|delegation| delegation.body().expires.since(now()));
    let lifetime = left.map_or(lifetime, |left| left.min(lifetime));
    let mut fingerprints: Vec<_> = to.iter().map(|to| to.contact.fingerprint()).collect();
    fingerprints.sort_unstable_by_key(|fingerprint| *fingerprint.as_bytes());
    let mark = once.map(|once| once.to(&fingerprints));
    let mut marked = None;
    if let Some(resume) = resume
        && let Some(mut sent) = outbox::load(party, resume)?
    {
        if is_delivered_now(party, api, &mut sent, readdressed).await? {
            return Ok(Delivery { sent, again: false });
        }
        // What goes on to other keys was marked for those of before.
        marked = sent.once.filter(|once| !readdressed && Some(*once) != mark);
    }
    for mark in [mark, marked].into_iter().flatten() {
        let Some(sent) = once::before(party, api, identity, mark).await? else { continue };
        match resume {
            // That was settled, and is delivered.
            Some(resume) if resume == sent.bundle => return Ok(Delivery { sent, again: false }),
            Some(resume) => drop(outbox::forget(party, Some(api), resume).await?),
            None => once::drain(content).await?,
        }
        return Ok(Delivery { sent, again: true });
    }
    spool::clear(party)?;
    let (content, source, fresh) = match (spool, source) {
        (true, None) if party.pipeline.is_none() => {
            // Before hours are read for nothing.
            check_lifetime(api, now().plus(lifetime)).await?;
            let (spool, fresh) = keep(party, &request.to, content, &watch).await?;
            (spool.content(party, identity)?, Some(Source::Spool(spool)), Some(fresh))
        }
        (_, source) => (content, source, None),
    };
    let plan = |source| Plan { source, compression, purpose: purpose.clone(), lifetime, burn, to: fingerprints, once };
    // What a pipeline's run leaves is gone with it: nothing could go on.
    let source = source.filter(|_| party.pipeline.is_none());
    let how = How { plan: source.map(plan), compression, purpose, lifetime, burn, mark, readdressed };
    let sending = Sending { party, api, identity, to: &to, how: &how, watch: watch.as_ref() };
    let mut content = content;
    let mut ongoing = Ongoing::take_up(&sending, &content, resume).await?;
    if let Some(fresh) = fresh {
        fresh.keep();
        watch.news(News::Resumable(ongoing.sent.bundle));
    }
    loop {
        let events = begun(&ongoing.sent);
        let attempt = Attempt::begin_all(party.journal(), &events);
        let result = sending.deliver(&mut ongoing, content).await;
        watch.done();
        match result {
            Ok(delivered) => {
                conclude(party, attempt, &events, &mut ongoing.sent, Ok(&delivered))?;
                // Another run of a pipeline may have to be settled, in its turn.
                drop(delivered);
                let mut sent = ongoing.done(party)?;
                pipeline::put_delivered(party, api, &mut sent).await?;
                return Ok(Delivery { sent, again: false });
            }
            Err(Stop::Again(sent)) => {
                let why = format!("bundle {} was delivered under the same key meanwhile", sent.bundle);
                conclude(party, attempt, &events, &mut ongoing.sent, Err(&why))?;
                ongoing.give_up(&sending).await?;
                return Ok(Delivery { sent: *sent, again: true });
            }
            Err(Stop::Failed(error)) => {
                // Whatever the relay says of it then.
                let error = match sending.check_not_revoked(&mut ongoing.sent).await {
                    Err(revoked @ Error::RevokedMeanwhile(_)) => revoked,
                    _ => error,
                };
                conclude(party, attempt, &events, &mut ongoing.sent, Err(&error.to_string()))?;
                ongoing.failed(&sending, &error).await?;
                return Err(error);
            }
            Err(Stop::StartOver(why)) => {
                conclude(party, attempt, &events, &mut ongoing.sent, Err(&why.to_string()))?;
                content = how.content(party, identity)?;
                ongoing = ongoing.anew(&sending, &content, why).await?;
            }
        }
    }
}

/// Keeps what is piped in for these recipients.
async fn keep(party: &Party, to: &[Name], content: Content, watch: &Arc<dyn Watch>) -> Result<(Spool, Fresh)> {
    let filled = spool::fill(party, content, Arc::clone(watch)).await;
    if let Err(error) = &filled {
        never_begun(party, to, &error.to_string())?;
    }
    filled
}

/// Whether the relay says now that one is delivered that it had refused, or seemed to, or that may be delivered to others.
async fn is_delivered_now(party: &Party, api: &RelayApi, sent: &mut Sent, readdressed: bool) -> Result<bool> {
    match sent.progress {
        Progress::Undelivered => drop(outbox::settle(party, api, sent).await?),
        Progress::Committing if readdressed => drop(outbox::hold_back(party, api, sent).await?),
        _ => return Ok(false),
    }
    match sent.progress == Progress::Sent {
        true if readdressed => Err(Error::NotResumable(sent.bundle, Hindrance::Delivered)),
        delivered => Ok(delivered),
    }
}

/// A request without its content and recipients.
struct How {
    /// If it can go on after an interruption.
    plan: Option<Plan>,
    compression: Option<Compression>,
    purpose: Purpose,
    lifetime: u64,
    burn: bool,
    /// What the send is marked with, if it is to be delivered once.
    mark: Option<Blake3Digest>,
    /// What was begun for others may go to these.
    readdressed: bool,
}

impl How {
    /// The content, once more.
    fn content(&self, party: &Party, identity: &Identity) -> Result<Content> {
        self.plan.as_ref().ok_or(Error::Worker)?.source.content(party, identity)
    }

    /// How many bytes all parts will cover, if it is known before the end.
    fn planned(&self, content: &Content) -> Option<u64> {
        planned(content, self.plan.as_ref().and_then(|plan| plan.source.spool()), self.compression)
    }
}

fn begun(sent: &Sent) -> Vec<Event> {
    let event = Event { bundle: Some(sent.bundle), ..Event::new(Action::Sent, Ended::Done) };
    sent.recipients.iter().map(|to| event.clone().with_peer(&to.name, to.fingerprint)).collect()
}

/// Journals the attempt, then stores the state: a record comes before any word of success.
fn conclude(
    party: &Party,
    attempt: Attempt<'_>,
    begun: &[Event],
    sent: &mut Sent,
    result: std::result::Result<&Delivered, &str>,
) -> Result<()> {
    let of = |event: &Event| sent.recipients.iter().find(|r| Some(r.fingerprint) == event.fingerprint);
    let ended = |event: &Event| match result {
        Ok(delivered) => Event {
            statement_sha256: of(event).and_then(|recipient| recipient.manifest_sha256),
            sealed_index_sha256: Some(delivered.sealed_index),
            size: Some(sent.size),
            files: Some(sent.files),
            ..event.clone()
        },
        Err(reason) => event.clone().failed(reason),
    };
    attempt.conclude_all(&begun.iter().map(ended).collect::<Vec<_>>())?;
    if result.is_err() {
        return Ok(());
    }
    sent.note_answer(party)?;
    sent.store(party)
}

/// What the journal keeps of a delivery; and the turn, which ends once it is journaled and stored: until then another
/// send would take it for one whose end is not known.
struct Delivered {
    sealed_index: Sha256Digest,
    _turn: Lock,
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
pub fn never_begun(party: &Party, to: &[Name], reason: &str) -> Result<()> {
    for to in to {
        let event = Event::new(Action::Sent, Ended::Failed).failed(reason);
        let event = match party.contacts()?.named(to) {
            Ok(contact) => event.with_peer(to, contact.fingerprint()),
            Err(_) => Event { peer: Some(to.clone()), ..event },
        };
        party.journal().append(&event)?;
    }
    Ok(())
}

/// Whether the same again may succeed: neither the relay nor what is sent is the reason.
fn may_pass(error: &Error) -> bool {
    match error {
        // A clock that is wrong is set right, a suspension lifted, room made.
        Error::Api(error) => {
            use ProblemKind as P;
            !error.is_final() || matches!(error.refused(), Some(P::Clock | P::Suspended | P::Quota))
        }
        Error::Seal(SealError::Source(SourceError::Io { .. })) => true,
        Error::Seal(_) | Error::Lifetime(_) | Error::Contact(_) | Error::Envelope(_) | Error::Manifest(_) => false,
        _ => true,
    }
}

/// Where a send stands that has an envelope out of the house.
const fn is_committing(sent: &Sent) -> bool {
    matches!(sent.progress, Progress::Committing)
}
