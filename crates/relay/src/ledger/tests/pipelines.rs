//! Pipelines and journals: who may send to whom in whose name, and what comes in place of what.

use super::*;

const DAY: u64 = 86_400;

/// A pipeline of `maker` for these, until then; and what it was made of.
pub(super) async fn made(world: &World, maker: Person, name: &str, to: &[Person], days: u64) -> (Result<()>, Wanted) {
    let Joiner { card, device, .. } = world.joiner(name, Sha256Digest::of(b""), None);
    let recipients = to.iter().map(|person| person.mailbox).collect();
    let wanted = Wanted { card, device, recipients, expires: world.now.plus(days * DAY) };
    (world.a().new_pipeline(once(maker), wanted.clone(), world.now).await, wanted)
}

pub(super) async fn who(world: &World, wanted: &Wanted) -> Person {
    let device = world.b().device(&wanted.device.body().device_key).await.unwrap().unwrap();
    assert_eq!(device.role, AccountRole::Pipeline);
    Person { account: device.account, mailbox: device.mailbox }
}

pub(super) async fn a_pipeline_sends_to_those_who_were_named(world: &World) {
    let (ada, joiner) = world.owner().await;
    let (bo, bos) = world.joined(ada, &joiner, "Bo", AccountRole::Member).await;
    let cy = world.member(ada, &joiner, "Cy").await;
    let (dee, _) = world.joined(bo, &bos, "Dee", AccountRole::Contractor).await;
    let (result, wanted) = made(world, ada, "Nightly", &[bo], 8).await;
    result.unwrap();
    // An answer that was lost is asked for again.
    world.b().new_pipeline(once(ada), wanted.clone(), world.now).await.unwrap();
    let nightly = who(world, &wanted).await;
    let sent = world.deliver(nightly, &[bo], false).await;
    // Its recipient is told that it is its maker's.
    assert_eq!(world.a().delivery(bo.account, sent, world.now).await.unwrap().sender, ada.mailbox);
    let new = |to: &[Person], days: u64| NewBundle {
        bundle: BundleId::random().unwrap(),
        expires: world.now.plus(days * DAY),
        burn: false,
        recipients: to.iter().map(|person| person.mailbox).collect(),
    };
    for to in [ada, cy, dee, nightly] {
        let refused_by = world.a().begin_bundle(once(nightly), new(&[bo, to], 1), limits(), world.now).await;
        refused(refused_by, ProblemKind::Forbidden);
        let bundle = world.begin(nightly, false).await;
        let put = world.b().put_envelope(once(nightly), bundle, to.mailbox, sealed_as(b"x"), limits(), world.now).await;
        refused(put, ProblemKind::Forbidden);
    }
    // For no longer than it lasts itself.
    let late = world.a().begin_bundle(once(nightly), new(&[bo], 9), limits(), world.now).await;
    refused(late, ProblemKind::Forbidden);
    // It receives from nobody: not even from whom it sent to.
    refused(world.a().begin_bundle(once(bo), new(&[nightly], 1), limits(), world.now).await, ProblemKind::NotFound);
    let (other, named) = made(world, ada, "ToDee", &[dee], 8).await;
    other.unwrap();
    let to_dee = who(world, &named).await;
    world.deliver(to_dee, &[dee], false).await;
    refused(world.a().begin_bundle(once(dee), new(&[to_dee], 1), limits(), world.now).await, ProblemKind::Forbidden);
    // Contractors and pipelines make none, and nobody makes one for nobody, or for somebody twice.
    refused(made(world, dee, "Dees", &[bo], 8).await.0, ProblemKind::Forbidden);
    refused(made(world, nightly, "Deeper", &[bo], 8).await.0, ProblemKind::Forbidden);
    refused(made(world, ada, "None", &[], 8).await.0, ProblemKind::BadRequest);
    refused(made(world, ada, "Twice", &[bo, bo], 8).await.0, ProblemKind::BadRequest);
    refused(made(world, ada, "ToOne", &[nightly], 8).await.0, ProblemKind::NotFound);
    let role = world.a().set_role(once(ada), nightly.mailbox, AccountRole::Member, world.now).await;
    refused(role, ProblemKind::Conflict);
}

pub(super) async fn a_pipeline_is_over_with_its_time_its_maker_and_its_revocation(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let cy = world.member(ada, &joiner, "Cy").await;
    let (result, wanted) = made(world, bo, "Nightly", &[cy], 8).await;
    result.unwrap();
    let nightly = who(world, &wanted).await;
    let bundle = world.begin(nightly, false).await;
    let commit = world.fill(nightly, bundle, &[cy]).await;
    let deliver =
        async |now| world.a().commit(once(nightly), bundle, commit.clone(), Sha256Digest::of(b"commit"), now).await;
    let key = wanted.device.body().device_key;
    let keep = async |device: PublicKey, now| {
        let by_key = Once { device: Some(device), ..once(nightly) };
        world.a().put_journal(by_key, None, sealed_as(b"journal"), limits(), now).await
    };
    // Its maker is suspended, or becomes a contractor: what is begun is not delivered, and what is on its way has no effect. Of
    // several reasons the first one is told.
    world.a().suspend(once(ada), bo.mailbox, world.now).await.unwrap();
    refused(deliver(world.now).await, ProblemKind::Forbidden);
    refused(keep(joiner.device.body().device_key, world.now).await, ProblemKind::Signature);
    refused(keep(key, world.now).await, ProblemKind::Suspended);
    refused(keep(key, world.now.plus(8 * DAY)).await, ProblemKind::Suspended);
    assert!(world.b().device(&key).await.unwrap().unwrap().suspended);
    world.a().restore(once(ada), bo.mailbox, world.now).await.unwrap();
    world.a().set_role(once(ada), bo.mailbox, AccountRole::Contractor, world.now).await.unwrap();
    refused(deliver(world.now).await, ProblemKind::Forbidden);
    world.a().set_role(once(ada), bo.mailbox, AccountRole::Member, world.now).await.unwrap();
    refused(deliver(world.now.plus(8 * DAY)).await, ProblemKind::PipelineOver);
    // Nobody but its maker revokes it, the relay's owner neither.
    refused(world.a().revoke_pipeline(once(ada), nightly.mailbox, world.now).await, ProblemKind::NotFound);
    refused(world.a().revoke_pipeline(once(bo), cy.mailbox, world.now).await, ProblemKind::NotFound);
    refused(keep(key, world.now.plus(8 * DAY)).await, ProblemKind::PipelineOver);
    keep(key, world.now).await.unwrap();
    world.a().prune(DAY, world.now).await.unwrap();
    let used = world.used(nightly).await;
    world.a().revoke_pipeline(once(bo), nightly.mailbox, world.now.plus(1)).await.unwrap();
    world.a().revoke_pipeline(once(bo), nightly.mailbox, world.now.plus(2)).await.unwrap();
    assert_eq!(world.used(nightly).await, used);
    world.a().prune(DAY, world.now.plus(2)).await.unwrap();
    assert_eq!(world.used(nightly).await, used - 7, "nobody can fetch its journal");
    refused(keep(key, world.now).await, ProblemKind::PipelineOver);
    refused(deliver(world.now).await, ProblemKind::PipelineOver);
    let mine = world.b().pipelines(bo.account).await.unwrap().pipelines;
    assert_eq!(mine.iter().map(|one| one.revoked).collect::<Vec<_>>(), [Some(world.now.plus(1))]);
    assert_eq!((mine[0].recipients.clone(), mine[0].expires), (vec![cy.mailbox], wanted.expires));
    assert_eq!(world.b().pipelines(ada.account).await.unwrap().pipelines, []);
}

pub(super) async fn pipelines_of_one_account_are_few(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let most = u64::from(pouch_protocol::limits::MAX_PIPELINES);
    for number in 0..most {
        made(world, ada, &format!("P{number}"), &[bo], 1 + number).await.0.unwrap();
    }
    refused(made(world, ada, "Another", &[bo], 8).await.0, ProblemKind::Quota);
    let first = world.a().pipelines(ada.account).await.unwrap().pipelines[0].mailbox;
    world.a().revoke_pipeline(once(ada), first, world.now).await.unwrap();
    made(world, ada, "Another", &[bo], 8).await.0.unwrap();
    refused(made(world, ada, "Further", &[bo], 8).await.0, ProblemKind::Quota);
    // Those that are over leave their places to others, but in all they are a thousand at most.
    let later = async |name| {
        let wanted = made(world, ada, name, &[bo], 30).await.1;
        world.a().new_pipeline(once(ada), wanted, world.now.plus(most * DAY)).await
    };
    later("Late").await.unwrap();
    let others = world.a().write((), |conn, ()| {
        Box::pin(async move {
            let accounts = "WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 981)
                 INSERT INTO account (mailbox, fingerprint, name, role, contractor, inviter, card_statement, card_signature, created)
                 SELECT {RANDOM}, {RANDOM}, 'Old', 'member', 2, (SELECT MIN(seq) FROM account), '', '', 0 FROM many";
            conn.define(accounts).await.unwrap();
            let pipelines = "INSERT INTO pipeline (account, maker, expires) SELECT seq, inviter, 0 FROM account WHERE name = 'Old'";
            query(pipelines).execute(conn).await
        })
    });
    assert_eq!(others.await.unwrap() + most + 2, 999);
    later("Last").await.unwrap();
    refused(later("Beyond").await, ProblemKind::Quota);
}

pub(super) async fn a_journal_comes_in_place_of_the_one_that_it_follows(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let digest = |bytes: &[u8]| Sha256Digest::of(bytes);
    let put = async |by: Person, before: Option<&[u8]>, new: &'static [u8]| {
        world.a().put_journal(once(by), before.map(digest), sealed_as(new), limits(), world.now).await
    };
    refused(world.b().journal(bo.account).await, ProblemKind::NotFound);
    refused(put(bo, Some(b"one"), b"two").await, ProblemKind::Conflict);
    put(bo, None, b"one").await.unwrap();
    // The same again, as after an answer that was lost.
    put(bo, None, b"one").await.unwrap();
    refused(put(bo, None, b"two").await, ProblemKind::Conflict);
    put(bo, Some(b"one"), b"the second").await.unwrap();
    refused(put(bo, Some(b"one"), b"beside").await, ProblemKind::Conflict);
    assert_eq!(world.b().journal(bo.account).await.unwrap(), (digest(b"the second"), b"the second".to_vec()));
    assert_eq!(world.used(bo).await, 10);
    put(bo, Some(b"the second"), b"3").await.unwrap();
    assert_eq!(world.used(bo).await, 1);
    // It takes room like all else.
    static LARGE: [u8; (1 << 20) + 1] = [7; (1 << 20) + 1];
    refused(put(bo, Some(b"3"), &LARGE).await, ProblemKind::Quota);
    refused(world.b().journal(ada.account).await, ProblemKind::NotFound);
    put(bo, Some(b"3"), LARGE.get(1..).unwrap()).await.unwrap();
    world.check_sums().await;
    // Of a pipeline that was over long ago it is deleted.
    let (result, wanted) = made(world, ada, "Nightly", &[bo], 1).await;
    result.unwrap();
    let nightly = who(world, &wanted).await;
    put(nightly, None, b"x").await.unwrap();
    world.a().prune(DAY, world.now.plus(2 * DAY - 1)).await.unwrap();
    world.b().journal(nightly.account).await.unwrap();
    world.a().prune(DAY, world.now.plus(2 * DAY)).await.unwrap();
    refused(world.b().journal(nightly.account).await, ProblemKind::NotFound);
    assert_eq!(world.used(nightly).await, 0);
}

/// Of several that follow the same journal one is stored.
pub(super) async fn journals_do_not_fork(world: &World) {
    let (ada, _) = world.owner().await;
    let put = async |ledger: &Ledger, text: &'static [u8]| {
        ledger.put_journal(once(ada), None, sealed_as(text), limits(), world.now).await
    };
    let (one, other) = tokio::join!(put(world.a(), b"one"), put(world.b(), b"other"));
    assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1);
    let stored = world.a().journal(ada.account).await.unwrap().1;
    assert_eq!(stored, if one.is_ok() { &b"one"[..] } else { b"other" });
}
