//! The journal held against what somebody knows of it from elsewhere.

use pouch_log::{Comparison, Frontier, Remembered, compare};

use super::{Head, Journal, JournalError};

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

    /// How the records compare with an earlier state of the tree.
    pub(crate) fn against(&self, known: &Frontier) -> Result<Comparison, JournalError> {
        let _lock = self.home.lock()?;
        let mut leaves = Vec::new();
        self.each(0, |record, sealed| {
            leaves.extend(record.zip(sealed).map(|(record, sealed)| record.leaf(&sealed)));
            Ok(())
        })?;
        Ok(compare(&leaves, &Remembered::from(known.clone())))
    }
}
