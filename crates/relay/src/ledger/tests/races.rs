//! Many at once, on both nodes.

use std::collections::HashSet;

use futures_util::future::join_all;
use pouch_protocol::BundleState;
use pouch_statement::Outcome;

use super::*;
use crate::ledger::objects::LEASE_SECONDS;

/// Contenders for each node.
const MANY_AT_ONCE: usize = 12;

/// Runs `attempt` on both nodes many times at once, each as a task of its own.
async fn contend<T, F>(world: &World, attempt: impl Fn(Arc<Ledger>, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks = (0..2 * MANY_AT_ONCE).map(|n| tokio::spawn(attempt(Arc::clone(&world.nodes[n % 2]), n)));
    join_all(tasks.collect::<Vec<_>>()).await.into_iter().map(|outcome| outcome.unwrap()).collect()
}

/// Runs two at once, each as a task of its own.
async fn race<A: Send + 'static, B: Send + 'static>(
    a: impl Future<Output = A> + Send + 'static,
    b: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    let (a, b) = (tokio::spawn(a), tokio::spawn(b));
    (a.await.unwrap(), b.await.unwrap())
}

/// How many were granted; the others were refused with this.
#[track_caller]
fn granted<T>(outcomes: Vec<Result<T>>, with: &[ProblemKind]) -> usize {
    let count = |outcome: Result<T>| match outcome {
        Ok(_) => true,
        Err(LedgerError::Refused(kind, _)) if with.contains(&kind) => false,
        Err(other) => panic!("{other:?}"),
    };
    outcomes.into_iter().map(count).filter(|granted| *granted).count()
}

// attacks.md 44.
pub(super) async fn quota_is_not_overdrawn(world: &World) {
    let (ada, _) = world.owner().await;
    let (length, now) = (limits().account_bytes / 10, world.now);
    // Over several bundles, so that not the lock on one of them keeps order.
    let mut bundles = Vec::new();
    for _ in 0..8 {
        bundles.push(world.begin(ada, false).await);
    }
    let outcomes = contend(world, |node, n| {
        let slot = slot(bundles[n % 8], Some(n as u32), length);
        let name = BlobName::random().unwrap();
        async move { node.begin_object(ada.account, &slot, name, limits(), now).await }
    });
    assert_eq!(granted(outcomes.await, &[ProblemKind::Quota]), 10);
    assert_eq!(world.used(ada).await, 10 * length);
}

pub(super) async fn the_whole_relay_is_not_overdrawn(world: &World) {
    let (ada, joiner) = world.owner().await;
    let mut people = vec![(ada, world.begin(ada, false).await)];
    for name in ["Bo", "Cy", "Di"] {
        let person = world.member(ada, &joiner, name).await;
        people.push((person, world.begin(person, false).await));
    }
    let now = world.now;
    let tight = Limits { total_bytes: 50_000, ..limits() };
    let outcomes = contend(world, |node, n| {
        let (person, bundle) = people[n % people.len()];
        let (slot, name) = (slot(bundle, Some(n as u32), 5000), BlobName::random().unwrap());
        async move { node.begin_object(person.account, &slot, name, tight, now).await }
    });
    assert_eq!(granted(outcomes.await, &[ProblemKind::Quota]), 10);
}

// attacks.md 43.
pub(super) async fn a_nonce_is_spent_once(world: &World) {
    let (ada, _) = world.owner().await;
    let (spent, now) = (once(ada), world.now);
    let outcomes = contend(world, |node, _| async move {
        let new =
            NewBundle { bundle: BundleId::random().unwrap(), expires: now.plus(60), burn: false, recipients: vec![] };
        node.begin_bundle(spent, new, limits(), now).await
    });
    assert_eq!(granted(outcomes.await, &[ProblemKind::Replay]), 1);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM bundle").await, 1);
}

pub(super) async fn a_link_is_used_once(world: &World) {
    let (ada, joiner) = world.owner().await;
    let (link, secret) = world.link(&joiner);
    world.a().new_link(once(ada), link, joiner.card.clone(), world.now).await.unwrap();
    let now = world.now;
    let outcomes = contend(world, |node, n| {
        let joiner = world.invited(&format!("J{n}"), &secret);
        async move { node.join(joiner, now).await }
    });
    assert_eq!(granted(outcomes.await, &[ProblemKind::LinkSpent]), 1);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM account").await, 2);
}

pub(super) async fn an_object_is_finished_once(world: &World) {
    let (ada, _) = world.owner().await;
    let bundle = world.begin(ada, false).await;
    let (slot, name, now) = (slot(bundle, Some(0), 5000), BlobName::random().unwrap(), world.now);
    world.a().begin_object(ada.account, &slot, name, limits(), now).await.unwrap();
    let outcomes =
        contend(world, |node, _| async move { node.finish_object(ada.account, &slot, name, now).await }).await;
    assert_eq!(granted(outcomes, &[ProblemKind::Conflict]), 1);
    assert_eq!(world.used(ada).await, 5000);
    // Many blobs for one number: one stays, the others are doomed, and one is paid for.
    let outcomes = contend(world, |node, n| {
        let slot = Slot { length: 5000 + n as u64, digest: [n as u8; 32], ..slot };
        let name = BlobName::random().unwrap();
        async move {
            node.begin_object(ada.account, &slot, name, limits(), now).await?;
            node.finish_object(ada.account, &slot, name, now).await
        }
    });
    assert_eq!(granted(outcomes.await, &[]), 2 * MANY_AT_ONCE);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM blob WHERE state = 'doomed'").await, 2 * MANY_AT_ONCE as i64);
    let object = world.b().object(ada.account, bundle, Some(0), now).await.unwrap();
    world.forget_doomed(now).await;
    assert_eq!(world.used(ada).await, object.length);
}

pub(super) async fn commit_meets_revoke(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let now = world.now;
    for _ in 0..6 {
        let bundle = world.begin(ada, false).await;
        let commit = world.fill(ada, bundle, &[bo]).await;
        let (sha256, a, b) = (Sha256Digest::of(b"commit"), Arc::clone(&world.nodes[0]), Arc::clone(&world.nodes[1]));
        let commits = async move { a.commit(once(ada), bundle, commit, sha256, now).await };
        let deletes = async move { b.delete_bundle(once(ada), bundle, now).await };
        let (committed, deleted) = race(commits, deletes).await;
        deleted.unwrap();
        // Forgotten before the commit, or revoked after it: never a delivery of what is not there.
        let waiting = world.a().inbox(bo.account, 0, now).await.unwrap().items;
        assert!(waiting.is_empty(), "{committed:?}");
        match committed {
            Ok(()) => {
                let state = world.a().bundle(ada.account, bundle, now).await.unwrap().state;
                assert_eq!(state, BundleState::Revoked);
            }
            other => refused(other, ProblemKind::NotFound),
        }
        world.check_sums().await;
    }
}

/// Parts that replace others while the commit comes: what is committed is what the commit named.
pub(super) async fn commit_meets_parts(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let now = world.now;
    for _ in 0..6 {
        let bundle = world.begin(ada, false).await;
        let commit = world.fill(ada, bundle, &[bo]).await;
        let before = world.a().object(ada.account, bundle, Some(1), now).await.unwrap().digest;
        let (sha256, a, b) = (Sha256Digest::of(b"commit"), Arc::clone(&world.nodes[0]), Arc::clone(&world.nodes[1]));
        let (slot, name) = (slot(bundle, Some(1), 999), BlobName::random().unwrap());
        b.begin_object(ada.account, &slot, name, limits(), now).await.unwrap();
        let commits = async move { a.commit(once(ada), bundle, commit, sha256, now).await };
        let finishes = async move { b.finish_object(ada.account, &slot, name, now).await };
        let (committed, finished) = race(commits, finishes).await;
        let after = world.b().object(ada.account, bundle, Some(1), now).await.unwrap().digest;
        if committed.is_ok() {
            refused(finished, ProblemKind::Conflict);
            assert_eq!(after, before);
            world.a().abandon_object(name).await.unwrap();
        } else {
            refused(committed, ProblemKind::Conflict);
            finished.unwrap();
            assert_eq!(after, slot.digest);
        }
        world.check_sums().await;
    }
}

pub(super) async fn receipt_meets_revoke(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let now = world.now;
    for _ in 0..6 {
        let bundle = world.deliver(ada, &[bo], true).await;
        world.a().release(once(bo), bundle, now).await.unwrap();
        let outcomes = contend(world, |node, n| async move {
            if n % 3 == 0 {
                return node.delete_bundle(once(ada), bundle, now).await;
            }
            node.receive(once(bo), bundle, cases::receipt(Outcome::Verified), now).await.map(drop)
        });
        // Who comes second finds it over; nobody finds it half over.
        assert!(granted(outcomes.await, &[ProblemKind::Gone]) >= 2);
        let status = world.b().bundle(ada.account, bundle, now).await.unwrap();
        assert!(matches!(status.state, BundleState::Burnt | BundleState::Revoked));
        assert_eq!(status.deliveries[0].receipt.as_ref().map(|r| r.outcome), Some(Outcome::Verified));
        world.check_sums().await;
    }
}

pub(super) async fn sweepers_meet(world: &World) {
    let (ada, joiner) = world.owner().await;
    let mut senders = vec![ada];
    for name in ["Bo", "Cy"] {
        senders.push(world.member(ada, &joiner, name).await);
    }
    for n in 0..12 {
        world.deliver(senders[n % 3], &[ada], false).await;
    }
    let end = world.now.plus(7 * 86_400);
    let ended = contend(world, |node, _| async move { node.end_overdue(end).await }).await;
    assert_eq!(ended.into_iter().map(|n| n.unwrap()).sum::<usize>(), 12, "each is ended by one");
    world.check_sums().await;
    let claimed = contend(world, |node, _| async move { node.claim_doomed(0, end).await }).await;
    let claimed: Vec<BlobName> = claimed.into_iter().flat_map(|names| names.unwrap()).collect();
    let different: HashSet<_> = claimed.iter().map(|name| *name.as_bytes()).collect();
    assert_eq!((claimed.len(), different.len()), (48, 48), "each is claimed by one");
    contend(world, |node, _| {
        let claimed = claimed.clone();
        async move { node.forget_blobs(claimed).await }
    })
    .await;
    world.check_sums().await;
    let pruned = contend(world, |node, _| async move { node.prune(3600, end.plus(3600)).await }).await;
    assert!(pruned.iter().all(|outcome| outcome.is_ok()), "{pruned:?}");
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM bundle").await, 0);
    for sender in senders {
        assert_eq!(world.used(sender).await, 0);
    }
}

/// Uploads of many accounts go on while sweepers end bundles of the same accounts and give uploads up: nobody is in
/// anybody's way for long, and the sums are right in the end.
pub(super) async fn uploads_meet_sweepers(world: &World) {
    let (ada, joiner) = world.owner().await;
    let mut senders = vec![ada];
    for name in ["Bo", "Cy", "Di"] {
        senders.push(world.member(ada, &joiner, name).await);
    }
    let now = world.now;
    let mut bundles = Vec::new();
    for n in 0..24 {
        // Half of them are over soon.
        let sender = senders[n % 4];
        let bundle = BundleId::random().unwrap();
        let new = NewBundle {
            bundle,
            expires: now.plus(if n % 2 == 0 { 10 } else { 86_400 }),
            burn: false,
            recipients: vec![],
        };
        world.a().begin_bundle(once(sender), new, limits(), now).await.unwrap();
        world.put(sender, slot(bundle, Some(0), 100)).await;
        bundles.push((sender, bundle));
    }
    let (later, before) = (now.plus(20), crate::clock::at(now.unix() - LEASE_SECONDS));
    let outcomes = contend(world, |node, n| {
        let (sender, bundle) = bundles[n % bundles.len()];
        async move {
            // Nothing is heard of this one any more.
            let silent = slot(bundle, Some(9), 50);
            node.begin_object(sender.account, &silent, BlobName::random().unwrap(), limits(), before).await?;
            for part in 1..6 {
                let (slot, name) = (slot(bundle, Some(part), 50), BlobName::random().unwrap());
                node.begin_object(sender.account, &slot, name, limits(), now).await?;
                if n % 4 == 1 {
                    while node.end_overdue(later).await? > 0 {}
                }
                if part == 5 {
                    while node.give_up(now).await? > 0 {}
                }
                let finished = node.finish_object(sender.account, &slot, name, now).await;
                if finished.is_err() {
                    node.abandon_object(name).await?;
                    finished?;
                }
            }
            Ok(())
        }
    });
    // Whoever's bundle is not over is in nobody's way.
    let granted = granted(outcomes.await, &[ProblemKind::Gone, ProblemKind::NotFound]);
    assert!(granted >= MANY_AT_ONCE, "{granted}");
    while world.b().give_up(now).await.unwrap() > 0 {}
    while world.b().end_overdue(later).await.unwrap() > 0 {}
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM blob WHERE state = 'pending'").await, 0);
    let stored = "SELECT COUNT(*) AS n FROM object";
    assert_eq!(world.count(stored).await, 6 * MANY_AT_ONCE as i64, "all parts of the twelve that go on");
    world.check_sums().await;
}

pub(super) async fn one_bundle_begun_twice(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let (bundle, now) = (BundleId::random().unwrap(), world.now);
    let outcomes = contend(world, |node, n| async move {
        let new = NewBundle { bundle, expires: now.plus(60), burn: false, recipients: vec![] };
        // Two accounts claim one id; one of them has it.
        node.begin_bundle(once(if n % 4 < 2 { ada } else { bo }), new, limits(), now).await
    });
    assert_eq!(granted(outcomes.await, &[ProblemKind::Conflict]), MANY_AT_ONCE);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM bundle").await, 1);
}

pub(super) async fn links_are_not_made_beyond_their_number(world: &World) {
    let (ada, joiner) = world.owner().await;
    for _ in 0..495 {
        let (link, _) = world.link(&joiner);
        world.a().new_link(once(ada), link, joiner.card.clone(), world.now).await.unwrap();
    }
    let now = world.now;
    let outcomes = contend(world, |node, _| {
        let ((link, _), card) = (world.link(&joiner), joiner.card.clone());
        async move { node.new_link(once(ada), link, card, now).await }
    });
    assert_eq!(granted(outcomes.await, &[ProblemKind::Quota]), 5);
}

// Two keys that revoke each other: one is left. And one that is enrolled while it is revoked is one or the other.
pub(super) async fn device_keys_revoke_each_other(world: &World) {
    let (ada, joiner) = world.owner().await;
    let (mut key, now) = (joiner.device.body().device_key, world.now);
    for _ in 0..6 {
        let second = world.device(&joiner);
        let other = second.body().device_key;
        world.a().enrol(once(ada), second.clone(), None, now).await.unwrap();
        let outcomes = contend(world, |node, n| async move {
            let (by, revoked) = if n % 2 == 0 { (key, other) } else { (other, key) };
            node.retire(Once { device: Some(by), ..once(ada) }, revoked, now).await.map(|()| by)
        });
        let outcomes = outcomes.await;
        let winners: HashSet<_> = outcomes.iter().flatten().map(|key| *key.as_bytes()).collect();
        assert_eq!(winners.len(), 1);
        granted(outcomes, &[ProblemKind::Signature]);
        let left = world.b().devices(ada.account).await.unwrap().devices;
        assert_eq!(left.iter().map(|status| *status.key.0.as_bytes()).collect::<HashSet<_>>(), winners);
        key = left[0].key.0;
        let third = world.device(&joiner);
        let fresh = third.body().device_key;
        let outcomes = contend(world, |node, n| {
            let third = third.clone();
            async move {
                if n % 2 == 0 {
                    node.enrol(once(ada), third, None, now).await
                } else {
                    node.retire(Once { device: Some(key), ..once(ada) }, fresh, now).await
                }
            }
        });
        let outcomes = outcomes.await;
        let revoked = outcomes.iter().skip(1).step_by(2).any(Result::is_ok);
        granted(outcomes, &[ProblemKind::Conflict, ProblemKind::NotFound]);
        assert_eq!(world.a().device(&fresh).await.unwrap().is_none(), revoked);
        let both = "SELECT COUNT(*) AS n FROM device d JOIN retired_device r ON r.device_key = d.device_key";
        assert_eq!(world.count(both).await, 0);
    }
}

pub(super) async fn device_keys_are_not_enrolled_beyond_their_number(world: &World) {
    let (ada, joiner) = world.owner().await;
    let now = world.now;
    let outcomes = contend(world, |node, _| {
        let device = world.device(&joiner);
        async move { node.enrol(once(ada), device, None, now).await }
    });
    assert_eq!(granted(outcomes.await, &[ProblemKind::Quota]), pouch_protocol::limits::MAX_DEVICES as usize - 1);
}

/// A key that the old identity enrols while the account moves to another: before, and then it is revoked, or not at all.
pub(super) async fn enrolment_meets_rotation(world: &World) {
    let (ada, owner) = world.owner().await;
    let now = world.now;
    for n in 0..6 {
        let (bo, joiner) = world.joined(ada, &owner, &format!("Bo{n}"), AccountRole::Member).await;
        let key = joiner.device.body().device_key;
        let by_key = Once { device: Some(key), ..once(bo) };
        let (rotating, _) = rotations::rotating(world, &joiner);
        let outcomes = contend(world, |node, n| {
            let (rotating, device) = (rotating.clone(), world.device(&joiner));
            async move {
                if n == MANY_AT_ONCE {
                    node.rotate(by_key, rotating, now).await
                } else {
                    node.enrol(once(bo), device, None, now).await
                }
            }
        });
        granted(outcomes.await, &[ProblemKind::Signature, ProblemKind::Quota]);
        let left = world.b().devices(bo.account).await.unwrap().devices;
        assert_eq!(left.iter().map(|status| status.key.0).collect::<Vec<_>>(), [key]);
    }
}

/// Whoever is made a contractor while they commit: delivered before, or refused.
pub(super) async fn commit_meets_role(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let cy = world.member(ada, &joiner, "Cy").await;
    let now = world.now;
    for _ in 0..6 {
        world.a().set_role(once(ada), bo.mailbox, AccountRole::Member, now).await.unwrap();
        let bundle = world.begin(bo, false).await;
        let commit = world.fill(bo, bundle, &[cy]).await;
        let (sha256, a, b) = (Sha256Digest::of(b"commit"), Arc::clone(&world.nodes[0]), Arc::clone(&world.nodes[1]));
        let committed = tokio::spawn(async move { a.commit(once(bo), bundle, commit, sha256, now).await });
        let set = tokio::spawn(async move { b.set_role(once(ada), bo.mailbox, AccountRole::Contractor, now).await });
        let (committed, set) = (committed.await.unwrap(), set.await.unwrap());
        set.unwrap();
        let delivered = world.b().delivery(cy.account, bundle, now).await.is_ok();
        assert_eq!(committed.is_ok(), delivered);
        granted(vec![committed], &[ProblemKind::Forbidden]);
        world.check_sums().await;
    }
}
