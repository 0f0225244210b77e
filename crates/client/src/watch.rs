//! How a transfer tells whoever looks on how far it is.

use std::fmt;

use pouch_statement::BundleId;

/// What is worth telling of a send besides how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// From now on it can go on after an interruption.
    Resumable(BundleId),
    /// It goes on from where it was interrupted.
    Continues {
        /// The bundle.
        bundle: BundleId,
        /// How much is done, in hundredths, if the whole is known.
        percent: Option<u8>,
    },
    /// The relay does not answer, and is asked again for so many seconds at most.
    Retrying(u64),
    /// It answers again.
    Reached,
    /// What was begun is of no use, and it begins again.
    StartsOver(BundleId, StartsOver),
}

/// Why a send that was interrupted cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartsOver {
    /// The files are other ones.
    Changed,
    /// A recipient has another mailbox.
    Moved,
    /// The relay has it no more.
    Gone,
    /// Too much of its time is over.
    Late,
    /// A copy of this home has delivered it.
    Elsewhere,
    /// Its bundle is over.
    Over,
    /// It is for keys that were replaced.
    OtherKeys,
    /// Its sender says so.
    OtherRecipients,
}

impl fmt::Display for StartsOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "what is sent has changed since",
            Self::Moved => "a recipient has another mailbox since",
            Self::Gone => "the relay does not have it any more",
            Self::Late => "more than half of the time for which it could be fetched is over",
            Self::Over => "its bundle is over",
            Self::OtherRecipients => "it is for others now",
            Self::OtherKeys => "a recipient has other keys since",
            Self::Elsewhere => "the relay says that it was delivered, by a copy of this home",
        })
    }
}

/// Looks on. Called from several threads.
pub trait Watch: Send + Sync {
    /// A new stage begins; `total` bytes if they are known.
    fn stage(&self, what: &'static str, total: Option<u64>);
    /// So many bytes more are done.
    fn advance(&self, bytes: u64);
    /// All is over.
    fn done(&self);
    /// Something else.
    fn news(&self, _news: News) {}
}

/// Nobody looks on.
pub struct Unwatched;

impl Watch for Unwatched {
    fn stage(&self, _what: &'static str, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn done(&self) {}
}
