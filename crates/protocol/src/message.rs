//! The JSON messages. A relay refuses a request with members that it does not know. A client passes over what a newer relay
//! adds to an answer: no answer gives a right or a key by itself (docs/protocol.md, "Unknown members").

use pouch_statement::{BundleId, Detached, LinkId, MailboxId, Name, Note, Outcome, Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::link::CardMac;
use crate::members::{answers, requests};

/// A card with the MAC under a link's card key. Strict in both directions: it is what pins somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacedCard {
    /// The card.
    pub card: Detached,
    /// HMAC-SHA256 under the link's card key (docs/format.md, "Link"); 64 hexadecimal characters.
    pub mac: CardMac,
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountRole {
    /// Runs the relay: sees accounts and the whole access record.
    Owner,
    /// Sends to everybody, receives, and invites contractors.
    Member,
    /// Receives, and sends to whoever invited it or has sent to it; invites nobody.
    Contractor,
    /// Sends to those whom its maker named, until a certain time, and keeps a journal; nothing else.
    Pipeline,
}

impl AccountRole {
    /// The word for it, on the wire and for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
            Self::Contractor => "contractor",
            Self::Pipeline => "pipeline",
        }
    }

    /// Whether it may make links for accounts of the role `other`. Nobody makes an owner by a link.
    #[must_use]
    pub const fn may_invite(self, other: Self) -> bool {
        matches!((self, other), (Self::Owner, Self::Member | Self::Contractor) | (Self::Member, Self::Contractor))
    }
}

/// Where a bundle stands, on the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleState {
    /// Being uploaded; nobody but the sender sees it.
    Pending,
    /// Delivered to its recipients' mailboxes.
    Committed,
    /// Its time was over.
    Expired,
    /// Burnt after receipt, or at the end of the lease after release.
    Burnt,
    /// Withdrawn by its sender.
    Revoked,
    /// Ended by the relay's owner.
    #[serde(rename = "taken-down")]
    TakenDown,
}

/// Where one recipient's delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Nobody asked for the envelope.
    Waiting,
    /// The recipient has the envelope.
    Released,
    /// The recipient sent a receipt.
    Received,
}

requests! {
    /// `POST /v1/join`.
    struct JoinRequest {
        /// The link's admission secret: 64 hexadecimal characters.
        admit: String,
        /// The joiner's card.
        card: Detached,
        /// Its MAC; absent with the owner's link, where there is nobody to check it.
        mac: Option<CardMac>,
        /// The identity's word for the first device key.
        device: Detached,
    }

    /// `POST /v1/links`.
    struct NewLink {
        /// Chosen by the inviter.
        link: LinkId,
        /// SHA-256 of the admission secret.
        admit_sha256: Sha256Digest,
        /// When it ends.
        expires: Timestamp,
        /// What the account may do that is made with it: `member` or `contractor`.
        role: AccountRole,
        /// The inviter's card.
        inviter: MacedCard,
    }

    /// `POST /v1/accounts/{mailbox}/role`.
    struct NewRole {
        /// What the account may do from now on: `member` or `contractor`.
        role: AccountRole,
    }

    /// `POST /v1/devices`, signed by the device key that it enrols.
    struct NewDevice {
        /// The account.
        mailbox: MailboxId,
        /// The word of the account's identity for the key.
        device: Detached,
        /// The key that it takes the place of: revoked with it, or neither. One that is revoked or none of the account's is
        /// passed over.
        replaces: Option<DeviceKey>,
    }

    /// `POST /v1/bundles/{bundle}/extend`.
    struct Extension {
        /// When the bundle ends from now on: later or earlier than before.
        expires: Timestamp,
    }

    /// `POST /v1/bundles/{bundle}/takedown`.
    struct Takedown {
        /// What sender and recipients are told; not empty.
        reason: Note,
    }

    /// `POST /v1/bundles`.
    struct NewBundle {
        /// Chosen by the sender.
        bundle: BundleId,
        /// When it ends.
        expires: Timestamp,
        /// Delete it once all recipients sent a receipt that says verified, or when the lease after the first release is over.
        burn: bool,
        /// Mailboxes that are going to get an envelope, as far as they are known: whether the account may send to them is
        /// decided before anything is uploaded, and again with each envelope and at the commit. May be empty.
        recipients: Vec<MailboxId>,
    }

    /// `POST /v1/bundles/{bundle}/commit`.
    struct Commit {
        /// Number of parts.
        parts: u32,
        /// [`parts_digest`] over all of them.
        parts_sha256: Sha256Digest,
        /// SHA-256 of the sealed index.
        index_sha256: Sha256Digest,
        /// The mailboxes whose envelopes were put, in ascending order.
        recipients: Vec<MailboxId>,
    }

    /// `POST /v1/inbox/{bundle}/receipt`, and as the sender fetches it within a [`Delivery`]: strict in both.
    struct ReceiptMessage {
        /// The outcome, in the open for burning and alerts.
        outcome: Outcome,
        /// The receipt's commitment (docs/format.md, "Receipt").
        commitment: Sha256Digest,
        /// The sealed receipt, base64.
        sealed: String,
    }
}

answers! {
    /// `GET /v1`.
    struct RelayInfo {
        /// Versions of the API that it speaks.
        versions: Vec<u32>,
        /// Its clock.
        time: Timestamp,
        /// Longest life of a bundle, in seconds.
        max_lifetime: u64,
        /// Longest sealed part, in bytes.
        max_part: u64,
        /// Most parts of a bundle.
        max_parts: u32,
    }

    /// Answer to [`JoinRequest`].
    struct JoinResponse {
        /// The new account's role.
        role: AccountRole,
        /// Who made the link; `null` with the owner's link.
        inviter: Option<MacedCard>,
    }

    /// One of `GET /v1/links`.
    struct LinkStatus {
        /// The link.
        link: LinkId,
        /// When it was made.
        created: Timestamp,
        /// When it ends.
        expires: Timestamp,
        /// What the account may do that is made with it.
        role: AccountRole,
        /// Who redeemed it.
        joiner: Option<MacedCard>,
    }

    /// `GET /v1/links`.
    struct Links {
        /// Mine that are open, or were redeemed and not yet withdrawn.
        links: Vec<LinkStatus>,
    }

    /// `GET /v1/account`, and one of `GET /v1/accounts`.
    struct Account {
        /// The account's mailbox.
        mailbox: MailboxId,
        /// The name on its card.
        name: Name,
        /// What it may do.
        role: AccountRole,
        /// When it joined.
        created: Timestamp,
        /// Bytes that its bundles hold, with the room that is kept for receipts.
        used: u64,
        /// Bytes that its bundles may hold.
        quota: u64,
        /// Bundles that it has on the relay, without those that ended.
        bundles: u64,
        /// Since when its requests are refused.
        suspended: Option<Timestamp>,
    }

    /// One of `GET /v1/devices`.
    struct DeviceStatus {
        /// The key.
        key: DeviceKey,
        /// When it was enrolled, by the relay's clock.
        created: Timestamp,
    }

    /// `GET /v1/devices`.
    struct Devices {
        /// The keys that sign for my account, oldest first; without those that were revoked.
        devices: Vec<DeviceStatus>,
    }

    /// `GET /v1/accounts`.
    struct Accounts {
        /// One page, oldest first.
        accounts: Vec<Account>,
        /// Where the next page begins (`?after=`); `null` at the end.
        next: Option<u64>,
    }

    /// One recipient's delivery as the sender sees it.
    struct Delivery {
        /// Whose.
        mailbox: MailboxId,
        /// Where it stands.
        state: DeliveryState,
        /// When the envelope was first released.
        released: Option<Timestamp>,
        /// When the receipt came.
        received: Option<Timestamp>,
        /// How many envelopes the recipient was given so far, one in place of the other.
        revision: u32,
        /// What the recipient said.
        receipt: Option<ReceiptMessage>,
    }

    /// `GET /v1/bundles/{bundle}`, and one of `GET /v1/outbox`.
    struct BundleStatus {
        /// The bundle.
        bundle: BundleId,
        /// Where it stands.
        state: BundleState,
        /// When it was begun.
        created: Timestamp,
        /// When it was committed.
        committed: Option<Timestamp>,
        /// When it ends.
        expires: Timestamp,
        /// Bytes of its sealed parts, index and envelopes.
        size: u64,
        /// Whether it burns.
        burn: bool,
        /// Why it was taken down, if it was.
        reason: Option<Note>,
        /// Its recipients.
        deliveries: Vec<Delivery>,
    }

    /// `GET /v1/outbox`.
    struct Outbox {
        /// One page, newest first.
        bundles: Vec<BundleStatus>,
        /// Where the next page begins (`?after=`); `null` at the end.
        next: Option<u64>,
    }

    /// `GET /v1/inbox/{bundle}`, and one of `GET /v1/inbox`. All of it is the relay's word until the envelope is open.
    struct InboxItem {
        /// The bundle.
        bundle: BundleId,
        /// The mailbox of the account that sent it; of a pipeline's bundle, of who made the pipeline.
        sender: MailboxId,
        /// Where the delivery stands.
        state: DeliveryState,
        /// When it was committed.
        committed: Timestamp,
        /// When it ends.
        expires: Timestamp,
        /// Bytes of sealed parts.
        size: u64,
        /// Number of parts.
        parts: u32,
        /// How many envelopes there were so far, one in place of the other.
        revision: u32,
    }

    /// `GET /v1/inbox`.
    struct Inbox {
        /// One page, oldest first; received ones are left out.
        items: Vec<InboxItem>,
        /// Where the next page begins (`?after=`); `null` at the end.
        next: Option<u64>,
    }

    /// One attempt, granted or refused.
    struct Access {
        /// Number in the record.
        seq: u64,
        /// When.
        time: Timestamp,
        /// Who: the mailbox of the account whose signature verified.
        account: Option<MailboxId>,
        /// From where, as the relay saw it.
        address: String,
        /// Method.
        method: String,
        /// The route's template, never the raw path.
        route: String,
        /// Which bundle.
        bundle: Option<BundleId>,
        /// HTTP status.
        status: u16,
        /// The problem's word, when refused.
        problem: Option<String>,
        /// How many alike this row stands for: 1, or more for anonymous refusals counted together.
        count: u64,
    }

    /// `GET /v1/access`.
    struct AccessPage {
        /// One page, newest first.
        records: Vec<Access>,
        /// Where the next page begins (`?after=`); `null` at the end.
        next: Option<u64>,
    }
}

/// SHA-256(`pouch.parts.v1\n` ‖ for each part in order: length as 8 bytes big-endian ‖ BLAKE3 of the sealed part).
#[must_use]
pub fn parts_digest<'a>(parts: impl IntoIterator<Item = (u64, &'a pouch_statement::Blake3Digest)>) -> Sha256Digest {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    hash.update(b"pouch.parts.v1\n");
    for (length, blake3) in parts {
        hash.update(length.to_be_bytes());
        hash.update(blake3.as_bytes());
    }
    Sha256Digest::from_bytes(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{NewPipeline, NewRotation, PipelineStatus, Pipelines, Rotations};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    /// Reads a message with one member more.
    fn with_more<T: DeserializeOwned>(mut message: Value) -> Result<T, serde_json::Error> {
        assert!(serde_json::from_value::<T>(message.clone()).is_ok(), "{message}");
        message.as_object_mut().unwrap().insert("from_the_future".into(), json!({ "a": [1] }));
        serde_json::from_value(message)
    }

    fn id() -> String {
        BundleId::from_bytes([7; 16]).to_string()
    }

    fn detached() -> Value {
        json!({ "statement": "{}", "signature": "x" })
    }

    fn maced() -> Value {
        json!({ "card": detached(), "mac": "00".repeat(32) })
    }

    fn receipt() -> Value {
        json!({ "outcome": "verified", "commitment": "00".repeat(32), "sealed": "" })
    }

    #[test]
    fn answers_of_a_newer_relay_are_understood() {
        let info = json!({ "versions": [1], "time": 1, "max_lifetime": 1, "max_part": 1, "max_parts": 1 });
        with_more::<RelayInfo>(info).unwrap();
        with_more::<JoinResponse>(json!({ "role": "member", "inviter": maced() })).unwrap();
        let link = json!({ "link": id(), "created": 1, "expires": 2, "role": "contractor", "joiner": null });
        with_more::<LinkStatus>(link.clone()).unwrap();
        with_more::<Links>(json!({ "links": [link] })).unwrap();
        let account = json!({
            "mailbox": id(), "name": "bo", "role": "owner", "created": 1, "used": 1, "quota": 1, "bundles": 1,
            "suspended": null,
        });
        with_more::<Account>(account.clone()).unwrap();
        with_more::<Accounts>(json!({ "accounts": [account], "next": null })).unwrap();
        let key = DeviceKey(pouch_statement::SigningKey::from_seed(&[1; 32]).public());
        let device = json!({ "key": key, "created": 1 });
        with_more::<DeviceStatus>(device.clone()).unwrap();
        with_more::<Devices>(json!({ "devices": [device] })).unwrap();
        let delivery = json!({ "mailbox": id(), "state": "received", "released": 1, "received": 1, "revision": 1, "receipt": receipt() });
        with_more::<Delivery>(delivery.clone()).unwrap();
        let status = json!({
            "bundle": id(), "state": "committed", "created": 1, "committed": 1, "expires": 1, "size": 1, "burn": false,
            "reason": null, "deliveries": [delivery],
        });
        with_more::<BundleStatus>(status.clone()).unwrap();
        with_more::<Outbox>(json!({ "bundles": [status], "next": 1 })).unwrap();
        let item = json!({
            "bundle": id(), "sender": id(), "state": "waiting", "committed": 1, "expires": 1, "size": 1, "parts": 1,
            "revision": 1,
        });
        with_more::<InboxItem>(item.clone()).unwrap();
        with_more::<Inbox>(json!({ "items": [item], "next": null })).unwrap();
        let access = json!({
            "seq": 1, "time": 1, "account": null, "address": "", "method": "GET", "route": "/", "bundle": null,
            "status": 200, "problem": null, "count": 1,
        });
        with_more::<Access>(access.clone()).unwrap();
        with_more::<AccessPage>(json!({ "records": [access], "next": null })).unwrap();
        let pipeline = json!({
            "mailbox": id(), "name": "nightly", "created": 1, "expires": 2, "revoked": null, "recipients": [id()],
        });
        with_more::<PipelineStatus>(pipeline.clone()).unwrap();
        with_more::<Pipelines>(json!({ "pipelines": [pipeline] })).unwrap();
        with_more::<Rotations>(json!({ "rotations": [detached()] })).unwrap();
    }

    #[test]
    fn requests_and_what_pins_somebody_stay_strict() {
        let join = json!({ "admit": "", "card": detached(), "mac": null, "device": detached() });
        with_more::<JoinRequest>(join).unwrap_err();
        let link = json!({ "link": id(), "admit_sha256": "00".repeat(32), "expires": 1, "role": "member", "inviter": maced() });
        with_more::<NewLink>(link).unwrap_err();
        with_more::<NewRole>(json!({ "role": "contractor" })).unwrap_err();
        let bundle = json!({ "bundle": id(), "expires": 1, "burn": true, "recipients": [id()] });
        with_more::<NewBundle>(bundle).unwrap_err();
        let digest = "00".repeat(32);
        let commit = json!({ "parts": 1, "parts_sha256": digest, "index_sha256": digest, "recipients": [id()] });
        with_more::<Commit>(commit).unwrap_err();
        with_more::<NewDevice>(json!({ "mailbox": id(), "device": detached(), "replaces": null })).unwrap_err();
        with_more::<Extension>(json!({ "expires": 1 })).unwrap_err();
        let pipeline = json!({ "card": detached(), "device": detached(), "recipients": [id()], "expires": 1 });
        with_more::<NewPipeline>(pipeline).unwrap_err();
        with_more::<NewRotation>(json!({ "rotation": detached(), "device": detached() })).unwrap_err();
        with_more::<Takedown>(json!({ "reason": "a court's order" })).unwrap_err();
        with_more::<ReceiptMessage>(receipt()).unwrap_err();
        with_more::<MacedCard>(maced()).unwrap_err();
        with_more::<Detached>(detached()).unwrap_err();
    }

    #[test]
    fn each_role_has_its_word_and_invites_below_itself() {
        use AccountRole::{Contractor, Member, Owner, Pipeline};
        let all = [Owner, Member, Contractor, Pipeline];
        for role in all {
            assert_eq!(serde_json::to_value(role).unwrap(), role.word());
        }
        let pairs = all.map(|by| all.map(|of| by.may_invite(of)));
        assert_eq!(pairs, [[false, true, true, false], [false, false, true, false], [false; 4], [false; 4]]);
    }
}
