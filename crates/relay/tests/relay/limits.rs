//! Quota, room and counts, also when many ask at once.

use pouch_protocol::{Account, NewBundle, ProblemKind, route};
use pouch_relay::Clock as _;
use pouch_statement::BundleId;

use crate::harness::{Draft, World, sealed};

// attacks.md 44: many small parts, all at once, cannot overdraw.
#[tokio::test]
async fn attack_44_a_quota_holds_against_parallel_parts() {
    let mut world = World::with(|config| config.account_bytes = 10_000, None).await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let drafts: Vec<_> = (0..24).map(|n| Draft::part(bundle, n, &sealed(n as u8, 1000))).collect();
    let replies = futures_util::future::join_all(drafts.into_iter().map(|draft| world.by(&ada, draft))).await;
    let stored = replies.iter().filter(|reply| reply.status == 204).count();
    let refused = replies.iter().filter(|r| r.status != 204 && r.problem() == ProblemKind::Quota).count();
    assert_eq!((stored, refused), (10, 14));
    let account: Account = world.by(&ada, Draft::get(route::ACCOUNT)).await.json();
    assert_eq!((account.used, account.quota), (10_000, 10_000));
    world.wait_for_blobs(10).await;
    // Envelopes and the index count as well; what is deleted makes room.
    let envelope = Draft::put(route::envelope(bundle, ada.mailbox), sealed(1, 100));
    assert_eq!(world.by(&ada, envelope).await.problem(), ProblemKind::Quota);
    let index = Draft::put(route::index(bundle), sealed(1, 100));
    assert_eq!(world.by(&ada, index).await.problem(), ProblemKind::Quota);
    world.by(&ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
    let next = world.begin(&ada, false).await;
    world.by(&ada, Draft::part(next, 0, &sealed(1, 10_000))).await.is_done();
    world.stop().await;
}

#[tokio::test]
async fn the_relays_room_and_the_number_of_bundles_are_bounded() {
    let change = |config: &mut pouch_relay::Config| {
        (config.total_bytes, config.account_bundles, config.lifetime_seconds) = (1000, 2, 864_000);
    };
    let mut world = World::with(change, None).await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let (mine, theirs) = (world.begin(&ada, false).await, world.begin(&bo, false).await);
    world.by(&ada, Draft::part(mine, 0, &sealed(1, 600))).await.is_done();
    assert_eq!(world.by(&bo, Draft::part(theirs, 0, &sealed(1, 500))).await.problem(), ProblemKind::Quota);
    world.by(&bo, Draft::part(theirs, 0, &sealed(1, 400))).await.is_done();
    world.begin(&ada, false).await;
    let new = |seconds| NewBundle {
        bundle: BundleId::random().unwrap(),
        expires: world.clock.now().plus(seconds),
        burn: false,
    };
    let third = world.by(&ada, Draft::post(route::BUNDLES, &new(500))).await;
    assert_eq!(third.problem(), ProblemKind::Quota);
    for seconds in [0, 864_100] {
        let wrong = world.by(&bo, Draft::post(route::BUNDLES, &new(seconds))).await;
        assert_eq!(wrong.problem(), ProblemKind::BadRequest);
    }
    world.stop().await;
}
