//! New keys for me: made, said by the old ones and the new ones, taken by the relay, used.
//!
//! The identity file holds all keys, and the card says which are the present ones. So everything is prepared before anybody
//! hears of it, and one rename, that of the card, changes over. What is cut off before goes on with the same keys.

use std::path::PathBuf;

use pouch_core::age::Passphrase;
use pouch_protocol::{NewRotation, ProblemKind};
use pouch_statement::{Card, Detached, Device, Fingerprint, LinkId, RotationClaim, Signed, SignedCard, SignedRotation};

use crate::agent;
use crate::clock::now;
use crate::contacts::rotation::{statements, texts};
use crate::error::{Error, Result};
use crate::home::{self, Home, HomeError};
use crate::identity::{self, Identity};
use crate::join::CARD_LIFETIME;
use crate::journal::{Action, Ended, Event};
use crate::party::{self, Party};
use crate::send::again;

/// The rotation that is not finished.
const NEXT: &str = "rotation.next";
/// Mine that are, oldest first, one behind the other.
const DONE: &str = "rotations";

/// Whether a rotation was begun and is not finished.
#[must_use]
pub fn is_begun(party: &Party) -> bool {
    party.home.config(NEXT).exists()
}

/// My rotations, oldest first: what contacts need.
///
/// # Errors
/// A damaged file.
pub fn all(party: &Party) -> Result<Vec<Detached>> {
    read(party, DONE)
}

fn read(party: &Party, name: &str) -> Result<Vec<Detached>> {
    let Some(bytes) = home::read(&party.home.config(name))? else { return Ok(Vec::new()) };
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let text = String::from_utf8(bytes).map_err(|_| damaged(party, name, "not text"))?;
    statements(&text).map_err(|e| damaged(party, name, &e.to_string()))
}

fn damaged(party: &Party, name: &str, reason: &str) -> Error {
    let path: PathBuf = party.home.config(name);
    HomeError::Damaged { path, reason: reason.to_owned() }.into()
}

/// What a rotation led to.
#[derive(Debug)]
pub struct Rotated {
    /// My card from now on.
    pub card: SignedCard,
    /// My fingerprint until now.
    pub previous: Fingerprint,
}

/// Replaces both keys of my identity, on the relay and here. The ones before are kept, behind the same passphrase: what was
/// sealed for them still opens. The new key is hybrid unless `classic`.
///
/// # Errors
/// A wrong passphrase, or a hybrid key that is begun where a classic one is asked for: both change nothing. The relay refuses
/// or cannot be reached: then the same again goes on where this ended, with the same keys.
pub async fn rotate(party: &Party, passphrase: Option<&Passphrase>, classic: bool) -> Result<Rotated> {
    let identity = party.unlock_with(passphrase)?;
    // Not while a send numbers and signs its manifests; and not over the keys that another rotation has just made.
    let _turn = party.home.sending_turn().await?;
    party.check_current()?;
    let (identity, rotation) = match read(party, NEXT)?.pop() {
        Some(next) => match SignedRotation::verify(&next, party.card()) {
            Ok(rotation) if classic && rotation.card().card().age_recipient.is_post_quantum() => {
                return Err(Error::BegunHybrid);
            }
            Ok(rotation) => (identity, rotation),
            Err(_) => return finished(party, &next),
        },
        None => prepare(party, identity, passphrase, classic)?,
    };
    take(party, &identity, &rotation).await?;
    remember(party, &rotation)?;
    party::store_card(&party.home, rotation.card())?;
    unlink(party)?;
    // What it keeps has not the new keys.
    let _ = agent::forget(&party.home);
    Ok(Rotated { card: rotation.card().clone(), previous: party.fingerprint() })
}

/// It was cut off at the very end: my card is the new one already.
fn finished(party: &Party, next: &Detached) -> Result<Rotated> {
    let claim = RotationClaim::read(next)?;
    if claim.card != party.card().statement().digest() {
        return Err(damaged(party, NEXT, "it leads neither from my card nor to it"));
    }
    unlink(party)?;
    let _ = agent::forget(&party.home);
    Ok(Rotated { card: party.card().clone(), previous: claim.previous })
}

/// Has the relay take it, and journals that.
async fn take(party: &Party, identity: &Identity, rotation: &SignedRotation) -> Result<()> {
    let new = rotation.card().fingerprint();
    let keys = identity.keys_of(&new);
    let (_, key) = keys.ok_or_else(|| damaged(party, NEXT, "its keys are not in the identity file"))?;
    let device_key = identity::device(&party.home)?.public();
    let device = Signed::sign(Device { identity: new, device_key, created: now() }, key)?;
    let request = NewRotation { rotation: rotation.detached(), device: device.detached() };
    let event = Event { statement_sha256: Some(rotation.digest()), ..Event::new(Action::CardRotated, Ended::Done) };
    let event = Event { detail: Some(format!("to {}", new.words())), ..event };
    let api = party.api()?;
    let result = again(|| api.rotate(&request)).await;
    party.journal().append(&event.ended(&result))?;
    if result.as_ref().is_err_and(|error| error.refused() == Some(ProblemKind::Conflict)) {
        set_aside(party)?;
    }
    Ok(result?)
}

/// Another home of mine was first. It is kept under another name, and so are its keys in the identity file: a relay's word is
/// no reason to forget a key.
fn set_aside(party: &Party) -> Result<()> {
    let (path, id) = (party.home.config(NEXT), LinkId::random()?);
    let aside = party.home.config(&format!("rotation.abandoned-{id}"));
    Ok(std::fs::rename(&path, aside).map_err(|source| HomeError::Io { doing: "cannot set aside", path, source })?)
}

/// Adds it to those that contacts are given.
fn remember(party: &Party, rotation: &SignedRotation) -> Result<()> {
    let mut all = all(party)?;
    if all.last() != Some(&rotation.detached()) {
        all.push(rotation.detached());
    }
    store(&party.home, &all)
}

/// Stores all of them.
pub(crate) fn store(home: &Home, all: &[Detached]) -> Result<()> {
    Ok(home::write_private(&home.config(DONE), texts(all).as_bytes())?)
}

fn unlink(party: &Party) -> Result<()> {
    let path = party.home.config(NEXT);
    Ok(std::fs::remove_file(&path).map_err(|source| HomeError::Io { doing: "cannot remove", path, source })?)
}

/// Makes keys, card and rotation, and stores them before anybody hears of them: the keys first.
fn prepare(
    party: &Party,
    identity: Identity,
    passphrase: Option<&Passphrase>,
    classic: bool,
) -> Result<(Identity, SignedRotation)> {
    let new = if classic { Identity::generate_classic()? } else { Identity::generate()? };
    let old = party.card().card();
    let created = now();
    let card = Card {
        name: old.name.clone(),
        age_recipient: new.age.recipient().to_string().parse()?,
        signing_key: new.signing.public(),
        relay: old.relay.clone(),
        relay_pins: party.relay_pins().to_vec(),
        mailbox: old.mailbox,
        serial: old.serial.saturating_add(1),
        created,
        expires: created.plus(CARD_LIFETIME),
    };
    let rotation = SignedRotation::sign(party.card(), &identity.signing, card, &new.signing);
    let rotation = rotation.map_err(|error| Error::Rotation { name: old.name.clone(), error })?;
    let identity = identity.with_keys_of(new)?;
    let _lock = party.home.lock()?;
    identity.replace(&party.home, passphrase)?;
    home::write_private(&party.home.config(NEXT), rotation.detached().to_text().as_bytes())?;
    Ok((identity, rotation))
}
