//! A send that was begun, now or earlier: its two states, in the outbox and as a transfer, kept in step.

use pouch_core::bundle::Content;
use pouch_statement::{BundleId, Fingerprint};

use super::address::Addressee;
use super::deliver::Sending;
use super::{check_lifetime, may_pass};
use crate::clock::now;
use crate::error::{Error, Hindrance, Result};
use crate::identity::Identity;
use crate::outbox::{self, Progress, Sent};
use crate::party::Party;
use crate::transfer::{self, Plan, Secrets, Standing, Transfer};
use crate::watch::{News, StartsOver};

/// One send under way.
pub(super) struct Ongoing {
    pub(super) sent: Sent,
    pub(super) transfer: Transfer,
    /// It was interrupted before.
    pub(super) continued: bool,
    /// The relay may know of it.
    pub(super) begun: bool,
}

impl Ongoing {
    /// The one that was interrupted and is the same, or a new one. With `only`, that one, or what it has in a new one.
    pub(super) async fn take_up(sending: &Sending<'_>, content: &Content, only: Option<BundleId>) -> Result<Self> {
        match Self::find(sending, only)? {
            Some(Found::Open(ongoing)) => {
                ongoing.give_up_twins(sending).await?;
                Ok(ongoing)
            }
            Some(Found::Over(over, why)) => {
                // While nothing is changed yet: the same again finds it as it was.
                check_lifetime(sending.api, now().plus(sending.how.lifetime)).await?;
                over.give_up_twins(sending).await?;
                over.anew(sending, content, why).await
            }
            None => Self::begin(sending, content),
        }
    }

    fn begin(sending: &Sending<'_>, content: &Content) -> Result<Self> {
        let Sending { party, identity, to, how, .. } = sending;
        let recipients = to.iter().map(Addressee::recipient).collect();
        let mut sent = Sent::begin(BundleId::random()?, &how.purpose, now().plus(how.lifetime), recipients);
        let secrets = match &how.plan {
            Some(plan) => Some(Secrets::new(sent.bundle, plan.clone(), content)?),
            None => None,
        };
        sent.once = how.mark;
        if let Content::Tree(scan) = content {
            sent.outline(scan);
        } else if let Some(spool) = how.plan.as_ref().and_then(|plan| plan.source.spool()) {
            (sent.files, sent.size) = (1, spool.size);
        }
        sent.store(party)?;
        let transfer = Transfer::create(party, identity, sent.bundle, how.planned(content), secrets);
        if transfer.is_err() {
            sent.forget(party)?;
        }
        let transfer = transfer?;
        Ok(Self { sent, transfer, continued: false, begun: false })
    }

    fn find(sending: &Sending<'_>, only: Option<BundleId>) -> Result<Option<Found>> {
        let Sending { party, identity, how, .. } = sending;
        let Some(plan) = &how.plan else { return Ok(None) };
        for bundle in transfer::list(party)?.into_iter().filter(|id| only.is_none_or(|only| only == *id)) {
            let open = |sent: &Sent| matches!(sent.progress, Progress::Sending | Progress::Committing);
            let Some(sent) = outbox::load(party, bundle)? else {
                transfer::leave(party, bundle)?;
                continue;
            };
            let is_over = !open(&sent) || sent.expires <= now();
            if is_over && (only.is_none() || !is_sent_anew(party, &sent)?) {
                outbox::clear_transfer(party, &sent)?;
                continue;
            }
            let Some(transfer) = Transfer::open(party, identity, bundle)? else { continue };
            let Some(there) = transfer.secrets.as_ref().map(|secrets| &secrets.plan) else { continue };
            let is_now = |then: &Fingerprint| {
                let now = sending.to.iter().find(|to| to.contact.is_or_was(then));
                now.map(|to| to.contact.fingerprint())
            };
            let other = if there == plan {
                None
            } else if only.is_none() || transfer.spool().is_none() || !there.differs_only_in_recipients(plan) {
                continue;
            } else if there.is_for_former_keys(plan, is_now) {
                Some(StartsOver::OtherKeys)
            } else if how.readdressed {
                Some(StartsOver::OtherRecipients)
            } else {
                continue;
            };
            let anew = if is_over { Some(StartsOver::Over) } else { other };
            // As it is now that nobody else has it.
            match outbox::load(party, bundle)? {
                // What was said is said to its end, to whichever keys; `outbox reseal` is for those. Without what is left to be
                // said, a commit can only be settled.
                Some(sent) if sent.progress == Progress::Committing => {
                    if transfer.last.is_some() && !how.readdressed {
                        return Ok(Some(Found::Open(Self { sent, transfer, continued: true, begun: true })));
                    }
                }
                Some(sent)
                    if let Some(why) = anew
                        && is_sent_anew(party, &sent)? =>
                {
                    return Ok(Some(Found::Over(Self { sent, transfer, continued: true, begun: true }, why)));
                }
                Some(sent) if sent.progress == Progress::Sending => {
                    return Ok(Some(Found::Open(Self { sent, transfer, continued: true, begun: true })));
                }
                _ if transfer.spool().is_some() => {}
                _ => transfer.remove(&party.home)?,
            }
        }
        match only {
            Some(only) => Err(Error::NotResumable(only, Hindrance::Gone)),
            None => Ok(None),
        }
    }

    /// It is delivered, and stored as that.
    pub(super) fn done(self, party: &Party) -> Result<Sent> {
        self.transfer.remove(&party.home)?;
        Ok(self.sent)
    }

    /// It failed: kept if the same again may succeed, or if it has what was piped in; cleared away if not.
    pub(super) async fn failed(self, sending: &Sending<'_>, error: &Error) -> Result<()> {
        match self.sent.progress {
            Progress::Revoked => self.give_up(sending).await,
            _ if self.transfer.spool().is_some() => Ok(()),
            Progress::Sending if self.begun && self.transfer.secrets.is_some() && may_pass(error) => Ok(()),
            // Also where nothing can go on: it tells that a commit is to be settled.
            Progress::Committing => Ok(()),
            _ => self.give_up(sending).await,
        }
    }

    /// Clears away what was begun. What may be delivered stays in the outbox.
    pub(super) async fn give_up(self, sending: &Sending<'_>) -> Result<()> {
        self.take_back(sending).await?;
        self.transfer.remove(&sending.party.home)
    }

    /// The same in another bundle, which has it before this one is given up.
    pub(super) async fn anew(mut self, sending: &Sending<'_>, content: &Content, why: StartsOver) -> Result<Self> {
        // Nobody withdraws it in between.
        let _turn = sending.party.home.sending_turn().await?;
        if let Err(error) = sending.check_not_revoked(&mut self.sent).await {
            if self.sent.progress == Progress::Revoked {
                self.transfer.remove(&sending.party.home)?;
            }
            return Err(error);
        }
        let new = Self::begin(sending, content)?;
        sending.watch.news(News::StartsOver(self.sent.bundle, why));
        if new.transfer.spool().is_some() {
            sending.watch.news(News::Resumable(new.sent.bundle));
        }
        self.take_back(sending).await?;
        if why == StartsOver::Elsewhere {
            // It was delivered with numbers and keys that are not here.
            self.sent.advance(sending.party)?;
            self.sent.forget(sending.party)?;
        }
        self.transfer.leave()?;
        Ok(new)
    }

    async fn take_back(&self, sending: &Sending<'_>) -> Result<()> {
        if !matches!(self.sent.progress, Progress::Sending | Progress::Undelivered) {
            return Ok(());
        }
        // Best effort: the relay forgets what was never committed in any case. What was, by a copy of this home, stays.
        if sending.api.bundle(self.sent.bundle).await.is_ok_and(|status| status.committed.is_none()) {
            let _ = sending.api.delete_bundle(self.sent.bundle).await;
        }
        if self.sent.progress == Progress::Sending { self.sent.forget(sending.party) } else { Ok(()) }
    }

    /// Where it began anew and was killed two bundles have what was piped in: the one that goes on is the one.
    async fn give_up_twins(&self, sending: &Sending<'_>) -> Result<()> {
        let Sending { party, identity, .. } = sending;
        let Some(mine) = self.transfer.spool() else { return Ok(()) };
        for bundle in transfer::list(party)?.into_iter().filter(|id| *id != self.sent.bundle) {
            if transfer::spool_of(party, bundle)? != Some(mine.id) {
                continue;
            }
            if transfer::standing(party, bundle)? == Standing::Running {
                return Err(Error::BeingSent(bundle));
            }
            let Some(transfer) = Transfer::open(party, identity, bundle)? else { continue };
            match outbox::load(party, bundle)? {
                Some(sent) if sent.progress == Progress::Committing => {}
                Some(sent) => {
                    let twin = Self { sent, transfer, continued: true, begun: true };
                    twin.take_back(sending).await?;
                    twin.transfer.leave()?;
                }
                None => transfer.leave()?,
            }
        }
        Ok(())
    }
}

/// What there was of a send.
enum Found {
    /// It goes on.
    Open(Ongoing),
    /// Its bundle is over, or for keys that were replaced. What was piped in is kept, and sent anew in another one.
    Over(Ongoing, StartsOver),
}

/// Whether what a bundle has can be sent anew in another one: nobody has it, and what was piped in is kept.
fn is_sent_anew(party: &Party, sent: &Sent) -> Result<bool> {
    Ok(matches!(sent.progress, Progress::Sending | Progress::Undelivered) && transfer::keeps(party, sent.bundle)?)
}

/// What an interrupted send was to send.
pub(super) fn plan(party: &Party, identity: &Identity, sent: &Sent) -> Result<Plan> {
    let no = |why| Error::NotResumable(sent.bundle, why);
    if !is_sent_anew(party, sent)? {
        match sent.progress {
            Progress::Sending | Progress::Committing => {}
            _ => return Err(no(Hindrance::NotInterrupted)),
        }
        if sent.expires <= now() {
            let unknown = sent.progress == Progress::Committing;
            return Err(if unknown { Error::Unsettled(sent.bundle) } else { no(Hindrance::Late) });
        }
    }
    match transfer::standing(party, sent.bundle)? {
        Standing::Running => return Err(Error::BeingSent(sent.bundle)),
        Standing::Lost => return Err(no(Hindrance::Unreadable)),
        Standing::Interrupted { .. } => {}
    }
    let transfer = Transfer::open(party, identity, sent.bundle)?;
    let secrets = transfer.as_ref().and_then(|transfer| transfer.secrets.as_ref());
    secrets.map(|secrets| secrets.plan.clone()).ok_or(no(Hindrance::Damaged))
}
