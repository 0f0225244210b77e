//! Device keys: they sign requests to the relay, so that polling needs no passphrase.

use serde::{Deserialize, Serialize};

use crate::{Fingerprint, PublicKey, Statement, Timestamp};

/// The identity's word that a device key acts for it (docs/format.md, "Device").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Whose device it is.
    pub identity: Fingerprint,
    /// The key that signs requests.
    pub device_key: PublicKey,
    /// When it was enrolled.
    pub created: Timestamp,
}

impl Statement for Device {
    const TYPE: &'static str = "pouch.device.v1";
}
