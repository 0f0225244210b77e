//! A relay with its blobs in a bucket, where `POUCH_CEPH` names a Ceph.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pouch_protocol::{Account, ProblemKind, route};
use pouch_relay::{BlobConfig, Config};
use pouch_services::Ceph;
use pouch_statement::BundleId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Draft, Person, World, sealed};

async fn world(ceph: &Ceph, keys: &tempfile::TempDir, memory: Option<u64>) -> World {
    let line = ceph.config(&BundleId::random().unwrap().to_string(), &keys.path().join("key"));
    let change = |config: &mut Config| {
        config.blobs = Config::parse(&line).unwrap().blobs;
        if let (Some(bytes), BlobConfig::S3(s3)) = (memory, &mut config.blobs) {
            s3.memory_bytes = bytes;
        }
    };
    World::with(change, None).await
}

/// Sends a part at 20 KiB a second, which is enough for what each body must bring, and what the relay says in the end.
async fn trickle(world: &World, person: &Person, bundle: BundleId, number: u32, part: &Bytes) -> String {
    let draft = Draft::part(bundle, number, part).signed(world, person);
    let mut head = format!("PUT {} HTTP/1.1\r\nHost: {}\r\n", draft.path, world.config.origin.authority());
    for (name, value) in &draft.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", part.len()));
    let (mut read, mut write) = tokio::io::split(world.tls().await);
    write.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let sending = async {
        for piece in part.chunks(10 << 10) {
            if write.write_all(piece).await.is_err() || write.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        std::future::pending().await
    };
    let length = tokio::select! {
        length = read.read(&mut answer) => length.unwrap(),
        () = sending => 0,
    };
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

// attacks.md 46: memory for uploads is full of those who only trickle, and more of them come. One account has half of it at
// most, and those who are too slow give way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_46_uploads_that_trickle_give_way_to_others() {
    let Some(ceph) = Ceph::shared() else { return };
    let keys = tempfile::tempdir().unwrap();
    let mut world = world(&ceph, &keys, Some(32 << 20)).await;
    let ada = world.owner("Ada").await;
    let (eve, bo) = (world.member(&ada, "Eve").await, world.member(&ada, "Bo").await);
    let part = sealed(1, 16 << 20);
    let (of_ada, of_eve, of_bo) =
        (world.begin(&ada, false).await, world.begin(&eve, false).await, world.begin(&bo, false).await);
    let slow = async {
        tokio::join!(
            trickle(&world, &eve, of_eve, 0, &part),
            trickle(&world, &eve, of_eve, 1, &part),
            trickle(&world, &eve, of_eve, 2, &part),
            trickle(&world, &eve, of_eve, 3, &part),
            trickle(&world, &ada, of_ada, 0, &part),
        )
    };
    let honest = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        // Both halves are taken, and three more of the same account wait: all before this one.
        world.by(&bo, Draft::part(of_bo, 0, &part)).await.is_done();
        assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
        world.by(&bo, Draft::get(route::part(of_bo, 0))).await.body == part
    };
    let mut slow = Box::pin(slow);
    tokio::select! {
        same = honest => assert!(same),
        answers = &mut slow => panic!("they all ended: {answers:?}"),
    }
    drop(slow);
    world.stop().await;
}

// The service gone and back under a relay that runs: a clear no that says when to come again, nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_stopped_and_back_is_said_and_loses_nothing() {
    let Some(ceph) = Ceph::fragile() else { return };
    let keys = tempfile::tempdir().unwrap();
    let mut world = world(&ceph, &keys, None).await;
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
    assert_eq!(world.ask("GET", "/ready").await, (503, "the blobs do not answer\n".to_owned()));
    // What needs no blob goes on; nothing is charged for what was not stored.
    world.wait_for_room(&ada, used).await;
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
