//! Sending into a `.pouch` file.

use std::path::Path;

use pouch_core::bundle::PouchWriter;
use pouch_statement::BundleId;

use super::address::{Addressee, Places, address, addressee};
use super::upload::{Making, Spare, planned, seal_in_background};
use super::{Delivered, Request, begun, conclude};
use crate::clock::now;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::journal::Attempt;
use crate::outbox::{Progress, Sent};
use crate::party::Party;
use crate::watch::Watch;

/// Seals into a `.pouch` file instead: the same bundle, carried by anyone. The file appears whole or not at all.
///
/// # Errors
/// Also journaled. An existing file is not replaced.
pub async fn send_to_file(
    party: &Party,
    identity: &Identity,
    request: Request,
    out: &Path,
    watch: &dyn Watch,
) -> Result<Sent> {
    let [name] = request.to.as_slice() else { return Err(Error::OneRecipient) };
    let to = addressee(party, name)?;
    let expires = now().plus(request.lifetime);
    let mut sent = Sent::begin(BundleId::random()?, &request.purpose, expires, vec![to.recipient()]);
    let events = begun(&sent);
    let attempt = Attempt::begin_all(party.journal(), &events);
    let result = write_file(party, identity, request, &to, &mut sent, out, watch).await;
    watch.done();
    let outcome = result.as_ref().map_err(ToString::to_string);
    conclude(party, attempt, &events, &mut sent, outcome.as_ref().map(|d| *d).map_err(String::as_str))?;
    result?;
    Ok(sent)
}

async fn write_file(
    party: &Party,
    identity: &Identity,
    request: Request,
    to: &Addressee,
    sent: &mut Sent,
    out: &Path,
    watch: &dyn Watch,
) -> Result<Delivered> {
    let compression = request.compressed();
    let Request { content, purpose, .. } = request;
    watch.stage("sealing", planned(&content, None, compression));
    let mut writer = PouchWriter::create(out, sent.bundle)?;
    // Read on another thread: input that does not come must not keep an interruption from clearing the file away.
    let spare = Spare::default();
    let making = Making { content, compression, kept: None };
    let (mut queue, worker) = seal_in_background(making, spare.clone());
    while let Some(part) = queue.recv().await {
        writer.add_part(part.number, &part.sealed)?;
        watch.advance(part.covers);
        spare.give(part.sealed);
    }
    let sealed = worker.await.map_err(|_| Error::Worker)??;
    sent.describe(&sealed);
    let turn = party.home.sending_turn().await?;
    let (manifest, envelope) = address(party, identity, (to, &Places::load(party)?), sent, &purpose, &sealed)?;
    sent.commit_to(party, &[manifest], &sealed.key, Progress::Carried)?;
    if let Err(error) = writer.finish(&sealed.sealed_index, &envelope) {
        sent.forget(party)?;
        return Err(error.into());
    }
    sent.advance(party)?;
    Ok(Delivered { sealed_index: sealed.summary.sealed_index_sha256, _turn: turn })
}
