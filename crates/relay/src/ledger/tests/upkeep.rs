//! What the relay does by itself: it ends, prunes and checks.

use super::*;
use crate::ledger::check::Mended;
use crate::ledger::objects::LEASE_SECONDS;
use pouch_protocol::BundleState;

pub(super) async fn what_is_over_is_ended_and_pruned(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let bundle = world.deliver(ada, &[bo], false).await;
    let idle = world.begin(ada, false).await;
    world.put(ada, slot(idle, Some(0), 10)).await;
    assert_eq!(world.a().end_overdue(world.now).await.unwrap(), 0);
    // A day without a word: the pending one is forgotten.
    assert_eq!(world.b().end_overdue(world.now.plus(86_400)).await.unwrap(), 1);
    refused(world.a().bundle(ada.account, idle, world.now).await, ProblemKind::NotFound);
    let end = world.now.plus(7 * 86_400);
    assert_eq!(world.a().end_overdue(end).await.unwrap(), 1);
    let status = world.b().bundle(ada.account, bundle, end).await.unwrap();
    assert_eq!(status.state, BundleState::Expired);
    world.check_sums().await;
    world.forget_doomed(end).await;
    assert_eq!(world.used(ada).await, 0, "nobody had the envelope, so no receipt can come");
    world.check_sums().await;
    world.a().prune(3600, end.plus(3599)).await.unwrap();
    world.b().bundle(ada.account, bundle, end).await.unwrap();
    world.a().prune(3600, end.plus(3600)).await.unwrap();
    refused(world.b().bundle(ada.account, bundle, end).await, ProblemKind::NotFound);
}

pub(super) async fn an_upload_that_is_heard_of_outlives_the_sweeper(world: &World) {
    let (ada, _) = world.owner().await;
    let bundle = world.begin(ada, false).await;
    let (slow, dead) = (slot(bundle, Some(0), 10), slot(bundle, Some(1), 20));
    let (slow_name, dead_name) = (BlobName::random().unwrap(), BlobName::random().unwrap());
    world.a().begin_object(ada.account, &slow, slow_name, limits(), world.now).await.unwrap();
    world.a().begin_object(ada.account, &dead, dead_name, limits(), world.now).await.unwrap();
    let mut now = world.now;
    for _ in 0..5 {
        now = now.plus(LEASE_SECONDS - 1);
        assert!(world.a().keep_object(slow_name, now).await.unwrap());
        while world.b().give_up(now).await.unwrap() > 0 {}
    }
    assert!(!world.a().keep_object(dead_name, now).await.unwrap());
    // A later ledger, of which this one may be a backup, may have it stored.
    let keep = 1 << 20;
    assert!(world.b().claim_doomed(keep, now).await.unwrap().is_empty());
    assert_eq!(world.b().claim_doomed(keep, now.plus(keep)).await.unwrap(), [dead_name]);
    assert!(!world.a().is_pending(dead_name).await.unwrap() && world.a().is_pending(slow_name).await.unwrap());
    world.a().finish_object(ada.account, &slow, slow_name, now).await.unwrap();
    refused(world.a().finish_object(ada.account, &dead, dead_name, now).await, ProblemKind::Conflict);
    assert_eq!(world.used(ada).await, 2 * 4096, "a file that is kept takes room");
    world.a().forget_blobs(vec![dead_name]).await.unwrap();
    assert_eq!(world.used(ada).await, 4096);
    // One whose uploader itself says that it failed is stored in none.
    let (failed, name) = (slot(bundle, Some(2), 30), BlobName::random().unwrap());
    world.a().begin_object(ada.account, &failed, name, limits(), now).await.unwrap();
    world.a().abandon_object(name).await.unwrap();
    assert_eq!(world.b().claim_doomed(keep, now).await.unwrap(), [name]);
}

pub(super) async fn blobs_outlive_their_rows_for_as_long_as_backups_are_kept(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let bundle = world.deliver(ada, &[bo], false).await;
    world.a().delete_bundle(once(ada), bundle, world.now).await.unwrap();
    let keep = 3600;
    assert!(world.b().claim_doomed(keep, world.now.plus(keep - 1)).await.unwrap().is_empty());
    let now = world.now.plus(keep);
    let claimed = world.b().claim_doomed(keep, now).await.unwrap();
    assert_eq!(claimed.len(), 4);
    // They are that sweeper's, until it must have died.
    assert!(world.a().claim_doomed(keep, now.plus(60)).await.unwrap().is_empty());
    assert_eq!(world.a().claim_doomed(keep, now.plus(120)).await.unwrap().len(), 4);
    world.b().forget_blobs(claimed.clone()).await.unwrap();
    for name in claimed {
        assert!(!world.a().has_blob(name).await.unwrap());
    }
}

/// Spoils something that only code with a fault could.
async fn spoil(world: &World, sql: &'static str) {
    world.a().write((), move |conn, ()| Box::pin(async move { query(sql).execute(conn).await })).await.unwrap();
}

pub(super) async fn wrong_sums_are_found_and_repaired(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    world.deliver(ada, &[bo], false).await;
    let over = world.deliver(bo, &[ada], false).await;
    world.a().delete_bundle(once(bo), over, world.now).await.unwrap();
    let before = (world.used(ada).await, world.used(bo).await);
    for (sql, counters) in [
        ("UPDATE account SET used = used + 5, bundles = 7 WHERE role = 'owner'", vec!["used", "bundles", "used"]),
        ("UPDATE account SET ended = 0 WHERE role = 'member'", vec!["ended"]),
        ("UPDATE space SET used = 0", vec!["used"]),
        ("UPDATE bundle SET size = size + 1 WHERE ended IS NULL", vec!["size", "used"]),
    ] {
        spoil(world, sql).await;
        let wrong = world.wrong_sums().await;
        assert_eq!(wrong.iter().map(|sum| sum.counter).collect::<Vec<_>>(), counters, "{wrong:?}");
        world.repair_sums().await;
        world.check_sums().await;
        assert_eq!((world.used(ada).await, world.used(bo).await), before);
    }
}

pub(super) async fn a_lost_blob_is_mended(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let delivered = world.deliver(ada, &[bo], false).await;
    let pending = world.begin(ada, false).await;
    world.put(ada, slot(pending, Some(7), 77)).await;
    let objects = world.b().stored_objects(None).await.unwrap();
    let parts: Vec<_> = objects.iter().map(|object| (object.bundle, object.part, object.length)).collect();
    let expected =
        [None, Some(0), Some(1), Some(2)].map(|part| (delivered, part, if part.is_some() { 1000 } else { 500 }));
    assert_eq!(parts, [&expected[..], &[(pending, Some(7), 77)]].concat());
    assert!(world.b().stored_objects(objects.last()).await.unwrap().is_empty());
    assert_eq!(world.b().stored_objects(objects.get(1)).await.unwrap().len(), 3);
    // Delivered: it says what it is.
    assert!(world.b().is_stored(&objects[1]).await.unwrap());
    assert_eq!(world.b().mend(objects[1], world.now).await.unwrap(), Mended::Marked);
    refused(world.a().object(bo.account, delivered, Some(2), world.now).await, ProblemKind::Gone);
    refused(world.a().release(once(bo), delivered, world.now).await, ProblemKind::Gone);
    let marked: Vec<_> = world.b().stored_objects(None).await.unwrap().iter().map(|object| object.damaged).collect();
    assert_eq!(marked, [true, true, true, true, false]);
    world.b().unmark(delivered).await.unwrap();
    world.a().object(bo.account, delivered, Some(2), world.now).await.unwrap();
    // Pending: the sender puts it again.
    let used = world.used(ada).await;
    assert_eq!(world.b().mend(objects[4], world.now).await.unwrap(), Mended::Forgotten);
    refused(world.a().object(ada.account, pending, Some(7), world.now).await, ProblemKind::NotFound);
    world.forget_doomed(world.now).await;
    assert_eq!(world.used(ada).await, used - 4096);
    assert_eq!(world.b().mend(objects[4], world.now).await.unwrap(), Mended::Over);
    assert!(!world.b().is_stored(&objects[4]).await.unwrap());
    world.check_sums().await;
}

// attacks.md 44: a quota bounds the number of objects, too; and their room comes back.
pub(super) async fn attack_44_small_objects_cost_a_block(world: &World) {
    let (ada, _) = world.owner().await;
    let bundle = world.begin(ada, false).await;
    let few = Limits { account_bytes: 3 * 4096, ..limits() };
    let put = async |number, length| {
        let (slot, name) = (slot(bundle, Some(number), length), BlobName::random().unwrap());
        world.a().begin_object(ada.account, &slot, name, few, world.now).await?;
        world.b().finish_object(ada.account, &slot, name, world.now).await.map(|_| name)
    };
    put(0, 1).await.unwrap();
    put(1, 4095).await.unwrap();
    refused(put(2, 4097).await, ProblemKind::Quota);
    put(2, 4096).await.unwrap();
    refused(put(3, 1).await, ProblemKind::Quota);
    assert_eq!(world.used(ada).await, 3 * 4096);
    // Replaced by a longer one, and by a short one again.
    world.put(ada, slot(bundle, Some(0), 5000)).await;
    world.forget_doomed(world.now).await;
    assert_eq!(world.used(ada).await, 2 * 4096 + 5000);
    world.put(ada, slot(bundle, Some(0), 2)).await;
    world.forget_doomed(world.now).await;
    assert_eq!(world.used(ada).await, 3 * 4096);
    world.check_sums().await;
    // What the code of the release before stored was charged by its length, and is given back so.
    spoil(world, "UPDATE object SET charged = 0 WHERE number = 1").await;
    spoil(world, "UPDATE blob SET length = 4095 WHERE name = (SELECT blob FROM object WHERE number = 1)").await;
    spoil(world, "UPDATE bundle SET size = size - 1").await;
    spoil(world, "UPDATE account SET used = used - 1").await;
    spoil(world, "UPDATE space SET used = used - 1").await;
    world.check_sums().await;
    world.put(ada, slot(bundle, Some(1), 10)).await;
    world.forget_doomed(world.now).await;
    assert_eq!(world.used(ada).await, 3 * 4096);
    world.check_sums().await;
    world.a().delete_bundle(once(ada), bundle, world.now).await.unwrap();
    world.forget_doomed(world.now).await;
    assert_eq!(world.used(ada).await, 0);
}

pub(super) async fn blobs_of_no_object_are_found_and_doomed(world: &World) {
    let (ada, _) = world.owner().await;
    let bundle = world.begin(ada, false).await;
    let (kept, lost) =
        (world.put(ada, slot(bundle, Some(0), 10)).await, world.put(ada, slot(bundle, Some(1), 10)).await);
    assert!(world.b().unused_blobs(None).await.unwrap().0.is_empty());
    spoil(world, "DELETE FROM object WHERE number = 1").await;
    let (unused, end) = world.b().unused_blobs(None).await.unwrap();
    assert_eq!((unused.clone(), end), (vec![lost], Some(kept.max(lost))));
    assert_eq!(world.b().unused_blobs(end).await.unwrap(), (vec![], None));
    world.a().doom_unused(vec![kept, lost], world.now).await.unwrap();
    assert_eq!(world.b().claim_doomed(0, world.now).await.unwrap(), [lost]);
    world.repair_sums().await;
}
