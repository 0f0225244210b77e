//! What can go wrong with an age file, told apart as the C2SP test vectors tell it apart.

use std::fmt;
use std::io;

use super::armor::ArmorError;
use super::header::HeaderError;
use super::keys::KeyError;
use super::stream::PayloadError;

/// The result of anything in this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an age file could not be made or opened. No message repeats any input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// None of the keys given opens the file, or the passphrase is wrong.
    #[error("no key that was given opens this file")]
    NoMatch,
    /// Identities were given, and the file is sealed with a passphrase.
    #[error("this file is sealed with a passphrase, not for a recipient")]
    PassphraseNeeded,
    /// A passphrase was given, and the file is sealed for recipients.
    #[error("this file is sealed for recipients, not with a passphrase")]
    IdentityNeeded,
    /// The header's MAC does not fit: somebody without the file key changed the header.
    #[error("the header was altered: its mac does not match")]
    HmacFailure,
    /// The header is not one of age version 1, is malformed, or is beyond a limit.
    #[error(transparent)]
    HeaderFailure(#[from] HeaderError),
    /// The passphrase stanza asks for more work than the reader allows; nothing was computed.
    #[error("the passphrase needs a work factor of 2^{log_n}, and 2^{max_log_n} is the most that is allowed")]
    ExcessiveWork {
        /// Base-2 logarithm of the scrypt work factor N that the file asks for.
        log_n: u8,
        /// Base-2 logarithm of the highest N allowed.
        max_log_n: u8,
    },
    /// A chunk of the payload is not authentic, missing or one too many.
    #[error(transparent)]
    PayloadFailure(#[from] PayloadError),
    /// The textual encoding of the file is not canonical.
    #[error(transparent)]
    ArmorFailure(#[from] ArmorError),
    /// A recipient or an identity is not in its form.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The passphrase does not open a key file, or the file is damaged.
    #[error("the passphrase does not unlock the key, or the key file is damaged")]
    NotUnlocked,
    /// A line of a recipients or identities file is not in its form.
    #[error("line {line}: {reason}")]
    KeyLine {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: KeyError,
    },
    /// A file or list of keys holds none.
    #[error("there is no key in it")]
    NoKeys,
    /// More recipients than one header may have.
    #[error("{count} recipients are too many for one file, {limit} is the most")]
    TooManyRecipients {
        /// How many were asked for.
        count: usize,
        /// The most that a header may have, [`MAX_STANZAS`](super::MAX_STANZAS).
        limit: usize,
    },
    /// Hybrid and classic recipients for one file.
    #[error(
        "hybrid recipients (age1pq1…) and classic ones cannot be mixed in one file, which would be as weak as classic"
    )]
    MixedRecipients,
    /// A work factor that no reader would accept.
    #[error("a work factor of 2^{log_n} is out of range, 2^1 to 2^{max_log_n} is allowed")]
    WorkFactor {
        /// Base-2 logarithm of the factor asked for.
        log_n: u8,
        /// Base-2 logarithm of the highest factor.
        max_log_n: u8,
    },
    /// More than [`MAX_IDENTITY_FILE`](super::MAX_IDENTITY_FILE).
    #[error("an identity file of more than {limit} bytes is not read")]
    LongKeyFile {
        /// The limit in bytes.
        limit: usize,
    },
    /// A length that no age file can have.
    #[error("a length of {len} bytes is impossible here")]
    Length {
        /// The length in bytes.
        len: u64,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// The cryptographic library refused something that is always valid.
    #[error("the cryptographic library failed")]
    Library,
    /// An earlier write failed, so what was written so far has a gap.
    #[error("an earlier write failed, the file cannot be continued")]
    Broken,
    /// Reading or writing failed below us.
    #[error(transparent)]
    Io(io::Error),
}

/// The verdict on a file in one stable word or two, those of the C2SP test vectors where they have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `no match`
    NoMatch,
    /// `HMAC failure`
    HmacFailure,
    /// `header failure`
    HeaderFailure,
    /// `payload failure`
    PayloadFailure,
    /// `armor failure`
    ArmorFailure,
    /// `io failure`: the file itself was not judged
    Io,
    /// `usage failure`: a key, a list of keys or a number given by the caller
    Usage,
    /// `internal failure`: no random bytes, or the library failed
    Internal,
}

impl Kind {
    /// The words, which never change.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoMatch => "no match",
            Self::HmacFailure => "HMAC failure",
            Self::HeaderFailure => "header failure",
            Self::PayloadFailure => "payload failure",
            Self::ArmorFailure => "armor failure",
            Self::Io => "io failure",
            Self::Usage => "usage failure",
            Self::Internal => "internal failure",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// Which verdict this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoMatch | Self::PassphraseNeeded | Self::IdentityNeeded => Kind::NoMatch,
            Self::HmacFailure => Kind::HmacFailure,
            Self::HeaderFailure(_) | Self::ExcessiveWork { .. } => Kind::HeaderFailure,
            Self::PayloadFailure(_) => Kind::PayloadFailure,
            Self::ArmorFailure(_) => Kind::ArmorFailure,
            Self::Key(_)
            | Self::NotUnlocked
            | Self::KeyLine { .. }
            | Self::NoKeys
            | Self::TooManyRecipients { .. }
            | Self::MixedRecipients
            | Self::WorkFactor { .. }
            | Self::LongKeyFile { .. }
            | Self::Length { .. } => Kind::Usage,
            Self::Random | Self::Library => Kind::Internal,
            Self::Broken | Self::Io(_) => Kind::Io,
        }
    }

    /// The error of this module that an [`io::Error`] out of a reader or writer carries, if it carries one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        // An armor error comes up through `Read`: it is ours, not one of the disk.
        error.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            cut @ Error::PayloadFailure(PayloadError::Truncated) => Self::new(io::ErrorKind::UnexpectedEof, cut),
            internal @ (Error::Random | Error::Library | Error::Broken) => Self::other(internal),
            refused => Self::new(io::ErrorKind::InvalidData, refused),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn our_errors_survive_the_way_through_io() {
        let io: io::Error = Error::from(ArmorError::CutShort).into();
        assert!(matches!(Error::of(&io), Some(Error::ArmorFailure(ArmorError::CutShort))));
        assert!(matches!(Error::from(io), Error::ArmorFailure(ArmorError::CutShort)));
        let disk = io::Error::from(io::ErrorKind::StorageFull);
        assert!(Error::of(&disk).is_none());
        let Error::Io(disk) = Error::from(disk) else { panic!("an io error stays one") };
        assert_eq!(io::Error::from(Error::Io(disk)).kind(), io::ErrorKind::StorageFull);
    }
}
