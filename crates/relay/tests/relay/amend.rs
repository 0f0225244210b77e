//! What a sender changes about a bundle that is delivered: its end, its envelopes, its recipients.

use pouch_protocol::limits::MAX_RECIPIENTS;
use pouch_protocol::{AccessPage, BundleStatus, Extension, Inbox, NewBundle, ProblemKind, route};
use pouch_relay::Clock as _;
use pouch_statement::{BundleId, Outcome};

use crate::harness::cast::receipt;
use crate::harness::{Draft, Person, World, sealed};

fn envelope(bundle: BundleId, to: &Person, filler: u8) -> Draft {
    Draft::put(route::envelope(bundle, to.mailbox), sealed(filler, 200))
}

#[tokio::test]
async fn an_end_is_moved_within_the_relays_limit() {
    let mut world = World::with(|config| config.lifetime_seconds = 10_000, None).await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let bundle = BundleId::random().unwrap();
    let new = NewBundle { bundle, expires: world.clock.now().plus(5000), burn: false, recipients: vec![bo.mailbox] };
    world.by(&ada, Draft::post(route::BUNDLES, &new)).await.is_done();
    let extend =
        |seconds: u64| Draft::post(route::extend(bundle), &Extension { expires: world.clock.now().plus(seconds) });
    assert_eq!(world.by(&ada, extend(9000)).await.problem(), ProblemKind::Conflict);
    let commit = world.fill(&ada, bundle, &[sealed(1, 100)], &[&bo]).await;
    world.by(&ada, Draft::post(route::commit(bundle), &commit)).await.is_done();
    world.clock.forward(4000);
    assert_eq!(world.by(&ada, extend(10_002)).await.problem(), ProblemKind::BadRequest);
    assert_eq!(world.by(&bo, extend(9000)).await.problem(), ProblemKind::NotFound);
    world.by(&ada, extend(9000)).await.is_done();
    // The same commit again is still the same.
    world.by(&ada, Draft::post(route::commit(bundle), &commit)).await.is_done();
    world.clock.forward(8000);
    world.restart().await;
    assert_eq!(world.by(&bo, Draft::new("POST", route::release(bundle))).await.status, 200);
    let extend =
        |seconds: u64| Draft::post(route::extend(bundle), &Extension { expires: world.clock.now().plus(seconds) });
    world.by(&ada, extend(50)).await.is_done();
    let inbox: Inbox = world.by(&bo, Draft::get(route::INBOX)).await.json();
    assert_eq!(inbox.items[0].expires, world.clock.now().plus(50));
    world.clock.forward(51);
    assert_eq!(world.by(&bo, Draft::get(route::part(bundle, 0))).await.problem(), ProblemKind::Gone);
    assert_eq!(world.by(&ada, extend(50)).await.problem(), ProblemKind::Gone);
    world.stop().await;
}

#[tokio::test]
async fn envelopes_are_replaced_until_the_receipt_is_final() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.member(&ada, "Cy").await);
    let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&bo], false).await;
    let release = |who| world.by(who, Draft::new("POST", route::release(bundle)));
    let first = release(&bo).await.body;
    let old = envelope(bundle, &bo, 2).signed(&world, &ada);
    world.send(old.clone()).await.is_done();
    // Signed again it is the same, without effect.
    world.by(&ada, envelope(bundle, &bo, 2)).await.is_done();
    assert_ne!(release(&bo).await.body, first);
    world.by(&ada, envelope(bundle, &bo, 3)).await.is_done();
    // attacks.md 43: it does not bring back what was replaced since.
    assert_eq!(world.send(old).await.problem(), ProblemKind::Replay);
    assert_eq!(release(&bo).await.body, sealed(3, 200));
    let status: BundleStatus = world.by(&ada, Draft::get(route::bundle(bundle))).await.json();
    assert_eq!(status.deliveries.iter().map(|d| d.revision).collect::<Vec<_>>(), [3]);
    // Parts and index stay as they were committed.
    assert_eq!(world.by(&ada, Draft::part(bundle, 0, &sealed(2, 100))).await.problem(), ProblemKind::Conflict);
    let index = Draft::put(route::index(bundle), sealed(2, 100));
    assert_eq!(world.by(&ada, index).await.problem(), ProblemKind::Conflict);
    // attacks.md 40: nobody but the sender, and it is the same nothing for all others.
    for who in [&bo, &cy] {
        assert_eq!(world.by(who, envelope(bundle, who, 9)).await.problem(), ProblemKind::NotFound);
    }
    for outcome in [Outcome::Failed, Outcome::Verified] {
        world.by(&ada, envelope(bundle, &bo, outcome as u8 + 10)).await.is_done();
        // It waits for Bo, also after a receipt that says failed.
        let inbox: Inbox = world.by(&bo, Draft::get(route::INBOX)).await.json();
        assert_eq!(inbox.items.iter().map(|item| item.bundle).collect::<Vec<_>>(), [bundle]);
        world.by(&bo, Draft::post(route::receipt(bundle), &receipt(outcome, b'r', 300))).await.is_done();
    }
    assert_eq!(world.by(&ada, envelope(bundle, &bo, 4)).await.problem(), ProblemKind::Conflict);
    let record: AccessPage = world.by(&ada, Draft::get(route::ACCESS)).await.json();
    let puts = record.records.iter().filter(|r| r.route == route::ENVELOPE && r.bundle == Some(bundle));
    assert_eq!(puts.filter(|r| r.account == Some(ada.mailbox)).count(), 8);
    world.stop().await;
}

#[tokio::test]
async fn a_recipient_is_added_and_told_at_once() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.contractor(&ada, "Cy").await);
    let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&bo], false).await;
    assert_eq!(world.by(&cy, Draft::get(route::part(bundle, 0))).await.problem(), ProblemKind::NotFound);
    // Cy waits for whatever comes.
    let (told, added) = tokio::join!(world.by(&cy, Draft::get(route::INBOX).query("wait=50")), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        world.by(&ada, envelope(bundle, &cy, 7)).await
    });
    added.is_done();
    let told: Inbox = told.json();
    assert_eq!(told.items.iter().map(|item| item.bundle).collect::<Vec<_>>(), [bundle]);
    assert_eq!(world.by(&cy, Draft::get(route::part(bundle, 0))).await.status, 200);
    // A contractor adds nobody to whom it may not send.
    let from_cy = world.deliver(&cy, &[sealed(1, 100)], &[&ada], false).await;
    assert_eq!(world.by(&cy, envelope(from_cy, &bo, 1)).await.problem(), ProblemKind::Forbidden);
    assert_eq!(world.by(&ada, envelope(bundle, &Person::new("Dee"), 1)).await.problem(), ProblemKind::NotFound);
    world.stop().await;
}

// attacks.md 48: as many recipients after the commit as before.
#[tokio::test]
async fn recipients_are_bounded_also_after_the_commit() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&ada], false).await;
    for n in 1..=MAX_RECIPIENTS {
        let next = world.contractor(&ada, "Cy").await;
        let put = world.by(&ada, envelope(bundle, &next, 1)).await;
        match n {
            MAX_RECIPIENTS => assert_eq!(put.problem(), ProblemKind::Conflict),
            _ => put.is_done(),
        }
    }
    world.stop().await;
}
