//! How a transfer tells whoever looks on how far it is.

/// Looks on. Called from several threads.
pub trait Watch: Send + Sync {
    /// A new stage begins; `total` bytes if they are known.
    fn stage(&self, what: &'static str, total: Option<u64>);
    /// So many bytes more are done.
    fn advance(&self, bytes: u64);
    /// All is over.
    fn done(&self);
}

/// Nobody looks on.
pub struct Unwatched;

impl Watch for Unwatched {
    fn stage(&self, _what: &'static str, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn done(&self) {}
}
