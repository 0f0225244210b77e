//! People with keys: how they join, and what they deliver.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pouch_protocol::{
    AccountRole, CardMac, Commit, Inviter, JoinRequest, LinkRole, LinkSecret, MacedCard, NewBundle, NewLink,
    ReceiptMessage, parts_digest, route,
};
use pouch_relay::Clock as _;
use pouch_statement::{
    Blake3Digest, BundleId, Card, Device, LinkId, MailboxId, Outcome, Sha256Digest, Signed, SignedCard, SigningKey,
};

use super::{Draft, World, blake3, sealed};

pub struct Person {
    pub name: &'static str,
    pub identity: SigningKey,
    pub device: SigningKey,
    pub mailbox: MailboxId,
}

impl World {
    pub fn card(&self, person: &Person) -> SignedCard {
        let name: String = person.name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        let recipient = format!("age1qqqqqqqqqqqqqqqq{name}");
        let card = Card {
            name: person.name.parse().unwrap(),
            age_recipient: recipient.parse().unwrap(),
            signing_key: person.identity.public(),
            relay: self.config.origin.clone(),
            relay_pins: vec![],
            mailbox: person.mailbox,
            serial: 1,
            created: self.clock.now(),
            expires: self.clock.now().plus(86_400 * 365),
        };
        SignedCard::sign(card, &person.identity).unwrap()
    }

    pub fn join_request(&self, person: &Person, secret: &LinkSecret, invited: bool) -> JoinRequest {
        let card = self.card(person);
        let device = Signed::sign(
            Device { identity: card.fingerprint(), device_key: person.device.public(), created: self.clock.now() },
            &person.identity,
        )
        .unwrap();
        let mac = CardMac::of(&secret.card_key(), LinkRole::Joiner, &card.detached());
        JoinRequest {
            admit: Sha256Digest::from_bytes(*secret.admit()).to_string(),
            card: card.detached(),
            mac: invited.then_some(mac),
            device: device.detached(),
        }
    }

    /// The owner joins.
    pub async fn owner(&mut self, name: &'static str) -> Person {
        let person = Person::new(name);
        let link = self.owner_link.take().unwrap();
        assert_eq!(link.inviter, Inviter::Relay);
        let reply = self.send(Draft::post(route::JOIN, &self.join_request(&person, &link.secret, false))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        person
    }

    pub fn new_link(&self, inviter: &Person, secret: &LinkSecret) -> NewLink {
        let card = self.card(inviter).detached();
        NewLink {
            link: LinkId::random().unwrap(),
            admit_sha256: secret.admit_sha256(),
            expires: self.clock.now().plus(3600),
            role: AccountRole::Member,
            inviter: MacedCard { mac: CardMac::of(&secret.card_key(), LinkRole::Inviter, &card), card },
        }
    }

    /// Somebody is invited and joins.
    pub async fn member(&self, inviter: &Person, name: &'static str) -> Person {
        self.invited(inviter, name, AccountRole::Member).await
    }

    /// Somebody is invited for less, and joins.
    pub async fn contractor(&self, inviter: &Person, name: &'static str) -> Person {
        self.invited(inviter, name, AccountRole::Contractor).await
    }

    async fn invited(&self, inviter: &Person, name: &'static str, role: AccountRole) -> Person {
        let person = Person::new(name);
        let secret = LinkSecret::random().unwrap();
        let link = NewLink { role, ..self.new_link(inviter, &secret) };
        self.by(inviter, Draft::post(route::LINKS, &link)).await.is_done();
        let reply = self.send(Draft::post(route::JOIN, &self.join_request(&person, &secret, true))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        person
    }

    pub async fn begin(&self, sender: &Person, burn: bool) -> BundleId {
        let bundle = BundleId::random().unwrap();
        let new = NewBundle { bundle, expires: self.clock.now().plus(7 * 86_400), burn, recipients: vec![] };
        self.by(sender, Draft::post(route::BUNDLES, &new)).await.is_done();
        bundle
    }

    /// Puts parts, index and envelopes; returns the commit that fits.
    pub async fn fill(&self, sender: &Person, bundle: BundleId, parts: &[Bytes], to: &[&Person]) -> Commit {
        for (number, part) in parts.iter().enumerate() {
            self.by(sender, Draft::part(bundle, number as u32, part)).await.is_done();
        }
        let index = sealed(b'i', 4096);
        self.by(sender, Draft::put(route::index(bundle), index.clone())).await.is_done();
        for person in to {
            let draft = Draft::put(route::envelope(bundle, person.mailbox), sealed(b'e', 4096));
            self.by(sender, draft).await.is_done();
        }
        commit_for(parts, &index, to)
    }

    /// A whole bundle, delivered.
    pub async fn deliver(&self, sender: &Person, parts: &[Bytes], to: &[&Person], burn: bool) -> BundleId {
        let bundle = self.begin(sender, burn).await;
        let commit = self.fill(sender, bundle, parts, to).await;
        self.by(sender, Draft::post(route::commit(bundle), &commit)).await.is_done();
        bundle
    }
}

impl Person {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            identity: SigningKey::generate().unwrap(),
            device: SigningKey::generate().unwrap(),
            mailbox: MailboxId::random().unwrap(),
        }
    }
}

/// A receipt whose sealed form is as long as that.
pub fn receipt(outcome: Outcome, filler: u8, length: usize) -> ReceiptMessage {
    let sealed = STANDARD.encode(sealed(filler, length));
    ReceiptMessage { outcome, commitment: Sha256Digest::of(&[filler]), sealed }
}

pub fn commit_for(parts: &[Bytes], index: &[u8], to: &[&Person]) -> Commit {
    let digests: Vec<_> =
        parts.iter().map(|part| (part.len() as u64, Blake3Digest::from_bytes(blake3(part)))).collect();
    let mut recipients: Vec<_> = to.iter().map(|person| person.mailbox).collect();
    recipients.sort();
    Commit {
        parts: parts.len() as u32,
        parts_sha256: parts_digest(digests.iter().map(|(length, digest)| (*length, digest))),
        index_sha256: Sha256Digest::of(index),
        recipients,
    }
}
