//! A relay whose blobs lie in a bucket: the same exchange, with nothing of it on the relay's disk. Where `POUCH_CEPH` names
//! a Ceph.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use pouch_statement::BundleId;
use pouch_tests::{Ceph, Pair, noise, text};

#[test]
fn an_exchange_through_a_bucket() {
    let Some(ceph) = Ceph::shared() else { return };
    let keys = tempfile::tempdir().unwrap();
    let line = ceph.config(&BundleId::random().unwrap().to_string(), &keys.path().join("key"));
    let mut pair = Pair::configured(&line);
    // Parts of one request and of several.
    let content = noise("content", 60 << 20);
    let (file, small) = (pair.ada.file("file", &content), pair.ada.file("small", b"small"));
    let sent = [&file, &small].map(|file| pair.ada.send(&[text(file), "--to", "bo"]));
    // Another process, with nothing but bucket and ledger.
    pair.relay.stop().ok();
    pair.relay.serve();
    for (id, (name, bytes)) in sent.iter().zip([("file", &content[..]), ("small", b"small")]) {
        assert!(std::fs::read(pair.bo.receive(id).join(name)).unwrap() == bytes, "{name}");
    }
    assert!(!pair.relay.data().join("blobs").exists());
    // The secret is in no log.
    assert!(!pair.relay.log().contains(&ceph.secret));
}

#[test]
fn a_bucket_that_cannot_be_used_keeps_a_relay_from_serving() {
    let Some(ceph) = Ceph::shared() else { return };
    let keys = tempfile::tempdir().unwrap();
    let line = ceph.config("x", &keys.path().join("key"));
    let mut pair = Pair::new();
    pair.relay.stop().ok();
    let file = pair.relay.data().join("relay.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let serve = |line: &str| {
        std::fs::write(&file, format!("{line}\n{config}")).unwrap();
        pair.ada.run(&["relay", "serve", "--data", text(&pair.relay.data())])
    };
    serve(&line.replace("bucket = \"pouch\"", "bucket = \"nowhere\""))
        .fails(9, "the bucket nowhere")
        .says("NoSuchBucket");
    serve(&line.replace("http:", "https:")).fails(9, "cannot be used: put failed");
    serve(&line.replace("127.0.0.1", "10.0.0.1")).fails(9, "without TLS");
    std::fs::write(keys.path().join("key"), "").unwrap();
    serve(&line).fails(9, "no credentials for S3");
}
