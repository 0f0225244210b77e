//! The journal held against what somebody knows of it from elsewhere.

use pouch_log::{Comparison, Frontier, Remembered, compare};

use super::{Head, Journal, JournalError, Report};

impl Journal {
    /// The compact tree as it stands.
    pub(crate) fn frontier(&self) -> Result<Frontier, JournalError> {
        Ok(self.head()?.1)
    }

    /// The compact tree that the text of a head file holds.
    pub(crate) fn frontier_of(&self, head: &str) -> Result<Frontier, JournalError> {
        let broken = || JournalError::Broken("its head cannot be read".into());
        let head: Head = serde_json::from_str(head)?;
        Frontier::decode(&head.frontier).map_err(|_| broken())
    }

    /// [`Journal::verify`], and how the same records compare with an earlier state of the tree.
    pub(crate) fn verify_against(&self, known: &Frontier) -> Result<(Report, Comparison), JournalError> {
        let (report, leaves) = self.check()?;
        Ok((report, compare(&leaves, &Remembered::from(known.clone()))))
    }
}
