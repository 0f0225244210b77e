//! Pipelines, and the journals that accounts keep here.

use http::StatusCode;
use http::header::{ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use pouch_protocol::NewPipeline;
use pouch_protocol::limits::{MAX_JOURNAL, MAX_PIPELINE_LIFETIME};
use pouch_statement::Sha256Digest;

use super::people::{bad, card, device};
use crate::answer::{Answer, Failure, done, message, object};
use crate::auth::{Call, Coverage, single};
use crate::ledger::Wanted;

pub(super) async fn make(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let NewPipeline { card: said, device: first, recipients, expires } = call.message(&caller).await?;
    if expires <= call.now || expires.since(call.now) > MAX_PIPELINE_LIFETIME {
        return Err(bad("the pipeline's end is in the past or too far away"));
    }
    let card = card(&call, &said)?;
    let device = device(&card, &first)
        .ok_or_else(|| bad("the device statement is not by the card's key for the card's identity"))?;
    let _turn = call.turn(&caller).await?;
    let wanted = Wanted { card, device, recipients, expires };
    call.app.ledger.new_pipeline(caller.once, wanted, call.now).await?;
    done()
}

pub(super) async fn mine(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.pipelines(caller.account).await?)
}

pub(super) async fn revoke(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let pipeline = call.id()?;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.revoke_pipeline(caller.once, pipeline, call.now).await?;
    done()
}

pub(super) async fn journal(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let _turn = call.turn(&caller).await?;
    let (sha256, sealed) = call.app.ledger.journal(caller.account).await?;
    let mut response = object(StatusCode::OK, sealed.into());
    let tag = HeaderValue::from_str(&format!("\"{sha256}\"")).map_err(Failure::internal)?;
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}

/// Which journal the new one follows: `If-Match` with the digest of the one before, or `If-None-Match: *`.
fn follows(call: &Call) -> Result<Option<Sha256Digest>, Failure> {
    let must = || bad("a journal needs if-match with the tag of the one before, or if-none-match: *");
    let headers = &call.head.headers;
    match (headers.contains_key(IF_MATCH), headers.contains_key(IF_NONE_MATCH)) {
        (true, false) => {
            let tag = single(headers, IF_MATCH.as_str()).and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
            Ok(Some(tag.and_then(|tag| tag.parse().ok()).ok_or_else(must)?))
        }
        (false, true) if single(headers, IF_NONE_MATCH.as_str()) == Some("*") => Ok(None),
        _ => Err(must()),
    }
}

pub(super) async fn put_journal(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let before = follows(&call)?;
    let sealed = call.sealed(&caller, MAX_JOURNAL).await?;
    let _turn = call.turn(&caller).await?;
    call.app.ledger.put_journal(caller.once, before, sealed, call.app.limits(), call.now).await?;
    done()
}
