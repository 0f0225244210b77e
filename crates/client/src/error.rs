//! What can go wrong, gathered: each module has its own errors.

mod class;

use std::fmt;
use std::path::Path;

use pouch_core::age;
use pouch_core::bundle;
use pouch_protocol::LinkError;
use pouch_statement::{BundleId, CardError, Name, RandomError, RelayOrigin, RotationError, StatementError};

use crate::api::ApiError;
use crate::backup::BackupError;
use crate::contacts::ContactError;
use crate::home::HomeError;
use crate::identity::IdentityError;
use crate::journal::JournalError;
use crate::transport::TransportError;

pub use self::class::Class;

/// The result of the client's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation of the client failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody has joined here.
    #[error("nobody has joined a relay here yet")]
    NotJoined,
    /// Somebody has.
    #[error("this home has joined a relay already")]
    AlreadyJoined,
    /// The relay gave a card that the other side of the link did not make.
    #[error(
        "the card that the relay gave is not from the other side of the link: it was substituted, or the link was used by somebody else"
    )]
    CardSubstituted,
    /// A card for another relay.
    #[error("the card names another relay, {0}")]
    OtherRelay(RelayOrigin),
    /// Sending to somebody whose words were never compared.
    #[error("the card of {0} was never verified")]
    Unverified(Name),
    /// Nothing to receive.
    #[error("nothing is waiting")]
    NothingWaiting,
    /// Nobody of that name was invited and has not answered.
    #[error("there is no open invitation for {0}")]
    NoInvitation(Name),
    /// No such bundle among mine.
    #[error("no bundle {0} here")]
    NoBundle(String),
    /// No such request among those that I was sent.
    #[error("no request {0} here")]
    NoRequest(String),
    /// My keys or a recipient's changed in the middle of something.
    #[error("keys changed in the meantime; nothing is signed or sealed with those of before")]
    KeysChanged,
    /// A manifest that a key signed after its time.
    #[error(
        "it is signed with a key that {0} had before, and dated after it was replaced, or by a pipeline that is from before"
    )]
    FormerKey(Name),
    /// A rotation that is not right.
    #[error("the rotation of {name} is not good: {error}")]
    Rotation {
        /// Whose keys it is about.
        name: Name,
        /// What is wrong with it.
        #[source]
        error: RotationError,
    },
    /// Two rotations of one card.
    #[error("there are two rotations of {0} that lead from one card to different ones: somebody else has their keys")]
    TwoRotations(Name),
    /// A classic key is asked for, and a rotation to a hybrid one is begun.
    #[error("new keys are made already and wait for the relay, and they are hybrid ones")]
    BegunHybrid,
    /// Nothing that leads on from the card that is pinned.
    #[error("there is no rotation that leads on from the card of {0}")]
    NoRotation(Name),
    /// A path that the bundle does not have.
    #[error("{error}")]
    NoEntry {
        /// Which one.
        #[source]
        error: bundle::NoEntry,
        /// Paths of the bundle that may have been meant.
        near: Vec<bundle::EntryPath>,
    },
    /// A prefix of several.
    #[error("{} bundles {}", found.len(), if prefix.is_empty() { "are there".into() } else { format!("begin with {prefix}") })]
    Ambiguous {
        /// What was typed.
        prefix: String,
        /// What it could mean.
        found: Vec<BundleId>,
    },
    /// The envelope's signer is nobody in the address book.
    #[error("the bundle is by somebody who is not in your address book")]
    UnknownSender,
    /// A revision lower than, or another manifest with the same revision as, one that was seen.
    #[error("bundle {0} was received before with another manifest")]
    Replayed(BundleId),
    /// Waited in vain.
    #[error("no receipt within {0} s")]
    NoReceipt(u64),
    /// Interrupted by the user.
    #[error("interrupted")]
    Interrupted,
    /// The commit got no answer.
    #[error("the relay did not answer whether bundle {0} was delivered")]
    Unsettled(BundleId),
    /// A commit that got no answer had no effect.
    #[error("bundle {0} was never delivered")]
    NeverDelivered(BundleId),
    /// The relay does not keep anything for so long.
    #[error("the relay keeps a bundle for {0} at most, and this one is to be kept for longer")]
    Lifetime(Span),
    /// Nothing is left of what re-seals a bundle.
    #[error("bundle {0} cannot be addressed again: {1}")]
    NotKept(BundleId, &'static str),
    /// Nobody waits for a bundle any more.
    #[error("all recipients of bundle {0} have received and verified it")]
    AllReceived(BundleId),
    /// Somebody is a recipient already.
    #[error("{0} is a recipient of this bundle already")]
    AlreadyRecipient(Name),
    /// One recipient too many.
    #[error("{0} is named twice")]
    NamedTwice(Name),
    /// Several recipients where there is room for one.
    #[error("a .pouch file is for one recipient")]
    OneRecipient,
    /// There is a pipeline of this name.
    #[error("there is a pipeline {0} already")]
    PipelineExists(Name),
    /// There is none that runs.
    #[error("no pipeline {0} that is neither revoked nor over")]
    NoPipeline(Name),
    /// For longer than a pipeline may run.
    #[error("a pipeline runs for {0} at most")]
    PipelineLifetime(Span),
    /// The journal on the relay is not what a run of the pipeline has put there.
    #[error("the pipeline's journal on the relay is not right: {0}")]
    PipelineJournal(String),
    /// Another run put its journal there meanwhile.
    #[error("another run of this pipeline came between")]
    PipelineBusy,
    /// The journal has grown too long.
    #[error("the pipeline's journal is full")]
    PipelineFull,
    /// The line that a pipeline runs with.
    #[error(transparent)]
    PipelineSecret(#[from] crate::pipeline::SecretError),
    /// A delegation that would contradict itself.
    #[error(transparent)]
    Delegation(#[from] pouch_statement::DelegationError),
    /// A later end would be one for somebody who may not be sent to, too.
    #[error("the relay keeps it for all or for nobody, and {0} may not be sent to: {1}")]
    LongerForAll(Name, Box<Error>),
    /// What is piped in would fill the disk.
    #[error(
        "there is no room to keep more of what is piped in: {free} bytes are free, and {reserve} are left to others"
    )]
    NoRoomToKeep {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are left to others.
        reserve: u64,
    },
    /// It was withdrawn while it was being sent.
    #[error("bundle {0} was revoked meanwhile")]
    RevokedMeanwhile(BundleId),
    /// Another process has it.
    #[error("bundle {0} is left alone: it is being sent")]
    BeingSent(BundleId),
    /// A send that cannot go on.
    #[error("bundle {0} cannot be resumed: {1}")]
    NotResumable(BundleId, Hindrance),
    /// A send that cannot be forgotten.
    #[error("bundle {0} cannot be forgotten: {1}")]
    NotForgotten(BundleId, &'static str),
    /// Another contact's bundle than the one that was asked for.
    #[error("the bundle is from {found}, not from {wanted}")]
    OtherSender {
        /// Whom it was to be from.
        wanted: Name,
        /// Whom it is from.
        found: Name,
    },
    /// A secret that no variable can hold.
    #[error("the secret holds a NUL byte, which no variable can; use --stdout")]
    NulByte,
    /// A receipt of a recipient that does not fit the bundle.
    #[error("the receipt for bundle {0} is not right: {1}")]
    BadReceipt(BundleId, String),
    /// A thread of ours ended early; a defect.
    #[error("internal: a worker ended early")]
    Worker,
    /// Local state.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Contacts.
    #[error(transparent)]
    Contact(#[from] ContactError),
    /// Journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Transport.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Relay.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Card.
    #[error(transparent)]
    Card(#[from] CardError),
    /// Statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// An envelope that could not be made.
    #[error(transparent)]
    Envelope(bundle::EnvelopeError),
    /// A manifest that contradicts itself.
    #[error(transparent)]
    Manifest(#[from] bundle::ManifestError),
    /// A `.pouch` file.
    #[error(transparent)]
    BundleFile(#[from] bundle::FileError),
    /// Sealing.
    #[error(transparent)]
    Seal(#[from] bundle::SealError),
    /// Opening.
    #[error(transparent)]
    Open(#[from] bundle::OpenError),
    /// age.
    #[error(transparent)]
    Age(#[from] age::Error),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Reading or writing a file that the user named.
    #[error("{0}: {1}")]
    File(String, #[source] std::io::Error),
}

/// A span of time in the largest unit that says it exactly: `36h`, as `--until` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(
    /// Seconds.
    pub u64,
);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
        let exact = |size: u64| self.0 > 0 && self.0.is_multiple_of(size);
        let (size, unit) = units.into_iter().find(|(size, _)| exact(*size)).unwrap_or((1, 's'));
        write!(f, "{}{unit}", self.0 / size)
    }
}

/// Why a send cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hindrance {
    /// Asked for others, and somebody has it.
    #[error("it is delivered")]
    Delivered,
    /// It is over.
    #[error("it is not interrupted")]
    NotInterrupted,
    /// Nobody to send it to.
    #[error("nobody among the contacts has, or had, the keys that it is for")]
    NoContact,
    /// Of files, which can be sent again.
    #[error("a recipient has other keys")]
    OtherKeys,
    /// Asked for others, and not a stream that is kept.
    #[error("files are sent to others by sending them")]
    Files,
    /// Its end has come.
    #[error("its time is over")]
    Late,
    /// The source was a stream that is not kept.
    #[error("what it was made of cannot be read again")]
    Unreadable,
    /// Not what was written down.
    #[error("its state is damaged")]
    Damaged,
    /// No state, or another process has it this moment.
    #[error("it is being sent, or nothing is left of it")]
    Gone,
}

impl Error {
    /// That something cannot be done to a file.
    pub(crate) fn file(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let text = format!("cannot {what} {}", path.display());
        move |error| Self::File(text, error)
    }
}
