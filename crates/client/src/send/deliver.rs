//! From the first request to the commit, for a send that is new and for one that goes on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pouch_core::bundle::{Content, SealError, SealedBundle};
use pouch_protocol::{BundleState, Commit, NewBundle, PartField, ProblemKind};
use pouch_statement::{MailboxId, Sha256Digest};

use super::address::{Addressee, Places, address};
use super::commit::say;
use super::ongoing::Ongoing;
use super::upload::Uploaded;
use super::{Delivered, How, again, check_lifetime, is_committing, once, ride_out};
use crate::api::RelayApi;
use crate::clock::now;
use crate::contacts::ContactError;
use crate::error::{Error, Hindrance, Result};
use crate::home::Lock;
use crate::identity::Identity;
use crate::outbox::{self, Progress, Sent};
use crate::party::Party;
use crate::pipeline;
use crate::transfer::{Envelope, Last};
use crate::watch::{News, StartsOver, Watch};

/// How often parts that the relay has lost are sent again in one go.
const ROUNDS: u32 = 3;

/// What all steps of a send need.
pub(super) struct Sending<'a> {
    pub(super) party: &'a Party,
    pub(super) api: &'a RelayApi,
    pub(super) identity: &'a Identity,
    pub(super) to: &'a [Addressee],
    pub(super) how: &'a How,
    pub(super) watch: &'a dyn Watch,
}

/// Why a send ends early.
pub(super) enum Stop {
    /// It failed.
    Failed(Error),
    /// What was begun is of no use.
    StartOver(StartsOver),
    /// Another process delivered this under the same key.
    Again(Box<Sent>),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        match error.into() {
            Error::Seal(SealError::Differs { .. }) => Self::StartOver(StartsOver::Changed),
            error => Self::Failed(error),
        }
    }
}

type Step<T> = std::result::Result<T, Stop>;

impl Sending<'_> {
    /// Does what is left to be done.
    pub(super) async fn deliver(&self, ongoing: &mut Ongoing, content: Content) -> Step<Delivered> {
        if ongoing.continued {
            // Before anything is given up: it may be delivered.
            if let (true, Some(last)) = (is_committing(&ongoing.sent), ongoing.transfer.last.clone()) {
                return self.go_on_committing(ongoing, &last).await;
            }
            self.ask(ongoing).await?;
            self.check(ongoing, &content)?;
            let Ongoing { sent, transfer, .. } = &*ongoing;
            self.watch.news(News::Continues { bundle: sent.bundle, percent: transfer.percent() });
        } else {
            check_lifetime(self.api, ongoing.sent.expires).await?;
        }
        self.begin(ongoing).await?;
        let Uploaded { sealed, parts_sha256 } = self.upload_all(ongoing, content).await?;
        ongoing.sent.describe(&sealed);
        // From the sequence number to the commit no other send of this home may number a manifest.
        let turn = self.party.home.sending_turn().await?;
        let last = self.address(ongoing, &sealed, parts_sha256).await?;
        self.commit(ongoing, &last, turn).await
    }

    /// Says again what may not have been heard.
    async fn go_on_committing(&self, ongoing: &mut Ongoing, last: &Last) -> Step<Delivered> {
        let turn = self.party.home.sending_turn().await?;
        // Another process may have settled it before.
        if let Some(sent) = outbox::load(self.party, ongoing.sent.bundle)? {
            ongoing.sent = sent;
        }
        match ongoing.sent.progress {
            Progress::Sent => return self.delivered(ongoing, last, turn),
            Progress::Committing => {}
            Progress::Revoked => return Err(Error::RevokedMeanwhile(ongoing.sent.bundle).into()),
            _ => return Err(Stop::StartOver(StartsOver::Gone)),
        }
        let committed = self.ask(ongoing).await?;
        self.watch.news(News::Continues { bundle: ongoing.sent.bundle, percent: ongoing.transfer.percent() });
        if !committed {
            if let Some(revoked) = outbox::revoked_among(self.party, last)? {
                let _ = self.api.delete_bundle(ongoing.sent.bundle).await;
                self.refused(ongoing)?;
                return Err(Error::from(ContactError::Revoked(revoked)).into());
            }
            return self.commit(ongoing, last, turn).await;
        }
        // By this commit, or by that of a copy of this home: the relay tells them apart.
        match again(|| self.api.commit(ongoing.sent.bundle, &last.commit)).await {
            Ok(()) => self.delivered(ongoing, last, turn),
            Err(error) if error.refused() == Some(ProblemKind::Conflict) => Err(Stop::StartOver(StartsOver::Elsewhere)),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses to deliver what somebody withdrew while it was on its way, and takes back what the relay has of it.
    pub(super) async fn check_not_revoked(&self, sent: &mut Sent) -> Result<()> {
        let now = outbox::load(self.party, sent.bundle)?;
        if now.ok_or(Error::NotResumable(sent.bundle, Hindrance::Gone))?.progress != Progress::Revoked {
            return Ok(());
        }
        sent.progress = Progress::Revoked;
        let _ = self.api.delete_bundle(sent.bundle).await;
        Err(Error::RevokedMeanwhile(sent.bundle))
    }

    /// Whether a send that was interrupted may go on, as far as is known here.
    fn check(&self, ongoing: &Ongoing, content: &Content) -> Step<()> {
        let Ongoing { sent, transfer, .. } = ongoing;
        if !transfer.secrets.as_ref().is_some_and(|secrets| secrets.is_of(content)) {
            return Err(Stop::StartOver(StartsOver::Changed));
        }
        let at = |to: &Addressee| sent.recipients.iter().any(|r| r.mailbox == to.contact.card().mailbox);
        if !self.to.iter().all(at) {
            return Err(Stop::StartOver(StartsOver::Moved));
        }
        if sent.expires.since(now()) < self.how.lifetime / 2 {
            return Err(Stop::StartOver(StartsOver::Late));
        }
        Ok(())
    }

    /// Whether it was committed, by the relay's word. If the relay has nothing to go on with, it starts over.
    async fn ask(&self, ongoing: &mut Ongoing) -> Step<bool> {
        let Ongoing { sent, transfer, .. } = &*ongoing;
        let gone = match again(|| self.api.bundle(sent.bundle)).await {
            Ok(status) if status.committed.is_some() && is_committing(sent) => return Ok(true),
            Ok(status) if status.committed.is_some() => return Err(Stop::StartOver(StartsOver::Elsewhere)),
            Ok(status) => status.state != BundleState::Pending,
            Err(e) if e.refused() == Some(ProblemKind::NotFound) => is_committing(sent) || !transfer.parts.is_empty(),
            Err(e) => return Err(e.into()),
        };
        if gone && is_committing(sent) {
            self.refused(ongoing)?;
        }
        if gone { Err(Stop::StartOver(StartsOver::Gone)) } else { Ok(false) }
    }

    async fn begin(&self, ongoing: &mut Ongoing) -> Step<()> {
        ongoing.begun = true;
        let sent = &ongoing.sent;
        let recipients = sent.recipients.iter().map(|recipient| recipient.mailbox).collect();
        let new = NewBundle { bundle: sent.bundle, expires: sent.expires, burn: self.how.burn, recipients };
        ride_out(self.api, self.watch, || self.api.new_bundle(&new)).await?;
        if ongoing.transfer.secrets.is_some() {
            self.watch.news(News::Resumable(sent.bundle));
        }
        Ok(())
    }

    /// Uploads all parts and the index. Of one that goes on, until the relay has what it acknowledged earlier, too.
    async fn upload_all(&self, ongoing: &mut Ongoing, content: Content) -> Step<Uploaded> {
        let bundle = ongoing.sent.bundle;
        let mut content = content;
        for _ in 0..ROUNDS {
            let mut uploaded = self.upload_parts(&mut ongoing.transfer, bundle, content).await?;
            if ongoing.transfer.parts.range(uploaded.sealed.summary.layout.parts()..).next().is_some() {
                // It is compressed to less than before: the relay has parts that are none of this bundle.
                return Err(Stop::StartOver(StartsOver::Changed));
            }
            let index = Bytes::from(std::mem::take(&mut uploaded.sealed.sealed_index));
            ride_out(self.api, self.watch, || self.api.put_index(bundle, index.clone())).await?;
            if !ongoing.continued || !self.lost_parts(ongoing, &uploaded.sealed, index.len()).await? {
                return Ok(uploaded);
            }
            content = self.how.content(self.party, self.identity)?;
            self.check(ongoing, &content)?;
        }
        Err(Stop::StartOver(StartsOver::Gone))
    }

    /// Whether the relay has lost parts that it acknowledged before the interruption; they are forgotten then. If the length
    /// of all that it has is right, nothing is missing. Which is which is asked only otherwise.
    async fn lost_parts(&self, ongoing: &mut Ongoing, sealed: &SealedBundle, index: usize) -> Step<bool> {
        let bundle = ongoing.sent.bundle;
        let all = sealed.index.parts().iter().map(|part| part.sealed_size).sum::<u64>() + index as u64;
        if ride_out(self.api, self.watch, || self.api.bundle(bundle)).await?.size == all {
            return Ok(false);
        }
        let mut lost = false;
        for (number, part) in (0..).zip(sealed.index.parts()) {
            let field = PartField { number, length: part.sealed_size, blake3: part.sealed_blake3 };
            if !ride_out(self.api, self.watch, || self.api.has_part(bundle, &field)).await? {
                ongoing.transfer.parts.remove(&number);
                lost = true;
            }
        }
        Ok(lost)
    }

    /// Signs and seals for each recipient, and writes down all that remains to be said before any of it is. It is the
    /// caller's turn.
    async fn address(&self, ongoing: &mut Ongoing, sealed: &SealedBundle, parts_sha256: Sha256Digest) -> Step<Last> {
        let (mut manifests, mut envelopes, mut recipients) = (Vec::new(), Vec::new(), Vec::new());
        let contacts: Vec<_> = self.to.iter().map(|to| &to.contact).collect();
        self.check_not_revoked(&mut ongoing.sent).await?;
        outbox::settle_for(self.party, self.api, self.identity, &contacts).await?;
        if let Some(delivered) = once::meanwhile(self.party, &ongoing.sent)? {
            return Err(Stop::Again(Box::new(delivered)));
        }
        let places = Places::load(self.party)?;
        for to in self.to {
            let purpose = &self.how.purpose;
            let (manifest, envelope) =
                address(self.party, self.identity, (to, &places), &ongoing.sent, purpose, sealed)?;
            let mailbox: MailboxId = to.contact.card().mailbox;
            manifests.push(manifest);
            envelopes.push(Envelope { mailbox, sealed: STANDARD.encode(envelope) });
            recipients.push(mailbox);
        }
        recipients.sort_unstable_by_key(|mailbox| *mailbox.as_bytes());
        let (parts, index_sha256) = (sealed.summary.layout.parts(), sealed.summary.sealed_index_sha256);
        let last = Last { commit: Commit { parts, parts_sha256, index_sha256, recipients }, envelopes };
        ongoing.transfer.conclude(last.clone())?;
        ongoing.sent.commit_to(self.party, &manifests, &sealed.key, Progress::Committing)?;
        // Of a pipeline: before anything is out of the house, so that no other run gives away the same numbers.
        if let Err(error) = pipeline::put(self.party, self.api).await {
            let _ = self.api.delete_bundle(ongoing.sent.bundle).await;
            return Err(error.into());
        }
        Ok(last)
    }

    async fn commit(&self, ongoing: &mut Ongoing, last: &Last, turn: Lock) -> Step<Delivered> {
        match say(self.api, ongoing.sent.bundle, last, self.watch).await {
            Ok(()) => self.delivered(ongoing, last, turn),
            Err(Error::Api(error)) if error.is_final() => {
                self.refused(ongoing)?;
                // A part of the process before that came in late has taken the place of ours.
                let late = ongoing.continued && error.refused() == Some(ProblemKind::Conflict);
                Err(if late { Stop::StartOver(StartsOver::Gone) } else { error.into() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The relay says no, but the envelopes are out of our hands.
    fn refused(&self, ongoing: &mut Ongoing) -> Result<()> {
        let sent = &mut ongoing.sent;
        sent.advance(self.party)?;
        sent.progress = Progress::Undelivered;
        sent.store(self.party)
    }

    fn delivered(&self, ongoing: &mut Ongoing, last: &Last, turn: Lock) -> Step<Delivered> {
        let sent = &mut ongoing.sent;
        sent.progress = Progress::Sent;
        sent.advance(self.party)?;
        Ok(Delivered { sealed_index: last.commit.index_sha256, _turn: turn })
    }
}
