//! The router, and what surrounds every handler: screening, panics, draining, header fields, the access record.

mod download;
mod page;
mod people;
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
use axum::routing::{delete, get, post, put};
use futures_util::FutureExt as _;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method};
use pouch_protocol::limits::MAX_INDEX;
use pouch_protocol::{ProblemKind, route};

use crate::access::{Attempt, Outcome};
use crate::answer::{Answer, Failure, ProblemWord, harden};
use crate::auth::single;
use crate::body::Upload;
use crate::server::App;

/// What the record says for paths that no route has: the raw path is the client's text and is never written down.
const UNKNOWN: &str = "unknown";

/// How much of an anonymous request's body is read after the answer is known, and how long of any other's.
const ANONYMOUS_DRAIN: u64 = 16 << 20;
const DRAIN: Duration = Duration::from_secs(600);

/// All routes of docs/protocol.md.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(route::INFO, get(page::info))
        .route(route::LINK_PAGE, get(page::link_page))
        .route(route::JOIN, post(people::join))
        .route(route::LINKS, post(people::new_link).get(people::links))
        .route(route::LINK, delete(people::delete_link))
        .route(route::ACCOUNT, get(people::account))
        .route(route::ACCOUNTS, get(people::accounts))
        .route(route::ACCESS, get(people::access))
        .route(route::BUNDLES, post(upload::begin))
        .route(route::BUNDLE, get(upload::bundle).delete(upload::delete))
        .route(route::PART, put(upload::put_part).get(download::part))
        .route(route::INDEX, put(upload::put_index).get(download::index))
        .route(route::ENVELOPE, put(upload::put_envelope))
        .route(route::COMMIT, post(upload::commit))
        .route(route::OUTBOX, get(upload::outbox))
        .route(route::INBOX, get(download::inbox))
        .route(route::DELIVERY, get(download::delivery))
        .route(route::RELEASE, post(download::release))
        .route(route::RECEIPT, post(download::receipt))
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

/// Answers on a task of its own: a client that goes away in the middle cannot stop an effect between two of its
/// steps, and a panic becomes a problem.
async fn surround(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(running) = app.running() else {
        return stopping();
    };
    let task = tokio::spawn(async move {
        let response = answer(&app, request, next).await;
        drop(running);
        response
    });
    task.await.unwrap_or_else(|error| {
        let mut response = Failure::internal(error).into_response();
        harden(response.headers_mut());
        response
    })
}

fn stopping() -> Response {
    let mut response = Failure::new(ProblemKind::Unavailable, "the relay is stopping").into_response();
    harden(response.headers_mut());
    response
}

async fn answer(app: &Arc<App>, request: Request, next: Next) -> Response {
    let started = std::time::Instant::now();
    let (mut head, body) = request.into_parts();
    let attempt = Attempt::default();
    let upload = Upload::new(body, app.config.progress_timeout());
    let matched = head.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let address = head.extensions.get::<SocketAddr>().map(SocketAddr::ip);
    let method = method_word(&head.method);
    let framed = !head.headers.contains_key(TRANSFER_ENCODING);
    let screened = screen(app, &head, matched.is_some());
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
    if !framed || !upload.drain(limit, time).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    harden(response.headers_mut());
    let route = matched.unwrap_or_else(|| UNKNOWN.to_owned());
    let status = response.status().as_u16();
    let problem = response.extensions().get::<ProblemWord>().map(|word| word.0);
    tracing::debug!(method, %route, status, problem, milliseconds = started.elapsed().as_millis() as u64, "answered");
    let time = app.clock.now();
    app.access.note(Outcome { time, address, method, route, learnt, status, problem }).await;
    response
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
