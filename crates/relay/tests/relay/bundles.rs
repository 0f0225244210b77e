//! A bundle's way: pending, committed, released, received, and each of its ends.

use std::time::Duration;

use pouch_protocol::limits::MAX_RECEIPT;
use pouch_protocol::{
    Account, BundleState, BundleStatus, Commit, DeliveryState, Inbox, InboxItem, NewBundle, Outbox, ProblemKind, route,
};
use pouch_relay::Clock as _;
use pouch_statement::{BundleId, Outcome, Sha256Digest};

use crate::harness::cast::{commit_for, receipt};
use crate::harness::{Draft, Person, World, sealed};

async fn state(world: &World, person: &Person, bundle: BundleId) -> BundleState {
    world.by(person, Draft::get(route::bundle(bundle))).await.json::<BundleStatus>().state
}

#[tokio::test]
async fn sent_released_fetched_received() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let parts = [sealed(1, 300_000), sealed(2, 5_000)];
    let bundle = world.begin(&ada, false).await;
    let commit = world.fill(&ada, bundle, &parts, &[&bo]).await;
    // Before the commit the recipient sees nothing.
    assert!(world.by(&bo, Draft::get(route::INBOX)).await.json::<Inbox>().items.is_empty());
    assert_eq!(world.by(&bo, Draft::get(route::delivery(bundle))).await.problem(), ProblemKind::NotFound);
    world.by(&ada, Draft::post(route::commit(bundle), &commit)).await.is_done();
    world.by(&ada, Draft::post(route::commit(bundle), &commit)).await.is_done();
    let other = Commit { parts: 1, ..commit };
    let again = world.by(&ada, Draft::post(route::commit(bundle), &other)).await;
    assert_eq!(again.problem(), ProblemKind::Conflict);

    let inbox: Inbox = world.by(&bo, Draft::get(route::INBOX)).await.json();
    let item: InboxItem = world.by(&bo, Draft::get(route::delivery(bundle))).await.json();
    assert_eq!(inbox.items, std::slice::from_ref(&item));
    assert_eq!((item.size, item.parts, item.sender, item.state), (305_000, 2, ada.mailbox, DeliveryState::Waiting));
    let early = world.by(&bo, Draft::post(route::receipt(bundle), &receipt(Outcome::Verified, 1, 300))).await;
    assert_eq!(early.problem(), ProblemKind::Conflict);
    for _ in 0..2 {
        let envelope = world.by(&bo, Draft::new("POST", route::release(bundle))).await;
        assert_eq!((envelope.status, envelope.body), (200, sealed(b'e', 4096)));
    }
    for (number, part) in parts.iter().enumerate() {
        assert_eq!(&world.by(&bo, Draft::get(route::part(bundle, number as u32))).await.body, part);
    }
    assert_eq!(world.by(&bo, Draft::get(route::index(bundle))).await.body, sealed(b'i', 4096));
    assert_eq!(world.by(&bo, Draft::get(route::part(bundle, 2))).await.problem(), ProblemKind::NotFound);

    // A failed one may be followed by another; a verified one is final, and the same again has no effect.
    let (failed, good) = (receipt(Outcome::Failed, 1, 300), receipt(Outcome::Verified, 2, 300));
    for message in [&failed, &good, &good] {
        world.by(&bo, Draft::post(route::receipt(bundle), message)).await.is_done();
    }
    let late = world.by(&bo, Draft::post(route::receipt(bundle), &failed)).await;
    assert_eq!(late.problem(), ProblemKind::Conflict);
    assert!(world.by(&bo, Draft::get(route::INBOX)).await.json::<Inbox>().items.is_empty());
    let outbox: Outbox = world.by(&ada, Draft::get(route::OUTBOX)).await.json();
    let status: BundleStatus = world.by(&ada, Draft::get(route::bundle(bundle))).await.json();
    assert_eq!(outbox.bundles, std::slice::from_ref(&status));
    assert_eq!((status.state, status.size), (BundleState::Committed, 305_000 + 8192));
    let delivery = &status.deliveries[0];
    assert_eq!((delivery.state, delivery.receipt.as_ref()), (DeliveryState::Received, Some(&good)));
    let account: Account = world.by(&ada, Draft::get(route::ACCOUNT)).await.json();
    // The receipt is charged as well, to the sender.
    assert_eq!((account.used, account.bundles), (status.size + 300, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_commit_with_anything_missing_or_different_is_refused_whole() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let (parts, index) = ([sealed(1, 100), sealed(2, 200)], sealed(b'i', 4096));
    let good = commit_for(&parts, &index, &[&ada, &bo]);
    let bundle = world.begin(&ada, false).await;
    let path = route::commit(bundle);
    let refused = async |world: &World, commit: &Commit| {
        let reply = world.by(&ada, Draft::post(&path, commit)).await;
        assert_eq!(reply.problem(), ProblemKind::Conflict);
    };
    refused(&world, &good).await;
    world.by(&ada, Draft::part(bundle, 1, &parts[1])).await.is_done();
    world.by(&ada, Draft::put(route::index(bundle), index.clone())).await.is_done();
    world.by(&ada, Draft::put(route::envelope(bundle, ada.mailbox), sealed(b'e', 99))).await.is_done();
    refused(&world, &good).await;
    world.by(&ada, Draft::part(bundle, 0, &sealed(9, 100))).await.is_done();
    refused(&world, &good).await;
    world.by(&ada, Draft::part(bundle, 0, &parts[0])).await.is_done();
    refused(&world, &good).await;
    world.by(&ada, Draft::put(route::envelope(bundle, bo.mailbox), sealed(b'e', 99))).await.is_done();
    let mut reversed = good.recipients.clone();
    reversed.reverse();
    let none = Sha256Digest::of(b"");
    for wrong in [
        Commit { parts: 1, ..good.clone() },
        Commit { parts: u32::MAX, ..good.clone() },
        Commit { parts_sha256: none, ..good.clone() },
        Commit { index_sha256: none, ..good.clone() },
        Commit { recipients: reversed, ..good.clone() },
        Commit { recipients: vec![ada.mailbox], ..good.clone() },
        Commit { recipients: vec![], ..good.clone() },
        Commit { recipients: good.recipients.iter().copied().chain([bo.mailbox]).collect(), ..good.clone() },
    ] {
        refused(&world, &wrong).await;
    }
    assert!(world.by(&bo, Draft::get(route::INBOX)).await.json::<Inbox>().items.is_empty());
    world.by(&ada, Draft::post(&path, &good)).await.is_done();
    assert_eq!(world.by(&bo, Draft::get(route::INBOX)).await.json::<Inbox>().items.len(), 1);
    // Somebody without an account here gets no envelope.
    let other = world.begin(&ada, false).await;
    let nobody = Draft::put(route::envelope(other, Person::new("Nobody").mailbox), sealed(b'e', 99));
    assert_eq!(world.by(&ada, nobody).await.problem(), ProblemKind::NotFound);
    world.stop().await;
}

// attacks.md 49: at the wrong place, or after the commit.
#[tokio::test]
async fn attack_49_parts_at_the_wrong_place_or_time_conflict() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let part = sealed(1, 100);
    let pending = world.begin(&ada, false).await;
    let wrong = Draft { path: route::part(pending, 1), ..Draft::part(pending, 0, &part) };
    assert_eq!(world.by(&ada, wrong).await.problem(), ProblemKind::Conflict);
    let bundle = world.deliver(&ada, std::slice::from_ref(&part), &[&ada], false).await;
    let index = Draft::put(route::index(bundle), sealed(b'j', 99));
    // Of all objects an envelope alone is replaced later (see `amend`).
    for draft in [Draft::part(bundle, 0, &sealed(2, 100)), Draft::part(bundle, 1, &part), index] {
        assert_eq!(world.by(&ada, draft).await.problem(), ProblemKind::Conflict);
    }
    assert_eq!(world.by(&ada, Draft::get(route::part(bundle, 0))).await.body, part);
    // The id is taken, for its owner with other values too.
    let new = NewBundle { bundle, expires: world.clock.now().plus(50), burn: true, recipients: vec![] };
    assert_eq!(world.by(&ada, Draft::post(route::BUNDLES, &new)).await.problem(), ProblemKind::Conflict);
    let bo = world.member(&ada, "Bo").await;
    assert_eq!(world.by(&bo, Draft::post(route::BUNDLES, &new)).await.problem(), ProblemKind::Conflict);
    world.stop().await;
}

// attacks.md 56: what is no age file, or not what was announced, is refused and leaves nothing.
#[tokio::test]
async fn attack_56_what_is_not_sealed_is_refused() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let plain = bytes::Bytes::from_static(b"-----BEGIN AGE ENCRYPTED FILE-----\n");
    for body in [plain.clone(), plain.slice(..3), bytes::Bytes::from_static(b"age-encryption.org/v2\n")] {
        for draft in [
            Draft::part(bundle, 0, &body),
            Draft::put(route::index(bundle), body.clone()),
            Draft::put(route::envelope(bundle, ada.mailbox), body.clone()),
        ] {
            assert_eq!(world.by(&ada, draft).await.problem(), ProblemKind::BadRequest);
        }
    }
    let good = sealed(1, 300_000);
    let other = Draft { body: sealed(2, 300_000), ..Draft::part(bundle, 0, &good) };
    assert_eq!(world.by(&ada, other).await.problem(), ProblemKind::Digest);
    let shorter = Draft { body: good.slice(..299_999), ..Draft::part(bundle, 0, &good) };
    assert_eq!(world.by(&ada, shorter).await.problem(), ProblemKind::Digest);
    let index = Draft { body: sealed(2, 99), ..Draft::put(route::index(bundle), sealed(1, 99)) };
    assert_eq!(world.by(&ada, index).await.problem(), ProblemKind::Digest);
    world.wait_for_blobs(0).await;
    world.wait_for_room(&ada, 0).await;
    world.stop().await;
}

#[tokio::test]
async fn ranges_of_an_object() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let part: bytes::Bytes = sealed(0, 22).iter().copied().chain((0..400_000u32).map(|n| n as u8)).collect();
    let bundle = world.deliver(&ada, std::slice::from_ref(&part), &[&ada], false).await;
    let get = Draft::get(route::part(bundle, 0));
    let whole = world.by(&ada, get.clone()).await;
    let etag = whole.header("etag").to_owned();
    assert_eq!((whole.header("accept-ranges"), whole.header("content-length")), ("bytes", "400022"));
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=100000-300000", 100_000, 300_000),
        ("bytes=400000-", 400_000, 400_021),
        ("bytes=-5", 400_017, 400_021),
    ] {
        let reply = world.by(&ada, get.clone().field("range", range).field("if-range", &etag)).await;
        assert_eq!((reply.status, &reply.body), (206, &part.slice(first..=last)), "{range}");
        assert_eq!(reply.header("content-range"), format!("bytes {first}-{last}/400022"));
    }
    let beyond = world.by(&ada, get.clone().field("range", "bytes=400022-")).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */400022"));
    assert_eq!(beyond.problem(), ProblemKind::BadRequest);
    for draft in [
        get.clone().field("range", "bytes=0-1").field("if-range", "\"another\""),
        get.clone().field("range", "bytes=0-1,5-6"),
        get.clone().field("range", "nonsense"),
    ] {
        let reply = world.by(&ada, draft).await;
        assert_eq!((reply.status, reply.body.len()), (200, part.len()));
    }
    // Whoever has it is told so, also where a range was asked for, and only who may see it.
    for draft in [get.clone(), get.clone().field("range", "bytes=0-1"), get.clone().field("range", "bytes=400022-")] {
        let same = world.by(&ada, draft.field("if-none-match", format!("\"other\", W/{etag}"))).await;
        assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, etag.as_str()));
        assert!(!same.headers.contains_key("content-range"));
    }
    let bo = world.member(&ada, "Bo").await;
    let foreign = world.by(&bo, get.clone().field("if-none-match", &etag)).await;
    assert_eq!(foreign.problem(), ProblemKind::NotFound);
    let other = world.by(&ada, get.clone().field("if-match", "\"other\"")).await;
    assert_eq!((other.status, other.problem()), (412, ProblemKind::BadRequest));
    assert_eq!(world.by(&ada, get.field("if-match", &etag)).await.body, part);
    world.stop().await;
}

#[tokio::test]
async fn expiry_counts_from_its_second_on_and_outlives_the_objects() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&bo], false).await;
    world.by(&bo, Draft::new("POST", route::release(bundle))).await;
    world.clock.forward(7 * 86_400);
    for (person, draft) in [
        (&bo, Draft::get(route::delivery(bundle))),
        (&bo, Draft::new("POST", route::release(bundle))),
        (&bo, Draft::get(route::part(bundle, 0))),
        (&ada, Draft::get(route::index(bundle))),
        (&ada, Draft::new("DELETE", route::bundle(bundle))),
    ] {
        assert_eq!(world.by(person, draft).await.problem(), ProblemKind::Gone);
    }
    assert_eq!(state(&world, &ada, bundle).await, BundleState::Expired);
    assert!(world.by(&bo, Draft::get(route::INBOX)).await.json::<Inbox>().items.is_empty());
    // Whoever had the envelope has done the work: the receipt counts.
    world.by(&bo, Draft::post(route::receipt(bundle), &receipt(Outcome::Verified, 1, 300))).await.is_done();
    world.restart().await;
    assert_eq!(world.blob_files().len(), 0);
    assert_eq!(state(&world, &ada, bundle).await, BundleState::Expired);
    world.wait_for_room(&ada, 300).await;
    let account: Account = world.by(&ada, Draft::get(route::ACCOUNT)).await.json();
    assert_eq!((account.used, account.bundles), (300, 0));
    // And after the retention time nothing is known of it.
    world.clock.forward(world.config.retention_seconds);
    world.restart().await;
    assert_eq!(world.by(&ada, Draft::get(route::bundle(bundle))).await.problem(), ProblemKind::NotFound);
    let account: Account = world.by(&ada, Draft::get(route::ACCOUNT)).await.json();
    assert_eq!((account.used, account.bundles), (0, 0));
    world.stop().await;
}

#[tokio::test]
async fn burnt_after_the_last_receipt_or_at_the_end_of_the_lease() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let read = world.deliver(&ada, &[sealed(1, 100)], &[&ada, &bo], true).await;
    let leased = world.deliver(&ada, &[sealed(1, 100)], &[&bo], true).await;
    for (person, bundle) in [(&ada, read), (&bo, read), (&bo, leased)] {
        assert_eq!(world.by(person, Draft::new("POST", route::release(bundle))).await.status, 200);
        // A GET never burns.
        world.by(person, Draft::get(route::part(bundle, 0))).await;
    }
    let put = |message| Draft::post(route::receipt(read), &message);
    world.by(&ada, put(receipt(Outcome::Verified, 1, 300))).await.is_done();
    world.by(&bo, put(receipt(Outcome::Failed, 1, 300))).await.is_done();
    assert_eq!(state(&world, &ada, read).await, BundleState::Committed);
    world.by(&bo, put(receipt(Outcome::Verified, 2, 300))).await.is_done();
    assert_eq!(state(&world, &ada, read).await, BundleState::Burnt);
    // The same receipt again, after an answer that was lost.
    world.by(&bo, put(receipt(Outcome::Verified, 2, 300))).await.is_done();
    assert_eq!(world.by(&bo, Draft::get(route::part(read, 0))).await.problem(), ProblemKind::Gone);
    world.wait_for_blobs(2).await;

    world.clock.forward(86_400 - 60);
    assert_eq!(state(&world, &ada, leased).await, BundleState::Committed);
    world.clock.forward(60);
    assert_eq!(world.by(&bo, Draft::new("POST", route::release(leased))).await.problem(), ProblemKind::Gone);
    assert_eq!(state(&world, &ada, leased).await, BundleState::Burnt);
    world.restart().await;
    assert_eq!(world.blob_files().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn revoked_tells_what_was_released_and_pending_is_forgotten() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.member(&ada, "Cy").await);
    let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&bo, &cy], false).await;
    world.by(&bo, Draft::new("POST", route::release(bundle))).await;
    world.by(&ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
    world.by(&ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
    let status: BundleStatus = world.by(&ada, Draft::get(route::bundle(bundle))).await.json();
    assert_eq!(status.state, BundleState::Revoked);
    for delivery in &status.deliveries {
        assert_eq!(delivery.released.is_some(), delivery.mailbox == bo.mailbox);
    }
    for person in [&bo, &cy] {
        assert_eq!(world.by(person, Draft::new("POST", route::release(bundle))).await.problem(), ProblemKind::Gone);
    }
    let pending = world.begin(&ada, false).await;
    world.fill(&ada, pending, &[sealed(1, 100)], &[&bo]).await;
    world.by(&ada, Draft::new("DELETE", route::bundle(pending))).await.is_done();
    assert_eq!(world.by(&ada, Draft::get(route::bundle(pending))).await.problem(), ProblemKind::NotFound);
    // One that nobody touched for a day goes by itself.
    let idle = world.begin(&ada, false).await;
    world.fill(&ada, idle, &[sealed(1, 100)], &[&bo]).await;
    world.clock.forward(86_400);
    world.restart().await;
    assert_eq!(world.by(&ada, Draft::get(route::bundle(idle))).await.problem(), ProblemKind::NotFound);
    assert_eq!(world.blob_files().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_replaced_part_leaves_nothing_behind() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    for filler in 0..4u8 {
        world.by(&ada, Draft::part(bundle, 0, &sealed(filler, 10_000 + usize::from(filler)))).await.is_done();
        let envelope = Draft::put(route::envelope(bundle, ada.mailbox), sealed(filler, 50 + usize::from(filler)));
        world.by(&ada, envelope).await.is_done();
    }
    world.wait_for_blobs(1).await;
    let status: BundleStatus = world.by(&ada, Draft::get(route::bundle(bundle))).await.json();
    assert_eq!((status.size, status.state), (10_003 + 53, BundleState::Pending));
    // One envelope, and so room for one receipt.
    world.wait_for_room(&ada, status.size + MAX_RECEIPT).await;
    world.stop().await;
}

// A commit and a put of the same part at the same moment: whoever is first, what is delivered is what was committed.
#[tokio::test]
async fn commit_is_atomic_beside_a_concurrent_put() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    for round in 0..6u8 {
        let bundle = world.begin(&ada, false).await;
        let part = sealed(1, 200_000);
        let commit = world.fill(&ada, bundle, std::slice::from_ref(&part), &[&ada]).await;
        let put = async {
            tokio::time::sleep(Duration::from_millis(u64::from(round))).await;
            world.by(&ada, Draft::part(bundle, 0, &sealed(2, 200_000))).await
        };
        let commit = Draft::post(route::commit(bundle), &commit);
        let (put, commit) = tokio::join!(put, world.by(&ada, commit));
        assert_ne!(put.status == 204, commit.status == 204, "{put:?} {commit:?}");
        let now = world.by(&ada, Draft::get(route::part(bundle, 0))).await.body;
        assert_eq!(now == part, commit.status == 204);
        world.by(&ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
    }
    world.wait_for_blobs(0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_bundle_that_is_taken_down_is_gone_with_the_reason() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.member(&ada, "Cy").await);
    let bundle = world.deliver(&bo, &[sealed(1, 5000)], &[&cy], false).await;
    let take_down = |reason: &str| Draft::post(route::takedown(bundle), &serde_json::json!({ "reason": reason }));
    for person in [&bo, &cy] {
        assert_eq!(world.by(person, take_down("x")).await.problem(), ProblemKind::Forbidden);
    }
    for reason in [String::new(), "two\nlines".to_owned(), "x".repeat(1025)] {
        assert_eq!(world.by(&ada, take_down(&reason)).await.problem(), ProblemKind::BadRequest, "{reason}");
    }
    assert_eq!(world.by(&cy, Draft::get(route::part(bundle, 0))).await.status, 200);
    world.by(&ada, take_down("a court's order")).await.is_done();
    world.by(&ada, take_down("a court's order")).await.is_done();
    let requests = [
        (&bo, Draft::get(route::part(bundle, 0))),
        (&bo, Draft::new("DELETE", route::bundle(bundle))),
        (&cy, Draft::get(route::index(bundle))),
        (&cy, Draft::get(route::delivery(bundle))),
        (&cy, Draft::new("POST", route::release(bundle))),
    ];
    for (person, draft) in requests {
        let reply = world.by(person, draft).await;
        assert_eq!(reply.problem(), ProblemKind::Gone);
        let problem: pouch_protocol::Problem = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(problem.detail.as_deref(), Some("taken down by the relay's owner: a court's order"));
    }
    // Of those whom it does not concern nobody hears of it, but the owner.
    assert_eq!(world.by(&ada, Draft::get(route::part(bundle, 0))).await.problem(), ProblemKind::NotFound);
    let status: pouch_protocol::BundleStatus = world.by(&bo, Draft::get(route::bundle(bundle))).await.json();
    assert_eq!(status.state, pouch_protocol::BundleState::TakenDown);
    assert_eq!(status.reason.unwrap().as_str(), "a court's order");
    // The sender finds it in the record, with who did it.
    let record: pouch_protocol::AccessPage = world.by(&bo, Draft::get(route::ACCESS)).await.json();
    let did =
        |r: &&pouch_protocol::Access| r.account == Some(ada.mailbox) && r.route == route::TAKEDOWN && r.status == 204;
    assert!(record.records.iter().filter(did).all(|r| r.bundle == Some(bundle)));
    assert_eq!(record.records.iter().filter(did).count(), 2);
    world.wait_for_blobs(0).await;
    world.stop().await;
}
