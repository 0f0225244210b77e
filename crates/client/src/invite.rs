//! Inviting somebody: a one-time link now, their verified card with a later command.

use data_encoding::HEXLOWER;
use pouch_protocol::limits::INVITE_LIFETIME;
use pouch_protocol::{
    AccountRole, CardMac, Inviter, Link, LinkRole, LinkSecret, LinkStatus, MacedCard, NewLink, ProblemKind,
};
use pouch_statement::{LinkId, Name, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::api::RelayApi;
use crate::clock::now;
use crate::contacts::{Contact, ContactError, Verified};
use crate::error::{Class, Error, Result};
use crate::home;
use crate::join::check_card;
use crate::journal::{Action, Ended, Event};
use crate::party::Party;

const FILE: &str = "invites.json";

/// An invitation that nobody has answered yet. Of the link's secret only the card key is kept: it verifies the
/// joiner's card and cannot redeem the link.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Pending {
    #[zeroize(skip)]
    link: LinkId,
    #[zeroize(skip)]
    name: Name,
    card_key: String,
    #[zeroize(skip)]
    expires: Timestamp,
}

/// What became of an invitation.
#[derive(Debug)]
pub enum Answered {
    /// Somebody redeemed it and is pinned now.
    Pinned(Box<Contact>),
    /// What the relay gave as the joiner's card did not verify; nothing was pinned and the link is withdrawn.
    Refused {
        /// Who was invited.
        name: Name,
        /// Why.
        error: Box<Error>,
    },
    /// Somebody redeemed it, but could not be pinned here and now; the next command tries again.
    Later {
        /// Who was invited.
        name: Name,
        /// Why.
        error: Box<Error>,
    },
    /// Nobody came in time.
    Expired(Name),
}

/// Makes a link for `name`, whose account will have this role, and tells the relay of it. The link is a secret; the caller
/// shows it once.
///
/// # Errors
/// The name is taken, or the relay refuses.
pub async fn invite(party: &Party, api: &RelayApi, name: &Name, role: AccountRole) -> Result<(Link, Timestamp)> {
    if party.contacts()?.named(name).is_ok() {
        return Err(ContactError::NameTaken(name.clone()).into());
    }
    // One link for one person: an earlier one may have gone astray.
    for earlier in load(party)?.iter().filter(|p| p.name == *name) {
        end(party, api, earlier).await?;
    }
    let secret = LinkSecret::random()?;
    let link = Link {
        relay: party.relay().clone(),
        pins: party.relay_pins().to_vec(),
        inviter: Inviter::Member(party.fingerprint()),
        secret,
    };
    let id = LinkId::random()?;
    let expires = now().plus(INVITE_LIFETIME);
    let card = party.card().detached();
    let card_key = link.secret.card_key();
    let mac = CardMac::of(&card_key, LinkRole::Inviter, &card);
    let pending = Pending { link: id, name: name.clone(), card_key: HEXLOWER.encode(card_key.as_ref()), expires };
    change(party, |list| list.push(pending))?;
    let admit_sha256 = link.secret.admit_sha256();
    let new = NewLink { link: id, admit_sha256, expires, role, inviter: MacedCard { card, mac } };
    if let Err(error) = api.new_link(&new).await {
        change(party, |list| list.retain(|p| p.link != id))?;
        return Err(error.into());
    }
    let mut event = Event::new(Action::Invited, Ended::Done);
    event.peer = Some(name.clone());
    event.detail = Some(format!("as a {}", role.word()));
    party.journal().append(&event)?;
    Ok((link, expires))
}

/// An invitation of mine as the relay has it.
#[derive(Debug)]
pub struct Invitation {
    /// Who was invited, if this home made the link and has not pinned anybody for it yet.
    pub name: Option<Name>,
    /// What the relay says.
    pub status: LinkStatus,
}

/// My links that are open, or were redeemed and not yet forgotten.
///
/// # Errors
/// The relay cannot be reached, or local state.
pub async fn list(party: &Party, api: &RelayApi) -> Result<Vec<Invitation>> {
    let pending = load(party)?;
    let named = |link: &LinkId| pending.iter().find(|p| p.link == *link).map(|p| p.name.clone());
    let links = api.links().await?.links;
    Ok(links.into_iter().map(|status| Invitation { name: named(&status.link), status }).collect())
}

/// Withdraws the open invitation for `name`: its link is good for nothing from now on.
///
/// # Errors
/// [`Error::NoInvitation`], or the relay cannot be reached.
pub async fn withdraw(party: &Party, api: &RelayApi, name: &Name) -> Result<()> {
    let pending = load(party)?;
    let mut found = pending.iter().filter(|p| p.name == *name).peekable();
    if found.peek().is_none() {
        return Err(Error::NoInvitation(name.clone()));
    }
    for invitation in found {
        end(party, api, invitation).await?;
        let mut event = Event::new(Action::InvitationWithdrawn, Ended::Done);
        event.peer = Some(name.clone());
        party.journal().append(&event)?;
    }
    Ok(())
}

/// Has the relay forget a link, and forgets it here.
async fn end(party: &Party, api: &RelayApi, invitation: &Pending) -> Result<()> {
    api.delete_link(invitation.link).await.or_else(|e| match e.refused() {
        Some(ProblemKind::NotFound) => Ok(()),
        _ => Err(e),
    })?;
    change(party, |list| list.retain(|p| p.link != invitation.link))
}

fn change(party: &Party, change: impl FnOnce(&mut Vec<Pending>)) -> Result<()> {
    let _lock = party.home.lock()?;
    let path = party.home.state(FILE);
    let mut list: Vec<Pending> = home::read_json(&path)?.unwrap_or_default();
    change(&mut list);
    Ok(home::write_json(&path, &list)?)
}

fn load(party: &Party) -> Result<Vec<Pending>> {
    Ok(home::read_json(&party.home.state(FILE))?.unwrap_or_default())
}

/// Whether anybody was invited and has not been pinned yet.
///
/// # Errors
/// A damaged file.
pub fn any_pending(party: &Party) -> Result<bool> {
    Ok(!load(party)?.is_empty())
}

/// Asks the relay who redeemed my links, verifies their cards and pins them. Called at the start of every command
/// that reaches the relay; costs nothing when nobody was invited.
///
/// # Errors
/// The relay cannot be reached. A card that does not verify is not an error of this call but an [`Answered::Refused`].
pub async fn collect(party: &Party, api: &RelayApi) -> Result<Vec<Answered>> {
    let pending = load(party)?;
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let links = api.links().await?.links;
    let mut answered = Vec::new();
    for invitation in &pending {
        let joiner = links.iter().find(|l| l.link == invitation.link).and_then(|l| l.joiner.as_ref());
        let outcome = match joiner {
            None if invitation.expires <= now() => Answered::Expired(invitation.name.clone()),
            None => continue,
            Some(joiner) => match admit(party, invitation, joiner) {
                Ok(contact) => Answered::Pinned(Box::new(contact)),
                Err(error) if error.class() != Class::Evidence => {
                    let name = invitation.name.clone();
                    answered.push(Answered::Later { name, error: Box::new(error) });
                    continue;
                }
                Err(error) => Answered::Refused { name: invitation.name.clone(), error: Box::new(error) },
            },
        };
        change(party, |list| list.retain(|p| p.link != invitation.link))?;
        // Best effort: the link ends by itself. A relay must not be able to keep back what was found by failing here.
        let _ = api.delete_link(invitation.link).await;
        answered.push(outcome);
    }
    Ok(answered)
}

fn admit(party: &Party, invitation: &Pending, joiner: &MacedCard) -> Result<Contact> {
    let key = Zeroizing::new(HEXLOWER.decode(invitation.card_key.as_bytes()).unwrap_or_default());
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(key.as_slice().try_into().map_err(|_| Error::CardSubstituted)?);
    let checked = check_card(&key, party.relay(), joiner, LinkRole::Joiner);
    match checked {
        Ok(card) => {
            let contact = Contact::new(invitation.name.clone(), card, Verified::Link, now());
            party.pin(contact.clone())?;
            Ok(contact)
        }
        Err(error) => {
            let event = Event::new(Action::ContactPinned, Ended::Failed).failed(&error);
            party.journal().append(&Event { peer: Some(invitation.name.clone()), ..event })?;
            Err(error)
        }
    }
}
