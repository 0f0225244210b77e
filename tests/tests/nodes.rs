//! Three nodes over one PostgreSQL and one bucket are one relay, behind a balancer that knows of no sessions. Where
//! `POUCH_CEPH` and `POUCH_POSTGRES` name a Ceph and a PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::time::Duration;

use pouch_statement::BundleId;
use pouch_tests::{Ceph, Cluster, LIMIT, Postgres, noise, text, until};
use tempfile::TempDir;

/// Three nodes, if there is what they need.
fn three(keys: &TempDir) -> Option<(Postgres, Cluster)> {
    let ceph = Ceph::shared()?;
    let postgres = Postgres::start(&[])?;
    postgres.create("relay");
    let blobs = ceph.config(&BundleId::random().unwrap().to_string(), &keys.path().join("key"));
    let cluster = Cluster::start(3, &postgres.url("relay"), &blobs);
    Some((postgres, cluster))
}

/// Does something while one node alone can answer.
fn alone(cluster: &mut Cluster, number: usize, work: impl FnOnce(&mut Cluster)) {
    let others = (0..cluster.nodes.len()).filter(|other| *other != number);
    others.clone().for_each(|other| drop(cluster.nodes[other].stop().ok()));
    work(cluster);
    others.for_each(|other| cluster.nodes[other].serve());
}

#[test]
fn three_nodes_are_one_relay() {
    let keys = tempfile::tempdir().unwrap();
    let Some((_postgres, mut cluster)) = three(&keys) else { return };
    // Parts to one node, the commit to another, the download from a third.
    let content = noise("content", 60 << 20);
    let file = cluster.ada.file("file", &content);
    let id = cluster.ada.send(&[text(&file), "--to", "bo"]);
    assert!(fs::read(cluster.bo.receive(&id).join("file")).unwrap() == content);
    let taken = cluster.balancer.taken();
    assert!(taken.iter().all(|count| *count > 1), "{taken:?}");
    cluster.ada.run(&["outbox", &id]).ok().says("verified");

    // Each in turn is stopped and started again, and the others go on.
    for number in 0..3 {
        cluster.nodes[number].stop().ok();
        let small = cluster.ada.file(&format!("small{number}"), noise("small", 10_000));
        let id = cluster.ada.send(&[text(&small), "--to", "bo"]);
        cluster.nodes[number].serve();
        // It has what came while it was away.
        alone(&mut cluster, number, |cluster| {
            assert!(cluster.bo.receive(&id).join(format!("small{number}")).is_file());
        });
    }

    // What one revokes, none of them hands out.
    let gone = cluster.ada.send(&[text(&file), "--to", "bo"]);
    cluster.ada.run(&["outbox", "revoke", &gone]).ok();
    for number in 0..3 {
        alone(&mut cluster, number, |cluster| {
            cluster.bo.run(&["receive", &gone]).ends(6);
        });
    }
    // Each looks after the whole.
    for node in &mut cluster.nodes {
        node.stop().ok();
    }
    let checked = cluster.nodes[0].check(&["--deep"]).ok().object("check");
    assert_eq!(checked["found"], 0, "{checked}");
}

#[test]
fn a_node_that_is_killed_under_load_loses_nothing() {
    let keys = tempfile::tempdir().unwrap();
    let Some((_postgres, mut cluster)) = three(&keys) else { return };
    let content = noise("content", 40 << 20);
    let file = cluster.ada.file("file", &content);
    let mut sent = Vec::new();
    for round in 0..3 {
        let before: usize = cluster.balancer.taken().iter().sum();
        let running = cluster.ada.pouch(["send", text(&file), "--to", "bo", "-q"]).start();
        until("the upload is under way", LIMIT, || {
            // Two parts at once at first.
            (cluster.balancer.taken().iter().sum::<usize>() > before + 1).then_some(())
        });
        std::thread::sleep(Duration::from_millis(100 * round));
        cluster.nodes[round as usize].kill();
        // A part that was on its way there is lost with it, and so may be the whole send; what is told as sent is there.
        let ran = running.end();
        if ran.code == 0 {
            sent.push(ran.word());
        }
        sent.push(cluster.ada.send(&[text(&file), "--to", "bo"]));
        cluster.nodes[round as usize].serve();
    }
    for id in &sent {
        assert!(fs::read(cluster.bo.receive(id).join("file")).unwrap() == content, "{id}");
    }
    for node in &mut cluster.nodes {
        node.stop().ok();
    }
    let checked = cluster.nodes[0].check(&["--deep"]).ok().object("check");
    assert_eq!(checked["found"], 0, "{checked}");
}
