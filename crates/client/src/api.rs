//! Typed calls to the relay: each signs its request, bounds the answer, and reads it strictly.

mod keys;
mod pipelines;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pouch_protocol::limits::{MAX_ENVELOPE, MAX_LISTING, MAX_MESSAGE, MAX_PAGE};
use pouch_protocol::{
    AccessPage, Account, AccountRole, Accounts, BundleStatus, Commit, Covered, DeviceKey, DeviceStatus, Devices,
    Extension, Inbox, InboxItem, JoinRequest, JoinResponse, Links, NewBundle, NewDevice, NewLink, NewRole, Outbox,
    PROBLEM_TYPE, PartField, Problem, ProblemKind, ReceiptMessage, RelayInfo, Request, Takedown, content_digest, route,
    sign_request,
};
use pouch_statement::{BundleId, LinkId, MailboxId, RelayOrigin, Sha256Digest, SigningKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::clock::now;
use crate::transport::{HttpAnswer, HttpRequest, PATIENCE, Transport, TransportError};

/// Pages of a listing that are followed at most; with 500 rows each.
const MAX_PAGES: usize = 20;

/// What a listing of the relay held.
#[derive(Debug)]
pub struct Listing<R> {
    /// Its rows.
    pub rows: Vec<R>,
    /// There is more: as many pages were read as are ever followed. Whoever shows the rows says so.
    pub cut: bool,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The relay said no. `detail` is its text, to be shown escaped.
    #[error("the relay refused: {}", title(*.kind))]
    Refused {
        /// What kind of no.
        kind: ProblemKind,
        /// What the relay adds.
        detail: Option<String>,
        /// Seconds after which trying again may help, if the relay says so.
        retry_after: Option<u64>,
        /// How the relay's log names the request.
        request: Option<String>,
    },
    /// The clocks are too far apart for signed requests.
    #[error("the clocks are {off} s apart: this machine is {direction} the relay; set the clock")]
    Clock {
        /// By how much, in seconds.
        off: u64,
        /// `ahead of` or `behind`.
        direction: &'static str,
    },
    /// Something that no relay of ours says.
    #[error("the relay's answer to {route} is not of the protocol: {reason}")]
    Protocol {
        /// The route.
        route: &'static str,
        /// In which way.
        reason: String,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] pouch_statement::RandomError),
    /// A message that cannot be written; a defect.
    #[error("a message cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

fn title(kind: ProblemKind) -> &'static str {
    kind.title()
}

impl ApiError {
    /// Whether trying the same again may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        use ProblemKind as P;
        matches!(
            self,
            Self::Transport(TransportError::Unreachable { .. })
                // Who sees a request twice was sent it twice, by somebody on the way: what became of the first is asked for
                // with the next, which is signed anew.
                | Self::Refused { kind: P::Unavailable | P::Rate | P::Internal | P::Replay, .. }
        )
    }

    /// Whether the relay has said no, and will again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.refused().is_some() && !self.is_passing()
    }

    /// How long the relay asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Refused { retry_after, .. } => retry_after.map(std::time::Duration::from_secs),
            _ => None,
        }
    }

    /// The kind of the relay's no, if it was one.
    #[must_use]
    pub fn refused(&self) -> Option<ProblemKind> {
        match self {
            Self::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

/// A relay as one device sees it.
pub struct RelayApi {
    transport: Arc<dyn Transport>,
    authority: String,
    device: SigningKey,
    info: OnceCell<RelayInfo>,
    /// For how long it is asked again in the middle of a transfer.
    pub(crate) patience: Duration,
}

type Result<T> = std::result::Result<T, ApiError>;

struct Call {
    method: &'static str,
    route: &'static str,
    path: String,
    query: Option<String>,
    covered: Covered,
    content_type: &'static str,
    /// Fields that say on what condition, or how much.
    conditions: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    max_answer: usize,
}

impl Call {
    fn get(route: &'static str, path: String, max_answer: usize) -> Self {
        Self {
            method: "GET",
            route,
            path,
            query: None,
            covered: Covered::Nothing,
            content_type: "",
            conditions: Vec::new(),
            body: None,
            max_answer,
        }
    }

    fn delete(route: &'static str, path: String) -> Self {
        Self { method: "DELETE", ..Self::get(route, path, MAX_MESSAGE) }
    }

    /// A sealed object.
    fn put(route: &'static str, path: String, covered: Covered, sealed: Bytes) -> Self {
        Self {
            method: "PUT",
            covered,
            content_type: pouch_protocol::OBJECT_TYPE,
            body: Some(sealed),
            ..Self::get(route, path, MAX_MESSAGE)
        }
    }

    /// One that its SHA-256 covers.
    fn put_whole(route: &'static str, path: String, sealed: Bytes) -> Self {
        Self::put(route, path, Covered::Digest(Sha256Digest::of(&sealed)), sealed)
    }

    fn with_json<T: Serialize>(method: &'static str, route: &'static str, path: String, message: &T) -> Result<Self> {
        let body = serde_json::to_vec(message)?;
        Ok(Self {
            method,
            covered: Covered::Digest(Sha256Digest::of(&body)),
            content_type: pouch_protocol::MESSAGE_TYPE,
            body: Some(body.into()),
            ..Self::get(route, path, MAX_MESSAGE)
        })
    }
}

impl RelayApi {
    /// The relay at `relay`, reached through `transport`, with requests signed by `device`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, relay: &RelayOrigin, device: SigningKey) -> Self {
        Self { transport, authority: relay.authority(), device, info: OnceCell::new(), patience: PATIENCE }
    }

    /// Asked again for so long in the middle of a transfer.
    #[must_use]
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    async fn send(&self, call: Call, signed: bool) -> Result<HttpAnswer> {
        let mut fields = Vec::with_capacity(5);
        if signed {
            let request = Request {
                method: call.method,
                authority: &self.authority,
                path: &call.path,
                query: call.query.as_deref(),
                covered: call.covered,
            };
            let signature = sign_request(&request, &self.device, pouch_statement::random()?, now());
            fields.push(("signature-input", signature.input));
            fields.push(("signature", signature.signature));
        }
        match &call.covered {
            Covered::Nothing => {}
            Covered::Digest(digest) => fields.push(("content-digest", content_digest(digest))),
            Covered::Part(part) => fields.push((PartField::NAME, part.to_value())),
        }
        if !call.content_type.is_empty() {
            fields.push(("content-type", call.content_type.to_owned()));
        }
        fields.extend(call.conditions);
        let target = match &call.query {
            Some(query) => format!("{}?{query}", call.path),
            None => call.path,
        };
        let answer = self
            .transport
            .call(HttpRequest {
                method: call.method,
                target,
                fields,
                body: call.body,
                max_answer: call.max_answer.max(MAX_MESSAGE),
            })
            .await?;
        if (200..300).contains(&answer.status) { Ok(answer) } else { Err(problem(call.route, &answer)) }
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call, signed: bool) -> Result<T> {
        let route = call.route;
        let answer = self.send(call, signed).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|e| ApiError::Protocol { route, reason: format!("unreadable at column {}", e.column()) })
    }

    async fn tell(&self, call: Call) -> Result<()> {
        self.send(call, true).await.map(|_| ())
    }

    /// All pages of a listing, at most [`MAX_PAGES`], the first one with a query; the listing tells whether there are more.
    async fn pages<P: DeserializeOwned, R>(
        &self,
        route: &'static str,
        mut query: Option<String>,
        mut split: impl FnMut(P) -> (Vec<R>, Option<u64>),
    ) -> Result<Listing<R>> {
        let mut rows = Vec::new();
        let mut after: Option<u64> = None;
        for _ in 0..MAX_PAGES {
            let query = query.take().or(after.map(|a| format!("after={a}")));
            let page: P = self.ask(Call { query, ..Call::get(route, route.to_owned(), MAX_LISTING) }, true).await?;
            let (more, next) = split(page);
            if more.len() > MAX_PAGE as usize {
                return Err(ApiError::Protocol { route, reason: format!("{} rows in a page", more.len()) });
            }
            rows.extend(more);
            match next {
                Some(next) if after != Some(next) => after = Some(next),
                _ => return Ok(Listing { rows, cut: false }),
            }
        }
        Ok(Listing { rows, cut: true })
    }

    /// What the relay is.
    ///
    /// # Errors
    /// See [`ApiError`]; so for all calls.
    pub async fn info(&self) -> Result<RelayInfo> {
        self.ask(Call::get(route::INFO, route::INFO.into(), MAX_MESSAGE), false).await
    }

    /// What the relay is, asked once: its limits do not change within a command.
    pub async fn limits(&self) -> Result<&RelayInfo> {
        self.info.get_or_try_init(|| self.info()).await
    }

    /// Redeems a link; the answer's inviter is not yet verified.
    pub async fn join(&self, request: &JoinRequest) -> Result<JoinResponse> {
        self.ask(Call::with_json("POST", route::JOIN, route::JOIN.into(), request)?, false).await
    }

    /// Makes a link.
    pub async fn new_link(&self, link: &NewLink) -> Result<()> {
        self.tell(Call::with_json("POST", route::LINKS, route::LINKS.into(), link)?).await
    }

    /// My links.
    pub async fn links(&self) -> Result<Links> {
        self.ask(Call::get(route::LINKS, route::LINKS.into(), MAX_LISTING), true).await
    }

    /// Withdraws or forgets a link.
    pub async fn delete_link(&self, link: LinkId) -> Result<()> {
        self.tell(Call::delete(route::LINK, route::link(link))).await
    }

    /// My account.
    pub async fn account(&self) -> Result<Account> {
        self.ask(Call::get(route::ACCOUNT, route::ACCOUNT.into(), MAX_MESSAGE), true).await
    }

    /// Enrols the device key that signs for this.
    pub async fn enrol(&self, device: &NewDevice) -> Result<()> {
        self.tell(Call::with_json("POST", route::DEVICES, route::DEVICES.into(), device)?).await
    }

    /// The device keys of my account.
    pub async fn devices(&self) -> Result<Vec<DeviceStatus>> {
        let call = Call::get(route::DEVICES, route::DEVICES.into(), MAX_MESSAGE);
        self.ask(call, true).await.map(|devices: Devices| devices.devices)
    }

    /// Revokes another device key of mine, for good.
    pub async fn revoke_device(&self, key: DeviceKey) -> Result<()> {
        self.tell(Call::delete(route::DEVICE, route::device(key))).await
    }

    /// All accounts, for an owner.
    pub async fn accounts(&self) -> Result<Listing<Account>> {
        self.pages(route::ACCOUNTS, None, |p: Accounts| (p.accounts, p.next)).await
    }

    /// Has an account's requests refused, for an owner.
    pub async fn suspend(&self, mailbox: MailboxId) -> Result<()> {
        self.tell(Call { method: "POST", ..Call::get(route::SUSPEND, route::suspend(mailbox), MAX_MESSAGE) }).await
    }

    /// Has them taken again, for an owner.
    pub async fn restore(&self, mailbox: MailboxId) -> Result<()> {
        self.tell(Call { method: "POST", ..Call::get(route::RESTORE, route::restore(mailbox), MAX_MESSAGE) }).await
    }

    /// Changes what an account may do, for an owner.
    pub async fn set_role(&self, mailbox: MailboxId, role: AccountRole) -> Result<()> {
        self.tell(Call::with_json("POST", route::ROLE, route::role(mailbox), &NewRole { role })?).await
    }

    /// Ends a bundle of whomsoever, for an owner.
    pub async fn take_down(&self, bundle: BundleId, takedown: &Takedown) -> Result<()> {
        self.tell(Call::with_json("POST", route::TAKEDOWN, route::takedown(bundle), takedown)?).await
    }

    /// The newest of the access record that I may see, oldest first.
    pub async fn access(&self) -> Result<Listing<pouch_protocol::Access>> {
        let mut records = self.pages(route::ACCESS, None, |p: AccessPage| (p.records, p.next)).await?;
        records.rows.reverse();
        Ok(records)
    }

    /// Begins a bundle.
    pub async fn new_bundle(&self, bundle: &NewBundle) -> Result<()> {
        self.tell(Call::with_json("POST", route::BUNDLES, route::BUNDLES.into(), bundle)?).await
    }

    /// Stores a sealed part.
    pub async fn put_part(&self, bundle: BundleId, part: PartField, sealed: Bytes) -> Result<()> {
        let path = route::part(bundle, part.number);
        self.tell(Call::put(route::PART, path, Covered::Part(part), sealed)).await
    }

    /// Whether the relay says that it has this part of a bundle of mine. One byte of it is fetched.
    pub async fn has_part(&self, bundle: BundleId, part: &PartField) -> Result<bool> {
        // RFC 9110 §13.1.1, §14.2. The digest is the tag.
        let conditions = vec![("if-match", format!("\"{}\"", part.blake3)), ("range", "bytes=0-0".to_owned())];
        let call = Call { conditions, ..Call::get(route::PART, route::part(bundle, part.number), MAX_MESSAGE) };
        match self.send(call, true).await {
            Ok(answer) => Ok(answer.status == 206),
            // All of another part, by who knows no conditions.
            Err(ApiError::Transport(TransportError::TooLong(_))) => Ok(false),
            Err(e) if matches!(e.refused(), Some(ProblemKind::NotFound | ProblemKind::BadRequest)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Stores the sealed index.
    pub async fn put_index(&self, bundle: BundleId, sealed: Bytes) -> Result<()> {
        self.tell(Call::put_whole(route::INDEX, route::index(bundle), sealed)).await
    }

    /// Stores one recipient's envelope.
    pub async fn put_envelope(&self, bundle: BundleId, mailbox: MailboxId, sealed: Bytes) -> Result<()> {
        self.tell(Call::put_whole(route::ENVELOPE, route::envelope(bundle, mailbox), sealed)).await
    }

    /// Delivers.
    pub async fn commit(&self, bundle: BundleId, commit: &Commit) -> Result<()> {
        self.tell(Call::with_json("POST", route::COMMIT, route::commit(bundle), commit)?).await
    }

    /// Another end for a bundle that is delivered.
    pub async fn extend(&self, bundle: BundleId, extension: &Extension) -> Result<()> {
        self.tell(Call::with_json("POST", route::EXTEND, route::extend(bundle), extension)?).await
    }

    /// The bundles I sent, as the relay has them.
    pub async fn outbox(&self) -> Result<Listing<BundleStatus>> {
        self.pages(route::OUTBOX, None, |p: Outbox| (p.bundles, p.next)).await
    }

    /// One of them.
    pub async fn bundle(&self, bundle: BundleId) -> Result<BundleStatus> {
        self.ask(Call::get(route::BUNDLE, route::bundle(bundle), MAX_LISTING), true).await
    }

    /// Revokes a bundle, or forgets a pending one.
    pub async fn delete_bundle(&self, bundle: BundleId) -> Result<()> {
        self.tell(Call::delete(route::BUNDLE, route::bundle(bundle))).await
    }

    /// What waits for me, by the relay's word. With `wait` it answers as soon as something does, and after so many seconds at
    /// the latest; it may answer earlier with nothing: whoever asks again pauses then.
    pub async fn inbox(&self, wait: Option<u64>) -> Result<Listing<InboxItem>> {
        let query = wait.map(|seconds| format!("wait={seconds}"));
        self.pages(route::INBOX, query, |p: Inbox| (p.items, p.next)).await
    }

    /// One delivery, received or not.
    pub async fn delivery(&self, bundle: BundleId) -> Result<InboxItem> {
        self.ask(Call::get(route::DELIVERY, route::delivery(bundle), MAX_MESSAGE), true).await
    }

    /// The envelope; the relay records the release.
    pub async fn release(&self, bundle: BundleId) -> Result<Bytes> {
        let call = Call { method: "POST", ..Call::get(route::RELEASE, route::release(bundle), MAX_ENVELOPE as usize) };
        Ok(self.send(call, true).await?.body)
    }

    /// The sealed index; at most `size` bytes are read.
    pub async fn get_index(&self, bundle: BundleId, size: usize) -> Result<Bytes> {
        Ok(self.send(Call::get(route::INDEX, route::index(bundle), size), true).await?.body)
    }

    /// A sealed part; at most `size` bytes are read.
    pub async fn get_part(&self, bundle: BundleId, part: u32, size: usize) -> Result<Bytes> {
        Ok(self.send(Call::get(route::PART, route::part(bundle, part), size), true).await?.body)
    }

    /// My receipt.
    pub async fn put_receipt(&self, bundle: BundleId, receipt: &ReceiptMessage) -> Result<()> {
        self.tell(Call::with_json("POST", route::RECEIPT, route::receipt(bundle), receipt)?).await
    }
}

fn problem(route: &'static str, answer: &HttpAnswer) -> ApiError {
    let refused = |kind, detail| ApiError::Refused {
        kind,
        detail,
        retry_after: answer.retry_after,
        request: answer.request.clone(),
    };
    let typed = answer.content_type.as_deref().is_some_and(|t| t.starts_with(PROBLEM_TYPE));
    let parsed: Option<Problem> = if typed { serde_json::from_slice(&answer.body).ok() } else { None };
    match parsed.as_ref().and_then(|p| p.kind().map(|k| (k, p))) {
        Some((ProblemKind::Clock, Problem { time: Some(relay), .. })) => {
            let mine = now().unix();
            let direction = if mine > *relay { "ahead of" } else { "behind" };
            ApiError::Clock { off: mine.abs_diff(*relay), direction }
        }
        Some((kind, problem)) => refused(kind, problem.detail.clone()),
        // A proxy in front of the relay, or the relay on its knees: for the moment, not evidence of anything.
        None if answer.status >= 500 => refused(ProblemKind::Unavailable, None),
        // Nor is a load balancer's limit.
        None if answer.status == 429 => refused(ProblemKind::Rate, None),
        None => ApiError::Protocol { route, reason: format!("status {}", answer.status) },
    }
}

/// A sealed receipt as it travels.
pub(crate) fn receipt_message(
    outcome: pouch_statement::Outcome,
    sealed: &[u8],
    commitment: Sha256Digest,
) -> ReceiptMessage {
    ReceiptMessage { outcome, commitment, sealed: STANDARD.encode(sealed) }
}
