//! The JSON messages. Unknown members are refused in both directions.

use pouch_statement::{BundleId, Detached, LinkId, MailboxId, Name, Outcome, Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::link::CardMac;

macro_rules! messages {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    )*};
}

/// A card with the MAC under a link's card key.
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
    /// Sends, receives and invites.
    Member,
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

messages! {
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

    /// Answer to [`JoinRequest`].
    struct JoinResponse {
        /// The new account's role.
        role: AccountRole,
        /// Who made the link; `null` with the owner's link.
        inviter: Option<MacedCard>,
    }

    /// `POST /v1/links`.
    struct NewLink {
        /// Chosen by the inviter.
        link: LinkId,
        /// SHA-256 of the admission secret.
        admit_sha256: Sha256Digest,
        /// When it ends.
        expires: Timestamp,
        /// The inviter's card.
        inviter: MacedCard,
    }

    /// One of `GET /v1/links`.
    struct LinkStatus {
        /// The link.
        link: LinkId,
        /// When it was made.
        created: Timestamp,
        /// When it ends.
        expires: Timestamp,
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
        /// Bytes that its bundles hold.
        used: u64,
        /// Bytes that its bundles may hold.
        quota: u64,
        /// Bundles that it has on the relay.
        bundles: u64,
    }

    /// `GET /v1/accounts`.
    struct Accounts {
        /// One page, oldest first.
        accounts: Vec<Account>,
        /// Where the next page begins (`?after=`); `null` at the end.
        next: Option<u64>,
    }

    /// `POST /v1/bundles`.
    struct NewBundle {
        /// Chosen by the sender.
        bundle: BundleId,
        /// When it ends.
        expires: Timestamp,
        /// Delete it once all recipients sent a receipt that says verified, or when the lease after the first release is over.
        burn: bool,
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
        /// The mailbox of the account that sent it.
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
    }

    /// `GET /v1/inbox`.
    struct Inbox {
        /// One page, oldest first; received ones are left out.
        items: Vec<InboxItem>,
        /// Where the next page begins (`?after=`); `null` at the end.
        next: Option<u64>,
    }

    /// `POST /v1/inbox/{bundle}/receipt`, and as the sender fetches it.
    struct ReceiptMessage {
        /// The outcome, in the open for burning and alerts.
        outcome: Outcome,
        /// The receipt's commitment (docs/format.md, "Receipt").
        commitment: Sha256Digest,
        /// The sealed receipt, base64.
        sealed: String,
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
