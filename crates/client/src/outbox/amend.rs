//! A bundle that is delivered, addressed again: to the same recipients with another end or to their new keys, or to one more.
//! Parts and index stay as they are; each recipient gets a new manifest and a small envelope around it and the bundle key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pouch_core::age::Identity as AgeIdentity;
use pouch_core::bundle::{Manifest, seal_envelope};
use pouch_protocol::Extension;
use pouch_statement::{Fingerprint, MailboxId, Name, Outcome, Signed, Timestamp};
use zeroize::Zeroizing;

use super::{FormerKey, Private, Progress, Recipient, Sent, refresh, settle_for};
use crate::api::RelayApi;
use crate::clock::now;
use crate::contacts::{AddressBook, Contact, ContactError};
use crate::error::{Error, Result};
use crate::home;
use crate::identity::Identity;
use crate::journal::{Action, Ended, Event};
use crate::party::Party;
use crate::send::{Addressee, Places, addressee_here, again, check_lifetime};

/// What re-seals a bundle: its key, and the newest manifest for each recipient.
struct Kept {
    key: AgeIdentity,
    manifests: Vec<Signed<Manifest>>,
}

/// An envelope that is ready to go.
struct Addressed {
    manifest: Signed<Manifest>,
    mailbox: MailboxId,
    key: FormerKey,
    envelope: Bytes,
}

impl Kept {
    fn open(identity: &Identity, sent: &Sent) -> Result<Self> {
        let none = |why| Error::NotKept(sent.bundle, why);
        let private = sent.private.as_ref().ok_or_else(|| none("it is over, so its key is not kept any more"))?;
        let damaged = "its key was kept by another version of pouch, or is damaged";
        let sealed = STANDARD.decode(private).map_err(|_| none(damaged))?;
        let mut text = Zeroizing::new(Vec::new());
        identity.open_part(&sealed, &mut text)?;
        let private: Private = serde_json::from_slice(&text).map_err(|_| none(damaged))?;
        let key = private.bundle_key.parse().map_err(|_| none(damaged))?;
        // Sealed to me is not signed by me; but by a key that I had when it was sent.
        let manifests = private.manifests.iter().map(|m| identity.verify(m));
        let manifests: Vec<Signed<Manifest>> = manifests.collect::<std::result::Result<_, _>>()?;
        if manifests.iter().all(|m| m.body().bundle == sent.bundle && identity.is_or_was(&m.body().sender)) {
            Ok(Self { key, manifests })
        } else {
            Err(none(damaged))
        }
    }

    fn of(&self, recipient: &Fingerprint) -> Option<&Manifest> {
        self.manifests.iter().map(Signed::body).find(|manifest| manifest.recipient == *recipient)
    }

    /// In place of the one for the same contact, or beside those of others.
    fn put(&mut self, contact: &Contact, manifest: Signed<Manifest>) {
        self.manifests.retain(|m| !contact.is_or_was(&m.body().recipient));
        self.manifests.push(manifest);
    }

    fn seal(&self, party: &Party) -> Result<String> {
        Private::new(&self.key, self.manifests.iter().map(Signed::detached).collect()).seal(party)
    }

    /// Signs a manifest and seals the envelope around it.
    fn address(&mut self, identity: &Identity, to: &Addressee, manifest: Manifest) -> Result<Addressed> {
        let manifest = manifest.sign(&identity.signing)?;
        let envelope = seal_envelope(&manifest, &self.key, &to.age).map_err(Error::Envelope)?.into();
        self.put(&to.contact, manifest.clone());
        let key = FormerKey { fingerprint: to.contact.fingerprint(), signing_key: to.contact.card().signing_key };
        Ok(Addressed { manifest, mailbox: to.contact.card().mailbox, key, envelope })
    }
}

/// Who is left out, and why.
type LeftOut = (Name, Error);

/// To whom a bundle was addressed again.
#[derive(Debug)]
pub struct Readdressed {
    /// Those who have a new envelope.
    pub to: Vec<Name>,
    /// Those who may not be sent to as things are, and why: theirs stays as it is.
    pub left_out: Vec<LeftOut>,
}

/// Gives a delivered bundle another end, later or earlier: on the relay, and in a new manifest for each recipient who has not
/// verified it yet.
///
/// # Errors
/// Nobody waits for it any more who may be sent to; the end would be a later one for somebody who may not; its key is not
/// kept, or the relay refuses or cannot be reached: then the same again goes on from there.
pub async fn extend(
    party: &Party,
    api: &RelayApi,
    identity: &Identity,
    sent: &mut Sent,
    expires: Timestamp,
) -> Result<Readdressed> {
    check_lifetime(api, expires).await?;
    let _turn = open_again(party, api, identity, sent).await?;
    let waiting: Vec<&Recipient> = sent.recipients.iter().filter(|r| !has_verified(sent, r)).collect();
    if waiting.is_empty() {
        return Err(Error::AllReceived(sent.bundle));
    }
    let (open, mut left_out) = addressable(&party.contacts()?, waiting.into_iter())?;
    // The relay has one end for all, and with a clock that is set back somebody would take what still lies there.
    if expires > sent.expires
        && let Some((name, why)) = left_out.pop()
    {
        return Err(Error::LongerForAll(name, Box::new(why)));
    }
    let addressed = readdress(party, identity, sent, &open, expires)?;
    let result = push_extension(api, sent, expires, &addressed).await;
    conclude(party, sent, Action::Extended, &addressed, &open, &result)?;
    result?;
    sent.change(party, |sent| sent.expires = expires)?;
    Ok(Readdressed { to: names(open), left_out })
}

/// Seals a delivered bundle for the new keys of those recipients whose keys changed and who have not verified it yet: a new
/// manifest and a new envelope for each, and no part.
///
/// # Errors
/// As [`extend`]; then the same again goes on from there. That nobody has new keys is none.
pub async fn reseal(party: &Party, api: &RelayApi, identity: &Identity, sent: &mut Sent) -> Result<Readdressed> {
    let _turn = open_again(party, api, identity, sent).await?;
    let book = party.contacts()?;
    let (open, left_out) = addressable(&book, waiting_with_new_keys(&book, sent))?;
    if open.is_empty() {
        return Ok(Readdressed { to: Vec::new(), left_out });
    }
    let addressed = readdress(party, identity, sent, &open, sent.expires)?;
    let result = push(api, sent, &addressed).await;
    conclude(party, sent, Action::Resealed, &addressed, &open, &result)?;
    result?;
    Ok(Readdressed { to: names(open), left_out })
}

/// A recipient as they were, and the contact that they are now.
type Open = (Recipient, Addressee);

fn names(open: Vec<Open>) -> Vec<Name> {
    open.into_iter().map(|(recipient, _)| recipient.name).collect()
}

/// Those who may be sent to, as the contacts that they are now, and the others. It is an error if there are only others.
fn addressable<'a>(
    book: &AddressBook,
    recipients: impl Iterator<Item = &'a Recipient>,
) -> Result<(Vec<Open>, Vec<LeftOut>)> {
    let (mut open, mut left_out) = (Vec::new(), Vec::new());
    for recipient in recipients {
        match known(book, recipient) {
            Ok(to) => open.push((recipient.clone(), to)),
            Err(why) => left_out.push((recipient.name.clone(), why)),
        }
    }
    if open.is_empty()
        && let Some((_, why)) = left_out.pop()
    {
        return Err(why);
    }
    Ok((open, left_out))
}

/// Those who have not verified it and whose keys changed since it was addressed to them.
fn waiting_with_new_keys<'a>(book: &'a AddressBook, sent: &'a Sent) -> impl Iterator<Item = &'a Recipient> {
    let changed = |r: &Recipient| {
        let contact = book.by_fingerprint(&r.fingerprint).filter(|contact| contact.revoked.is_none());
        contact.is_some_and(|contact| r.resealing || contact.fingerprint() != r.fingerprint)
    };
    sent.recipients.iter().filter(move |r| changed(r) && !has_verified(sent, r))
}

/// Whether [`reseal`] would find somebody to seal it for, as far as is known here.
#[must_use]
pub fn needs_reseal(book: &AddressBook, sent: &Sent) -> bool {
    sent.expires > now() && waiting_with_new_keys(book, sent).next().is_some()
}

fn has_verified(sent: &Sent, recipient: &Recipient) -> bool {
    sent.verdict(recipient).is_some_and(|verdict| verdict.outcome == Outcome::Verified)
}

/// The next revision of the manifest for each of these recipients, by my key and for theirs of now, with the envelope around
/// it. All of it is written down before any is out of the house: a receipt may name it, and no other manifest may bear its
/// revision.
fn readdress(
    party: &Party,
    identity: &Identity,
    sent: &mut Sent,
    open: &[Open],
    expires: Timestamp,
) -> Result<Vec<Addressed>> {
    party.check_current()?;
    let (mut kept, mut addressed) = (Kept::open(identity, sent)?, Vec::new());
    for (old, to) in open {
        let manifest = kept.of(&old.fingerprint).ok_or(Error::NotKept(sent.bundle, "a manifest is missing"))?;
        let manifest = Manifest {
            sender: party.fingerprint(),
            recipient: to.contact.fingerprint(),
            revision: manifest.revision.saturating_add(1),
            created: now(),
            expires,
            ..manifest.clone()
        };
        addressed.push(kept.address(identity, to, manifest)?);
    }
    let private = kept.seal(party)?;
    sent.change(party, |sent| {
        sent.private = Some(private);
        for one in &addressed {
            let Some(to) = sent.recipients.iter_mut().find(|r| r.mailbox == one.mailbox) else { continue };
            to.earlier.extend(to.manifest_sha256.replace(one.manifest.digest()));
            let before = FormerKey { fingerprint: to.fingerprint, signing_key: to.signing_key };
            if before != one.key {
                to.former.push(before);
                (to.fingerprint, to.signing_key) = (one.key.fingerprint, one.key.signing_key);
                to.resealing = true;
            }
        }
    })?;
    Ok(addressed)
}

/// Journals what became of it, and that the envelopes are there.
fn conclude(
    party: &Party,
    sent: &mut Sent,
    action: Action,
    addressed: &[Addressed],
    open: &[Open],
    result: &Result<()>,
) -> Result<()> {
    for (one, (to, _)) in addressed.iter().zip(open) {
        party.journal().append(&about(action, sent, &one.manifest, to).ended(result))?;
    }
    if result.is_err() {
        return Ok(());
    }
    sent.change(party, |sent| {
        let there = |r: &&mut Recipient| addressed.iter().any(|one| one.mailbox == r.mailbox);
        sent.recipients.iter_mut().filter(there).for_each(|r| r.resealing = false);
    })
}

/// First the relay's end: it may be refused, and then nobody has a new envelope. Of two ends the earlier one counts, so that
/// whatever comes of the rest, nobody can fetch for longer than was said.
async fn push_extension(api: &RelayApi, sent: &Sent, expires: Timestamp, addressed: &[Addressed]) -> Result<()> {
    let extension = Extension { expires };
    again(|| api.extend(sent.bundle, &extension)).await?;
    push(api, sent, addressed).await
}

async fn push(api: &RelayApi, sent: &Sent, addressed: &[Addressed]) -> Result<()> {
    for one in addressed {
        again(|| api.put_envelope(sent.bundle, one.mailbox, one.envelope.clone())).await?;
    }
    Ok(())
}

/// Addresses a delivered bundle to one recipient more.
///
/// # Errors
/// As [`crate::send::send`] for the recipient; its key is not kept, or the relay refuses or cannot be reached.
pub async fn add(party: &Party, api: &RelayApi, identity: &Identity, sent: &mut Sent, name: &Name) -> Result<()> {
    let to = addressee_here(party, name)?;
    let _turn = open_again(party, api, identity, sent).await?;
    if sent.recipients.iter().any(|r| to.contact.is_or_was(&r.fingerprint)) {
        return Err(Error::AlreadyRecipient(name.clone()));
    }
    settle_for(party, api, identity, &[&to.contact]).await?;
    let mut kept = Kept::open(identity, sent)?;
    let (sequence, previous) = Places::load(party)?.next(&to.contact)?;
    let template = kept.manifests.first().map(|m| m.body().clone());
    let template = template.ok_or(Error::NotKept(sent.bundle, "a manifest is missing"))?;
    let recipient = to.contact.fingerprint();
    let expires = sent.expires;
    let sender = party.fingerprint();
    let manifest = Manifest { sender, recipient, sequence, previous, revision: 1, created: now(), expires, ..template };
    let one = kept.address(identity, &to, manifest)?;
    let digest = one.manifest.digest();
    let new = Recipient { sequence: Some(sequence), manifest_sha256: Some(digest), ..to.recipient() };
    let private = kept.seal(party)?;
    sent.change(party, |sent| {
        sent.private = Some(private);
        sent.recipients.push(new.clone());
    })?;
    // The number is used up whatever comes: the envelope leaves this machine.
    sent.advance(party)?;
    let result = again(|| api.put_envelope(sent.bundle, one.mailbox, one.envelope.clone())).await.map_err(Error::from);
    let is_final = matches!(&result, Err(Error::Api(error)) if error.is_final());
    if is_final {
        sent.change(party, |sent| sent.recipients.retain(|r| r.mailbox != new.mailbox))?;
    }
    party.journal().append(&about(Action::RecipientAdded, sent, &one.manifest, &new).ended(&result))?;
    result
}

/// Takes the turn for a bundle that is delivered, with its receipts as they are now.
async fn open_again(party: &Party, api: &RelayApi, identity: &Identity, sent: &mut Sent) -> Result<home::Lock> {
    if sent.progress == Progress::Carried {
        return Err(Error::NotKept(sent.bundle, "it was written to a file, and is not on the relay"));
    }
    refresh(party, api, sent, || Ok(identity)).await?;
    let turn = party.home.sending_turn().await?;
    // Another command may have addressed it meanwhile.
    sent.change(party, |_| {})?;
    match sent.progress {
        Progress::Sent => Ok(turn),
        Progress::Revoked => Err(Error::NotKept(sent.bundle, "it is revoked")),
        _ => Err(Error::NotKept(sent.bundle, "it is not delivered")),
    }
}

/// The contact that a recipient is now.
fn known(book: &AddressBook, recipient: &Recipient) -> Result<Addressee> {
    let contact = book.by_fingerprint(&recipient.fingerprint);
    Addressee::check(contact.ok_or_else(|| ContactError::Unknown(recipient.name.clone()))?.clone())
}

fn about(action: Action, sent: &Sent, manifest: &Signed<Manifest>, to: &Recipient) -> Event {
    let event = Event::new(action, Ended::Done).with_peer(&to.name, manifest.body().recipient);
    Event { bundle: Some(sent.bundle), statement_sha256: Some(manifest.digest()), ..event }
}
