//! Identities whose keys change, as the relay is told and asked.

use pouch_protocol::limits::MAX_MESSAGE;
use pouch_protocol::{NewRotation, Rotations, route};
use pouch_statement::{Detached, MailboxId};

use super::{Call, RelayApi, Result};

impl RelayApi {
    /// Moves my account to the new card of my identity.
    pub async fn rotate(&self, rotation: &NewRotation) -> Result<()> {
        self.tell(Call::with_json("POST", route::ROTATIONS, route::ROTATIONS.into(), rotation)?).await
    }

    /// The rotations that the relay has of a mailbox, oldest first, none of them verified.
    pub async fn rotations(&self, mailbox: MailboxId) -> Result<Vec<Detached>> {
        let call = Call::get(route::ROTATIONS_OF, route::rotations_of(mailbox), MAX_MESSAGE);
        self.ask(call, true).await.map(|answer: Rotations| answer.rotations)
    }
}
