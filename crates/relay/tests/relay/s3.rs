//! A relay with its blobs in a bucket, where `POUCH_CEPH` names a Ceph.

use bytes::Bytes;
use pouch_protocol::{Account, ProblemKind, route};
use pouch_relay::Config;
use pouch_services::Ceph;
use pouch_statement::BundleId;

use crate::harness::{Draft, World, sealed};

async fn world(ceph: &Ceph, keys: &tempfile::TempDir) -> World {
    let line = ceph.config(&BundleId::random().unwrap().to_string(), &keys.path().join("key"));
    World::with(|config| config.blobs = Config::parse(&line).unwrap().blobs, None).await
}

// The service gone and back under a relay that runs: a clear no that says when to come again, nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_stopped_and_back_is_said_and_loses_nothing() {
    let Some(ceph) = Ceph::fragile() else { return };
    let keys = tempfile::tempdir().unwrap();
    let mut world = world(&ceph, &keys).await;
    let ada = world.owner("Ada").await;
    let parts: Vec<Bytes> = [3000, 100_000, (17 << 20) + 1].map(|n| sealed(n as u8, n)).to_vec();
    let kept = world.deliver(&ada, &parts, &[&ada], false).await;
    let open = world.begin(&ada, false).await;
    world.by(&ada, Draft::part(open, 0, &parts[0])).await.is_done();
    let used = world.by(&ada, Draft::get(route::ACCOUNT)).await.json::<Account>().used;
    let outage = ceph.outage();
    for draft in [
        Draft::part(open, 1, &parts[1]),
        Draft::part(open, 2, &parts[2]),
        Draft::part(open, 0, &parts[1]),
        Draft::get(route::part(kept, 0)),
    ] {
        let reply = world.by(&ada, draft).await;
        assert_eq!((reply.status, reply.problem()), (503, ProblemKind::Unavailable), "{reply:?}");
        assert_eq!(reply.headers.get("retry-after").unwrap(), "5");
        assert!(!String::from_utf8_lossy(&reply.body).contains("127.0.0.1"), "where it is, is nobody's business");
    }
    // What needs no blob goes on; nothing is charged for what was not stored.
    assert_eq!(world.by(&ada, Draft::get(route::ACCOUNT)).await.json::<Account>().used, used);
    drop(outage);
    for (number, part) in parts.iter().enumerate() {
        assert!(world.by(&ada, Draft::get(route::part(kept, number as u32))).await.body == *part, "{number}");
    }
    assert!(world.by(&ada, Draft::get(route::part(open, 0))).await.body == parts[0]);
    world.by(&ada, Draft::part(open, 1, &parts[1])).await.is_done();
    // Ranges, from the store's own.
    let range = Draft::get(route::part(kept, 2)).field("range", "bytes=16777210-16777220");
    let reply = world.by(&ada, range).await;
    assert_eq!(reply.status, 206);
    assert!(reply.body == parts[2][16_777_210..=16_777_220]);
    // It starts with the bucket as it is, and deletes from it.
    world.restart().await;
    world.by(&ada, Draft::new("DELETE", route::bundle(kept))).await.is_done();
    assert_eq!(world.by(&ada, Draft::get(route::part(kept, 0))).await.problem(), ProblemKind::Gone);
    assert!(world.by(&ada, Draft::get(route::part(open, 1))).await.body == parts[1]);
    world.stop().await;
}
