//! What a recipient does: look, release, fetch, say what came of it.

use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG};
use http::{HeaderValue, StatusCode};
use pouch_protocol::limits::{MAX_RECEIPT, MAX_WAIT};
use pouch_protocol::{ProblemKind, ReceiptMessage};
use pouch_statement::{BundleId, Sha256Digest};
use tokio::time::{Instant, sleep_until};

use super::Asked;
use super::upload::{PartNumber, bundle_id};
use crate::answer::{Answer, Failure, done, message, object};
use crate::auth::{Call, Caller, Coverage, check_age};
use crate::blob::StoreError;
use crate::conditional::{self, Outcome};
use crate::ledger::Receipt;
use crate::object::{ObjectBody, Wanted, wanted};
use crate::waits::LOOK;

const INBOX_QUERY: &str = "the query is after=NUMBER, and wait=SECONDS of at most 60";

/// At once, or with `wait` when something is there for the account.
pub(super) async fn inbox(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let [after, wait] = call.numbers(["after", "wait"], INBOX_QUERY)?;
    if wait.is_some_and(|seconds| seconds > MAX_WAIT) {
        return Err(Failure::new(ProblemKind::BadRequest, INBOX_QUERY));
    }
    let (app, after) = (&call.app, after.unwrap_or(0));
    let end = Instant::now() + Duration::from_secs(wait.unwrap_or(0));
    let place = wait.and_then(|_| app.waits.enter(caller.mailbox));
    let (Some(mut waiting), Some(mut asked)) = (place, call.head.extensions.get::<Asked>().cloned()) else {
        let _turn = call.turn(&caller).await?;
        return message(&app.ledger.inbox(caller.account, after, call.now).await?);
    };
    loop {
        // Before the look, so that nothing is missed between it and the wait.
        let delivery = waiting.delivery();
        let turn = call.turn(&caller).await?;
        let page = app.ledger.inbox(caller.account, after, app.clock.now()).await?;
        drop(turn);
        if !page.items.is_empty() || page.next.is_some() || Instant::now() >= end {
            return message(&page);
        }
        let look = if app.ledger.is_exclusive() { end } else { end.min(Instant::now() + LOOK) };
        tokio::select! {
            () = delivery => {}
            () = sleep_until(look) => {}
            () = waiting.is_over() => return message(&page),
            () = asked.gone() => return message(&page),
        }
    }
}

pub(super) async fn delivery(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let bundle = bundle_id(&call)?;
    let _turn = call.turn(&caller).await?;
    message(&call.app.ledger.delivery(caller.account, bundle, call.now).await?)
}

pub(super) async fn release(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let bundle = bundle_id(&call)?;
    let _turn = call.turn(&caller).await?;
    let sealed = call.app.ledger.release(caller.once, bundle, call.now).await?;
    Ok(object(StatusCode::OK, sealed.into()))
}

pub(super) async fn receipt(call: Call) -> Answer {
    let caller = call.signed(Coverage::Digest).await?;
    let bundle = bundle_id(&call)?;
    let message: ReceiptMessage = call.message(&caller).await?;
    let sealed = STANDARD
        .decode(&message.sealed)
        .map_err(|_| Failure::new(ProblemKind::BadRequest, "a sealed receipt travels as base64"))?;
    if sealed.len() as u64 > MAX_RECEIPT {
        return Err(Failure::new(ProblemKind::TooLarge, ""));
    }
    check_age(&sealed)?;
    let receipt = Receipt { outcome: message.outcome, commitment: message.commitment, sealed };
    let _turn = call.turn(&caller).await?;
    if call.app.ledger.receive(caller.once, bundle, receipt, call.now).await? {
        call.app.wake_sweeper();
    }
    done()
}

pub(super) async fn part(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let bundle = bundle_id(&call)?;
    let PartNumber(number) = call.last()?;
    fetch(&call, &caller, bundle, Some(number)).await
}

pub(super) async fn index(call: Call) -> Answer {
    let caller = call.signed(Coverage::Nothing).await?;
    let bundle = bundle_id(&call)?;
    fetch(&call, &caller, bundle, None).await
}

async fn fetch(call: &Call, caller: &Caller, bundle: BundleId, part: Option<u32>) -> Answer {
    let (app, account) = (&call.app, caller.account);
    let turn = call.turn(caller).await?;
    let row = app.ledger.object(account, bundle, part, call.now).await?;
    drop(turn);
    // The digest names the bytes, so the tag is strong (RFC 9110 §8.8.1).
    let etag = format!("\"{}\"", Sha256Digest::from_bytes(row.digest));
    match conditional::outcome(&call.head.headers, &etag) {
        Outcome::Met => {}
        Outcome::Failed => return Err(Failure::Precondition),
        Outcome::NotModified => return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response()),
    }
    let (status, offset, length) = match wanted(&call.head.headers, &etag, row.length) {
        Wanted::Whole => (StatusCode::OK, 0, row.length),
        Wanted::Range(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Wanted::Unsatisfiable => return Err(Failure::Range(row.length)),
    };
    let stream = match app.blobs.read(row.blob, offset, length).await {
        Ok(stream) => stream,
        // Between the ledger's answer and here its bundle may have ended and the sweeper been at work.
        Err(error @ StoreError::NotFound(_)) => {
            app.ledger.object(account, bundle, part, app.clock.now()).await?;
            return Err(Failure::internal(format!("a stored blob is missing: {error}")));
        }
        Err(error) => return Err(error.into()),
    };
    let mut response = object(status, Body::new(ObjectBody::new(stream, length)));
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&etag).map_err(Failure::internal)?);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {offset}-{}/{}", offset + length - 1, row.length);
        headers.insert(CONTENT_RANGE, HeaderValue::from_str(&value).map_err(Failure::internal)?);
    }
    Ok(response)
}
