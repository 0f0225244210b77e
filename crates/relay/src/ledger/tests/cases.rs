//! One request after the other.

use pouch_protocol::{BundleState, DeliveryState};
use pouch_statement::{Note, Outcome};

use super::*;
use crate::ledger::objects::LEASE_SECONDS;

pub(super) fn receipt(outcome: Outcome) -> Receipt {
    Receipt { outcome, commitment: Sha256Digest::of(b"commitment"), sealed: b"sealed receipt".to_vec() }
}

pub(super) async fn a_bundle_from_beginning_to_end(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let bundle = world.deliver(ada, &[bo], true).await;
    let item = world.b().inbox(bo.account, 0, world.now).await.unwrap().items.remove(0);
    assert_eq!((item.bundle, item.parts, item.size, item.state), (bundle, 3, 3000, DeliveryState::Waiting));
    // A receipt needs the envelope first; what is a release counts from the first.
    let early = world.b().receive(once(bo), bundle, receipt(Outcome::Verified), world.now).await;
    refused(early, ProblemKind::Conflict);
    let sealed = world.b().release(once(bo), bundle, world.now).await.unwrap();
    assert_eq!(sealed, b"sealed envelope");
    let object = world.b().object(bo.account, bundle, Some(2), world.now).await.unwrap();
    assert_eq!(object.length, 1000);
    assert!(!world.a().receive(once(bo), bundle, receipt(Outcome::Failed), world.now).await.unwrap());
    assert!(world.b().receive(once(bo), bundle, receipt(Outcome::Verified), world.now).await.unwrap(), "it burns");
    let status = world.a().bundle(ada.account, bundle, world.now).await.unwrap();
    assert_eq!((status.state, status.deliveries[0].state), (BundleState::Burnt, DeliveryState::Received));
    refused(world.a().object(bo.account, bundle, Some(2), world.now).await, ProblemKind::Gone);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM blob WHERE state = 'doomed'").await, 4);
    let receipt = b"sealed receipt".len() as u64;
    assert_eq!(world.used(ada).await, 4 * 4096 + receipt, "what lies on the disk takes room");
    world.check_sums().await;
    world.forget_doomed(world.now).await;
    assert_eq!(world.used(ada).await, receipt, "the receipt alone is left");
    world.check_sums().await;
}

pub(super) async fn a_nonce_is_spent_with_the_effect_and_with_the_refusal(world: &World) {
    let (ada, _) = world.owner().await;
    let bundle = BundleId::random().unwrap();
    let new = || NewBundle { bundle, expires: world.now.plus(86_400), burn: false, recipients: vec![] };
    let first = once(ada);
    world.a().begin_bundle(first, new(), limits(), world.now).await.unwrap();
    refused(world.b().begin_bundle(first, new(), limits(), world.now).await, ProblemKind::Replay);
    // Refused: no effect, and yet the nonce is gone.
    let late = NewBundle { bundle: BundleId::random().unwrap(), expires: world.now, burn: false, recipients: vec![] };
    let second = once(ada);
    refused(world.a().begin_bundle(second, late, limits(), world.now).await, ProblemKind::BadRequest);
    refused(world.b().begin_bundle(second, new(), limits(), world.now).await, ProblemKind::Replay);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM nonce").await, 2);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM bundle").await, 1);
    // When no signature of its time counts any more it is forgotten.
    world.a().prune(3600, world.now.plus(NONCE_SECONDS - 1)).await.unwrap();
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM nonce").await, 2);
    world.a().prune(3600, world.now.plus(NONCE_SECONDS)).await.unwrap();
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM nonce").await, 0);
}

pub(super) async fn quota_is_exact_at_its_borders(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let bundle = world.begin(ada, false).await;
    let all = limits().account_bytes;
    let name = || BlobName::random().unwrap();
    let begin = async |length| {
        world.a().begin_object(ada.account, &slot(bundle, Some(0), length), name(), limits(), world.now).await
    };
    refused(begin(all + 1).await, ProblemKind::Quota);
    assert_eq!(world.used(ada).await, 0);
    assert!(matches!(begin(all).await.unwrap(), Begun::Pending));
    refused(begin(1).await, ProblemKind::Quota);
    let envelope = sealed_as(b"x");
    let put = world.b().put_envelope(once(ada), bundle, bo.mailbox, envelope, limits(), world.now).await;
    refused(put, ProblemKind::Quota);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM envelope").await, 0, "nothing half done");
    assert_eq!(world.used(ada).await, all);
    world.a().delete_bundle(once(ada), bundle, world.now).await.unwrap();
    assert_eq!(world.used(ada).await, all, "an upload in flight holds its room");
    let later = world.now.plus(LEASE_SECONDS);
    assert_eq!(world.b().give_up(later).await.unwrap(), 1);
    world.forget_doomed(later).await;
    assert_eq!(world.used(ada).await, 0);
    // Bundles, at once and ended.
    let few = Limits { account_bundles: 2, account_ended: 1, ..limits() };
    let begin = async || {
        let bundle = BundleId::random().unwrap();
        let new = NewBundle { bundle, expires: world.now.plus(60), burn: false, recipients: vec![] };
        world.a().begin_bundle(once(bo), new, few, world.now).await.map(|()| bundle)
    };
    begin().await.unwrap();
    let second = begin().await.unwrap();
    refused(begin().await, ProblemKind::Quota);
    // A pending one is forgotten, a delivered one counts among the ended ones until its state is pruned.
    world.b().delete_bundle(once(bo), second, world.now).await.unwrap();
    let delivered = world.deliver(bo, &[ada], false).await;
    refused(begin().await, ProblemKind::Quota);
    world.b().delete_bundle(once(bo), delivered, world.now).await.unwrap();
    refused(begin().await, ProblemKind::Quota);
    world.b().prune(3600, world.now.plus(3599)).await.unwrap();
    refused(begin().await, ProblemKind::Quota);
    for name in world.b().claim_doomed(0, world.now).await.unwrap() {
        world.b().forget_blobs(vec![name]).await.unwrap();
    }
    world.b().prune(3600, world.now.plus(3600)).await.unwrap();
    begin().await.unwrap();
}

pub(super) async fn a_part_put_again_replaces_and_dooms(world: &World) {
    let (ada, _) = world.owner().await;
    let bundle = world.begin(ada, false).await;
    let first = slot(bundle, Some(0), 10_000);
    let old = world.put(ada, first).await;
    let begun = world.b().begin_object(ada.account, &first, BlobName::random().unwrap(), limits(), world.now).await;
    assert!(matches!(begun.unwrap(), Begun::Same));
    let new = world.put(ada, slot(bundle, Some(0), 7000)).await;
    let row = world.a().object(ada.account, bundle, Some(0), world.now).await.unwrap();
    assert_eq!((row.blob, row.length, world.used(ada).await), (new, 7000, 17_000));
    assert_eq!(world.a().claim_doomed(0, world.now).await.unwrap(), [old]);
    world.b().forget_blobs(vec![old]).await.unwrap();
    assert_eq!(world.used(ada).await, 7000);
    world.b().forget_blobs(vec![old]).await.unwrap();
    // One that was given up cannot be finished; one that was finished cannot be given up.
    let (gone, slot) = (BlobName::random().unwrap(), slot(bundle, Some(1), 5));
    world.a().begin_object(ada.account, &slot, gone, limits(), world.now).await.unwrap();
    world.b().abandon_object(gone).await.unwrap();
    refused(world.a().finish_object(ada.account, &slot, gone, world.now).await, ProblemKind::Conflict);
    world.b().abandon_object(new).await.unwrap();
    assert_eq!(world.used(ada).await, 7000);
}

// attacks.md 40.
pub(super) async fn whoever_is_not_in_it_finds_nothing(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let eve = world.member(ada, &joiner, "Eve").await;
    let bundle = world.deliver(ada, &[bo], false).await;
    let nothing = ProblemKind::NotFound;
    let (now, eve) = (world.now, eve);
    refused(world.a().object(eve.account, bundle, Some(0), now).await, nothing);
    refused(world.b().bundle(eve.account, bundle, now).await, nothing);
    refused(world.a().bundle(bo.account, bundle, now).await, nothing);
    refused(world.b().delivery(eve.account, bundle, now).await, nothing);
    refused(world.a().release(once(eve), bundle, now).await, nothing);
    refused(world.b().delete_bundle(once(bo), bundle, now).await, nothing);
    refused(world.b().receive(once(eve), bundle, receipt(Outcome::Verified), now).await, nothing);
    let again = NewBundle { bundle, expires: now.plus(7 * 86_400), burn: false, recipients: vec![] };
    refused(world.b().begin_bundle(once(eve), again, limits(), now).await, ProblemKind::Conflict);
}

pub(super) async fn listings_are_in_order(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(world.deliver(ada, &[ada, bo], false).await);
    }
    let outbox = world.b().outbox(ada.account, None, world.now).await.unwrap();
    let found: Vec<_> = outbox.bundles.iter().rev().map(|status| status.bundle).collect();
    assert_eq!((found, outbox.next), (sent.clone(), None));
    let inbox = world.b().inbox(bo.account, 0, world.now).await.unwrap();
    assert_eq!(inbox.items.iter().map(|item| item.bundle).collect::<Vec<_>>(), sent);
    let accounts = world.b().accounts(0, 7).await.unwrap().accounts;
    let found: Vec<_> = accounts.iter().map(|a| (a.mailbox, a.role, a.quota)).collect();
    assert_eq!(found, [(ada.mailbox, AccountRole::Owner, 7), (bo.mailbox, AccountRole::Member, 7)]);
}

/// Follows a listing to its end; how many each page has, and all of it.
async fn follow<T>(mut page: impl AsyncFnMut(Option<u64>) -> (Vec<T>, Option<u64>)) -> (Vec<usize>, Vec<T>) {
    let (mut lengths, mut all, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let (rows, next) = page(after).await;
        lengths.push(rows.len());
        all.extend(rows);
        after = next;
        if after.is_none() {
            return (lengths, all);
        }
    }
}

pub(super) async fn listings_go_on_where_a_page_ended(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let ids: Vec<[u8; 16]> = (0..501).map(|_| pouch_statement::random().unwrap()).collect();
    let rows = world.a().write(ids.clone(), move |conn, ids| {
        Box::pin(async move {
            for id in ids {
                query(
                    "INSERT INTO bundle (id, sender, state, created, touched, committed, expires, burn)
                     VALUES ($1, $2, 'committed', 1, 1, 1, $3, 0)",
                )
                .bind(id.as_slice())
                .bind(ada.account)
                .bind(i64::MAX >> 20)
                .execute(conn)
                .await?;
                query("INSERT INTO delivery (bundle, account) SELECT seq, $1 FROM bundle WHERE id = $2")
                    .bind(bo.account)
                    .bind(id.as_slice())
                    .execute(conn)
                    .await?;
                query(
                    "INSERT INTO account (mailbox, fingerprint, name, role, card_statement, card_signature, created)
                     VALUES ($1, $1, 'x', 'member', '', '', 1)",
                )
                .bind(id.as_slice())
                .execute(conn)
                .await?;
            }
            Ok(())
        })
    });
    rows.await.unwrap();
    let bundles: Vec<_> = ids.iter().map(|id| BundleId::from_bytes(*id)).collect();
    let outbox = follow(async |after| {
        let page = world.b().outbox(ada.account, after, world.now).await.unwrap();
        (page.bundles.iter().map(|status| status.bundle).collect(), page.next)
    });
    let (lengths, mut found) = outbox.await;
    found.reverse();
    assert_eq!((lengths, found), (vec![500, 1], bundles.clone()));
    let inbox = follow(async |after| {
        let page = world.b().inbox(bo.account, after.unwrap_or(0), world.now).await.unwrap();
        (page.items.iter().map(|item| item.bundle).collect(), page.next)
    });
    assert_eq!(inbox.await, (vec![500, 1], bundles));
    let accounts = follow(async |after| {
        let page = world.b().accounts(after.unwrap_or(0), 0).await.unwrap();
        (page.accounts.iter().map(|account| account.mailbox).collect(), page.next)
    });
    let mut mailboxes = vec![ada.mailbox, bo.mailbox];
    mailboxes.extend(ids.iter().map(|id| MailboxId::from_bytes(*id)));
    assert_eq!(accounts.await, (vec![500, 3], mailboxes));
    world.repair_sums().await;
}

pub(super) async fn links_are_used_once_and_owners_are_one(world: &World) {
    let (ada, joiner) = world.owner().await;
    let admit = Sha256Digest::of(b"another owner");
    let link = LinkId::random().unwrap();
    assert!(!world.b().put_owner_link(link, &admit, world.now, world.now.plus(60)).await.unwrap());
    let (link, secret) = world.link(&joiner);
    let id = link.link;
    world.a().new_link(once(ada), link, joiner.card.clone(), world.now).await.unwrap();
    let open = world.b().links(ada.account, world.now).await.unwrap().links;
    assert!(open.len() == 1 && open[0].joiner.is_none());
    let bo = world.invited("Bo", &secret);
    let (same, other) = (bo.clone(), world.invited("Eve", &secret));
    let answer = world.a().join(bo, world.now).await.unwrap();
    assert!(answer == world.b().join(same, world.now).await.unwrap(), "the same request, the same answer");
    refused(world.b().join(other, world.now).await, ProblemKind::LinkSpent);
    assert!(world.b().links(ada.account, world.now).await.unwrap().links[0].joiner.is_some());
    refused(world.b().delete_link(once(ada), LinkId::random().unwrap(), world.now).await, ProblemKind::NotFound);
    world.b().delete_link(once(ada), id, world.now).await.unwrap();
    // Over is over.
    let (link, secret) = world.link(&joiner);
    let end = link.expires;
    world.a().new_link(once(ada), link, joiner.card.clone(), world.now).await.unwrap();
    refused(world.b().join(world.invited("Cy", &secret), end).await, ProblemKind::LinkSpent);
}

pub(super) async fn an_account_is_suspended_and_restored(world: &World) {
    let (ada, joiner) = world.owner().await;
    let (link, secret) = world.link(&joiner);
    world.a().new_link(once(ada), link, joiner.card.clone(), world.now).await.unwrap();
    let bos = world.invited("Bo", &secret);
    let key = bos.device.body().device_key;
    let (inviter, again) = (bos.clone(), bos.clone());
    world.a().join(bos, world.now).await.unwrap();
    let bo = world.person(&again).await;
    let (link, secret) = world.link(&inviter);
    let link = NewLink { role: AccountRole::Contractor, ..link };
    world.a().new_link(once(bo), link, inviter.card.clone(), world.now).await.unwrap();
    let suspended = async || world.b().device(&key).await.unwrap().unwrap().suspended;
    let since = async || world.b().account(bo.account, 0).await.unwrap().suspended;
    assert!(!suspended().await && since().await.is_none());
    let one = once(ada);
    world.a().suspend(one, bo.mailbox, world.now).await.unwrap();
    refused(world.b().suspend(one, bo.mailbox, world.now).await, ProblemKind::Replay);
    // Again has no effect: it counts from the first time.
    world.b().suspend(once(ada), bo.mailbox, world.now.plus(5)).await.unwrap();
    assert!(suspended().await && since().await == Some(world.now));
    // Its mailbox takes what others send, its links nobody.
    world.deliver(ada, &[bo], false).await;
    let cy = world.invited("Cy", &secret);
    let later = cy.clone();
    refused(world.b().join(cy, world.now).await, ProblemKind::Suspended);
    // Whoever joined before gets the same answer as then.
    world.b().join(again, world.now).await.unwrap();
    world.b().restore(once(ada), bo.mailbox, world.now).await.unwrap();
    world.a().restore(once(ada), bo.mailbox, world.now).await.unwrap();
    assert!(!suspended().await && since().await.is_none());
    assert_eq!(world.a().inbox(bo.account, 0, world.now).await.unwrap().items.len(), 1);
    world.b().join(later, world.now).await.unwrap();
    // Nobody could restore the owner.
    refused(world.a().suspend(once(ada), ada.mailbox, world.now).await, ProblemKind::Conflict);
    let nobody = MailboxId::random().unwrap();
    refused(world.a().suspend(once(ada), nobody, world.now).await, ProblemKind::NotFound);
    refused(world.b().restore(once(ada), nobody, world.now).await, ProblemKind::NotFound);
}

pub(super) async fn a_bundle_is_taken_down(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let cy = world.member(ada, &joiner, "Cy").await;
    let (delivered, pending) = (world.deliver(bo, &[cy], false).await, world.begin(bo, false).await);
    world.put(bo, slot(pending, Some(0), 700)).await;
    world.a().release(once(cy), delivered, world.now).await.unwrap();
    let reason = |text: &str| text.parse::<Note>().unwrap();
    for bundle in [delivered, pending] {
        world.a().take_down(once(ada), bundle, reason("a \"court\""), world.now).await.unwrap();
        // Again has no effect: what was said first counts.
        world.b().take_down(once(ada), bundle, reason("another"), world.now).await.unwrap();
        let status = world.b().bundle(bo.account, bundle, world.now).await.unwrap();
        assert_eq!((status.state, status.reason), (BundleState::TakenDown, Some(reason("a \"court\""))));
        let told = |outcome: Result<()>| match outcome {
            Err(LedgerError::Refused(ProblemKind::Gone, detail)) => {
                assert!(detail.ends_with(": a \"court\""), "{detail}")
            }
            other => panic!("{other:?}"),
        };
        told(world.a().object(bo.account, bundle, Some(0), world.now).await.map(drop));
        told(world.b().delete_bundle(once(bo), bundle, world.now).await);
    }
    refused(world.b().release(once(cy), delivered, world.now).await, ProblemKind::Gone);
    assert!(world.a().inbox(cy.account, 0, world.now).await.unwrap().items.is_empty());
    assert_eq!(world.a().outbox(bo.account, None, world.now).await.unwrap().bundles.len(), 2);
    // Its blobs are doomed, and of its room the receipt's is left, which may still come.
    let doomed = world.b().claim_doomed(0, world.now).await.unwrap();
    assert_eq!(doomed.len(), 5);
    world.b().forget_blobs(doomed).await.unwrap();
    assert_eq!(world.used(bo).await, pouch_protocol::limits::MAX_RECEIPT);
    world.a().receive(once(cy), delivered, receipt(Outcome::Verified), world.now).await.unwrap();
    // What is over cannot be ended.
    let revoked = world.deliver(bo, &[cy], false).await;
    world.a().delete_bundle(once(bo), revoked, world.now).await.unwrap();
    refused(world.b().take_down(once(ada), revoked, reason("x"), world.now).await, ProblemKind::Gone);
    let nothing = BundleId::random().unwrap();
    refused(world.b().take_down(once(ada), nothing, reason("x"), world.now).await, ProblemKind::NotFound);
}

pub(super) async fn access_is_recorded_and_added_up(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let bundle = world.deliver(ada, &[bo], false).await;
    let row = |account: Option<Person>, address: &str, count| AccessRow {
        time: world.now,
        account: account.map(|p| p.mailbox),
        address: address.into(),
        method: "GET",
        route: "/v1".into(),
        bundle: account.map(|_| bundle),
        status: 200,
        problem: None,
        count,
    };
    let rows = vec![row(Some(bo), "192.0.2.1", 1), row(None, MANY, 3), row(None, MANY, 4)];
    world.a().record(Arc::new(rows)).await.unwrap();
    world.b().record(Arc::new(vec![row(None, MANY, 5), row(Some(ada), "::1", 1)])).await.unwrap();
    let all = world.b().access(None, None).await.unwrap().records;
    assert_eq!(all.iter().map(|record| record.count).collect::<Vec<_>>(), [1, 12, 1]);
    // Bo sees what he did, Ada also what was done to her bundle.
    let seen = async |person: Person| {
        let page = world.a().access(Some((person.account, person.mailbox)), None).await.unwrap();
        page.records.iter().map(|record| record.address.clone()).collect::<Vec<_>>()
    };
    assert_eq!((seen(bo).await, seen(ada).await), (vec!["192.0.2.1".into()], vec!["::1".into(), "192.0.2.1".into()]));
}
