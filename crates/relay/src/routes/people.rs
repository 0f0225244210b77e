//! Joining, links, accounts, the access record.

use pouch_protocol::limits::{MAX_LIFETIME, MAX_MESSAGE};
use pouch_protocol::{
    AccountRole, DeviceKey, JoinRequest, NewDevice, NewLink, NewRole, NewRotation, ProblemKind, Takedown,
};
use pouch_statement::{Detached, Device, RotationError, Sha256Digest, Signed, SignedCard, SignedRotation};

use super::upload::bundle_id;
use crate::answer::{Answer, Failure, done, message};
use crate::auth::{Call, Caller, Coverage, parse, unsigned};
use crate::ledger::{Joiner, NOT_OURS, Rotating};

pub(super) fn bad(detail: &'static str) -> Failure {
    Failure::new(ProblemKind::BadRequest, detail)
}

/// A card that verifies, is valid now, and names this relay.
pub(super) fn card(call: &Call, detached: &Detached) -> Result<SignedCard, Failure> {
    let card = SignedCard::verify(detached).map_err(|_| bad("the card does not verify"))?;
    card.check_valid_at(call.now).map_err(|_| bad("the card is not valid now"))?;
    if card.card().relay == call.app.config.origin { Ok(card) } else { Err(bad("the card names another relay")) }
}

/// A device key that the card's identity enrols.
pub(super) fn device(card: &SignedCard, detached: &Detached) -> Option<Signed<Device>> {
    let key = card.card().signing_key;
    let device = Signed::<Device>::verify(detached.statement.as_bytes(), &detached.signature, &key).ok()?;
    (device.body().identity == card.fingerprint()).then_some(device)
}

pub(super) async fn join(call: Call) -> Answer {
    if call.length()? > MAX_MESSAGE as u64 {
        return Err(Failure::new(ProblemKind::TooLarge, ""));
    }
    let body = call.body.collect(MAX_MESSAGE).await?;
    let request: JoinRequest = parse(&body)?;
    let admit: Sha256Digest = request.admit.parse().map_err(|_| bad("admit is 64 hexadecimal characters"))?;
    let card = card(&call, &request.card)?;
    let device = device(&card, &request.device)
        .ok_or_else(|| bad("the device statement is not by the card's key for the card's identity"))?;
    let joiner = Joiner {
        admit_sha256: Sha256Digest::of(admit.as_bytes()),
        request_sha256: Sha256Digest::of(&body),
        card,
        mac: request.mac,
        device,
    };
    let mailbox = joiner.card.card().mailbox;
    let answer = call.app.ledger.join(joiner, call.now).await?;
    call.attempt.is_by(mailbox);
    message(&answer)
}

pub(super) async fn new_link(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let link: NewLink = call.message(&caller).await?;
    if link.expires <= call.now || link.expires.since(call.now) > MAX_LIFETIME {
        return Err(bad("the link's end is in the past or too far away"));
    }
    not_owner(link.role)?;
    let card = card(&call, &link.inviter.card)?;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.new_link(caller.once, link, card, call.now).await?;
    done()
}

pub(super) async fn links(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.links(caller.account, call.now).await?)
}

pub(super) async fn delete_link(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let link = call.id()?;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.delete_link(caller.once, link, call.now).await?;
    done()
}

pub(super) async fn enrol(call: Call) -> Answer {
    // Whose key it is the statement says: until that is verified the request is nobody's.
    let (signed, covered) = call.verified(Coverage::Digest)?;
    let body = call.digested(&covered, MAX_MESSAGE as u64).await?;
    let NewDevice { mailbox, device, replaces } = parse(&body)?;
    let wrong = || unsigned(NOT_OURS);
    let (account, card) = call.app.ledger.card_of(mailbox).await?.ok_or_else(wrong)?;
    let card = SignedCard::verify(&card).map_err(Failure::internal)?;
    let device = self::device(&card, &device).filter(|device| device.body().device_key == signed.key);
    let device = device.ok_or_else(wrong)?;
    let mut caller = call.admit(&account, signed, covered)?;
    caller.once.device = None;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.enrol(caller.once, device, replaces.map(|DeviceKey(key)| key), call.now).await?;
    done()
}

pub(super) async fn devices(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.devices(caller.account).await?)
}

pub(super) async fn revoke_device(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let DeviceKey(key) = call.id()?;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.retire(caller.once, key, call.now).await?;
    done()
}

pub(super) async fn rotate(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let NewRotation { rotation, device } = call.message(&caller).await?;
    let (_, from) = call.app.ledger.card_of(caller.mailbox).await?.ok_or_else(Failure::not_found)?;
    let old = SignedCard::verify(&from).map_err(Failure::internal)?;
    let rotation = match SignedRotation::verify(&rotation, &old) {
        Ok(rotation) => rotation,
        Err(RotationError::OtherKeys) if call.app.ledger.has_rotated(caller.account, &rotation).await? => {
            return done();
        }
        Err(RotationError::OtherKeys) => {
            return Err(Failure::new(ProblemKind::Conflict, "it does not begin at the account's card"));
        }
        Err(_) => return Err(bad("the rotation does not verify, or changes what it may not")),
    };
    let card = card(&call, &rotation.card().detached())?;
    let device = self::device(&card, &device).filter(|said| Some(said.body().device_key) == caller.once.device);
    let device =
        device.ok_or_else(|| bad("the device statement is not by the new identity, for the key that signs"))?;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.rotate(caller.once, Rotating { from, rotation, device }, call.now).await?;
    done()
}

pub(super) async fn rotations(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let mailbox = call.id()?;
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.rotations(&caller, mailbox).await?)
}

pub(super) async fn account(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.account(caller.account, call.app.config.account_bytes).await?)
}

/// Refuses everybody but the relay's owner.
fn owner(caller: &Caller) -> Result<(), Failure> {
    match caller.role {
        AccountRole::Owner => Ok(()),
        AccountRole::Member | AccountRole::Contractor | AccountRole::Pipeline => {
            Err(Failure::new(ProblemKind::Forbidden, "for the relay's owner"))
        }
    }
}

pub(super) async fn accounts(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    owner(&caller)?;
    let after = call.after()?.unwrap_or(0);
    message(&call.app.ledger.accounts(after, call.app.config.account_bytes).await?)
}

pub(super) async fn suspend(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    owner(&caller)?;
    call.app.ledger.suspend(caller.once, call.id()?, call.now).await?;
    done()
}

pub(super) async fn restore(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    owner(&caller)?;
    call.app.ledger.restore(caller.once, call.id()?, call.now).await?;
    done()
}

/// Refuses a role that is not given to anybody who is there: an owner is whoever joins with the relay's own link, and a
/// pipeline is made as one.
fn not_owner(role: AccountRole) -> Result<(), Failure> {
    match role {
        AccountRole::Owner | AccountRole::Pipeline => Err(bad("the role is member or contractor")),
        AccountRole::Member | AccountRole::Contractor => Ok(()),
    }
}

pub(super) async fn role(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    owner(&caller)?;
    let mailbox = call.id()?;
    let NewRole { role } = call.message(&caller).await?;
    not_owner(role)?;
    call.app.ledger.set_role(caller.once, mailbox, role, call.now).await?;
    done()
}

pub(super) async fn take_down(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let bundle = bundle_id(&call)?;
    owner(&caller)?;
    let Takedown { reason } = call.message(&caller).await?;
    if reason.as_str().is_empty() {
        return Err(bad("a takedown needs a reason"));
    }
    call.app.ledger.take_down(caller.once, bundle, reason, call.now).await?;
    call.app.wake_sweeper();
    done()
}

pub(super) async fn access(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let after = call.after()?;
    call.app.access.flush().await;
    let only = (caller.role != AccountRole::Owner).then_some((caller.account, caller.mailbox));
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.access(only, after).await?)
}
