//! What was refused is kept as it came, for whoever has to find out what happened.

use pouch_statement::{BundleId, Sha256Digest};

use crate::error::Result;
use crate::home;
use crate::party::Party;

const FOLDER: &str = "evidence";
/// The longest object that is kept, in bytes: an envelope, or a receipt in base64.
const MAX: usize = 512 << 10;

/// An object of a bundle, or a rotation, that was refused.
pub(crate) struct Evidence<'a> {
    object: &'a [u8],
    name: String,
}

impl<'a> Evidence<'a> {
    pub(crate) fn of(bundle: BundleId, object: &'a [u8]) -> Self {
        Self { object, name: format!("{FOLDER}/{bundle}-{}", Sha256Digest::of(object)) }
    }

    /// A rotation that was refused, as the bytes that it came in.
    pub(crate) fn of_rotation(object: &'a [u8]) -> Self {
        Self { object, name: format!("{FOLDER}/rotation-{}", Sha256Digest::of(object)) }
    }

    /// The name, in the state folder, that it is kept under: its bundle, or that it is a rotation, and its SHA-256.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was kept before.
    pub(crate) fn is_kept(&self, party: &Party) -> bool {
        party.home.state(&self.name).exists()
    }

    /// Keeps it.
    pub(crate) fn keep(&self, party: &Party) -> Result<()> {
        home::private_folder(&party.home.state(FOLDER))?;
        Ok(home::write_private(&party.home.state(&self.name), self.object.get(..MAX).unwrap_or(self.object))?)
    }
}
