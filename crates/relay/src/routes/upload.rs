//! What a sender does: begin, put, commit, look, revoke.

use std::future::Future;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::{Either, select};
use pouch_protocol::limits::{MAX_ENVELOPE, MAX_INDEX, MAX_PART, MAX_PARTS};
use pouch_protocol::{Commit, Covered, Extension, NewBundle, ProblemKind};
use pouch_statement::{BundleId, MailboxId};

use crate::answer::{Answer, Failure, done, message};
use crate::auth::{Call, Caller, Coverage};
use crate::blob::{Announced, BlobName, Hasher};
use crate::ledger::{Begun, Finished, LEASE_SECONDS, Slot};
use crate::server::App;

/// A part's number as it stands in a path: decimal, no sign, no leading zeros.
pub(super) struct PartNumber(pub(super) u32);

impl FromStr for PartNumber {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|n: &u32| *n < MAX_PARTS && n.to_string() == text).map(Self).ok_or(())
    }
}

/// The bundle that the path names, noted for the access record.
pub(super) fn bundle_id(call: &Call) -> Result<BundleId, Failure> {
    let id = call.id()?;
    call.attempt.is_about(id);
    Ok(id)
}

pub(super) async fn begin(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let new: NewBundle = call.message(&caller).await?;
    call.attempt.is_about(new.bundle);
    let _turn = call.turn(&caller).await?;
    call.app.ledger.begin_bundle(caller.once, new, call.app.limits(), call.now).await?;
    done()
}

pub(super) async fn put_part(call: Call) -> Answer {
    let caller = call.signed(Coverage::Part).await?;
    let bundle = bundle_id(&call)?;
    let PartNumber(number) = call.last()?;
    let Covered::Part(field) = caller.covered else {
        return Err(Failure::internal("coverage"));
    };
    if field.number != number {
        return Err(Failure::new(ProblemKind::Conflict, "path and pouch-part name different parts"));
    }
    let slot = Slot { bundle, part: Some(number), length: field.length, digest: *field.blake3.as_bytes() };
    store(&call, &caller, slot, MAX_PART, Hasher::blake3()).await
}

pub(super) async fn put_index(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let bundle = bundle_id(&call)?;
    let slot = Slot { bundle, part: None, length: call.length()?, digest: *caller.digest()?.as_bytes() };
    store(&call, &caller, slot, MAX_INDEX, Hasher::sha256()).await
}

/// Pending row → blob → ledger → answer (docs/protocol.md, "Commit and durability").
async fn store(call: &Call, caller: &Caller, slot: Slot, limit: u64, hasher: Hasher) -> Answer {
    if slot.length > limit {
        return Err(Failure::new(ProblemKind::TooLarge, ""));
    }
    if slot.length == 0 || call.length()? != slot.length {
        return Err(Failure::new(ProblemKind::Digest, "content-length is not the announced length"));
    }
    let app = &call.app;
    let name = BlobName::random().map_err(Failure::internal)?;
    let turn = call.turn(caller).await?;
    match app.ledger.begin_object(caller.account, &slot, name, app.limits(), call.now).await? {
        Begun::Same => return done(),
        Begun::Pending => {}
    }
    // The body comes at its sender's pace.
    drop(turn);
    let announced = Announced::new(slot.length, hasher, slot.digest).by(caller.account);
    let receiving = app.blobs.receive(name, &call.body, announced);
    let outcome = match kept(app, name, receiving).await {
        Ok(()) => finish(call, caller, &slot, name).await,
        Err(error) => Err(error.into()),
    };
    if outcome.is_err()
        && let Err(error) = app.ledger.abandon_object(name).await
    {
        tracing::error!(%error, "an upload that failed keeps its room until its lease ends");
    }
    if !matches!(outcome, Ok(Finished::First)) {
        // A blob is to be deleted: that of the failed upload, or the one that was replaced.
        app.wake_sweeper();
    }
    outcome.and_then(|_| done())
}

async fn finish(call: &Call, caller: &Caller, slot: &Slot, name: BlobName) -> Result<Finished, Failure> {
    let _turn = call.turn(caller).await?;
    Ok(call.app.ledger.finish_object(caller.account, slot, name, call.app.clock.now()).await?)
}

/// An upload of any length: as long as it lasts the ledger hears of it, so that no sweeper gives it up.
async fn kept<T>(app: &App, name: BlobName, receiving: impl Future<Output = T>) -> T {
    let keeping = async {
        loop {
            tokio::time::sleep(Duration::from_secs(LEASE_SECONDS / 5)).await;
            if let Err(error) = app.ledger.keep_object(name, app.clock.now()).await {
                tracing::warn!(%error, "the ledger could not be told that an upload goes on");
            }
        }
    };
    match select(pin!(receiving), pin!(keeping)).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right((never, _)) => never,
    }
}

pub(super) async fn put_envelope(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let bundle = bundle_id(&call)?;
    let mailbox: MailboxId = call.last()?;
    let sealed = call.sealed(&caller, MAX_ENVELOPE).await?;
    let limits = call.app.limits();
    let _turn = call.turn(&caller).await?;
    if call.app.ledger.put_envelope(caller.once, bundle, mailbox, sealed, limits, call.now).await? {
        call.app.waits.wake(&[mailbox]);
    }
    done()
}

pub(super) async fn extend(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let bundle = bundle_id(&call)?;
    let Extension { expires } = call.message(&caller).await?;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.extend(caller.once, bundle, expires, call.app.limits(), call.now).await?;
    done()
}

pub(super) async fn commit(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let bundle = bundle_id(&call)?;
    let commit: Commit = call.message(&caller).await?;
    let recipients = commit.recipients.clone();
    let _turn = call.turn(&caller).await?;
    call.app.ledger.commit(caller.once, bundle, commit, caller.digest()?, call.now).await?;
    call.app.waits.wake(&recipients);
    done()
}

pub(super) async fn bundle(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let bundle = bundle_id(&call)?;
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.bundle(caller.account, bundle, call.now).await?)
}

pub(super) async fn outbox(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let after = call.after()?;
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.outbox(caller.account, after, call.now).await?)
}

pub(super) async fn delete(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let bundle = bundle_id(&call)?;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.delete_bundle(caller.once, bundle, call.now).await?;
    call.app.wake_sweeper();
    done()
}
