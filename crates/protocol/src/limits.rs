//! The limits of the protocol. A relay may be stricter; none may be laxer (docs/protocol.md, "Limits").

use pouch_statement::MAX_STATEMENT;

/// The most parts of one bundle (docs/format.md, "Parts").
pub const MAX_PARTS: u32 = 65_536;
/// The longest sealed part: 128 MiB of content, age's 16 bytes for each 64 KiB of it, and 4 KiB for a header.
pub const MAX_PART: u64 = (128 << 20) + (128 << 20) / (64 << 10) * 16 + 4096;
/// The longest sealed index: 256 MiB padded by at most an eighth, with the overhead of its age file.
pub const MAX_INDEX: u64 = 300 << 20;
/// The longest sealed envelope.
pub const MAX_ENVELOPE: u64 = 256 << 10;
/// The longest sealed receipt, before base64.
pub const MAX_RECEIPT: u64 = 16 << 10;
/// The longest JSON message in either direction, but for listings.
pub const MAX_MESSAGE: usize = 4 * MAX_STATEMENT;
/// The longest listing (inbox, outbox, accounts, access) that a client reads, in bytes.
pub const MAX_LISTING: usize = 4 << 20;
/// The most rows of one page of a listing.
pub const MAX_PAGE: u32 = 500;
/// How long `GET /v1/inbox` waits for a delivery at most, in seconds.
pub const MAX_WAIT: u64 = 60;
/// The most recipients of one bundle.
pub const MAX_RECIPIENTS: usize = 100;
/// The most pipelines of one account that are neither over nor revoked.
pub const MAX_PIPELINES: u32 = 16;
/// How long a pipeline may live, in seconds.
pub const MAX_PIPELINE_LIFETIME: u64 = pouch_statement::MAX_DELEGATION;
/// The longest journal that an account keeps on the relay, sealed, in bytes.
pub const MAX_JOURNAL: u64 = 8 << 20;
/// The most device keys of one account.
pub const MAX_DEVICES: u32 = 16;
/// The most rotations of one account that a relay keeps: the newest.
pub const MAX_ROTATIONS: u32 = 16;
/// How far `created` of a request may lie from the relay's clock, in seconds, either way.
pub const CLOCK_WINDOW: u64 = 300;
/// How long a bundle may live at most, in seconds; a relay may be configured to less.
pub const MAX_LIFETIME: u64 = 366 * 24 * 3600;
/// How long a link lives by default, in seconds: an invitation.
pub const INVITE_LIFETIME: u64 = 72 * 3600;
/// How long the owner's link lives, in seconds.
pub const OWNER_LINK_LIFETIME: u64 = 24 * 3600;
/// With burn: how long after the first release of an envelope the bundle goes, receipt or not, in seconds.
pub const BURN_LEASE: u64 = 24 * 3600;
