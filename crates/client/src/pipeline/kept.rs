//! What a pipeline remembers from run to run: sealed on the relay, signed by the pipeline, laid out in a folder of its own
//! while a run lasts (docs/format.md, "Pipeline journal").

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use pouch_core::age;
use pouch_log::{Comparison, Frontier};
use pouch_protocol::ProblemKind;
use pouch_protocol::limits::MAX_JOURNAL;
use pouch_statement::{Sha256Digest, sign_detached, verify_detached};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Secret;
use super::pack::{pack, unpack};
use crate::api::{ApiError, RelayApi};
use crate::error::{Error, Result};
use crate::home::{self, Home};
use crate::identity::Identity;
use crate::outbox::{self, Progress, Sent};
use crate::party::Party;
use crate::send::again;

const NAMESPACE: &str = "pouch.pipeline-journal.v1";
/// The longest journal, unpacked.
const MAX_PLAIN: usize = 32 << 20;
const LEVEL: i32 = 3;
/// How often the journal is brought together with one that came between.
const TRIES: usize = 5;
const OUTBOX: &str = "outbox/";
const HEAD: &str = "journal/head";
/// The files that each state may have, beside those of bundles.
const FILES: [&str; 3] = ["journal/records", HEAD, "contacts.json"];

/// A folder for one run, removed with all that is in it at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    /// In the system's folder for what is temporary, for its owner alone.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Self> {
        let name = pouch_statement::BundleId::random()?;
        let folder = std::env::temp_dir().join(format!("pouch-{name}"));
        home::private_folder(&folder)?;
        Ok(Self(folder))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As it is sealed: the state's exact text, and the pipeline's signature. Everybody can seal to it, the relay too.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    signature: String,
    state: String,
}

/// Files of the home, by name.
type State = BTreeMap<String, String>;

/// What a run holds of its pipeline.
pub(crate) struct Pipeline {
    pub(super) secret: Secret,
    /// What the relay has, as far as this run knows, and the state that this is.
    has: Mutex<Option<(Sha256Digest, State)>>,
    _scratch: Scratch,
}

fn broken(why: impl Into<String>) -> Error {
    Error::PipelineJournal(why.into())
}

impl Pipeline {
    pub(super) fn new(secret: Secret, scratch: Scratch) -> Self {
        Self { secret, has: Mutex::new(None), _scratch: scratch }
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    fn identity(&self) -> Result<Identity> {
        self.secret.identity().ok_or(Error::Worker)
    }

    fn has(&self) -> Option<(Sha256Digest, State)> {
        self.has.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn set(&self, has: (Sha256Digest, State)) {
        *self.has.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(has);
    }

    fn seal(&self, party: &Party, state: &State) -> Result<Bytes> {
        let state = serde_json::to_string(state).map_err(ApiError::Encode)?;
        let signature = sign_detached(NAMESPACE, state.as_bytes(), &self.identity()?.signing);
        let signature = signature.map_err(pouch_statement::StatementError::from)?;
        let text = Zeroizing::new(serde_json::to_vec(&Signed { signature, state }).map_err(ApiError::Encode)?);
        let packed = pack(&text, LEVEL).ok_or(Error::Worker)?;
        let sealed = age::seal_to_vec(party.recipient(), &packed)?;
        if sealed.len() as u64 > MAX_JOURNAL { Err(Error::PipelineFull) } else { Ok(sealed.into()) }
    }

    fn open(&self, sealed: &[u8]) -> Result<State> {
        let mut packed = Zeroizing::new(Vec::new());
        age::open_part(&self.identity()?.age, sealed, &mut packed).map_err(|_| broken("it does not open"))?;
        let text = unpack(&packed, MAX_PLAIN).ok_or_else(|| broken("it does not unpack"))?;
        let Signed { signature, state } = serde_json::from_slice(&text).map_err(|_| broken("it is not one"))?;
        let key = &self.secret.card.card().signing_key;
        verify_detached(NAMESPACE, state.as_bytes(), &signature, key).map_err(|_| broken("others have written it"))?;
        serde_json::from_str(&state).map_err(|_| broken("it is not one"))
    }
}

/// The files of the home that outlast a run. Of bundles what addresses them again is left out: a pipeline does not.
fn collect(party: &Party) -> Result<State> {
    let mut state = State::new();
    for name in FILES {
        if let Some(bytes) = home::read(&party.home.state(name))? {
            state.insert(name.to_owned(), String::from_utf8(bytes).map_err(|_| Error::Worker)?);
        }
    }
    for sent in outbox::list(party)?.iter().filter(|sent| sent.progress != Progress::Sending) {
        let text = serde_json::to_string(&sent.without_keys()).map_err(ApiError::Encode)?;
        state.insert(format!("{OUTBOX}{}.json", sent.bundle), text);
    }
    Ok(state)
}

/// Whether a run writes this file.
fn is_ours(name: &str) -> bool {
    let sent = |name: &str| name.strip_suffix(".json")?.parse::<pouch_statement::BundleId>().ok();
    FILES.contains(&name) || name.strip_prefix(OUTBOX).and_then(sent).is_some()
}

/// Lays a state out in the home, in place of what is there. Nothing of it is made durable: it goes with the run.
fn lay_out(home: &Home, state: &State) -> Result<()> {
    if !state.keys().all(|name| is_ours(name)) {
        return Err(broken("it holds what no run writes"));
    }
    for folder in ["journal", "outbox"] {
        let _ = std::fs::remove_dir_all(home.state(folder));
        home::private_folder(&home.state(folder))?;
    }
    for (name, text) in state {
        let path = home.state(name);
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(Error::file("write", &path))?;
    }
    Ok(())
}

/// Takes the journal from the relay, and checks that it goes on from where the pipeline was made. Nothing where the party is no
/// pipeline.
///
/// # Errors
/// The relay cannot be reached or refuses; or, which is evidence, what it has is not what a run has put there.
pub async fn fetch(party: &Party, api: &RelayApi) -> Result<()> {
    let Some(pipeline) = &party.pipeline else { return Ok(()) };
    // First: whatever was delivered by then stands in each journal from then on.
    let sent = again(|| api.outbox()).await?.rows;
    take(party, api, &pipeline.secret.head).await?;
    for bundle in sent.iter().filter(|bundle| bundle.committed.is_some()) {
        if outbox::load(party, bundle.bundle)?.is_none() {
            return Err(broken(format!("it is older than bundle {}, which the relay has", bundle.bundle)));
        }
    }
    Ok(())
}

async fn take(party: &Party, api: &RelayApi, known: &Frontier) -> Result<()> {
    let Some(pipeline) = &party.pipeline else { return Ok(()) };
    let sealed = match again(|| api.journal()).await {
        Err(error) if error.refused() == Some(ProblemKind::NotFound) => return Err(broken("it is not there")),
        other => other?,
    };
    let state = pipeline.open(&sealed)?;
    lay_out(&party.home, &state)?;
    check_recipients(party, pipeline)?;
    let verified = party.journal().verify_against(known).map_err(|error| broken(error.to_string()))?;
    let (report, comparison) = verified;
    if !report.is_sound() {
        return Err(broken(report.finding()));
    }
    match comparison {
        Comparison::Intact | Comparison::Extended { .. } => {}
        Comparison::Truncated { .. } => return Err(broken("it is older than what this pipeline knows")),
        _ => return Err(broken("it does not go on from what this pipeline knows")),
    }
    pipeline.set((Sha256Digest::of(&sealed), state));
    Ok(())
}

/// Whoever had the secret once has its key: to whom it sends is what the secret says, and not what a journal says.
fn check_recipients(party: &Party, pipeline: &Pipeline) -> Result<()> {
    let (book, wanted) = (party.contacts()?, pipeline.secret.recipients());
    let known = |contact: &crate::contacts::Contact| {
        contact.former.is_empty()
            && wanted.iter().any(|to| to.name == contact.name && to.card == contact.card.detached())
    };
    if book.all().len() == wanted.len() && book.all().iter().all(known) {
        return Ok(());
    }
    Err(broken("it names other recipients than this pipeline was made for"))
}

/// Puts the journal of a run back, if it has changed. Nothing where the party is no pipeline.
///
/// # Errors
/// The relay cannot be reached, or another run of this pipeline came between.
pub async fn put(party: &Party, api: &RelayApi) -> Result<()> {
    let Some(pipeline) = &party.pipeline else { return Ok(()) };
    let state = collect(party)?;
    let has = pipeline.has();
    if has.as_ref().is_some_and(|(_, has)| *has == state) {
        return Ok(());
    }
    let before = has.map(|(digest, _)| digest);
    let sealed = pipeline.seal(party, &state)?;
    match again(|| api.put_journal(before, sealed.clone())).await {
        Err(error) if error.refused() == Some(ProblemKind::Conflict) => Err(Error::PipelineBusy),
        other => {
            other?;
            pipeline.set((Sha256Digest::of(&sealed), state));
            Ok(())
        }
    }
}

/// [`put`] of a bundle that is delivered. If another run came between, its journal is gone on with: it has this bundle as one
/// whose end is not known.
pub(crate) async fn put_delivered(party: &Party, api: &RelayApi, sent: &mut Sent) -> Result<()> {
    for _ in 1..TRIES {
        match put(party, api).await {
            Err(Error::PipelineBusy) => {}
            other => return other,
        }
        let known = party.pipeline.as_ref().and_then(|pipeline| pipeline.has());
        let head = known.as_ref().and_then(|(_, state)| state.get(HEAD));
        let head = head.map(|text| party.journal().frontier_of(text)).transpose()?.ok_or(Error::Worker)?;
        take(party, api, &head).await?;
        *sent = outbox::load(party, sent.bundle)?.ok_or_else(|| broken("it lacks what this run has sent"))?;
        outbox::settle(party, api, sent).await?;
    }
    put(party, api).await
}
