//! Requests for files: asking somebody, what I am asked for, and which bundle answers which request.
//!
//! A request is a bundle without content (docs/format.md, "Manifest"). Whoever receives it keeps it until it is over, one file
//! each.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_core::age;
use pouch_core::bundle::{Content, EntryPath, Kind, Manifest};
use pouch_protocol::ProblemKind;
use pouch_statement::{BundleId, Fingerprint, Name, Note, Signed, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::RelayApi;
use crate::clock::now;
use crate::contacts::Contact;
use crate::error::{Error, Result, Span};
use crate::home;
use crate::identity::Identity;
use crate::outbox::{self, Sent};
use crate::party::Party;
use crate::send::{self, Purpose, Request, again};
use crate::typed;
use crate::watch::Watch;

const FOLDER: &str = "requests";
/// For how many seconds a request stands when its time is over, if the relay keeps it for so long: late is better than never.
const GRACE: u64 = 14 * 86_400;
/// About how many requests the relay is asked for one listing.
const LOOKS: usize = 20;

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is not answered, and there is time.
    Open,
    /// It is not answered, and its time is over.
    Late,
    /// It is answered.
    Done,
}

impl Standing {
    fn new(due: Timestamp, answered: bool) -> Self {
        match answered {
            true => Self::Done,
            false if due < now() => Self::Late,
            false => Self::Open,
        }
    }

    /// How a request of mine stands with one of those who were asked; `None` of any other bundle.
    #[must_use]
    pub fn of(sent: &Sent, recipient: &outbox::Recipient) -> Option<Self> {
        Some(Self::new(sent.due?, recipient.answer.is_some()))
    }
}

/// A request that somebody sent me.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Its bundle.
    pub bundle: BundleId,
    /// Who asks.
    pub from: Fingerprint,
    /// By when.
    pub due: Timestamp,
    /// When it is over altogether.
    pub expires: Timestamp,
    /// What I sent for it.
    pub answers: Vec<BundleId>,
    /// What is asked for, sealed to my own recipient; base64.
    note: Option<String>,
}

impl Asked {
    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::new(self.due, !self.answers.is_empty())
    }

    /// What is asked for.
    #[must_use]
    pub fn note(&self, identity: &Identity) -> Option<Note> {
        let mut text = Vec::new();
        identity.open_part(&STANDARD.decode(self.note.as_ref()?).ok()?, &mut text).ok()?;
        String::from_utf8(text).ok()?.parse().ok()
    }
}

/// Asks for files, to be sent within so many seconds.
///
/// # Errors
/// As [`send::send`].
pub async fn ask(
    party: &Party,
    api: &RelayApi,
    identity: &Identity,
    whom: Vec<Name>,
    (note, within): (Note, u64),
    watch: Arc<dyn Watch>,
) -> Result<Sent> {
    let limit = again(|| api.limits()).await?.max_lifetime;
    if within > limit {
        return Err(Error::Lifetime(Span(limit)));
    }
    let name = "request".parse::<EntryPath>().map_err(|_| Error::Worker)?;
    let request = Request {
        content: Content::Stream { name, mtime: 0, reader: Box::new(std::io::empty()) },
        source: None,
        spool: false,
        compression: None,
        to: whom,
        purpose: Purpose { kind: Kind::Request, note: Some(note), due: Some(now().plus(within)), answers: None },
        lifetime: within.saturating_add(GRACE).min(limit),
        burn: false,
        resume: None,
        readdressed: false,
        once: None,
    };
    Ok(send::send(party, api, identity, request, watch).await?.sent)
}

/// Keeps what I am asked for.
pub(crate) fn keep(party: &Party, from: &Contact, manifest: &Signed<Manifest>) -> Result<()> {
    let Manifest { bundle, expires, due: Some(due), ref note, .. } = *manifest.body() else { return Ok(()) };
    let seal = |note: &Note| {
        Ok::<_, Error>(STANDARD.encode(age::seal_to_vec(party.recipient(), note.to_string().as_bytes())?))
    };
    let note = note.as_ref().map(seal).transpose()?;
    let path = path(party, bundle);
    home::private_folder(&party.home.state(FOLDER))?;
    let _lock = party.home.lock()?;
    let before = home::read_json::<Asked>(&path)?;
    if before.as_ref().is_some_and(|before| !from.is_or_was(&before.from)) {
        return Err(Error::Replayed(bundle));
    }
    let answers = before.map(|before| before.answers).unwrap_or_default();
    Ok(home::write_json(&path, &Asked { bundle, from: from.fingerprint(), due, expires, answers, note })?)
}

/// A bundle that I sent answers this request.
pub(crate) fn answered(party: &Party, request: BundleId, with: BundleId) -> Result<()> {
    let path = path(party, request);
    let _lock = party.home.lock()?;
    let Some(mut asked) = home::read_json::<Asked>(&path)? else { return Ok(()) };
    if !asked.answers.contains(&with) {
        asked.answers.push(with);
    }
    Ok(home::write_json(&path, &asked)?)
}

/// What I am asked for and have not sent, by the time that it is due, and whether the relay says that it is withdrawn. What is
/// over is forgotten.
///
/// # Errors
/// A damaged state, or the relay cannot be reached.
pub async fn asked(party: &Party, api: &RelayApi) -> Result<Vec<(Asked, bool)>> {
    let mut open = all(party)?;
    open.retain(|asked| asked.answers.is_empty());
    open.sort_by_key(|asked| asked.due);
    let mut found = Vec::new();
    for asked in open {
        // One of long ago is taken for what it was: the relay is not asked about any number of them.
        let withdrawn = found.len() < LOOKS && is_withdrawn(api, asked.bundle).await?;
        found.push((asked, withdrawn));
    }
    Ok(found)
}

async fn is_withdrawn(api: &RelayApi, bundle: BundleId) -> Result<bool> {
    match again(|| api.delivery(bundle)).await {
        Ok(_) => Ok(false),
        Err(error) if matches!(error.refused(), Some(ProblemKind::Gone | ProblemKind::NotFound)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn all(party: &Party) -> Result<Vec<Asked>> {
    let mut all = Vec::new();
    for bundle in home::bundles(&party.home.state(FOLDER), ".json")? {
        let path = path(party, bundle);
        let Some(asked) = home::read_json::<Asked>(&path)? else { continue };
        if asked.expires > now() {
            all.push(asked);
        } else {
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(all)
}

/// The one request that I was sent whose id begins with what was typed, answered or not.
///
/// # Errors
/// None, or several.
pub fn find(party: &Party, typed: &str) -> Result<Asked> {
    typed::only(all(party)?, |asked| asked.bundle, typed, Error::NoRequest)
}

/// Notes that a bundle which was received and verified answers a request of mine. `false`: I asked its sender for nothing of
/// the kind.
pub(crate) fn is_answered(party: &Party, from: &Contact, request: BundleId, with: BundleId) -> Result<bool> {
    let Some(mut sent) = outbox::load(party, request)? else { return Ok(false) };
    let mut mine = false;
    sent.change(party, |sent| {
        let asked = sent.recipients.iter_mut().find(|r| from.is_or_was(&r.fingerprint));
        let Some(asked) = asked.filter(|_| sent.kind == Kind::Request) else { return };
        mine = true;
        asked.answer.get_or_insert(with);
    })?;
    Ok(mine)
}

fn path(party: &Party, bundle: BundleId) -> PathBuf {
    party.home.state(FOLDER).join(format!("{bundle}.json"))
}
