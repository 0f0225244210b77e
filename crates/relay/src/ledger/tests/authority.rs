//! Who may: roles and device keys. And what a sender changes about a bundle that is delivered.

use pouch_statement::Outcome;

use super::cases::receipt;
use super::*;

pub(super) async fn a_contractor_sends_to_its_inviter_and_its_senders(world: &World) {
    let (ada, joiner) = world.owner().await;
    let (bo, bos) = world.joined(ada, &joiner, "Bo", AccountRole::Member).await;
    let cy = world.member(ada, &joiner, "Cy").await;
    let (dee, _) = world.joined(bo, &bos, "Dee", AccountRole::Contractor).await;
    let begin = async |to: &[Person]| {
        let bundle = BundleId::random().unwrap();
        let recipients = to.iter().map(|person| person.mailbox).collect();
        let new = NewBundle { bundle, expires: world.now.plus(86_400), burn: false, recipients };
        world.a().begin_bundle(once(dee), new, limits(), world.now).await.map(|()| bundle)
    };
    let envelope = async |bundle, to: MailboxId| {
        let sealed = sealed_as(b"x");
        world.b().put_envelope(once(dee), bundle, to, sealed, limits(), world.now).await
    };
    // Bo invited it. Ada and Cy are strangers, and so is nobody: one answer for all.
    world.deliver(dee, &[bo], false).await;
    let bundle = begin(&[bo]).await.unwrap();
    let nobody = MailboxId::random().unwrap();
    for to in [ada.mailbox, cy.mailbox, dee.mailbox, nobody] {
        refused(envelope(bundle, to).await, ProblemKind::Forbidden);
    }
    refused(begin(&[bo, cy]).await, ProblemKind::Forbidden);
    assert_eq!(world.a().bundle(dee.account, bundle, world.now).await.unwrap().size, 0);
    // Whoever sent to it may be answered, also when that bundle is over, as long as the relay knows of it.
    let sent = world.deliver(cy, &[dee], false).await;
    world.a().delete_bundle(once(cy), sent, world.now).await.unwrap();
    world.deliver(dee, &[bo, cy], false).await;
    refused(begin(&[ada]).await, ProblemKind::Forbidden);
    world.a().prune(3600, world.now.plus(3600)).await.unwrap();
    refused(begin(&[cy]).await, ProblemKind::Forbidden);
    begin(&[bo]).await.unwrap();
    // A member finds out who is not there before anything is uploaded.
    let new = |mailbox| {
        let bundle = BundleId::random().unwrap();
        NewBundle { bundle, expires: world.now.plus(9), burn: false, recipients: vec![mailbox] }
    };
    refused(world.a().begin_bundle(once(cy), new(nobody), limits(), world.now).await, ProblemKind::NotFound);
    world.a().begin_bundle(once(cy), new(ada.mailbox), limits(), world.now).await.unwrap();
}

pub(super) async fn roles_are_changed_and_count_at_the_commit(world: &World) {
    let (ada, joiner) = world.owner().await;
    let (bo, bos) = world.joined(ada, &joiner, "Bo", AccountRole::Member).await;
    let cy = world.member(ada, &joiner, "Cy").await;
    let set = async |mailbox, role| world.a().set_role(once(ada), mailbox, role, world.now).await;
    // Begun as a member, and at the commit it is none any more.
    let bundle = world.begin(bo, false).await;
    let commit = world.fill(bo, bundle, &[ada, cy]).await;
    let (link, secret) = world.link(&bos);
    let link = NewLink { role: AccountRole::Contractor, ..link };
    world.a().new_link(once(bo), link.clone(), bos.card.clone(), world.now).await.unwrap();
    set(bo.mailbox, AccountRole::Contractor).await.unwrap();
    let committed =
        async || world.b().commit(once(bo), bundle, commit.clone(), Sha256Digest::of(b"commit"), world.now).await;
    refused(committed().await, ProblemKind::Forbidden);
    assert!(world.a().inbox(ada.account, 0, world.now).await.unwrap().items.is_empty(), "at once or not at all");
    // It invites nobody any more, neither by a new link nor by the one from before.
    let dee = world.invited("Dee", &secret);
    refused(world.b().join(dee.clone(), world.now).await, ProblemKind::Forbidden);
    let (another, _) = world.link(&bos);
    let another = NewLink { role: AccountRole::Contractor, ..another };
    refused(world.a().new_link(once(bo), another, bos.card.clone(), world.now).await, ProblemKind::Forbidden);
    set(bo.mailbox, AccountRole::Member).await.unwrap();
    committed().await.unwrap();
    assert_eq!(world.b().join(dee, world.now).await.unwrap().role, AccountRole::Contractor);
    // A member invites no members; a link is of one role.
    let (more, _) = world.link(&bos);
    refused(world.a().new_link(once(bo), more, bos.card.clone(), world.now).await, ProblemKind::Forbidden);
    let same = NewLink { role: AccountRole::Member, ..link };
    refused(world.a().new_link(once(bo), same, bos.card.clone(), world.now).await, ProblemKind::Forbidden);
    // The owner stays one.
    refused(set(ada.mailbox, AccountRole::Contractor).await, ProblemKind::Conflict);
    refused(set(MailboxId::random().unwrap(), AccountRole::Member).await, ProblemKind::NotFound);
    let roles: Vec<_> = world.b().accounts(0, 0).await.unwrap().accounts.iter().map(|a| a.role).collect();
    use AccountRole::{Contractor, Member, Owner};
    assert_eq!(roles, [Owner, Member, Member, Contractor]);
}

pub(super) async fn device_keys_are_enrolled_and_revoked_for_good(world: &World) {
    let (ada, joiner) = world.owner().await;
    let (bo, bos) = world.joined(ada, &joiner, "Bo", AccountRole::Member).await;
    let (first, second) = (bos.device.body().device_key, world.device(&bos));
    let key = second.body().device_key;
    let enrol =
        async |who: Person, device: &Signed<Device>| world.a().enrol(once(who), device.clone(), None, world.now).await;
    let by = |who: Person, key| Once { device: Some(key), ..once(who) };
    let retire = async |who, signer, key| world.b().retire(by(who, signer), key, world.now).await;
    let keys = async |who: Person| -> Vec<_> {
        world.b().devices(who.account).await.unwrap().devices.iter().map(|status| status.key.0).collect()
    };
    enrol(bo, &second).await.unwrap();
    enrol(bo, &second).await.unwrap();
    refused(enrol(ada, &second).await, ProblemKind::Signature);
    refused(enrol(ada, &world.device_as(&joiner, key)).await, ProblemKind::Conflict);
    let mut both = vec![first, key];
    both.sort_by_key(|key| *key.as_bytes());
    assert_eq!(keys(bo).await, both);
    assert_eq!(world.b().device(&key).await.unwrap().unwrap().account, bo.account);
    // Only another one of the same account revokes.
    refused(retire(bo, first, first).await, ProblemKind::Conflict);
    refused(retire(ada, joiner.device.body().device_key, first).await, ProblemKind::NotFound);
    refused(retire(bo, world.device(&bos).body().device_key, first).await, ProblemKind::Signature);
    retire(bo, key, first).await.unwrap();
    retire(bo, key, first).await.unwrap();
    assert!(world.a().device(&first).await.unwrap().is_none());
    assert_eq!(keys(bo).await, [key]);
    // Once revoked it comes back nowhere: not for this account, for no other, and not with a link.
    for (who, device) in [(bo, bos.device.clone()), (ada, world.device_as(&joiner, first))] {
        refused(enrol(who, &device).await, ProblemKind::Conflict);
    }
    let (link, secret) = world.link(&joiner);
    world.a().new_link(once(ada), link, joiner.card.clone(), world.now).await.unwrap();
    let eve = Joiner { device: bos.device.clone(), ..world.invited("Eve", &secret) };
    refused(world.a().join(eve, world.now).await, ProblemKind::Conflict);
    // What was revoked, or suspended, after a request's head was judged has no effect with its body.
    refused(retire(bo, first, key).await, ProblemKind::Signature);
    world.a().suspend(once(ada), bo.mailbox, world.now).await.unwrap();
    refused(world.a().suspend(by(bo, key), ada.mailbox, world.now).await, ProblemKind::Suspended);
    world.a().restore(once(ada), bo.mailbox, world.now).await.unwrap();
    // One takes the place of another with its own request, also where the account has as many as it may have.
    for _ in 1..pouch_protocol::limits::MAX_DEVICES {
        enrol(bo, &world.device(&bos)).await.unwrap();
    }
    refused(enrol(bo, &world.device(&bos)).await, ProblemKind::Quota);
    let spare = *keys(bo).await.iter().find(|other| **other != key).unwrap();
    retire(bo, key, spare).await.unwrap();
    enrol(bo, &world.device(&bos)).await.unwrap();
    let new = world.device(&bos);
    let replace = world.a().enrol(once(bo), new.clone(), Some(key), world.now);
    replace.await.unwrap();
    assert!(keys(bo).await.contains(&new.body().device_key) && !keys(bo).await.contains(&key));
    refused(retire(bo, key, new.body().device_key).await, ProblemKind::Signature);
    // Nobody else's is touched, and one that is refused replaces none.
    let mine = joiner.device.body().device_key;
    world.a().enrol(once(bo), new.clone(), Some(mine), world.now).await.unwrap();
    let present = new.body().device_key;
    refused(world.a().enrol(once(bo), bos.device.clone(), Some(present), world.now).await, ProblemKind::Conflict);
    assert!(keys(ada).await == [mine] && keys(bo).await.contains(&present));
}

pub(super) async fn a_delivered_bundle_is_addressed_again(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let cy = world.member(ada, &joiner, "Cy").await;
    let bundle = world.deliver(ada, &[bo], false).await;
    let before = world.used(ada).await;
    let put = async |once, to: Person, sealed: &'static [u8]| {
        let sealed = sealed_as(sealed);
        world.a().put_envelope(once, bundle, to.mailbox, sealed, limits(), world.now).await
    };
    let status = async || world.b().bundle(ada.account, bundle, world.now).await.unwrap();
    let of = async |who: Person| status().await.deliveries.iter().find(|d| d.mailbox == who.mailbox).cloned().unwrap();
    // In place of the first one; also after a release, and a failure.
    assert!(!put(once(ada), bo, b"sealed envelope").await.unwrap(), "the same has no effect");
    assert_eq!(of(bo).await.revision, 1);
    let (second, third) = (once(ada), once(ada));
    assert!(put(second, bo, b"the second").await.unwrap(), "whoever waits is told");
    assert_eq!(world.b().release(once(bo), bundle, world.now).await.unwrap(), b"the second");
    world.a().receive(once(bo), bundle, receipt(Outcome::Failed), world.now).await.unwrap();
    put(third, bo, b"a third one").await.unwrap();
    assert_eq!(of(bo).await.revision, 3);
    assert_eq!(world.used(ada).await, before + b"a third one".len() as u64 - b"sealed envelope".len() as u64);
    // attacks.md 43: a request that is sent again does not bring back the envelope from before.
    refused(put(second, bo, b"the second").await, ProblemKind::Replay);
    assert_eq!(world.b().release(once(bo), bundle, world.now).await.unwrap(), b"a third one");
    // A final receipt is final.
    world.a().receive(once(bo), bundle, receipt(Outcome::Verified), world.now).await.unwrap();
    refused(put(once(ada), bo, b"a fourth").await, ProblemKind::Conflict);
    // One recipient more: who finds it in the inbox, with room for the receipt, and once.
    refused(world.b().release(once(cy), bundle, world.now).await, ProblemKind::NotFound);
    let used = world.used(ada).await;
    assert!(put(once(ada), cy, b"for Cy").await.unwrap());
    assert!(!put(once(ada), cy, b"for Cy").await.unwrap());
    assert_eq!(world.used(ada).await, used + 6 + pouch_protocol::limits::MAX_RECEIPT);
    let item = world.b().inbox(cy.account, 0, world.now).await.unwrap().items.remove(0);
    assert_eq!((item.bundle, item.revision, item.parts), (bundle, 1, 3));
    world.a().object(cy.account, bundle, Some(2), world.now).await.unwrap();
    // Not by others, not to nobody, not beyond the quota, and not when it is over.
    let nobody = Person { mailbox: MailboxId::random().unwrap(), ..cy };
    refused(put(once(ada), nobody, b"x").await, ProblemKind::NotFound);
    refused(put(once(bo), ada, b"x").await, ProblemKind::NotFound);
    let tight = Limits { account_bytes: world.used(ada).await + 3, ..limits() };
    let sealed = sealed_as(b"for Ada");
    let over = world.a().put_envelope(once(ada), bundle, ada.mailbox, sealed, tight, world.now).await;
    refused(over, ProblemKind::Quota);
    assert_eq!(status().await.deliveries.len(), 2, "nothing half done");
    world.check_sums().await;
    world.a().delete_bundle(once(ada), bundle, world.now).await.unwrap();
    refused(put(once(ada), cy, b"too late").await, ProblemKind::Gone);
}

// attacks.md 43, for what is not delivered yet.
pub(super) async fn an_envelope_that_was_replaced_does_not_come_back(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let bundle = world.begin(ada, false).await;
    let put = async |once, sealed: &'static [u8]| {
        let sealed = sealed_as(sealed);
        world.a().put_envelope(once, bundle, bo.mailbox, sealed, limits(), world.now).await
    };
    let first = once(ada);
    put(first, b"first").await.unwrap();
    let commit = world.fill(ada, bundle, &[bo]).await;
    refused(put(first, b"first").await, ProblemKind::Replay);
    world.a().commit(once(ada), bundle, commit, Sha256Digest::of(b"commit"), world.now).await.unwrap();
    refused(put(first, b"first").await, ProblemKind::Replay);
    assert_eq!(world.b().release(once(bo), bundle, world.now).await.unwrap(), b"sealed envelope");
}

pub(super) async fn a_bundle_gets_another_end(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let bundle = world.deliver(ada, &[bo], false).await;
    let now = world.now;
    let extend = async |who, expires| world.a().extend(once(who), bundle, expires, limits(), now).await;
    let most = now.plus(limits().lifetime);
    // Counted from now, and not from the beginning.
    refused(extend(ada, most.plus(1)).await, ProblemKind::BadRequest);
    refused(extend(ada, now).await, ProblemKind::BadRequest);
    refused(extend(bo, most).await, ProblemKind::NotFound);
    extend(ada, most).await.unwrap();
    extend(ada, most).await.unwrap();
    let end = async || world.b().bundle(ada.account, bundle, now).await.unwrap().expires;
    assert_eq!((end().await, world.b().inbox(bo.account, 0, now).await.unwrap().items[0].expires), (most, most));
    let late = now.plus(limits().lifetime - 1);
    assert_eq!(world.a().end_overdue(late).await.unwrap(), 0);
    world.b().object(bo.account, bundle, Some(0), late).await.unwrap();
    // Earlier, and then it is over.
    extend(ada, now.plus(10)).await.unwrap();
    refused(world.b().release(once(bo), bundle, now.plus(10)).await, ProblemKind::Gone);
    let over = world.a().extend(once(ada), bundle, most, limits(), now.plus(10)).await;
    refused(over, ProblemKind::Gone);
    assert_eq!(world.a().end_overdue(now.plus(10)).await.unwrap(), 1);
    let pending = world.begin(ada, false).await;
    refused(world.a().extend(once(ada), pending, most, limits(), now).await, ProblemKind::Conflict);
}
