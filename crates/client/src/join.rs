//! Becoming somebody: redeem a one-time link, pin whoever made it, open an account.

use std::sync::Arc;

use pouch_core::age::Passphrase;
use pouch_protocol::{AccountRole, CardMac, Inviter, JoinRequest, Link, LinkRole, MacedCard};
use pouch_statement::{Card, Detached, Device, MailboxId, Name, Sha256Digest, Signed, SignedCard, SigningKey};
use serde::{Deserialize, Serialize};

use crate::api::RelayApi;
use crate::clock::now;
use crate::contacts::{AddressBook, Contact, Verified};
use crate::error::{Error, Result};
use crate::home::{self, Home};
use crate::identity::{self, Identity};
use crate::journal::{Action, Ended, Event, Journal};
use crate::party::{self, Party, StoredAccount};
use crate::transport::{Https, Network};

const PENDING: &str = "joining.json";
/// How long a card is valid, in seconds: two years.
pub(crate) const CARD_LIFETIME: u64 = 2 * 365 * 24 * 3600;

/// What was sent with the link, kept until the answer is stored: the same link may then be tried again after a crash.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    admit_sha256: Sha256Digest,
    card: Detached,
    device: Detached,
}

/// What joining led to.
#[derive(Debug)]
pub struct Joined {
    /// What my account may do.
    pub role: AccountRole,
    /// Who invited me, pinned now.
    pub inviter: Option<Contact>,
    /// My card.
    pub card: SignedCard,
}

/// Whether a `join` with this link would go on with one that was interrupted, so that no new passphrase is needed.
#[must_use]
pub fn resumes(home: &Home, link: &Link) -> bool {
    matches!(pending(home), Ok(Some(p)) if p.admit_sha256 == link.secret.admit_sha256())
}

fn pending(home: &Home) -> Result<Option<Pending>> {
    Ok(home::read_json(&home.config(PENDING))?)
}

/// How the identity is made and kept.
#[derive(Clone, Copy, Default)]
pub struct NewIdentity<'a> {
    /// Seals the identity at rest.
    pub passphrase: Option<&'a Passphrase>,
    /// A classic key to open with, for tools that know no hybrid ones; without it a hybrid one is made.
    pub classic: bool,
}

/// Redeems `link` as `name`.
///
/// # Errors
/// Somebody is here already; the link is spent; the relay cannot be reached; or, a hard stop, the relay's answer does
/// not come from whoever made the link.
pub async fn join(home: &Home, link: &Link, name: &Name, new: NewIdentity<'_>, network: &Network) -> Result<Joined> {
    if party::is_joined(home) {
        return Err(Error::AlreadyJoined);
    }
    home.create()?;
    let sent = match pending(home)? {
        Some(pending) if pending.admit_sha256 == link.secret.admit_sha256() => pending,
        other => {
            let _lock = home.lock()?;
            // Of an interrupted join with another link, or of one that was cut off before it wrote down its link.
            if other.is_some() || identity::is_protected(home).is_some() {
                set_aside(home)?;
            }
            prepare(home, link, name, new)?
        }
    };
    let transport = Https::new(link.relay.clone(), &link.pins, network)?;
    let api = RelayApi::new(Arc::new(transport), &link.relay, identity::device(home)?);
    let mac = match link.inviter {
        Inviter::Relay => None,
        Inviter::Member(_) => Some(CardMac::of(&link.secret.card_key(), LinkRole::Joiner, &sent.card)),
    };
    let admit = data_encoding::HEXLOWER.encode(link.secret.admit().as_ref());
    let answer = api.join(&JoinRequest { admit, card: sent.card.clone(), mac, device: sent.device }).await?;
    let inviter = verify_inviter(link, answer.inviter.as_ref())?;
    if let Some(contact) = &inviter {
        AddressBook::change(home, |book| book.add(contact.clone()))?;
    }
    let account = StoredAccount {
        relay: link.relay.clone(),
        pins: link.pins.clone(),
        role: answer.role,
        journal: Journal::create(home)?,
        sequences_from: 0,
    };
    let party = Party::found(home, account)?;
    let mut event = Event::new(Action::Joined, Ended::Done);
    event.statement_sha256 = Some(party.card().statement().digest());
    event.detail = Some(format!("{} on {}", party.card().card().name, party.relay()));
    party.journal().append(&event)?;
    if let Some(contact) = &inviter {
        let pinned = Event::new(Action::ContactPinned, Ended::Done).with_peer(&contact.name, contact.fingerprint());
        party.journal().append(&pinned)?;
    }
    let _ = std::fs::remove_file(home.config(PENDING));
    Ok(Joined { role: answer.role, inviter, card: party.card().clone() })
}

/// Makes keys and card and stores them, before anything is sent.
fn prepare(home: &Home, link: &Link, name: &Name, new: NewIdentity<'_>) -> Result<Pending> {
    let identity = if new.classic { Identity::generate_classic()? } else { Identity::generate()? };
    let device_key = SigningKey::generate()?;
    let now = now();
    let card = Card {
        name: name.clone(),
        age_recipient: identity.age.recipient().to_string().parse()?,
        signing_key: identity.signing.public(),
        relay: link.relay.clone(),
        relay_pins: link.pins.clone(),
        mailbox: MailboxId::random()?,
        serial: 1,
        created: now,
        expires: now.plus(CARD_LIFETIME),
    };
    let device = Device { identity: card.fingerprint(), device_key: device_key.public(), created: now };
    let card = SignedCard::sign(card, &identity.signing)?;
    let device = Signed::sign(device, &identity.signing)?;
    identity.store(home, new.passphrase)?;
    identity::store_device(home, &device_key)?;
    party::store_card(home, &card)?;
    let pending =
        Pending { admit_sha256: link.secret.admit_sha256(), card: card.detached(), device: device.detached() };
    home::write_json(&home.config(PENDING), &pending)?;
    Ok(pending)
}

/// An interrupted join with another link: its keys are kept under another name, for nobody can say here whether the
/// relay took them.
fn set_aside(home: &Home) -> Result<()> {
    let id = pouch_statement::LinkId::random()?;
    for name in
        ["identity", "identity.age", "device.key", "device.next", "card", "rotations", "restoring.json", PENDING]
    {
        let path = home.config(name);
        if path.exists() {
            let aside = home.config(&format!("{name}.abandoned-{id}"));
            std::fs::rename(&path, &aside).map_err(|source| home::HomeError::Io {
                doing: "cannot set aside",
                path,
                source,
            })?;
        }
    }
    Ok(())
}

fn verify_inviter(link: &Link, answer: Option<&MacedCard>) -> Result<Option<Contact>> {
    let (fingerprint, maced) = match (link.inviter, answer) {
        (Inviter::Relay, None) => return Ok(None),
        (Inviter::Member(fingerprint), Some(maced)) => (fingerprint, maced),
        _ => return Err(Error::CardSubstituted),
    };
    let card = verify_card(link, maced, LinkRole::Inviter)?;
    if card.fingerprint() != fingerprint {
        return Err(Error::CardSubstituted);
    }
    let name = card.card().name.clone();
    Ok(Some(Contact::new(name, card, Verified::Link, now())))
}

fn verify_card(link: &Link, maced: &MacedCard, role: LinkRole) -> Result<SignedCard> {
    check_card(&link.secret.card_key(), &link.relay, maced, role)
}

/// Checks a card that came through the relay under a link: MAC first, then form, signature, relay and validity.
pub(crate) fn check_card(
    card_key: &[u8; 32],
    relay: &pouch_statement::RelayOrigin,
    maced: &MacedCard,
    role: LinkRole,
) -> Result<SignedCard> {
    if !CardMac::of(card_key, role, &maced.card).matches(&maced.mac) {
        return Err(Error::CardSubstituted);
    }
    let card = SignedCard::verify(&maced.card)?;
    card.check_valid_at(now())?;
    if card.card().relay == *relay { Ok(card) } else { Err(Error::OtherRelay(card.card().relay.clone())) }
}
