//! Device keys of my account: which there are, a new one for this home, and revoking.

use pouch_protocol::{DeviceKey, DeviceStatus, NewDevice, ProblemKind};
use pouch_statement::{Device, Signed};

use crate::api::RelayApi;
use crate::clock::now;
use crate::error::Result;
use crate::identity::{self, Identity};
use crate::journal::{Action, Ended, Event};
use crate::party::Party;

/// The device keys of my account, oldest first, and which of them is this home's.
///
/// # Errors
/// The relay cannot be reached, or there is no device key here.
pub async fn list(party: &Party, api: &RelayApi) -> Result<(Vec<DeviceStatus>, DeviceKey)> {
    Ok((api.devices().await?, current(party)?))
}

fn current(party: &Party) -> Result<DeviceKey> {
    Ok(DeviceKey(identity::device(&party.home)?.public()))
}

/// Enrols a new device key in place of the one before, which is revoked with the same request, and uses it in this home from
/// now on. Gives both, the new one first.
///
/// # Errors
/// The relay refuses or cannot be reached: then the same again goes on where this ended.
pub async fn rotate(party: &Party, identity: &Identity) -> Result<(DeviceKey, DeviceKey)> {
    // Not while a send commits, whose requests the old key signs; and one rotation at a time.
    let _turn = party.home.sending_turn().await?;
    let old = current(party)?;
    let next = identity::next_device(&party.home)?;
    let key = DeviceKey(next.public());
    let statement = Device { identity: party.fingerprint(), device_key: key.0, created: now() };
    let statement = Signed::sign(statement, &identity.signing)?;
    let enrolled = Event::new(Action::DeviceEnrolled, Ended::Done);
    let enrolled = Event { statement_sha256: Some(statement.digest()), detail: Some(key.to_string()), ..enrolled };
    let api = party.api_of(next)?;
    let new = NewDevice { mailbox: party.card().card().mailbox, device: statement.detached(), replaces: Some(old) };
    if let Err(error) = api.enrol(&new).await {
        if error.refused() == Some(ProblemKind::Conflict) {
            identity::forget_next_device(&party.home);
        }
        party.journal().append(&enrolled.failed(format!("{key}: {error}")))?;
        return Err(error.into());
    }
    party.journal().append(&enrolled)?;
    identity::use_next_device(&party.home)?;
    let revoked = Event::new(Action::DeviceRevoked, Ended::Done);
    party.journal().append(&Event { detail: Some(old.to_string()), ..revoked })?;
    Ok((key, old))
}

/// Revokes a device key of my account, for good.
///
/// # Errors
/// It is the one that signs, none of mine, or the relay cannot be reached.
pub async fn revoke(party: &Party, api: &RelayApi, key: DeviceKey) -> Result<()> {
    let event = Event { detail: Some(key.to_string()), ..Event::new(Action::DeviceRevoked, Ended::Done) };
    match api.revoke_device(key).await {
        Ok(()) => Ok(party.journal().append(&event)?),
        Err(error) => {
            party.journal().append(&event.failed(format!("{key}: {error}")))?;
            Err(error.into())
        }
    }
}
