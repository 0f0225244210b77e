//! Device keys of my account: which there are, a new one for this home, and revoking.

use pouch_protocol::{DeviceKey, DeviceStatus, NewDevice, ProblemKind};
use pouch_statement::{Device, Signed, SigningKey};

use crate::api::RelayApi;
use crate::clock::now;
use crate::error::{Error, Result};
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
    let enrolled = enrol(party, identity, next, Some(old)).await;
    if let Err(Error::Api(error)) = &enrolled
        && error.refused() == Some(ProblemKind::Conflict)
    {
        identity::forget_next_device(&party.home);
    }
    let key = enrolled?;
    identity::use_next_device(&party.home)?;
    let revoked = Event::new(Action::DeviceRevoked, Ended::Done);
    party.journal().append(&Event { detail: Some(old.to_string()), ..revoked })?;
    Ok((key, old))
}

/// Has the relay take a device key in the identity's name, in place of another one or beside those that there are, and journals
/// that.
pub(crate) async fn enrol(
    party: &Party,
    identity: &Identity,
    device: SigningKey,
    replaces: Option<DeviceKey>,
) -> Result<DeviceKey> {
    let key = DeviceKey(device.public());
    let said = Device { identity: party.fingerprint(), device_key: key.0, created: now() };
    let said = Signed::sign(said, &identity.signing)?;
    let event = Event { statement_sha256: Some(said.digest()), ..Event::new(Action::DeviceEnrolled, Ended::Done) };
    let event = Event { detail: Some(key.to_string()), ..event };
    let new = NewDevice { mailbox: party.card().card().mailbox, device: said.detached(), replaces };
    let result = party.api_of(device)?.enrol(&new).await;
    party.journal().append(&event.ended(&result))?;
    result?;
    Ok(key)
}

/// Revokes a device key of my account, for good.
///
/// # Errors
/// It is the one that signs, none of mine, or the relay cannot be reached.
pub async fn revoke(party: &Party, api: &RelayApi, key: DeviceKey) -> Result<()> {
    let event = Event { detail: Some(key.to_string()), ..Event::new(Action::DeviceRevoked, Ended::Done) };
    let result = api.revoke_device(key).await;
    party.journal().append(&event.ended(&result))?;
    Ok(result?)
}
