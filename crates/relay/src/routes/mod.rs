//! The router, and what surrounds every handler: screening, panics, draining, header fields, the access record.

mod download;
mod page;
mod people;
mod pipelines;
mod upload;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use futures_util::FutureExt as _;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method};
use http_body::Body as _;
use pouch_protocol::limits::MAX_INDEX;
use pouch_protocol::{ProblemKind, REQUEST_ID, route};
use tokio::sync::watch;

use crate::access::{Attempt, Outcome};
use crate::answer::{Answer, Explained, Failure, ProblemWord, harden};
use crate::auth::single;
use crate::body::Upload;
use crate::log::RequestId;
use crate::metrics::By;
use crate::proxied;
use crate::rate::{self, Standing};
use crate::server::App;

/// What the record says for paths that no route has: the raw path is the client's text and is never written down.
const UNKNOWN: &str = "unknown";

/// How much of an anonymous request's body is read after the answer is known, and how long of any other's.
const ANONYMOUS_DRAIN: u64 = 16 << 20;
const DRAIN: Duration = Duration::from_secs(600);

/// The one list of all routes: the router, and what the OpenAPI description is compared with.
macro_rules! routes {
    ($($method:ident $path:path => $handler:path;)*) => {
        fn handlers() -> Router<Arc<App>> {
            Router::new()$(.route($path, on(MethodFilter::$method, $handler)))*
        }

        /// Methods and templates.
        #[cfg(test)]
        pub(crate) const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];
    };
}

routes! {
    GET route::INFO => page::info;
    GET route::OPENAPI => page::openapi;
    GET route::LINK_PAGE => page::link_page;
    POST route::JOIN => people::join;
    POST route::LINKS => people::new_link;
    GET route::LINKS => people::links;
    DELETE route::LINK => people::delete_link;
    POST route::DEVICES => people::enrol;
    GET route::DEVICES => people::devices;
    DELETE route::DEVICE => people::revoke_device;
    POST route::ROTATIONS => people::rotate;
    GET route::ROTATIONS_OF => people::rotations;
    GET route::ACCOUNT => people::account;
    GET route::ACCOUNTS => people::accounts;
    POST route::SUSPEND => people::suspend;
    POST route::RESTORE => people::restore;
    POST route::ROLE => people::role;
    POST route::PIPELINES => pipelines::make;
    GET route::PIPELINES => pipelines::mine;
    DELETE route::PIPELINE => pipelines::revoke;
    GET route::JOURNAL => pipelines::journal;
    PUT route::JOURNAL => pipelines::put_journal;
    GET route::ACCESS => people::access;
    POST route::BUNDLES => upload::begin;
    GET route::BUNDLE => upload::bundle;
    DELETE route::BUNDLE => upload::delete;
    PUT route::PART => upload::put_part;
    GET route::PART => download::part;
    PUT route::INDEX => upload::put_index;
    GET route::INDEX => download::index;
    PUT route::ENVELOPE => upload::put_envelope;
    POST route::COMMIT => upload::commit;
    POST route::EXTEND => upload::extend;
    POST route::TAKEDOWN => people::take_down;
    GET route::OUTBOX => upload::outbox;
    GET route::INBOX => download::inbox;
    GET route::DELIVERY => download::delivery;
    POST route::RELEASE => download::release;
    POST route::RECEIPT => download::receipt;
}

/// All routes of docs/protocol.md.
pub(crate) fn router(app: Arc<App>) -> Router {
    handlers()
        .fallback(async || -> Answer { Err(Failure::not_found()) })
        .method_not_allowed_fallback(async || -> Answer { Err(Failure::new(ProblemKind::Method, "")) })
        .layer(from_fn_with_state(Arc::clone(&app), surround))
        .with_state(app)
}

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Whether somebody is still there to be answered.
#[derive(Clone)]
struct Asked(watch::Receiver<()>);

impl Asked {
    /// Done when the connection ended before the answer.
    async fn gone(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// Answers on a task of its own: a client that goes away in the middle cannot stop an effect between two of its
/// steps, and a panic becomes a problem.
async fn surround(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let Some(running) = app.running() else {
        return bare(Failure::new(ProblemKind::Unavailable, "the relay is stopping"));
    };
    // Dropped with this future, when the connection ends before the answer.
    let (_asking, asked) = watch::channel(());
    request.extensions_mut().insert(Asked(asked));
    let task = tokio::spawn(async move {
        let response = answer(&app, request, next).await;
        drop(running);
        response
    });
    task.await.unwrap_or_else(|error| bare(Failure::internal(error)))
}

/// What is answered outside of [`answer`], for want of all that it needs.
fn bare(failure: Failure) -> Response {
    let mut response = failure.into_response();
    let id = finish(&mut response);
    if let Some(Explained(error)) = response.extensions().get() {
        tracing::error!(id, error, "a request failed");
    }
    response
}

/// The fields that every answer has; the name that the request gets.
fn finish(response: &mut Response) -> String {
    harden(response.headers_mut());
    let id = RequestId::random().to_string();
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    id
}

async fn answer(app: &Arc<App>, request: Request, next: Next) -> Response {
    let started = std::time::Instant::now();
    let (mut head, body) = request.into_parts();
    let attempt = Attempt::default();
    let upload = Upload::new(body, app.config.progress_timeout());
    let matched = head.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let peer = head.extensions.get::<SocketAddr>().map(SocketAddr::ip);
    let address = peer.map(|peer| proxied::client(&head.headers, peer, &app.config));
    let standing = address.map(|address| app.addresses.take(rate::network(address)));
    let method = method_word(&head.method);
    let framed = !head.headers.contains_key(TRANSFER_ENCODING);
    let screened = pace(app, standing).and_then(|()| screen(app, &head, matched.is_some()));
    let mut response = match screened {
        Err(failure) => failure.into_response(),
        Ok(()) => {
            head.extensions.insert(upload.clone());
            head.extensions.insert(attempt.clone());
            let handler = next.run(Request::from_parts(head, Body::empty()));
            AssertUnwindSafe(handler)
                .catch_unwind()
                .await
                .unwrap_or_else(|_| Failure::internal("a handler panicked").into_response())
        }
    };
    let learnt = attempt.learnt();
    // Whoever has an account may send what it may store; of anybody else only little is read in vain.
    let (limit, time) = match learnt.account {
        Some(_) => (MAX_INDEX, DRAIN),
        None => (ANONYMOUS_DRAIN, app.config.progress_timeout()),
    };
    if !framed || !upload.drain(limit, time).await || app.is_stopping() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let id = finish(&mut response);
    match (learnt.standing, standing) {
        (Some(standing), _) => app.accounts.tell(&standing, response.headers_mut()),
        (None, Some(standing)) => app.addresses.tell(&standing, response.headers_mut()),
        (None, None) => {}
    }
    let route = matched.unwrap_or_else(|| UNKNOWN.to_owned());
    let status = response.status().as_u16();
    let problem = response.extensions().get::<ProblemWord>().map(|word| word.0);
    let took = started.elapsed();
    app.metrics.answered(method, &route, status, took);
    if let Some(Explained(error)) = response.extensions().get() {
        tracing::error!(id, method, %route, error, "a request failed");
    }
    // Who, about what and from where stands in the access record, which is pruned. What nobody signed is counted there.
    if learnt.account.is_some() {
        let (milliseconds, received) = (took.as_millis() as u64, upload.received());
        let sent = response.body().size_hint().exact();
        tracing::info!(id, method, %route, status, problem, milliseconds, received, sent, "answered");
    }
    let time = app.clock.now();
    app.access.note(Outcome { time, address, method, route, learnt, status, problem }).await;
    response
}

/// The limit of the address.
fn pace(app: &App, standing: Option<Standing>) -> Result<(), Failure> {
    if standing.is_none_or(|standing| standing.granted) {
        return Ok(());
    }
    app.metrics.limited(By::Address);
    Err(Failure::new(ProblemKind::Rate, "from this address"))
}

/// What is refused before any handler sees it.
fn screen(app: &App, head: &Parts, known: bool) -> Result<(), Failure> {
    // Lengths are known before a body is sent. With this field refused there is no second opinion on where a body
    // ends (attacks.md 45; RFC 9112 §6.1), and the connection is closed.
    if head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Failure::new(ProblemKind::BadRequest, "bodies carry content-length, not transfer-encoding"));
    }
    let host = single(&head.headers, HOST.as_str());
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    if host != Some(app.authority.as_str()) || target.is_some_and(|authority| authority != app.authority) {
        return Err(Failure::new(ProblemKind::BadRequest, "this is not the relay of that host"));
    }
    // The router would answer HEAD with GET's head; the protocol has no such method.
    if known && head.method == Method::HEAD {
        return Err(Failure::new(ProblemKind::Method, ""));
    }
    Ok(())
}
