//! New keys of a contact: the word for them is looked for, held against the pinned card, and taken when the user agrees.

use pouch_statement::{
    Detached, Fingerprint, Name, RotationClaim, RotationError, SignatureError, SignedCard, SignedRotation,
};

use super::{AddressBook, Contact, ContactError, Verified};
use crate::api::RelayApi;
use crate::clock::now;
use crate::error::{Error, Result};
use crate::evidence::Evidence;
use crate::inbox;
use crate::journal::{Action, Ended, Event};
use crate::party::Party;

/// The most rotations that one text may hold.
const MOST: usize = 64;

/// Rotations that lead on from the card that is pinned, verified. Nothing is pinned yet.
#[derive(Debug)]
pub struct Offered {
    /// The contact as it is pinned.
    pub contact: Contact,
    /// One or more, each from the card that the one before leads to.
    chain: Vec<SignedRotation>,
}

impl Offered {
    /// The card that they lead to.
    #[must_use]
    pub fn card(&self) -> &SignedCard {
        self.chain.last().map_or(&self.contact.card, SignedRotation::card)
    }
}

/// Splits a text into the rotations that stand in it one behind the other.
///
/// # Errors
/// None, too many, or something else.
pub fn statements(text: &str) -> std::result::Result<Vec<Detached>, SignatureError> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let mut starts: Vec<usize> = text.match_indices("\n{").map(|(at, _)| at + 1).collect();
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    if starts.len() > MOST {
        return Err(SignatureError::Armor);
    }
    starts.iter().zip(ends).map(|(start, end)| Detached::from_text(text.get(*start..end).unwrap_or_default())).collect()
}

/// The text that [`statements`] splits.
#[must_use]
pub fn texts(all: &[Detached]) -> String {
    all.iter().map(Detached::to_text).collect()
}

/// What the relay has for this contact; nothing of it is verified.
///
/// # Errors
/// Another relay's contact, or the relay cannot be reached.
pub async fn fetch(party: &Party, api: &RelayApi, contact: &Contact) -> Result<Vec<Detached>> {
    let card = contact.card();
    if card.relay != *party.relay() {
        return Err(Error::OtherRelay(card.relay.clone()));
    }
    Ok(api.rotations(card.mailbox).await?)
}

/// Holds rotations against the card that is pinned. What is not right is kept as evidence and journaled.
///
/// # Errors
/// A revoked contact; nothing that leads on; a rotation that does not verify; or two that lead from one card to different ones.
pub fn offered(party: &Party, name: &Name, found: &[Detached]) -> Result<Offered> {
    let contact = party.contacts()?.named(name)?.clone();
    contact.check_not_revoked()?;
    match follow(&contact, found) {
        Ok(chain) => {
            let offered = Offered { contact, chain };
            offered.card().check_valid_at(now())?;
            Ok(offered)
        }
        Err(wrong) => {
            let (error, evidence) = *wrong;
            if let Some(bad) = evidence {
                let text = bad.to_text();
                let object = Evidence::of_rotation(text.as_bytes());
                if !object.is_kept(party) {
                    let event = event(&contact, Ended::Failed).failed(format!("{error}; kept in {}", object.name()));
                    party.journal().append(&event)?;
                    object.keep(party)?;
                }
            }
            Err(error)
        }
    }
}

fn event(contact: &Contact, outcome: Ended) -> Event {
    Event::new(Action::ContactRotated, outcome).with_peer(&contact.name, contact.fingerprint())
}

/// Why, and what is kept as evidence.
type Wrong = Box<(Error, Option<Detached>)>;

fn bad(contact: &Contact, error: RotationError, bad: &Detached) -> Wrong {
    Box::new((Error::Rotation { name: contact.name.clone(), error }, Some(bad.clone())))
}

fn second(contact: &Contact, second: &Detached) -> Wrong {
    Box::new((Error::TwoRotations(contact.name.clone()), Some(second.clone())))
}

/// The rotations that lead on from the contact's card, in their order.
fn follow(contact: &Contact, found: &[Detached]) -> std::result::Result<Vec<SignedRotation>, Wrong> {
    // Also those of before the contact was pinned.
    let (mut claims, mut leads_here) = (Vec::new(), false);
    for one in found {
        let claim = RotationClaim::read(one).map_err(|e| bad(contact, e.into(), one))?;
        leads_here |= claim.card == contact.card.statement().digest();
        claims.push((claim.previous, one));
    }
    // What was taken before says the same as then: another word of the old keys for other new ones is a second one.
    for former in &contact.former {
        let old = former.card.fingerprint();
        for (_, one) in claims.iter().filter(|(previous, _)| *previous == old) {
            let again = SignedRotation::verify(one, &former.card).map_err(|e| bad(contact, e, one))?;
            if again.digest() != former.rotation {
                return Err(second(contact, one));
            }
        }
    }
    let mut chain: Vec<SignedRotation> = Vec::new();
    while let Some(next) = next(contact, &claims, chain.last().map_or(&contact.card, SignedRotation::card))? {
        chain.push(next);
        if chain.len() > found.len() {
            break;
        }
    }
    match (chain.is_empty(), claims.iter().find(|(previous, _)| !contact.is_or_was(previous))) {
        (false, _) => Ok(chain),
        (true, Some((_, foreign))) if !leads_here => Err(bad(contact, RotationError::OtherKeys, foreign)),
        (true, _) => Err(Box::new((Error::NoRotation(contact.name.clone()), None))),
    }
}

/// The one rotation that leads on from `card`.
fn next(
    contact: &Contact,
    claims: &[(Fingerprint, &Detached)],
    card: &SignedCard,
) -> std::result::Result<Option<SignedRotation>, Wrong> {
    let mut found: Option<SignedRotation> = None;
    let here = card.fingerprint();
    for (_, one) in claims.iter().filter(|(previous, _)| *previous == here) {
        let rotation = SignedRotation::verify(one, card).map_err(|e| bad(contact, e, one))?;
        if found.as_ref().is_some_and(|first| first.digest() != rotation.digest()) {
            return Err(second(contact, one));
        }
        found = Some(rotation);
    }
    Ok(found)
}

/// Pins the new card in place of the old one, whose key still counts for what was signed with it before. With `compared`, its
/// words were compared with its owner. Otherwise the contact is not verified, as one whose card was added without comparing: it
/// is the word of whoever has the old keys.
///
/// # Errors
/// The contact has another card by now, is revoked or gone, or somebody else has the new card.
pub fn accept(party: &Party, offered: &Offered, compared: bool) -> Result<Contact> {
    let Offered { contact, chain } = offered;
    let new = offered.card();
    let digest = chain.last().map(SignedRotation::digest);
    let event = Event { statement_sha256: digest, ..event(contact, Ended::Done) };
    let event = Event { detail: Some(format!("to {}", new.fingerprint().words())), ..event };
    let changed = if new.fingerprint() == party.fingerprint() {
        Err(ContactError::Myself)
    } else {
        AddressBook::change(&party.home, |book| {
            if let Some(other) = book.by_fingerprint(&new.fingerprint()) {
                return Err(ContactError::Pinned(other.name.clone()));
            }
            let known = book.named_mut(&contact.name)?;
            known.check_not_revoked()?;
            if known.card.statement().digest() != contact.card.statement().digest() {
                return Err(ContactError::Stale { name: contact.name.clone() });
            }
            chain.iter().for_each(|rotation| known.rotate(rotation));
            let verified = if compared { Verified::Words } else { Verified::No };
            (known.verified, known.verified_at) = (verified, compared.then(now));
            Ok(known.clone())
        })
    };
    party.journal().append(&event.ended(&changed))?;
    let contact = changed?;
    inbox::unmark_all(party);
    Ok(contact)
}
