//! A relay is asked whatever its own description allows, and what it does not, with requests that are signed:
//! schemathesis finds no answer of 5xx and none beside the description. Where `POUCH_SCHEMATHESIS` names the folder of a
//! Python environment with schemathesis and cryptography.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::time::Duration;

use pouch_protocol::NewBundle;
use pouch_statement::BundleId;
use pouch_tests::{Pair, Run, folder, noise, text, workspace};

/// Requests for each operation and kind of data.
fn examples() -> String {
    std::env::var("POUCH_EXAMPLES").unwrap_or_else(|_| "20".to_owned())
}

/// Asks as this party, who knows of bundles and mailboxes.
#[track_caller]
fn ask(python: &Path, pair: &Pair, party: &pouch_client::Party, bundles: &str, mailboxes: &str) {
    let authority = format!("127.0.0.1:{}", pair.relay.port());
    let words = [
        "run",
        &format!("https://{authority}/v1/openapi.json"),
        "--tls-verify",
        "false",
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance",
        "--generation-with-security-parameters",
        "false",
        "--max-examples",
        &examples(),
        "--generation-database",
        "none",
        "--warnings",
        "off",
        "--suppress-health-check",
        "all",
        "--no-color",
        "--request-timeout",
        "60",
    ];
    Run::of(python.join("bin/schemathesis"))
        .args(words)
        .dir(&pair.ada.temporary())
        .env("SCHEMATHESIS_HOOKS", workspace().join("tests/openapi/hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DEVICE_KEY", party.home.config("device.key"))
        .env("AUTHORITY", authority)
        .env("BUNDLES", bundles)
        .env("MAILBOXES", mailboxes)
        .limit(Duration::from_secs(900))
        .end()
        .ok();
}

#[test]
fn nothing_that_is_asked_is_a_fault_of_the_relay() {
    let Some(python) = folder("POUCH_SCHEMATHESIS", "Python environment with schemathesis") else { return };
    let lines = "account_requests_per_second = 100000\naddress_requests_per_second = 100000\naccount_requests_burst = 100000\n\
                 address_requests_burst = 100000";
    let pair = Pair::configured(lines);
    let file = pair.ada.file("file", noise("content", 100_000));
    let sent = pair.ada.send(&[text(&file), "--to", "bo"]);
    let ((ada, _), (bo, _)) = (pair.ada.client(), pair.bo.client());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pending: Vec<_> = (0..3)
        .map(|_| {
            let bundle = BundleId::random().unwrap();
            let expires = pouch_client::clock::now().plus(3600);
            runtime
                .block_on(ada.api().unwrap().new_bundle(&NewBundle {
                    bundle,
                    expires,
                    burn: false,
                    recipients: vec![],
                }))
                .unwrap();
            bundle.to_string()
        })
        .collect();
    let mailboxes = format!("{} {}", ada.card().card().mailbox, bo.card().card().mailbox);
    let bundles = format!("{sent} {}", pending.join(" "));
    // Bo may be suspended by what the owner asks, so he asks first.
    ask(&python, &pair, &bo, &bundles, &mailboxes);
    ask(&python, &pair, &ada, &bundles, &mailboxes);
    // Requests were good enough to be granted, not only to be refused, and each kind of refusal was met.
    let record = runtime.block_on(ada.api().unwrap().access()).unwrap().rows;
    let met = |status: u16| record.iter().filter(|access| access.status == status).count();
    for status in [200, 204, 400, 403, 404, 409] {
        assert!(met(status) > 5, "{status}: {}", met(status));
    }
    // It serves as before.
    let again = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.ada.run(&["outbox", &again]).ok();
    assert!(!pair.relay.log().contains("panicked"), "{}", pair.relay.log());
}
