//! What anybody may read: what this relay is, and the page behind a link.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use pouch_protocol::limits::{MAX_PART, MAX_PARTS};
use pouch_protocol::{MESSAGE_TYPE, RelayInfo, VERSION};
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

/// The description of the API for tools; docs/protocol.md says the same for people.
const OPENAPI: &str = include_str!("../openapi.json");

pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, MESSAGE_TYPE)], OPENAPI).into_response()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use pouch_protocol::limits::{MAX_DEVICES, MAX_PAGE, MAX_PARTS, MAX_RECEIPT, MAX_RECIPIENTS, MAX_WAIT};
    use pouch_protocol::route;
    use serde_json::Value;

    use super::*;
    use crate::routes::ROUTES;

    fn description() -> Value {
        serde_json::from_str(OPENAPI).unwrap()
    }

    #[test]
    fn every_route_is_described_and_no_other() {
        let description = description();
        let mut described = BTreeSet::new();
        for (path, item) in description["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                assert!(described.insert((method.to_uppercase(), path.clone())));
            }
            // Each variable of the template is a parameter of the path, in order.
            let variables: Vec<_> = path.split('/').filter_map(|c| c.strip_prefix('{')?.strip_suffix('}')).collect();
            let none = Vec::new();
            let parameters = item["parameters"].as_array().unwrap_or(&none);
            let names: Vec<_> = parameters.iter().map(|p| p["name"].as_str().unwrap()).collect();
            assert_eq!(names, variables, "{path}");
        }
        let routes: BTreeSet<_> = ROUTES.iter().map(|(method, path)| (method.to_string(), path.to_string())).collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn the_described_limits_are_those_in_force() {
        let schemas = &description()["components"]["schemas"];
        let commit = &schemas["Commit"]["properties"];
        assert_eq!(commit["parts"]["maximum"], MAX_PARTS);
        assert_eq!(commit["recipients"]["maxItems"], MAX_RECIPIENTS);
        assert_eq!(schemas["NewBundle"]["properties"]["recipients"]["maxItems"], MAX_RECIPIENTS);
        assert_eq!(schemas["Devices"]["properties"]["devices"]["maxItems"], MAX_DEVICES);
        assert_eq!(schemas["Inbox"]["properties"]["items"]["maxItems"], MAX_PAGE);
        let wait = &description()["paths"][route::INBOX]["get"]["parameters"][1];
        assert_eq!((&wait["name"], &wait["schema"]["maximum"]), (&"wait".into(), &MAX_WAIT.into()));
        // Base64 makes four characters of three bytes.
        assert_eq!(schemas["ReceiptMessage"]["properties"]["sealed"]["maxLength"], MAX_RECEIPT.div_ceil(3) * 4);
    }

    /// What every problem is must be in the list, and nothing else.
    #[test]
    fn every_kind_of_problem_is_described() {
        let description = description();
        let described =
            description["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().unwrap();
        let kinds: Vec<_> =
            pouch_protocol::ProblemKind::all().map(|kind| pouch_protocol::Problem::new(kind, None).r#type).collect();
        assert_eq!(described.iter().map(|d| d.as_str().unwrap()).collect::<Vec<_>>(), kinds);
    }
}
