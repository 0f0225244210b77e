//! What waits for me, by the relay's word: who sent it is known only once it is opened.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pouch_protocol::InboxItem;
use pouch_statement::{BundleId, Name};

use crate::api::{Listing, RelayApi};
use crate::clock::now;
use crate::error::{Error, Result};
use crate::home;
use crate::party::Party;
use crate::pause::Pause;

pub(crate) const RECEIVED: &str = "received";
const REFUSED: &str = "refused";
const FAILED: &str = "failed";
/// How long the relay is asked to wait: less than proxies on the way let a request idle.
const WAIT: Duration = Duration::from_secs(30);
/// The first and the longest pause between two looks into the inbox, where the relay does not wait.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
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
pub async fn waiting(party: &Party, api: &RelayApi) -> Result<Listing<Waiting>> {
    named(party, api.inbox(None).await?)
}

/// With my names for those who sent it.
fn named(party: &Party, items: Listing<InboxItem>) -> Result<Listing<Waiting>> {
    let book = party.contacts()?;
    let named = |item: InboxItem| Waiting { from: book.by_mailbox(&item.sender).map(|c| c.name.clone()), item };
    Ok(Listing { rows: items.rows.into_iter().map(named).collect(), cut: items.cut })
}

/// Finds the bundle that a person means: a prefix of what waits, failed, was received or refused before, or the only one that
/// waits.
///
/// # Errors
/// Nothing, or several.
pub async fn find(party: &Party, api: &RelayApi, typed: Option<&str>) -> Result<BundleId> {
    if let Some(whole) = typed.and_then(|typed| typed.parse().ok()) {
        return Ok(whole);
    }
    let before = received_before(party)?;
    let mut known: Vec<BundleId> = waiting(party, api).await?.rows.into_iter().map(|w| w.item.bundle).collect();
    if let Some(typed) = typed {
        known.extend(&before);
        for marked in [REFUSED, FAILED] {
            known.extend(home::bundles(&party.home.state(marked), ".json")?);
        }
        known.sort_unstable();
        known.dedup();
        return crate::typed::only(known, |id| *id, typed, Error::NoBundle);
    }
    // What was received is not taken again unless somebody names it, whatever the relay lists.
    known.retain(|id| !before.contains(id));
    match known.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::NothingWaiting),
        _ => Err(Error::Ambiguous { prefix: String::new(), found: known }),
    }
}

/// Waits for the oldest bundle, from a certain contact if one is named, at most `limit`.
///
/// # Errors
/// [`Error::NothingWaiting`] at the end of the time.
pub async fn next(party: &Party, api: &RelayApi, from: Option<&Name>, limit: Option<Duration>) -> Result<BundleId> {
    look_until(party, api, limit, |waiting| Ok(fresh(party, waiting, from)?.next())).await
}

/// All bundles that wait, oldest first, from a certain contact if one is named.
///
/// # Errors
/// [`Error::NothingWaiting`] if there are none.
pub async fn all(party: &Party, api: &RelayApi, from: Option<&Name>) -> Result<Vec<BundleId>> {
    let all: Vec<BundleId> = fresh(party, waiting(party, api).await?, from)?.collect();
    if all.is_empty() { Err(Error::NothingWaiting) } else { Ok(all) }
}

/// What is to be taken without being named. What was refused stays in the list, but must not keep what comes after it from
/// being received; and what was received is not taken twice because the relay lists it again.
fn fresh<'a>(
    party: &'a Party,
    waiting: Listing<Waiting>,
    from: Option<&'a Name>,
) -> Result<impl Iterator<Item = BundleId> + 'a> {
    let before = received_before(party)?;
    let wanted = move |w: &Waiting| from.is_none() || w.from.as_ref() == from;
    let fresh = move |id: &BundleId| !before.contains(id) && !refused_path(party, *id).exists();
    Ok(waiting.rows.into_iter().filter(wanted).map(|one| one.item.bundle).filter(fresh))
}

/// What waits for me, as soon as something does, at most after `limit`.
///
/// # Errors
/// [`Error::NothingWaiting`] at the end of the time.
pub async fn wait(party: &Party, api: &RelayApi, limit: Option<Duration>) -> Result<Listing<Waiting>> {
    look_until(party, api, limit, |waiting| Ok(Some(waiting).filter(|waiting| !waiting.rows.is_empty()))).await
}

/// Looks into the inbox until `find` finds what it wants there, at most for `limit`. The relay waits for us; where it
/// answers before its time and it is not what is wanted, we pause.
async fn look_until<T>(
    party: &Party,
    api: &RelayApi,
    limit: Option<Duration>,
    mut find: impl FnMut(Listing<Waiting>) -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let left = || limit.map(|limit| limit.saturating_sub(begun.elapsed()));
    let mut pause = Pause::new(FIRST_PAUSE, MAX_PAUSE);
    loop {
        let (asked, last) = (Instant::now(), left() == Some(Duration::ZERO));
        let seconds = left().map_or(WAIT, |left| left.min(WAIT)).as_secs();
        let failed = match api.inbox(Some(seconds)).await {
            // A pipeline that waits for hours rides out what passes.
            Err(error) if error.is_passing() => Some(error),
            items => {
                if let Some(found) = find(named(party, items?)?)? {
                    return Ok(found);
                }
                None
            }
        };
        if last {
            return Err(Error::NothingWaiting);
        }
        if failed.is_none() && seconds > 0 && asked.elapsed() >= Duration::from_secs(seconds) {
            pause.reset();
        } else {
            let pause = pause.after(failed.as_ref());
            tokio::time::sleep(left().map_or(pause, |left| left.min(pause))).await;
        }
    }
}

fn received_before(party: &Party) -> Result<Vec<BundleId>> {
    Ok(home::bundles(&party.home.state(RECEIVED), ".json")?)
}

/// Marks a bundle whose envelope or sender was refused: `next` passes it over, its id still receives it.
fn refused_path(party: &Party, bundle: BundleId) -> PathBuf {
    party.home.state(REFUSED).join(format!("{bundle}.json"))
}

/// Marks a bundle as refused: what is in it, or who sent it, is not right.
pub(crate) fn mark_refused(party: &Party, bundle: BundleId) -> Result<()> {
    home::private_folder(&party.home.state(REFUSED))?;
    Ok(home::write_json(&refused_path(party, bundle), &now())?)
}

/// Takes the mark away: it opened after all.
pub(crate) fn unmark(party: &Party, bundle: BundleId) {
    let _ = home::remove(&refused_path(party, bundle));
}

fn failed_path(party: &Party, bundle: BundleId) -> PathBuf {
    party.home.state(FAILED).join(format!("{bundle}.json"))
}

/// Marks a bundle in which something was not right: the relay has the receipt that says so and lists it no more, but whoever
/// tries it again names it by its beginning. Best effort: it is no more than that.
pub(crate) fn mark_failed(party: &Party, bundle: BundleId) {
    let folder = home::private_folder(&party.home.state(FAILED));
    let _ = folder.and_then(|()| home::write_json(&failed_path(party, bundle), &now()));
}

/// Takes the mark away: it is received.
pub(crate) fn unmark_failed(party: &Party, bundle: BundleId) {
    let _ = home::remove(&failed_path(party, bundle));
}

/// Takes all marks away: somebody was added to the address book who may be the sender that was not known.
pub(crate) fn unmark_all(party: &Party) {
    let _ = std::fs::remove_dir_all(party.home.state(REFUSED));
}
