//! The relay's paths: templates for the router, and builders for clients, side by side.

use pouch_statement::{BundleId, LinkId, MailboxId};

use crate::device::DeviceKey;

/// `GET`: what this relay is; anonymous.
pub const INFO: &str = "/v1";
/// `GET`: the OpenAPI description of all of these; anonymous.
pub const OPENAPI: &str = "/v1/openapi.json";
/// `GET`: the page behind a link, for people; anonymous. The link's fragment never gets here.
pub const LINK_PAGE: &str = "/j";
/// `POST`: redeem a link; anonymous but for the link's secret.
pub const JOIN: &str = "/v1/join";
/// `POST`: make a link. `GET`: my links.
pub const LINKS: &str = "/v1/links";
/// `DELETE`: withdraw a link.
pub const LINK: &str = "/v1/links/{link}";
/// `GET`: my account.
pub const ACCOUNT: &str = "/v1/account";
/// `POST`: enrol the device key that signs this. `GET`: those of my account.
pub const DEVICES: &str = "/v1/devices";
/// `DELETE`: revoke one of them.
pub const DEVICE: &str = "/v1/devices/{key}";
/// `POST`: new keys of my identity in place of the old ones.
pub const ROTATIONS: &str = "/v1/rotations";
/// `GET`: those of a mailbox.
pub const ROTATIONS_OF: &str = "/v1/rotations/{mailbox}";
/// `POST`: an account that sends in my name, within bounds. `GET`: those that I made.
pub const PIPELINES: &str = "/v1/pipelines";
/// `DELETE`: refuse its requests for good.
pub const PIPELINE: &str = "/v1/pipelines/{mailbox}";
/// `GET` and `PUT`: the journal that I keep on the relay, sealed.
pub const JOURNAL: &str = "/v1/journal";
/// `GET`: all accounts; owner only.
pub const ACCOUNTS: &str = "/v1/accounts";
/// `POST`: refuse an account's requests; owner only.
pub const SUSPEND: &str = "/v1/accounts/{mailbox}/suspend";
/// `POST`: take them again; owner only.
pub const RESTORE: &str = "/v1/accounts/{mailbox}/restore";
/// `POST`: what an account may do; owner only.
pub const ROLE: &str = "/v1/accounts/{mailbox}/role";
/// `GET`: the access record: an owner's whole relay, anybody else's own.
pub const ACCESS: &str = "/v1/access";
/// `POST`: begin a bundle.
pub const BUNDLES: &str = "/v1/bundles";
/// `GET`: state of a bundle that I sent. `DELETE`: revoke it.
pub const BUNDLE: &str = "/v1/bundles/{bundle}";
/// `PUT`: a part, by the sender before commit. `GET`: by sender and recipients.
pub const PART: &str = "/v1/bundles/{bundle}/parts/{part}";
/// `PUT` and `GET`: the sealed index.
pub const INDEX: &str = "/v1/bundles/{bundle}/index";
/// `PUT`: one recipient's envelope; after the commit in place of the earlier one, or for one recipient more.
pub const ENVELOPE: &str = "/v1/bundles/{bundle}/envelopes/{mailbox}";
/// `POST`: everything is there; deliver.
pub const COMMIT: &str = "/v1/bundles/{bundle}/commit";
/// `POST`: another end of a committed bundle.
pub const EXTEND: &str = "/v1/bundles/{bundle}/extend";
/// `POST`: end a bundle, with a reason; owner only.
pub const TAKEDOWN: &str = "/v1/bundles/{bundle}/takedown";
/// `GET`: the bundles I sent.
pub const OUTBOX: &str = "/v1/outbox";
/// `GET`: the bundles that wait for me.
pub const INBOX: &str = "/v1/inbox";
/// `GET`: one of them.
pub const DELIVERY: &str = "/v1/inbox/{bundle}";
/// `POST`: hand me the envelope; recorded as the release.
pub const RELEASE: &str = "/v1/inbox/{bundle}/release";
/// `POST`: my receipt.
pub const RECEIPT: &str = "/v1/inbox/{bundle}/receipt";

/// Path of [`LINK`].
#[must_use]
pub fn link(link: LinkId) -> String {
    format!("/v1/links/{link}")
}

/// Path of [`DEVICE`].
#[must_use]
pub fn device(key: DeviceKey) -> String {
    format!("/v1/devices/{key}")
}

/// Path of [`ROTATIONS_OF`].
#[must_use]
pub fn rotations_of(mailbox: MailboxId) -> String {
    format!("/v1/rotations/{mailbox}")
}

/// Path of [`PIPELINE`].
#[must_use]
pub fn pipeline(mailbox: MailboxId) -> String {
    format!("/v1/pipelines/{mailbox}")
}

/// Path of [`SUSPEND`].
#[must_use]
pub fn suspend(mailbox: MailboxId) -> String {
    format!("/v1/accounts/{mailbox}/suspend")
}

/// Path of [`RESTORE`].
#[must_use]
pub fn restore(mailbox: MailboxId) -> String {
    format!("/v1/accounts/{mailbox}/restore")
}

/// Path of [`ROLE`].
#[must_use]
pub fn role(mailbox: MailboxId) -> String {
    format!("/v1/accounts/{mailbox}/role")
}

/// Path of [`BUNDLE`].
#[must_use]
pub fn bundle(bundle: BundleId) -> String {
    format!("/v1/bundles/{bundle}")
}

/// Path of [`PART`]; the number without leading zeros.
#[must_use]
pub fn part(bundle: BundleId, part: u32) -> String {
    format!("/v1/bundles/{bundle}/parts/{part}")
}

/// Path of [`INDEX`].
#[must_use]
pub fn index(bundle: BundleId) -> String {
    format!("/v1/bundles/{bundle}/index")
}

/// Path of [`ENVELOPE`].
#[must_use]
pub fn envelope(bundle: BundleId, mailbox: MailboxId) -> String {
    format!("/v1/bundles/{bundle}/envelopes/{mailbox}")
}

/// Path of [`COMMIT`].
#[must_use]
pub fn commit(bundle: BundleId) -> String {
    format!("/v1/bundles/{bundle}/commit")
}

/// Path of [`EXTEND`].
#[must_use]
pub fn extend(bundle: BundleId) -> String {
    format!("/v1/bundles/{bundle}/extend")
}

/// Path of [`TAKEDOWN`].
#[must_use]
pub fn takedown(bundle: BundleId) -> String {
    format!("/v1/bundles/{bundle}/takedown")
}

/// Path of [`DELIVERY`].
#[must_use]
pub fn delivery(bundle: BundleId) -> String {
    format!("/v1/inbox/{bundle}")
}

/// Path of [`RELEASE`].
#[must_use]
pub fn release(bundle: BundleId) -> String {
    format!("/v1/inbox/{bundle}/release")
}

/// Path of [`RECEIPT`].
#[must_use]
pub fn receipt(bundle: BundleId) -> String {
    format!("/v1/inbox/{bundle}/receipt")
}
