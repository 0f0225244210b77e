//! Who asks: the request signature, checked against the ledger's devices (docs/protocol.md, "Request signatures").

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, MatchedPath, Request as HttpRequest};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method};
use pouch_protocol::limits::MAX_MESSAGE;
use pouch_protocol::{
    AccountRole, Covered, PartField, ProblemKind, Request, SignatureFields, SignatureRefused, SignedRequest,
    parse_content_digest, route,
};
use pouch_statement::{MailboxId, Sha256Digest, Timestamp};
use serde::de::DeserializeOwned;

use crate::access::Attempt;
use crate::answer::Failure;
use crate::blob::{AGE, ReceiveError};
use crate::body::Upload;
use crate::connections::Connection;
use crate::ledger::{DeviceAccount, Once, Sealed, Until};
use crate::metrics::By;
use crate::server::App;
use crate::shares::Share;

/// How long an account's requests wait for each other.
const TURN: Duration = Duration::from_secs(10);

/// All that a pipeline may ask for.
const PIPELINE_ROUTES: [(Method, &str); 12] = [
    (Method::GET, route::ACCOUNT),
    (Method::GET, route::JOURNAL),
    (Method::PUT, route::JOURNAL),
    (Method::POST, route::BUNDLES),
    (Method::GET, route::BUNDLE),
    (Method::DELETE, route::BUNDLE),
    (Method::PUT, route::PART),
    (Method::GET, route::PART),
    (Method::PUT, route::INDEX),
    (Method::PUT, route::ENVELOPE),
    (Method::POST, route::COMMIT),
    (Method::GET, route::OUTBOX),
];

/// What a route's body is covered by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// It takes no body.
    Nothing,
    /// `Content-Digest`.
    Digest,
    /// `Pouch-Part`.
    Part,
}

/// A request on its way through a handler.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) head: Parts,
    pub(crate) body: Upload,
    pub(crate) attempt: Attempt,
    /// The relay's time, the same for all of the request.
    pub(crate) now: Timestamp,
}

/// Somebody with an account, whose signature is good.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) account: i64,
    pub(crate) mailbox: MailboxId,
    pub(crate) role: AccountRole,
    /// For what is accepted once.
    pub(crate) once: Once,
    pub(crate) covered: Covered,
}

impl Caller {
    /// The digest that the request was signed with; the body's, once [`Call::digested`] has read it.
    pub(crate) fn digest(&self) -> Result<Sha256Digest, Failure> {
        match self.covered {
            Covered::Digest(digest) => Ok(digest),
            _ => Err(Failure::internal("coverage")),
        }
    }
}

impl FromRequest<Arc<App>> for Call {
    type Rejection = Failure;

    async fn from_request(request: HttpRequest, app: &Arc<App>) -> Result<Self, Failure> {
        let (mut head, _) = request.into_parts();
        let missing = || Failure::internal("a layer is missing");
        let body = head.extensions.remove::<Upload>().ok_or_else(missing)?;
        let attempt = head.extensions.remove::<Attempt>().ok_or_else(missing)?;
        Ok(Self { app: Arc::clone(app), now: app.clock.now(), head, body, attempt })
    }
}

/// A field that stands exactly once.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() { None } else { Some(value) }
}

pub(crate) fn unsigned(detail: &'static str) -> Failure {
    Failure::new(ProblemKind::Signature, detail)
}

impl Call {
    /// The announced length of the body; requests with `Transfer-Encoding` do not get here.
    pub(crate) fn length(&self) -> Result<u64, Failure> {
        if !self.head.headers.contains_key(CONTENT_LENGTH) {
            return Ok(0);
        }
        single(&self.head.headers, CONTENT_LENGTH.as_str())
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Failure::new(ProblemKind::BadRequest, "content-length"))
    }

    fn covered(&self, coverage: Coverage) -> Result<Covered, Failure> {
        let headers = &self.head.headers;
        match coverage {
            Coverage::Nothing if self.length()? == 0 => Ok(Covered::Nothing),
            Coverage::Nothing => Err(Failure::new(ProblemKind::BadRequest, "this takes no body")),
            Coverage::Digest => single(headers, "content-digest")
                .and_then(|value| parse_content_digest(value).ok())
                .map(Covered::Digest)
                .ok_or_else(|| unsigned("a body needs the field content-digest")),
            Coverage::Part => single(headers, PartField::NAME)
                .and_then(|value| PartField::parse(value).ok())
                .map(Covered::Part)
                .ok_or_else(|| unsigned("a part needs the field pouch-part")),
        }
    }

    /// Checks signature, clock and device. Nothing of the body was read, and no path was looked at, before this.
    pub(crate) async fn signed(&self, coverage: Coverage) -> Result<Caller, Failure> {
        let (signed, covered) = self.verified(coverage)?;
        let device = self.app.ledger.device(&signed.key).await?;
        // A key that was revoked is as unknown as one that never was enrolled.
        let device = device.ok_or_else(|| unsigned("the key is not enrolled here"))?;
        self.admit(&device, signed, covered)
    }

    /// Checks signature and clock; whose key it is remains to be seen.
    pub(crate) fn verified(&self, coverage: Coverage) -> Result<(SignedRequest, Covered), Failure> {
        let missing = || unsigned("the request is not signed");
        let headers = &self.head.headers;
        let fields = SignatureFields {
            input: single(headers, "signature-input").ok_or_else(missing)?.to_owned(),
            signature: single(headers, "signature").ok_or_else(missing)?.to_owned(),
        };
        let covered = self.covered(coverage)?;
        let request = Request {
            method: self.head.method.as_str(),
            authority: &self.app.authority,
            path: self.head.uri.path(),
            query: self.head.uri.query(),
            covered,
        };
        let signed = fields.verify(&request, self.now).map_err(|refused| match refused {
            SignatureRefused::Clock(_) => Failure::Clock(self.now),
            SignatureRefused::Form => unsigned("the signature's fields are not of the one form"),
            SignatureRefused::Coverage => unsigned("the signature does not cover exactly what it must"),
            SignatureRefused::Mismatch => unsigned("the signature does not verify"),
        })?;
        Ok((signed, covered))
    }

    /// Takes up a request of this account: into the record, against its rate, and not while it is suspended.
    pub(crate) fn admit(
        &self,
        device: &DeviceAccount,
        signed: SignedRequest,
        covered: Covered,
    ) -> Result<Caller, Failure> {
        self.attempt.is_by(device.mailbox);
        // Now and not after the answer: an upload may take minutes, in which strangers must not push it out.
        // Whoever is suspended keeps no place that another may need, also none that they had before.
        match self.head.extensions.get::<Arc<Connection>>() {
            Some(connection) if device.suspended => connection.distrust(device.account),
            Some(connection) => connection.trust(device.account),
            None => {}
        }
        let standing = self.app.accounts.take(device.account.unsigned_abs());
        self.attempt.stands(standing);
        if !standing.granted {
            self.app.metrics.limited(By::Account);
            return Err(Failure::new(ProblemKind::Rate, "of this account"));
        }
        if device.suspended {
            return Err(Failure::new(ProblemKind::Suspended, ""));
        }
        if device.role == AccountRole::Pipeline {
            self.check_pipeline(device.until)?;
        }
        let once = Once { account: device.account, nonce: signed.nonce, device: Some(signed.key) };
        let DeviceAccount { account, mailbox, role, .. } = *device;
        Ok(Caller { account, mailbox, role, once, covered })
    }

    /// Refuses a pipeline whatever is none of its routes, and everything when it is over.
    fn check_pipeline(&self, until: Option<Until>) -> Result<(), Failure> {
        let route = self.head.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        let asks = |(method, path): &(Method, &str)| self.head.method == *method && route == Some(*path);
        if !PIPELINE_ROUTES.iter().any(asks) {
            return Err(Failure::new(ProblemKind::Forbidden, "a pipeline sends, and does nothing else"));
        }
        match until {
            Some(until) if !until.is_over(self.now) => Ok(()),
            _ => Err(Failure::new(ProblemKind::PipelineOver, "")),
        }
    }

    /// Waits until the account has so few works in the ledger that others find it free; held as long as one lasts.
    pub(crate) async fn turn(&self, caller: &Caller) -> Result<Share, Failure> {
        let turn = self.app.turns.take(caller.account, 1, TURN).await;
        turn.ok_or_else(|| Failure::new(ProblemKind::Unavailable, "the account has too much under way"))
    }

    /// Reads a body of at most `limit` bytes that is covered by `Content-Digest`.
    pub(crate) async fn digested(&self, covered: &Covered, limit: u64) -> Result<Bytes, Failure> {
        if self.length()? > limit {
            return Err(Failure::new(ProblemKind::TooLarge, ""));
        }
        let body = self.body.collect(usize::try_from(limit).unwrap_or(usize::MAX)).await?;
        match covered {
            Covered::Digest(digest) if Sha256Digest::of(&body) == *digest => Ok(body),
            _ => Err(Failure::new(ProblemKind::Digest, "")),
        }
    }

    /// Reads a sealed object of at most `limit` bytes, likewise.
    pub(crate) async fn sealed(&self, caller: &Caller, limit: u64) -> Result<Sealed, Failure> {
        let bytes = self.digested(&caller.covered, limit).await?;
        check_age(&bytes)?;
        Ok(Sealed { bytes, sha256: caller.digest()? })
    }

    /// Reads a message: bounded, then checked against its digest, then parsed.
    pub(crate) async fn message<T: DeserializeOwned>(&self, caller: &Caller) -> Result<T, Failure> {
        parse(&self.digested(&caller.covered, MAX_MESSAGE as u64).await?)
    }

    /// A variable component of the path, as it stands there; ids have one spelling, so nothing is decoded.
    fn component<T: std::str::FromStr>(&self, at: usize) -> Result<T, Failure> {
        let text = self.head.uri.path().split('/').nth(at).unwrap_or("");
        text.parse().map_err(|_| Failure::not_found())
    }

    /// What stands behind the collection of a path: `/v1/{collection}/{id}…`.
    pub(crate) fn id<T: std::str::FromStr>(&self) -> Result<T, Failure> {
        self.component(3)
    }

    /// The last component of `/v1/bundles/{bundle}/…/{last}`.
    pub(crate) fn last<T: std::str::FromStr>(&self) -> Result<T, Failure> {
        self.component(5)
    }

    /// `?after=N`, the only query of most listings.
    pub(crate) fn after(&self) -> Result<Option<u64>, Failure> {
        self.numbers(["after"], "the only query is after=NUMBER").map(|[after]| after)
    }

    /// The numbers that the query gives for `names`. Each is there once at most, and nothing else is.
    pub(crate) fn numbers<const N: usize>(
        &self,
        names: [&str; N],
        must: &'static str,
    ) -> Result<[Option<u64>; N], Failure> {
        let bad = || Failure::new(ProblemKind::BadRequest, must);
        let mut numbers = [None; N];
        let Some(query) = self.head.uri.query() else {
            return Ok(numbers);
        };
        for pair in query.split('&') {
            let (name, text) = pair.split_once('=').ok_or_else(bad)?;
            let at = names.iter().position(|known| *known == name).ok_or_else(bad)?;
            let number = numbers.get_mut(at).filter(|number| number.is_none()).ok_or_else(bad)?;
            if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
                return Err(bad());
            }
            *number = Some(text.parse().map_err(|_| bad())?);
        }
        Ok(numbers)
    }
}

/// Refuses what does not begin as an age file (attacks.md 56).
pub(crate) fn check_age(sealed: &[u8]) -> Result<(), Failure> {
    if sealed.starts_with(AGE) { Ok(()) } else { Err(ReceiveError::NotAge.into()) }
}

/// Parses a message; the error names a place and never repeats what was sent.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| {
        Failure::new(
            ProblemKind::BadRequest,
            format!("not this route's message, at line {} column {}", e.line(), e.column()),
        )
    })
}
