//! What an error means: the class that decides the exit code.

use pouch_core::bundle;
use pouch_protocol::ProblemKind;
use pouch_statement::CardError;

use super::Error;
use crate::api::ApiError;
use crate::contacts::ContactError;
use crate::home::HomeError;
use crate::identity::IdentityError;
use crate::journal::JournalError;
use crate::transport::TransportError;

/// What an error means for whoever called; the command line turns it into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Anything else.
    Other,
    /// Called wrongly.
    Usage,
    /// Not there, or nothing waiting.
    NotFound,
    /// A signature, digest, card or log that is not right.
    Evidence,
    /// A gate or the relay refused.
    Refused,
    /// Expired, burnt, revoked or taken down; a link that was used.
    Expired,
    /// Relay or network unreachable; trying again may help.
    Unreachable,
    /// Quota or disk full.
    Full,
    /// Local state damaged or locked.
    State,
    /// Stopped by the user.
    Interrupted,
}

impl Error {
    /// What the error means for whoever called.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Lifetime(_) | Self::NotJoined | Self::AlreadyJoined | Self::Ambiguous { .. } | Self::Link(_) => {
                Class::Usage
            }
            Self::CardSubstituted
            | Self::OtherRelay(_)
            | Self::BadReceipt(..)
            | Self::Statement(_)
            | Self::OtherSender { .. }
            | Self::FormerKey(_)
            | Self::Rotation { .. }
            | Self::TwoRotations(_)
            | Self::Backup(_)
            | Self::Replayed(_) => Class::Evidence,
            Self::PipelineJournal(_) => Class::Evidence,
            Self::Unsettled(_) | Self::PipelineBusy => Class::Unreachable,
            Self::RevokedMeanwhile(_) => Class::Expired,
            Self::PipelineFull | Self::NoRoomToKeep { .. } => Class::Full,
            Self::PipelineExists(_) | Self::PipelineLifetime(_) | Self::PipelineSecret(_) => Class::Usage,
            Self::Delegation(_) => Class::Other,
            Self::NulByte => Class::Other,
            Self::KeysChanged => Class::Refused,
            Self::Unverified(_) | Self::UnknownSender | Self::NotKept(..) | Self::AllReceived(_) => Class::Refused,
            Self::NotResumable(..) | Self::NotForgotten(..) | Self::LongerForAll(..) | Self::BeingSent(_) => {
                Class::Refused
            }
            Self::AlreadyRecipient(_) | Self::NamedTwice(_) | Self::OneRecipient | Self::BegunHybrid => Class::Usage,
            Self::NoInvitation(_)
            | Self::NoRotation(_)
            | Self::NoPipeline(_)
            | Self::NothingWaiting
            | Self::NoBundle(_)
            | Self::NoRequest(_)
            | Self::NoEntry { .. }
            | Self::NoReceipt(_)
            | Self::NeverDelivered(_) => Class::NotFound,
            Self::Interrupted => Class::Interrupted,
            Self::Home(error) => home_class(error),
            Self::Identity(IdentityError::Home(error)) => home_class(error),
            Self::Identity(IdentityError::Missing | IdentityError::Exists | IdentityError::NoPassphrase(_)) => {
                Class::Usage
            }
            Self::Identity(IdentityError::Locked | IdentityError::TooMany) => Class::Refused,
            Self::Identity(IdentityError::Damaged) => Class::State,
            Self::Contact(error) => contact_class(error),
            Self::Journal(error) => journal_class(error),
            Self::Transport(error) | Self::Api(ApiError::Transport(error)) => transport_class(error),
            Self::Api(ApiError::Refused { kind, .. }) => problem_class(*kind),
            Self::Api(ApiError::Clock { .. }) => Class::Refused,
            Self::Api(ApiError::Protocol { .. }) => Class::Evidence,
            Self::Card(error) => card_class(error),
            Self::Open(error) => open_class(error),
            Self::Envelope(_) => Class::Evidence,
            Self::Manifest(_) => Class::Other,
            Self::BundleFile(error) => bundle_file_class(error),
            Self::Seal(error) => seal_class(error),
            Self::File(_, error) => io_class(error),
            Self::Worker | Self::Age(_) | Self::Random(_) | Self::Identity(_) | Self::Api(_) => Class::Other,
        }
    }
}

fn io_class(error: &std::io::Error) -> Class {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => Class::Full,
        K::NotFound => Class::NotFound,
        K::AlreadyExists => Class::Refused,
        _ => Class::Other,
    }
}

fn home_class(error: &HomeError) -> Class {
    match error {
        HomeError::Io { source, .. } if io_class(source) == Class::Full => Class::Full,
        HomeError::NoHome => Class::Usage,
        _ => Class::State,
    }
}

fn journal_class(error: &JournalError) -> Class {
    match error {
        JournalError::Broken(_) => Class::Evidence,
        JournalError::Io(error) if io_class(error) == Class::Full => Class::Full,
        JournalError::Home(error) => home_class(error),
        _ => Class::State,
    }
}

fn contact_class(error: &ContactError) -> Class {
    match error {
        ContactError::Unknown(_) => Class::NotFound,
        ContactError::Revoked(_) => Class::Expired,
        ContactError::NameTaken(_) | ContactError::Pinned(_) | ContactError::Myself => Class::Usage,
        ContactError::KeyChanged { .. } | ContactError::Downgrade { .. } | ContactError::Stale { .. } => {
            Class::Evidence
        }
        ContactError::Card(error) => card_class(error),
        ContactError::Home(error) => home_class(error),
    }
}

fn card_class(error: &CardError) -> Class {
    match error {
        CardError::Expired => Class::Expired,
        CardError::NotYetValid(_) => Class::Refused,
        _ => Class::Evidence,
    }
}

fn transport_class(error: &TransportError) -> Class {
    match error {
        TransportError::Unreachable { .. } => Class::Unreachable,
        TransportError::Certificate(_) | TransportError::TooLong(_) => Class::Evidence,
        TransportError::Setup(_) => Class::Other,
    }
}

fn problem_class(kind: ProblemKind) -> Class {
    use ProblemKind as P;
    match kind {
        P::NotFound => Class::NotFound,
        P::Gone | P::LinkSpent | P::PipelineOver => Class::Expired,
        P::Quota => Class::Full,
        P::Rate | P::Unavailable | P::Internal => Class::Unreachable,
        P::Digest => Class::Evidence,
        P::BadRequest | P::Method => Class::Other,
        P::Signature | P::Clock | P::Replay | P::Forbidden | P::Suspended | P::Conflict | P::TooLarge => Class::Refused,
    }
}

fn open_class(error: &bundle::OpenError) -> Class {
    use bundle::{EnvelopeError, OpenError, SinkError, StageError};
    match error {
        OpenError::Envelope(EnvelopeError::Expired { .. }) => Class::Expired,
        OpenError::Envelope(EnvelopeError::NotYetValid { .. }) => Class::Refused,
        OpenError::Sink(SinkError::Stage(StageError::Exists { .. })) => Class::Refused,
        OpenError::Sink(SinkError::Stage(StageError::NoRoom { .. })) => Class::Full,
        OpenError::Sink(SinkError::NotOneFile { .. } | SinkError::TooLarge { .. }) => Class::Usage,
        OpenError::Sink(SinkError::Write(error)) => io_class(error),
        OpenError::Sink(SinkError::Stage(error)) => stage_class(error),
        OpenError::Stopped | OpenError::Sink(SinkError::Memory) => Class::Other,
        _ => Class::Evidence,
    }
}

fn stage_class(error: &bundle::StageError) -> Class {
    use std::error::Error as _;
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io_class(io);
        }
        cause = error.source();
    }
    Class::Other
}

fn bundle_file_class(error: &bundle::FileError) -> Class {
    use bundle::{FileError, StageError};
    match error {
        FileError::Io(error) => io_class(error),
        FileError::Place(StageError::Exists { .. }) => Class::Refused,
        FileError::Place(error) => stage_class(error),
        _ => Class::Evidence,
    }
}

fn seal_class(error: &bundle::SealError) -> Class {
    use bundle::{SealError, SourceError};
    match error {
        // A pipe has no such error; what is kept of one has.
        SealError::Stream(error) if error.kind() == std::io::ErrorKind::InvalidData => Class::State,
        SealError::Source(SourceError::Io { error, .. }) | SealError::Stream(error) => io_class(error),
        _ => Class::Other,
    }
}
