//! attacks.md 62: two processes on one state, at the worst moment.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use pouch_client::send::send;
use pouch_client::{Unwatched, outbox};
use pouch_tests::{Holding, Pair, request, text};

#[test]
fn attack_62_looking_at_a_bundle_does_not_harm_it_while_it_is_committed() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let (party, identity) = pair.ada.client();
    let holding = Holding::new(&party, ("POST", "/commit"), 0);
    let party = party.with_transport(holding.clone());
    let request = request(&file);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let sent = runtime.block_on(async {
        let api = party.api().unwrap();
        let sending = send(&party, &api, &identity, request, Arc::new(Unwatched));
        let looking = async {
            holding.held.notified().await;
            let id = holding.bundle.lock().unwrap().clone();
            // The relay knows of no commit, and another process asks what became of the bundle.
            let looking = pair.ada.pouch(["outbox", &id]).start();
            tokio::time::sleep(Duration::from_secs(1)).await;
            holding.go.notify_one();
            looking
        };
        let both = async { tokio::join!(sending, looking) };
        let (sent, looking) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        looking.end().ok().says("has not fetched it");
        sent.unwrap().sent
    });
    let into = pair.bo.receive(&sent.bundle.to_string());
    assert_eq!(std::fs::read(into.join("f")).unwrap(), b"f");
    let events = pair.ada.events();
    assert_eq!(events.iter().filter(|e| e["action"] == "sent" || e["action"] == "settled").count(), 1, "{events:#?}");
    pair.ada.run(&["outbox", &sent.bundle.to_string()]).ok().says("received and verified");
}

#[test]
fn attack_62_a_receipt_that_comes_while_its_bundle_is_withdrawn_is_kept() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.receive(&id);
    let (party, _) = pair.ada.client();
    let holding = Holding::new(&party, ("DELETE", ""), 0);
    let party = party.with_transport(holding.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let api = party.api().unwrap();
        let mut sent = outbox::find(&party, &id).unwrap();
        assert!(sent.recipients[0].receipt.is_none());
        let revoking = outbox::revoke(&party, &api, &mut sent);
        let looking = async {
            holding.held.notified().await;
            pair.ada.run(&["outbox", &id]).ok().says("received and verified");
            holding.go.notify_one();
        };
        let both = async { tokio::join!(revoking, looking) };
        tokio::time::timeout(Duration::from_secs(60), both).await.unwrap().0.unwrap();
        // Whoever withdrew it sees what the other process found.
        assert!(sent.recipients[0].receipt.is_some());
    });
    // From this machine's own records: what is withdrawn is not asked about.
    let shown = pair.ada.run(&["outbox", "--json"]).ok().object("bundle");
    assert_eq!(shown["progress"], "revoked");
    assert_eq!(shown["recipients"][0]["outcome"], "verified", "{shown}");
}
