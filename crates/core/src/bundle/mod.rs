//! Bundles: what one send delivers. Sealing and opening, without a network, a clock or `$HOME`.
//!
//! A bundle is parts, one index and one envelope for each recipient (docs/format.md, "Bundle"). Parts are sealed and
//! opened on as many threads as the caller likes, each of which holds one part in memory, whatever the size of the whole.
//!
//! Sending: [`Scan`] lists, [`Sealer`] gives each thread that asks a [`SealedPart`] ([`Sealer::seal_all`] has the
//! threads itself) and at the end a [`SealedBundle`];
//! its [`Summary`] and the sender's [`Terms`] make a [`Manifest`] for each recipient, and [`seal_envelope`] closes it.
//!
//! Receiving: [`open_envelope`] → [`OpenedEnvelope::verify`] → [`Verified::open_index`] → [`Opening::receive`] →
//! [`Receiver::accept`] for each part → [`Receiver::finish`] → [`Staged::publish`]. Each step consumes the one before,
//! so none can be left out, and nothing stands at the destination before all of it is verified.
//!
//! ```
//! use pouch_core::age::Identity;
//! use pouch_core::bundle::*;
//! use pouch_statement::{BundleId, Fingerprint, SigningKey, Timestamp};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # std::fs::write(home.path().join("report.txt"), "all is well")?;
//! let (ada, bo, ada_signs) = (Identity::generate(), Identity::generate(), SigningKey::generate()?);
//! let ada_card = Fingerprint::of(&ada.recipient().to_string(), &ada_signs.public());
//! let bo_card = Fingerprint::of(&bo.recipient().to_string(), &SigningKey::generate()?.public());
//! let now = Timestamp::from_unix(1_700_000_000)?;
//!
//! // Ada seals.
//! let scan = Scan::new(&[home.path().join("report.txt")], ScanOptions::default())?;
//! let sealer = Sealer::new(Content::Tree(scan))?;
//! let (mut part, mut carried) = (SealedPart::default(), Vec::new());
//! while sealer.next_part(&mut part)? {
//!     carried.push(part.sealed.clone());
//! }
//! let sealed = sealer.finish()?;
//! let terms = Terms {
//!     bundle: BundleId::random()?, kind: Kind::Dataset, sender: ada_card, recipient: bo_card, sequence: 1,
//!     previous: None, revision: 1, created: now, expires: now.plus(86_400), note: None,
//!     due: None, answers: None,
//! };
//! let manifest = Manifest::new(terms, &sealed.summary).sign(&ada_signs)?;
//! let envelope = seal_envelope(&manifest, &sealed.key, &bo.recipient())?;
//!
//! // Bo opens.
//! let expected =
//!     Expected { me: &bo_card, sender: &ada_card, sender_key: &ada_signs.public(), bundle: None, now };
//! let opening = open_envelope(&envelope, &bo)?.verify(&expected)?.open_index(&sealed.sealed_index)?;
//! let receiver = opening.receive(Staging::new(&home.path().join("inbox"))?)?;
//! for (number, part) in (0..).zip(&carried) {
//!     receiver.accept(number, part)?;
//! }
//! receiver.finish()?.publish()?;
//! assert_eq!(std::fs::read(home.path().join("inbox/report.txt"))?, b"all is well");
//! # Ok(()) }
//! ```
//!
//! | file | concept |
//! | --- | --- |
//! | `path` | names: what a bundle may carry, and what to warn of |
//! | `padding`, `layout` | lengths: Padmé, and how content is cut into parts |
//! | `ustar`, `archive`, `objects` | the one tar header; the archive of entries; archives of fixed objects |
//! | `index`, `lines`, `manifest` | the two documents, in canonical form, with all their rules |
//! | `envelope` | what is sealed to one person: manifest and bundle key; receipt |
//! | `plan`, `spread` | where each entry lies in the content; the digest of a file that comes in pieces |
//! | `frames`, `zstd`, `pack`, `unpack` | compressed content: where frames lie; one frame; into parts; out of them |
//! | `walk`, `source`, `cut`, `seal` | the sender: list, read once, seal |
//! | `kept` | what was sealed before, and need not be again |
//! | `open`, `check`, `sink`, `stage` | the recipient: verify, compare every byte, keep apart, publish |
//! | `chosen` | some entries without the others |
//! | `resume`, `litter` | what stays beside a destination after a cut: to go on with, or to clear away |
//! | `one` | one file, into a writer |
//! | `threads` | all parts of a bundle on several threads |
//! | `file` | all of it as one `.pouch` file |
//! | `os` | every system call |

mod archive;
mod check;
mod chosen;
mod cut;
mod envelope;
mod file;
mod frames;
mod index;
mod kept;
mod layout;
mod lines;
mod litter;
mod manifest;
mod objects;
mod one;
mod open;
mod os;
mod pack;
mod padding;
mod path;
mod plan;
mod resume;
mod seal;
mod sink;
mod source;
mod spread;
mod stage;
mod threads;
mod unpack;
mod ustar;
mod walk;
mod zstd;

pub use archive::{Item, ItemKind, archive_size, header};
pub use check::ContentError;
pub use chosen::{Chosen, NoEntry};
pub use cut::Content;
pub use envelope::{
    CLOCK_TOLERANCE, EnvelopeError, Expected, MAX_ENVELOPE, OpenedEnvelope, Verified, open_envelope, open_receipt,
    receipt_commitment, seal_delegated, seal_envelope, seal_receipt,
};
pub use file::{FileError, PouchFile, PouchWriter};
pub use frames::{Compression, FRAME_SIZE, Frames};
pub use index::{ContentKind, Entry, EntryKind, Index, IndexError, MAX_ENTRIES, MAX_INDEX, PartSpec};
pub use kept::{DigestKey, Kept, KeptPart};
pub use layout::{FIRST_PART_SIZE, Layout, LayoutError, MAX_PARTS, part_capacity};
pub use manifest::{Kind, Manifest, ManifestError, Summary, Terms};
pub use objects::ObjectError;
pub use one::OneFile;
pub use open::{OpenError, Opening, Receiver};
pub use padding::{MIN_PADDED, padded};
pub use path::{EntryPath, Hazard, MAX_COMPONENT, MAX_DEPTH, MAX_PATH, PathError, hazards};
pub use resume::{Had, Keep};
pub use seal::{Progress, SealError, SealedBundle, SealedPart, Sealer};
pub use sink::{HELD_BYTES, InMemory, InMemoryPart, MAX_IN_MEMORY, Released, ReleasedPart, Sink, SinkError, SinkPart};
pub use source::{Scan, ScanOptions, SourceError};
pub use stage::{StageError, Staged, Staging, StagingPart};
pub use zstd::FrameError;
