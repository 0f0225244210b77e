//! Quota, room and counts, also when many ask at once.

use pouch_protocol::limits::MAX_RECEIPT;
use pouch_protocol::{Account, BundleState, BundleStatus, NewBundle, ProblemKind, ReceiptMessage, route};
use pouch_relay::Clock as _;
use pouch_statement::{BundleId, Outcome};

use crate::harness::cast::receipt;
use crate::harness::{Draft, Person, World, sealed};

/// What `deliver` stores with one part of 1000 bytes for one recipient: part, which counts as 4096, index, envelope.
const SIZE: u64 = 3 * 4096;

async fn used(world: &World, person: &Person) -> u64 {
    world.by(person, Draft::get(route::ACCOUNT)).await.json::<Account>().used
}

// attacks.md 44: many small parts, all at once, cannot overdraw.
#[tokio::test]
async fn attack_44_a_quota_holds_against_parallel_parts() {
    let mut world = World::with(|config| config.account_bytes = 50_000, None).await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let drafts: Vec<_> = (0..24).map(|n| Draft::part(bundle, n, &sealed(n as u8, 5000))).collect();
    let replies = futures_util::future::join_all(drafts.into_iter().map(|draft| world.by(&ada, draft))).await;
    let stored = replies.iter().filter(|reply| reply.status == 204).count();
    let refused = replies.iter().filter(|r| r.status != 204 && r.problem() == ProblemKind::Quota).count();
    assert_eq!((stored, refused), (10, 14));
    let account: Account = world.by(&ada, Draft::get(route::ACCOUNT)).await.json();
    assert_eq!((account.used, account.quota), (50_000, 50_000));
    world.wait_for_blobs(10).await;
    // Envelopes and the index count as well; what is deleted makes room.
    let envelope = Draft::put(route::envelope(bundle, ada.mailbox), sealed(1, 100));
    assert_eq!(world.by(&ada, envelope).await.problem(), ProblemKind::Quota);
    let index = Draft::put(route::index(bundle), sealed(1, 100));
    assert_eq!(world.by(&ada, index).await.problem(), ProblemKind::Quota);
    world.by(&ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
    world.wait_for_room(&ada, 0).await;
    let next = world.begin(&ada, false).await;
    world.by(&ada, Draft::part(next, 0, &sealed(1, 10_000))).await.is_done();
    world.stop().await;
}

#[tokio::test]
async fn the_relays_room_and_the_number_of_bundles_are_bounded() {
    let change = |config: &mut pouch_relay::Config| {
        (config.total_bytes, config.account_bundles, config.lifetime_seconds) = (11_000, 2, 864_000);
    };
    let mut world = World::with(change, None).await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let (mine, theirs) = (world.begin(&ada, false).await, world.begin(&bo, false).await);
    world.by(&ada, Draft::part(mine, 0, &sealed(1, 6000))).await.is_done();
    assert_eq!(world.by(&bo, Draft::part(theirs, 0, &sealed(1, 5001))).await.problem(), ProblemKind::Quota);
    world.by(&bo, Draft::part(theirs, 0, &sealed(1, 5000))).await.is_done();
    world.begin(&ada, false).await;
    let new = |seconds| NewBundle {
        bundle: BundleId::random().unwrap(),
        expires: world.clock.now().plus(seconds),
        burn: false,
        recipients: vec![],
    };
    let third = world.by(&ada, Draft::post(route::BUNDLES, &new(500))).await;
    assert_eq!(third.problem(), ProblemKind::Quota);
    for seconds in [0, 864_100] {
        let wrong = world.by(&bo, Draft::post(route::BUNDLES, &new(seconds))).await;
        assert_eq!(wrong.problem(), ProblemKind::BadRequest);
    }
    world.stop().await;
}

// attacks.md 44, 48: what receipts leave in the ledger is charged, to who sent the bundle, before it can come.
#[tokio::test]
async fn attack_44_48_receipts_are_charged_to_the_sender_until_they_are_pruned() {
    let quota = 2 * (SIZE + MAX_RECEIPT) + 100;
    let mut world = World::with(|config| config.account_bytes = quota, None).await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let first = world.deliver(&ada, &[sealed(1, 1000)], &[&bo], false).await;
    let second = world.deliver(&ada, &[sealed(1, 1000)], &[&bo], false).await;
    assert_eq!((used(&world, &ada).await, used(&world, &bo).await), (2 * (SIZE + MAX_RECEIPT), 0));
    // With the room gone nothing more is taken from the sender, and every receipt still has its place.
    let third = world.begin(&ada, false).await;
    assert_eq!(world.by(&ada, Draft::part(third, 0, &sealed(1, 101))).await.problem(), ProblemKind::Quota);
    let put = async |bundle, receipt: &ReceiptMessage| {
        world.by(&bo, Draft::post(route::receipt(bundle), receipt)).await.is_done();
    };
    for bundle in [first, second] {
        assert_eq!(world.by(&bo, Draft::new("POST", route::release(bundle))).await.status, 200);
    }
    let longest = MAX_RECEIPT as usize;
    put(first, &receipt(Outcome::Failed, 9, longest)).await;
    put(first, &receipt(Outcome::Verified, 9, longest)).await;
    let short = receipt(Outcome::Verified, 9, 200);
    put(second, &short).await;
    assert_eq!(used(&world, &ada).await, 2 * SIZE + MAX_RECEIPT + 200);
    // The bundles go, the receipts stay and are charged.
    for bundle in [first, second] {
        world.by(&ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
    }
    world.wait_for_room(&ada, MAX_RECEIPT + 200).await;
    // Where nobody had the envelope no receipt can come; where somebody had it, one may.
    let unseen = world.deliver(&ada, &[sealed(1, 1000)], &[&bo], false).await;
    world.by(&ada, Draft::new("DELETE", route::bundle(unseen))).await.is_done();
    world.wait_for_room(&ada, MAX_RECEIPT + 200).await;
    let seen = world.deliver(&ada, &[sealed(1, 1000)], &[&bo], false).await;
    world.by(&bo, Draft::new("POST", route::release(seen))).await;
    world.by(&ada, Draft::new("DELETE", route::bundle(seen))).await.is_done();
    world.wait_for_room(&ada, 2 * MAX_RECEIPT + 200).await;
    put(seen, &short).await;
    world.wait_for_room(&ada, MAX_RECEIPT + 400).await;
    // A pending one that is forgotten gives all of its room back.
    world.by(&ada, Draft::put(route::envelope(third, bo.mailbox), sealed(1, 500))).await.is_done();
    world.by(&ada, Draft::new("DELETE", route::bundle(third))).await.is_done();
    world.wait_for_room(&ada, MAX_RECEIPT + 400).await;
    world.clock.forward(world.config.retention_seconds);
    world.restart().await;
    world.wait_for_room(&ada, 0).await;
    world.stop().await;
}

// attacks.md 44, 48: beginning and ending over and over leaves a bounded number of rows.
#[tokio::test]
async fn attack_44_48_ended_bundles_are_counted_until_they_are_pruned() {
    let mut world = World::with(|config| config.account_ended_bundles = 3, None).await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let open = world.deliver(&ada, &[sealed(1, 100)], &[&bo], false).await;
    // Nor does a pending one that is forgotten.
    let pending = world.begin(&ada, false).await;
    world.by(&ada, Draft::new("DELETE", route::bundle(pending))).await.is_done();
    let mut ended = Vec::new();
    for _ in 0..3 {
        let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&bo], false).await;
        world.by(&ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
        // The same again counts nothing more.
        world.by(&ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
        ended.push(bundle);
    }
    let new = NewBundle {
        bundle: BundleId::random().unwrap(),
        expires: world.clock.now().plus(100),
        burn: false,
        recipients: vec![],
    };
    let refused = world.by(&ada, Draft::post(route::BUNDLES, &new)).await;
    assert_eq!(refused.problem(), ProblemKind::Quota);
    let detail = serde_json::from_slice::<pouch_protocol::Problem>(&refused.body).unwrap().detail.unwrap();
    assert!(detail.contains("that ended"), "{detail}");
    // Others are not touched by it, and ending is never refused.
    world.begin(&bo, false).await;
    world.by(&ada, Draft::new("DELETE", route::bundle(open))).await.is_done();
    let status: BundleStatus = world.by(&ada, Draft::get(route::bundle(ended[0]))).await.json();
    assert_eq!(status.state, BundleState::Revoked);
    world.clock.forward(world.config.retention_seconds);
    world.restart().await;
    let new = NewBundle { expires: world.clock.now().plus(100), ..new };
    world.by(&ada, Draft::post(route::BUNDLES, &new)).await.is_done();
    world.stop().await;
}

// A full disk is answered before it hurts: what is reserved stays free for the ledger.
#[tokio::test]
async fn uploads_leave_the_reserve_free() {
    let mut world = World::with(|config| config.disk_reserve_bytes = 1 << 60, None).await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let part = sealed(1, 100_000);
    let reply = world.by(&ada, Draft::part(bundle, 0, &part)).await;
    assert_eq!((reply.status, reply.problem()), (507, ProblemKind::Quota));
    assert!(String::from_utf8_lossy(&reply.body).contains("disk is full"), "{reply:?}");
    world.wait_for_blobs(0).await;
    assert_eq!(used(&world, &ada).await, 0);
    world.config.disk_reserve_bytes = 0;
    world.restart().await;
    world.by(&ada, Draft::part(bundle, 0, &part)).await.is_done();
    world.stop().await;
}
