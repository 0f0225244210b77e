//! What was refused is kept as it came, for whoever has to find out what happened.

use pouch_statement::{BundleId, Sha256Digest};

use crate::error::Result;
use crate::home;
use crate::party::Party;

const FOLDER: &str = "evidence";
/// The longest object that is kept, in bytes: an envelope, or a receipt in base64.
const MAX: usize = 512 << 10;

/// The name, in the state folder, that an object is kept under.
pub(crate) fn name(bundle: BundleId, object: &[u8]) -> String {
    format!("{FOLDER}/{bundle}-{}", Sha256Digest::of(object))
}

/// Whether this object of the bundle was kept before.
pub(crate) fn is_kept(party: &Party, bundle: BundleId, object: &[u8]) -> bool {
    party.home.state(&name(bundle, object)).exists()
}

/// Keeps an object that was refused; gives the file's name in the state folder, which names its SHA-256.
pub(crate) fn keep(party: &Party, bundle: BundleId, object: &[u8]) -> Result<String> {
    let name = name(bundle, object);
    home::private_folder(&party.home.state(FOLDER))?;
    home::write_private(&party.home.state(&name), object.get(..MAX).unwrap_or(object))?;
    Ok(name)
}
