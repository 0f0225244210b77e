//! Messages about identities whose keys change (docs/protocol.md, "Rotation").

use pouch_statement::Detached;

use crate::members::{answers, requests};

requests! {
    /// `POST /v1/rotations`, signed by the device key that stays.
    struct NewRotation {
        /// The rotation: statement, and both armors.
        rotation: Detached,
        /// The word of the new identity for the device key that signs the request.
        device: Detached,
    }
}

answers! {
    /// `GET /v1/rotations/{mailbox}`.
    struct Rotations {
        /// The account's rotations that are kept, oldest first. Each is believed only for the card that it is held against.
        rotations: Vec<Detached>,
    }
}
