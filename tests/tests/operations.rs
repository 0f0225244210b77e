//! Running a relay: its values, its signals, its service manager, its keys, and what it says of others.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use pouch_tests::{Pair, noise, text, until};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(30);

/// `GET` on a Unix socket.
fn ask(socket: &std::path::Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn values_come_from_file_and_variables_and_unknown_ones_are_refused() {
    let mut pair = Pair::new();
    pair.relay.set("POUCH_RELAY_CONNECTIONS", "77");
    // A flag's variable is no value.
    pair.relay.set("POUCH_RELAY_INIT_HOST", "elsewhere.example");
    let shown = pair.relay.command(&["config", "--json"]).ok();
    let value = |name: &str| {
        let values = shown.objects();
        let value = values.iter().find(|value| value["name"] == name).unwrap();
        (value["value"].clone(), value["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(value("connections"), ("77".into(), "POUCH_RELAY_CONNECTIONS".to_owned()));
    assert_eq!(value("account_bundles"), ("100000".into(), "default".to_owned()));
    assert_eq!(value("listen").1, "relay.toml");
    let ran = pair.relay.command(&["config"]).ok();
    assert!(ran.text().contains("connections = 77  # POUCH_RELAY_CONNECTIONS\n"), "{ran}");
    pair.relay.stop().ok();
    pair.relay.set("POUCH_RELAY_CONECTIONS", "CANARY");
    let refused = pair.relay.command(&["serve"]).fails(9, "POUCH_RELAY_CONECTIONS");
    assert!(!refused.err.contains("CANARY"), "{refused}");
}

#[test]
fn a_hangup_reads_the_certificate_again_and_stops_nothing() {
    let mut pair = Pair::new();
    let file = pair.ada.file("f", "f");
    pair.relay.command(&["rotate-key"]).ok();
    pair.relay.process().signal(Signal::HUP);
    until("the certificate is read again", SOON, || {
        pair.relay.log().contains("the certificate was read again").then_some(())
    });
    // Both joined before: they know both keys, and nobody does anything.
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.receive(&id);
    pair.relay.stop().ok();
    pair.relay.serve();
    pair.ada.run(&["outbox", &id]).ok();
    // Whoever joins now knows the next one, and so is there after the next rotation.
    let cy = pair.stranger("cy");
    cy.join(&pair.ada.invite("cy")).ok();
    pair.relay.stop().ok();
    pair.relay.command(&["rotate-key"]).ok();
    pair.relay.serve();
    pair.ada.run(&["inbox"]).fails(4, "its key is not the one");
}

#[test]
fn the_service_manager_hears_of_the_start_and_of_the_end() {
    let mut pair = Pair::new();
    pair.relay.stop().ok();
    let path = pair.root().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    pair.relay.set("NOTIFY_SOCKET", text(&path));
    pair.relay.serve();
    let heard = || {
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(heard(), "READY=1\n");
    pair.relay.stop().ok();
    assert_eq!(heard(), "STOPPING=1\n");
}

// attacks.md 59: neither log nor metrics hold a signature, a link, an id of a bundle or a mailbox; and a flood of what
// nobody signed makes no lines (48).
#[test]
fn attack_48_59_log_and_metrics_hold_no_secrets() {
    let mut pair = Pair::new();
    let socket = pair.root().join("operations");
    pair.relay.stop().ok();
    pair.relay.set("POUCH_RELAY_OPERATIONS", &format!("unix:{}", socket.display()));
    pair.relay.serve();
    let link = pair.ada.invite("cy");
    let file = pair.ada.file("CANARY-name", noise("content", 100_000));
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.receive(&id);
    pair.ada.run(&["outbox", &id]).ok();
    let mailbox = pair.ada.run(&["relay", "accounts", "-q"]).ok().text();
    let metrics = ask(&socket, "/metrics");
    assert!(ask(&socket, "/ready").starts_with("HTTP/1.1 200 "));
    pair.relay.stop().ok();
    let log = pair.relay.log();
    // One line for each request of somebody with an account.
    let line = log.lines().find(|line| line.contains("/v1/inbox/{bundle}/release")).unwrap();
    for part in ["INFO", "answered", "id=", "method=\"POST\"", "status=200", "milliseconds=", "received=", "sent="] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(metrics.contains("route=\"/v1/inbox/{bundle}/release\",status=\"2xx\"} 1\n"), "{metrics}");
    let secret = |link: &str| link.split('#').nth(1).unwrap().to_owned();
    let mut needles = vec![secret(&link), secret(pair.relay.owner_link()), id, "CANARY".to_owned()];
    needles.extend(mailbox.lines().map(str::to_owned));
    needles.extend(["pouch=:", "signature-input", "Signature-Input", "keyid", "age-encryption.org"].map(str::to_owned));
    assert!(needles.iter().all(|needle| needle.len() > 4));
    for needle in needles {
        assert!(!log.contains(&needle), "{needle} is in the log");
        assert!(!metrics.contains(&needle), "{needle} is in the metrics");
    }
}

// What failed at the relay has a name that its user reads and its operator finds.
#[test]
fn a_failure_of_the_relay_is_found_in_its_log() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    for blob in pair.relay.blobs() {
        std::fs::remove_file(blob).unwrap();
    }
    let ran = pair.bo.run(&["receive", &id, "-o", text(&pair.bo.fresh())]).fails(7, "the relay failed");
    let name = ran.err.split("request ").nth(1).unwrap().split(' ').next().unwrap();
    let log = pair.relay.log();
    let line = log.lines().find(|line| line.contains(name)).unwrap();
    assert!(line.contains("ERROR") && line.contains("a stored blob is missing"), "{line}");
}
