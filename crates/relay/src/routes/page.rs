//! What anybody may read: what this relay is, and the page behind a link.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use pouch_protocol::limits::{MAX_PART, MAX_PARTS};
use pouch_protocol::{RelayInfo, VERSION};
use pouch_statement::Sha256Digest;

use crate::answer::{Answer, message};
use crate::server::App;

const STYLE: &str = "body{font:1.1rem/1.6 system-ui,sans-serif;max-width:38rem;margin:12vh auto;padding:0 1.5rem;\
color:#222;background:#fdfdfb}code{background:#eee;padding:.15em .4em;border-radius:4px}h1{font-size:1.5rem}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code{background:#333}}";

/// No script, nothing to load: whatever stands behind the # in the address bar stays in the browser.
const BODY: &str = "<h1>You were invited to exchange files with pouch</h1>\
<p>This address is a one-time link. It works in pouch, not in a browser:</p>\
<ol><li>Install <strong>pouch</strong>.</li>\
<li>In a terminal, run <code>pouch join</code>.</li>\
<li>Paste the whole link there, with everything behind the <code>#</code>.</li></ol>\
<p>The part behind the <code>#</code> is the secret. Your browser did not send it: this server has not seen it. \
Do not pass the link on, it works once.</p>";

pub(super) async fn info(State(app): State<Arc<App>>) -> Answer {
    message(&RelayInfo {
        versions: vec![VERSION],
        time: app.clock.now(),
        max_lifetime: app.config.lifetime_seconds,
        max_part: MAX_PART,
        max_parts: MAX_PARTS,
    })
}

pub(super) async fn link_page() -> Response {
    let hash = STANDARD.encode(Sha256Digest::of(STYLE.as_bytes()).as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <title>pouch</title><style>{STYLE}</style></head><body>{BODY}</body></html>\n"
    );
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8".to_owned()), (CONTENT_SECURITY_POLICY, policy)];
    (headers, page).into_response()
}
