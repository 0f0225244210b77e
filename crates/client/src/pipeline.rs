//! Pipelines: scoped identities for jobs that keep nothing (docs/pipelines.md, "A runner that keeps nothing").

mod kept;
mod pack;
mod secret;

use pouch_protocol::{AccountRole, NewPipeline, PipelineStatus};
use pouch_statement::{
    Card, Delegation, Device, MAX_DELEGATION, MailboxId, Name, Signed, SignedCard, SigningKey, Timestamp,
};
use zeroize::Zeroizing;

pub(crate) use self::kept::{Pipeline, put_delivered};
pub use self::kept::{Scratch, fetch, put};
pub use self::secret::{Secret, SecretError};

use self::secret::Recipient;
use crate::api::RelayApi;
use crate::clock::now;
use crate::contacts::{AddressBook, Contact, Verified};
use crate::error::{Error, Result, Span};
use crate::home::Home;
use crate::identity::Identity;
use crate::journal::{Action, Ended, Event, Journal};
use crate::party::{Party, StoredAccount};
use crate::send::{Addressee, addressee_here, again};
use crate::transport::Network;

/// The party of a secret, for one run: nothing is known yet of its recipients and of what the runs before did, which [`fetch`]
/// brings.
///
/// # Errors
/// A folder that cannot be written.
pub fn party(secret: Secret, scratch: Scratch, network: Network) -> Result<Party> {
    let home = Home::open(Some(scratch.path()))?;
    home.create()?;
    let card = secret.card.clone();
    let account = StoredAccount {
        relay: card.card().relay.clone(),
        pins: card.card().relay_pins.clone(),
        role: AccountRole::Pipeline,
        journal: secret.journal(),
        sequences_from: 0,
    };
    Ok(Party::of_pipeline(&home, account, card, Pipeline::new(secret, scratch))?.over(network))
}

/// Makes a pipeline that sends to these in my name, for so many seconds, and leaves its journal on the relay. Gives the line of
/// its secret, and when it ends.
///
/// # Errors
/// There is one of this name, somebody may not be sent to, or the relay refuses or cannot be reached.
pub async fn make(
    party: &Party,
    api: &RelayApi,
    identity: &Identity,
    (name, to, lifetime): (&Name, &[Name], u64),
    network: &Network,
) -> Result<(Zeroizing<String>, Timestamp)> {
    if lifetime > MAX_DELEGATION || lifetime == 0 {
        return Err(Error::PipelineLifetime(Span(MAX_DELEGATION)));
    }
    if live(api).await?.iter().any(|one| one.name == *name) {
        return Err(Error::PipelineExists(name.clone()));
    }
    let to = to.iter().map(|name| addressee_here(party, name)).collect::<Result<Vec<_>>>()?;
    let made = now();
    let expires = made.plus(lifetime);
    let keys = Identity::generate()?;
    let device = SigningKey::generate()?;
    let card = card(party, &keys, name, (made, expires))?;
    let mut recipients: Vec<_> = to.iter().map(|to| to.contact.fingerprint()).collect();
    recipients.sort_unstable_by_key(|fingerprint| *fingerprint.as_bytes());
    let delegation = Delegation {
        identity: party.fingerprint(),
        name: name.clone(),
        age_recipient: keys.age.recipient().to_string().parse()?,
        signing_key: keys.signing.public(),
        recipients,
        created: made,
        expires,
    };
    delegation.check()?;
    let delegation = Signed::sign(delegation, &identity.signing)?;
    let said = Device { identity: card.fingerprint(), device_key: device.public(), created: made };
    let new = NewPipeline {
        card: card.detached(),
        device: Signed::sign(said, &keys.signing)?.detached(),
        recipients: to.iter().map(|to| to.contact.card().mailbox).collect(),
        expires,
    };
    let event = event(Action::PipelineMade, name);
    let event = Event { statement_sha256: Some(delegation.digest()), ..event };
    let result = again(|| api.new_pipeline(&new)).await;
    party.journal().append(&event.ended(&result))?;
    result?;
    let begun = begin((&keys, &device), &card, (party.card(), &delegation), &to, network).await;
    if begun.is_err() {
        // Without its journal nobody can run it.
        let _ = api.revoke_pipeline(card.card().mailbox).await;
    }
    Ok((begun?, expires))
}

fn event(action: Action, name: &Name) -> Event {
    Event { pipeline: Some(name.clone()), ..Event::new(action, Ended::Done) }
}

fn card(party: &Party, keys: &Identity, name: &Name, (created, expires): (Timestamp, Timestamp)) -> Result<SignedCard> {
    let card = Card {
        name: name.clone(),
        age_recipient: keys.age.recipient().to_string().parse()?,
        signing_key: keys.signing.public(),
        relay: party.relay().clone(),
        relay_pins: party.relay_pins().to_vec(),
        mailbox: MailboxId::random()?,
        serial: 1,
        created,
        expires,
    };
    Ok(SignedCard::sign(card, &keys.signing)?)
}

/// Begins the pipeline's journal, and puts it where its runs fetch it. Gives the line that they run with.
async fn begin(
    keys: (&Identity, &SigningKey),
    card: &SignedCard,
    by: (&SignedCard, &Signed<Delegation>),
    to: &[Addressee],
    network: &Network,
) -> Result<Zeroizing<String>> {
    let scratch = Scratch::new()?;
    let home = Home::open(Some(scratch.path()))?;
    home.create()?;
    AddressBook::change(&home, |book| {
        let known = |to: &Contact| Contact::new(to.name.clone(), to.card.clone(), Verified::Link, now());
        to.iter().try_for_each(|to| book.add(known(&to.contact)))
    })?;
    let id = Journal::create(&home)?;
    let journal = Journal::new(home, keys.0.age.recipient(), id);
    journal.append(&event(Action::Joined, &card.card().name))?;
    let recipient = |to: &Addressee| Recipient { name: to.contact.name.clone(), card: to.contact.card.detached() };
    let secret = Secret::new(keys, card, by, to.iter().map(recipient).collect(), (id, &journal.frontier()?))?;
    let line = secret.to_line()?;
    let party = party(secret, scratch, network.clone())?;
    put(&party, &party.api()?).await?;
    Ok(line)
}

/// My pipelines, by the relay's word.
///
/// # Errors
/// The relay cannot be reached.
pub async fn list(api: &RelayApi) -> Result<Vec<PipelineStatus>> {
    Ok(again(|| api.pipelines()).await?.pipelines)
}

async fn live(api: &RelayApi) -> Result<Vec<PipelineStatus>> {
    let now = now();
    Ok(list(api).await?.into_iter().filter(|one| one.revoked.is_none() && one.expires > now).collect())
}

/// Those that run and send to this mailbox.
pub(crate) async fn to(api: &RelayApi, mailbox: MailboxId) -> Result<Vec<PipelineStatus>> {
    Ok(live(api).await?.into_iter().filter(|one| one.recipients.contains(&mailbox)).collect())
}

/// Has the relay refuse a pipeline from now on.
///
/// # Errors
/// There is none of this name that runs, or the relay cannot be reached.
pub async fn revoke(party: &Party, api: &RelayApi, name: &Name) -> Result<PipelineStatus> {
    let found = live(api).await?.into_iter().find(|one| one.name == *name);
    let found = found.ok_or_else(|| Error::NoPipeline(name.clone()))?;
    end(party, api, &found).await?;
    Ok(found)
}

/// [`revoke`], of one that the relay has listed.
pub(crate) async fn end(party: &Party, api: &RelayApi, pipeline: &PipelineStatus) -> Result<()> {
    let result = again(|| api.revoke_pipeline(pipeline.mailbox)).await;
    party.journal().append(&event(Action::PipelineRevoked, &pipeline.name).ended(&result))?;
    Ok(result?)
}
