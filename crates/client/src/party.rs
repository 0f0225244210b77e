//! One party: an identity with an account on a relay, its address book and its journal.

use std::sync::Arc;

use pouch_core::age;
use pouch_protocol::AccountRole;
use pouch_statement::{
    Delegation, Detached, Fingerprint, JournalId, RelayOrigin, Sha256Digest, Signed, SignedCard, SigningKey,
};
use serde::{Deserialize, Serialize};

use crate::agent;
use crate::api::RelayApi;
use crate::contacts::{AddressBook, Contact, ContactError};
use crate::error::{Error, Result};
use crate::home::{self, Home, HomeError};
use crate::identity::{self, Identity};
use crate::inbox;
use crate::journal::{Ended, Event, Journal};
use crate::pipeline::Pipeline;
use crate::transport::{Https, Network, Transport};

const ACCOUNT: &str = "account.json";
const CARD: &str = "card";

/// The account as it is stored; its file is what makes a home joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredAccount {
    pub(crate) relay: RelayOrigin,
    pub(crate) pins: Vec<Sha256Digest>,
    pub(crate) role: AccountRole,
    /// The journal that was begun with the account.
    pub(crate) journal: JournalId,
    /// Of a restored home: no sequence number of its own is below this.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) sequences_from: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A party that has joined a relay.
pub struct Party {
    /// Where its state is.
    pub home: Home,
    card: SignedCard,
    account: StoredAccount,
    recipient: age::Recipient,
    transport: Option<Arc<dyn Transport>>,
    network: Network,
    /// What it runs with, if it is a pipeline.
    pub(crate) pipeline: Option<Pipeline>,
}

impl Party {
    /// Opens the party of a home.
    ///
    /// # Errors
    /// Nobody has joined here, or the state is damaged.
    pub fn open(home: &Home) -> Result<Self> {
        let account = home::read_json(&home.config(ACCOUNT))?.ok_or(Error::NotJoined)?;
        let card = load_card(home)?.ok_or(Error::NotJoined)?;
        Self::assemble(home, account, card)
    }

    /// As it is in the home now, reached in the same way.
    pub(crate) fn again(&self) -> Result<Self> {
        let now = Self::open(&self.home)?;
        Ok(Self { transport: self.transport.clone(), network: self.network.clone(), ..now })
    }

    /// Refuses to sign with a card that is mine no more.
    pub(crate) fn check_current(&self) -> Result<()> {
        // A pipeline's keys are those of its secret.
        let same = self.pipeline.is_some() || self.again()?.fingerprint() == self.fingerprint();
        if same { Ok(()) } else { Err(Error::KeysChanged) }
    }

    fn assemble(home: &Home, account: StoredAccount, card: SignedCard) -> Result<Self> {
        let recipient = card.card().age_recipient.as_str().parse().map_err(|_| damaged(home, "its recipient"))?;
        Ok(Self {
            home: home.clone(),
            card,
            account,
            recipient,
            transport: None,
            network: Network::default(),
            pipeline: None,
        })
    }

    /// Makes a home joined: the last step of joining.
    pub(crate) fn found(home: &Home, account: StoredAccount) -> Result<Self> {
        let card = load_card(home)?.ok_or(Error::NotJoined)?;
        home::write_json(&home.config(ACCOUNT), &account)?;
        Self::assemble(home, account, card)
    }

    /// The party of a pipeline: its keys are in memory alone.
    pub(crate) fn of_pipeline(home: &Home, account: StoredAccount, card: SignedCard, run: Pipeline) -> Result<Self> {
        Ok(Self { pipeline: Some(run), ..Self::assemble(home, account, card)? })
    }

    /// What shows that it may send in another's name, if it is a pipeline.
    pub(crate) fn delegation(&self) -> Option<&Signed<Delegation>> {
        self.pipeline.as_ref().map(|pipeline| &pipeline.secret().delegation)
    }

    /// Sends requests through `transport` instead of HTTPS to the relay: for a network that a test controls.
    #[must_use]
    pub fn with_transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Reaches the relay in this way.
    #[must_use]
    pub fn over(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// My card.
    #[must_use]
    pub fn card(&self) -> &SignedCard {
        &self.card
    }

    /// My fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.card.fingerprint()
    }

    /// The relay that my account is on.
    #[must_use]
    pub fn relay(&self) -> &RelayOrigin {
        &self.account.relay
    }

    /// The account as it is stored.
    pub(crate) fn account(&self) -> &StoredAccount {
        &self.account
    }

    /// Pins of the relay's key; empty if its certificate is publicly trusted.
    #[must_use]
    pub fn relay_pins(&self) -> &[Sha256Digest] {
        &self.account.pins
    }

    /// My own age recipient.
    #[must_use]
    pub fn recipient(&self) -> &age::Recipient {
        &self.recipient
    }

    /// The relay, as this device.
    ///
    /// # Errors
    /// No device key, or TLS that cannot be set up.
    pub fn api(&self) -> Result<RelayApi> {
        match &self.pipeline {
            Some(pipeline) => self.api_of(pipeline.secret().device()),
            None => self.api_of(identity::device(&self.home)?),
        }
    }

    /// The relay, as the device with this key.
    pub(crate) fn api_of(&self, device: SigningKey) -> Result<RelayApi> {
        let transport = match &self.transport {
            Some(transport) => transport.clone(),
            None => Arc::new(Https::new(self.account.relay.clone(), &self.account.pins, &self.network)?),
        };
        Ok(RelayApi::new(transport, &self.account.relay, device).with_patience(self.network.patience))
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> Journal {
        Journal::new(self.home.clone(), self.recipient.clone(), self.account.journal)
    }

    /// The address book as it is now.
    ///
    /// # Errors
    /// A damaged book.
    pub fn contacts(&self) -> Result<AddressBook> {
        Ok(AddressBook::load(&self.home)?)
    }

    /// Adds a contact and journals it, the refusal too.
    ///
    /// # Errors
    /// As [`AddressBook::add`]; my own card is refused as well.
    pub fn pin(&self, contact: Contact) -> Result<()> {
        let event = Event { statement_sha256: Some(contact.card.statement().digest()), ..contact_event(&contact) };
        let result = if contact.fingerprint() == self.fingerprint() {
            Err(ContactError::Myself)
        } else {
            AddressBook::change(&self.home, |book| book.add(contact))
        };
        let event = event.ended(&result);
        self.journal().append(&event)?;
        if result.is_ok() {
            inbox::unmark_all(self);
        }
        Ok(result?)
    }

    /// Opens the identity and checks that it is the card's. What an agent keeps needs no passphrase.
    ///
    /// # Errors
    /// As [`Identity::unlock`], or an identity file of somebody else.
    pub fn unlock(
        &self,
        ask: impl FnOnce() -> std::result::Result<age::Passphrase, identity::IdentityError>,
    ) -> Result<Identity> {
        if let Some(pipeline) = &self.pipeline {
            return pipeline.secret().identity().ok_or(Error::Worker);
        }
        // One that an agent kept of before is nobody's.
        let kept = if self.is_protected() { agent::identity(&self.home) } else { None };
        if let Some(kept) = kept.and_then(|kept| kept.beginning_with(&self.fingerprint())) {
            return Ok(kept);
        }
        self.unlock_anew(ask)
    }

    /// As [`Party::unlock`], whatever an agent keeps.
    ///
    /// # Errors
    /// As [`Identity::unlock`], or an identity file of somebody else.
    pub fn unlock_anew(
        &self,
        ask: impl FnOnce() -> std::result::Result<age::Passphrase, identity::IdentityError>,
    ) -> Result<Identity> {
        self.mine(Identity::unlock(&self.home, ask)?)
    }

    /// As [`Party::unlock_anew`], with the passphrase if there is one.
    ///
    /// # Errors
    /// As [`Party::unlock_anew`].
    pub fn unlock_with(&self, passphrase: Option<&age::Passphrase>) -> Result<Identity> {
        self.mine(Identity::unlock_with(&self.home, passphrase)?)
    }

    /// With the keys of my card first. The card decides which ones are the present ones: it changes in one step.
    fn mine(&self, identity: Identity) -> Result<Identity> {
        let mine = identity.beginning_with(&self.fingerprint());
        mine.ok_or_else(|| damaged(&self.home, "identity and card do not belong together"))
    }

    /// Whether a passphrase protects the identity.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        identity::is_protected(&self.home) == Some(true)
    }
}

fn contact_event(contact: &Contact) -> Event {
    Event::new(crate::journal::Action::ContactPinned, Ended::Done).with_peer(&contact.name, contact.fingerprint())
}

fn damaged(home: &Home, reason: &str) -> Error {
    Error::Home(HomeError::Damaged { path: home.config(CARD), reason: reason.to_owned() })
}

fn load_card(home: &Home) -> Result<Option<SignedCard>> {
    let Some(bytes) = home::read(&home.config(CARD))? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| damaged(home, "not text"))?;
    let detached = Detached::from_text(&text).map_err(|e| damaged(home, &e.to_string()))?;
    Ok(Some(SignedCard::verify(&detached).map_err(|e| damaged(home, &e.to_string()))?))
}

pub(crate) fn store_card(home: &Home, card: &SignedCard) -> std::result::Result<(), HomeError> {
    home::write_private(&home.config(CARD), card.detached().to_text().as_bytes())
}

/// Whether somebody has joined a relay in this home.
#[must_use]
pub fn is_joined(home: &Home) -> bool {
    home.config(ACCOUNT).exists()
}
