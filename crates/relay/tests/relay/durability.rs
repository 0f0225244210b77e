//! Faults of the disk and ends at the wrong moment: what was acknowledged stays, nothing is half there.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pouch_protocol::{BundleStatus, ProblemKind, route};
use pouch_relay::DiskOp;
use pouch_statement::BundleId;

use crate::harness::{Draft, World, sealed};

/// Lets the named call fail once, when it is armed.
#[derive(Clone, Default)]
struct Fault(Arc<Mutex<Option<(DiskOp, i32)>>>);

impl Fault {
    fn arm(&self, op: DiskOp, errno: i32) {
        *self.0.lock().unwrap() = Some((op, errno));
    }

    fn hook(&self) -> pouch_relay::DiskHook {
        let armed = Arc::clone(&self.0);
        Arc::new(move |op: DiskOp, _: &Path| {
            let mut armed = armed.lock().unwrap();
            match *armed {
                Some((wanted, errno)) if wanted == op => {
                    *armed = None;
                    Err(io::Error::from_raw_os_error(errno))
                }
                _ => Ok(()),
            }
        })
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

// attacks.md 50: ENOSPC and EIO at every call of a put.
#[tokio::test]
async fn attack_50_a_failing_disk_leaves_nothing_and_is_said() {
    let fault = Fault::default();
    let mut world = World::with(|_| {}, Some(fault.hook())).await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let kept = sealed(9, 3000);
    world.by(&ada, Draft::part(bundle, 0, &kept)).await.is_done();
    for op in [DiskOp::Create, DiskOp::Write, DiskOp::SyncFile, DiskOp::Rename, DiskOp::SyncFolder] {
        for (errno, kind) in [(ENOSPC, ProblemKind::Quota), (EIO, ProblemKind::Internal)] {
            fault.arm(op, errno);
            for number in [0, 1] {
                let reply = world.by(&ada, Draft::part(bundle, number, &sealed(1, 3000))).await;
                assert_eq!(reply.problem(), kind, "{op:?} {errno}");
                fault.arm(op, errno);
            }
            *fault.0.lock().unwrap() = None;
            world.wait_for_blobs(1).await;
            assert_eq!(world.by(&ada, Draft::get(route::part(bundle, 0))).await.body, kept);
            assert_eq!(world.by(&ada, Draft::get(route::part(bundle, 1))).await.problem(), ProblemKind::NotFound);
            world.wait_for_room(&ada, 4096).await;
        }
    }
    // The fault over, it goes on.
    world.by(&ada, Draft::part(bundle, 1, &sealed(1, 3000))).await.is_done();
    world.stop().await;
}

/// Runs a relay on a runtime of its own, lets it die at a disk call, and returns the world without a relay.
fn die_at(op: DiskOp) -> (World, crate::harness::Person, BundleId) {
    let armed = Arc::new(AtomicBool::new(false));
    let (reached, at_call) = std::sync::mpsc::channel::<()>();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let watch = Arc::clone(&armed);
    let hook: pouch_relay::DiskHook = Arc::new(move |wanted, _| {
        if wanted == op && watch.load(Ordering::SeqCst) {
            let _ = reached.send(());
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(30));
            return Err(io::Error::other("the machine is off"));
        }
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (world, ada, bundle) = runtime.block_on(async {
        let mut world = World::with(|_| {}, Some(hook)).await;
        let ada = world.owner("Ada").await;
        let bundle = world.begin(&ada, false).await;
        world.by(&ada, Draft::part(bundle, 0, &sealed(1, 2000))).await.is_done();
        (world, ada, bundle)
    });
    armed.store(true, Ordering::SeqCst);
    let cut = Draft::part(bundle, 1, &sealed(2, 2000)).signed(&world, &ada);
    let world = Arc::new(world);
    let client = Arc::clone(&world);
    runtime.spawn(async move {
        let _ = client.try_send(cut).await;
    });
    at_call.recv_timeout(Duration::from_secs(20)).unwrap();
    // All tasks end where they stand; none gets to clean up.
    runtime.shutdown_background();
    std::thread::sleep(Duration::from_millis(100));
    drop(release);
    for _ in 0..100 {
        if Arc::strong_count(&world) == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let world = Arc::into_inner(world).unwrap();
    (world, ada, bundle)
}

// attacks.md 50: off at every call between the pending row and the ledger's commit; after the start nothing is half
// there, nothing acknowledged is lost, and the room is free again.
#[test]
fn attack_50_a_crash_between_blob_and_ledger() {
    for op in [DiskOp::Create, DiskOp::Write, DiskOp::SyncFile, DiskOp::Rename, DiskOp::SyncFolder] {
        let (mut world, ada, bundle) = die_at(op);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            world.forget_running();
            world.start().await;
            assert_eq!(world.blob_files().len(), 1, "{op:?}");
            assert_eq!(world.by(&ada, Draft::get(route::part(bundle, 0))).await.body, sealed(1, 2000));
            let cut = world.by(&ada, Draft::get(route::part(bundle, 1))).await;
            assert_eq!(cut.problem(), ProblemKind::NotFound, "{op:?}");
            world.wait_for_room(&ada, 4096).await;
            // It goes on where it was.
            world.by(&ada, Draft::part(bundle, 1, &sealed(2, 2000))).await.is_done();
            world.stop().await;
        });
    }
}

#[tokio::test]
async fn files_that_no_row_knows_are_collected_and_strangers_left_alone() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&ada], false).await;
    world.stop().await;
    let known: HashSet<_> = world.blob_files().into_iter().collect();
    let orphan = world.data().join("blobs/a/b/ab000000000000000000000000000000");
    let stranger = world.data().join("blobs/a/b/README");
    let staged = world.data().join("staging/ab000000000000000000000000000000");
    for path in [&orphan, &stranger, &staged] {
        std::fs::write(path, b"x").unwrap();
    }
    world.start().await;
    assert!(!staged.exists(), "what is half written goes before anything else comes");
    world.wait_for_blobs(known.len() + 1).await;
    let left: HashSet<_> = world.blob_files().into_iter().collect();
    assert_eq!(left, known.into_iter().chain([stranger]).collect());
    let status: BundleStatus = world.by(&ada, Draft::get(route::bundle(bundle))).await.json();
    assert_eq!(status.deliveries.len(), 1);
    world.stop().await;
}

// However many there are, and though some cannot be deleted: nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_searched_for_while_the_relay_serves() {
    let go_on = Arc::new(AtomicBool::new(false));
    let (may, stuck) = (Arc::clone(&go_on), "ab000000000000000000000000000001");
    let hook: pouch_relay::DiskHook = Arc::new(move |op, path: &Path| {
        let begun = std::time::Instant::now();
        let searched = op == DiskOp::List && path.components().any(|part| part.as_os_str() == "blobs");
        while searched && !may.load(Ordering::SeqCst) && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let fails = op == DiskOp::Remove && path.ends_with(stuck);
        if fails { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    });
    let left_behind = |config: &mut pouch_relay::Config| {
        for folder in ["blobs/a/b", "blobs/c/d"] {
            std::fs::create_dir_all(config.data.join(folder)).unwrap();
        }
        for n in 0..4 {
            std::fs::write(config.data.join(format!("blobs/a/b/ab00000000000000000000000000000{n}")), b"x").unwrap();
        }
        std::fs::write(config.data.join("blobs/c/d/cd000000000000000000000000000000"), b"x").unwrap();
    };
    let mut world = World::with(left_behind, Some(hook)).await;
    let ada = world.owner("Ada").await;
    let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&ada], false).await;
    assert_eq!(world.by(&ada, Draft::get(route::part(bundle, 0))).await.status, 200);
    assert_eq!(world.blob_files().len(), 5 + 2);
    go_on.store(true, Ordering::SeqCst);
    world.wait_for_blobs(1 + 2).await;
    assert!(world.data().join("blobs/a/b").join(stuck).exists());
    world.stop().await;
}

#[tokio::test]
async fn stopping_lets_a_request_finish() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let part = sealed(3, 20 << 20);
    let draft = Draft::part(bundle, 0, &part).signed(&world, &ada);
    let world_ref = &world;
    let put = async move { world_ref.send(draft).await };
    let wait = async {
        // The upload is in flight once its staging file is there.
        for _ in 0..500 {
            if !world_ref.blob_files().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let (put, stop) = (put, async {
        wait.await;
        world_ref.begin_stop();
    });
    let (reply, ()) = tokio::join!(put, stop);
    reply.is_done();
    world.stop().await;
    world.start().await;
    assert_eq!(world.by(&ada, Draft::get(route::part(bundle, 0))).await.body.len(), 20 << 20);
    world.stop().await;
}
