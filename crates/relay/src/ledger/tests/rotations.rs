//! Identities whose keys change, and what ends with the old one.

use pouch_statement::SignedRotation;

use super::*;

/// The rotation of whoever joined so to a new key, which is in it, too.
pub(super) fn rotating(world: &World, joiner: &Joiner) -> (Rotating, SigningKey) {
    let (old, key) = (&joiner.card, SigningKey::generate().unwrap());
    let new = Card {
        age_recipient: "age1qqqqqqqqqqqqqqqqrotated".parse().unwrap(),
        signing_key: key.public(),
        serial: 2,
        ..old.card().clone()
    };
    let rotation = SignedRotation::sign(old, &identity_of(old.card().mailbox), new, &key).unwrap();
    let device = world.says(rotation.card(), &key, joiner.device.body().device_key);
    (Rotating { from: old.detached(), rotation, device }, key)
}

// attacks.md 37: what was held against the old card before the rotation has no effect after it.
pub(super) async fn the_identity_that_went_enrols_nothing(world: &World) {
    let (ada, joiner) = world.owner().await;
    let key = joiner.device.body().device_key;
    let (before, late) = (world.device(&joiner), world.device(&joiner));
    world.a().enrol(once(ada), before.clone(), None, world.now).await.unwrap();
    let (rotating, identity) = rotating(world, &joiner);
    let by_key = Once { device: Some(key), ..once(ada) };
    world.a().rotate(by_key, rotating.clone(), world.now).await.unwrap();
    // Neither another key, nor one that was revoked, nor the one that stayed; and nothing is replaced.
    for device in [&late, &before, &joiner.device] {
        refused(world.b().enrol(once(ada), device.clone(), Some(key), world.now).await, ProblemKind::Signature);
    }
    let keys = async || -> Vec<_> {
        world.b().devices(ada.account).await.unwrap().devices.iter().map(|status| status.key.0).collect()
    };
    assert_eq!(keys().await, [key]);
    let new = world.says(rotating.rotation.card(), &identity, SigningKey::generate().unwrap().public());
    world.b().enrol(once(ada), new.clone(), Some(key), world.now).await.unwrap();
    assert_eq!(keys().await, [new.body().device_key]);
}

pub(super) async fn pipelines_of_the_identity_that_went_hold_no_room(world: &World) {
    let (ada, joiner) = world.owner().await;
    let bo = world.member(ada, &joiner, "Bo").await;
    let (result, wanted) = pipelines::made(world, ada, "Nightly", &[bo], 8).await;
    result.unwrap();
    let nightly = pipelines::who(world, &wanted).await;
    world.a().put_journal(once(nightly), None, sealed_as(b"journal"), limits(), world.now).await.unwrap();
    world.a().prune(1 << 20, world.now).await.unwrap();
    assert_eq!(world.used(nightly).await, 7);
    world.a().rotate(once(ada), rotating(world, &joiner).0, world.now).await.unwrap();
    let put = world.b().put_journal(once(nightly), None, sealed_as(b"another"), limits(), world.now).await;
    refused(put, ProblemKind::PipelineOver);
    world.b().prune(1 << 20, world.now).await.unwrap();
    assert_eq!(world.used(nightly).await, 0);
    refused(world.a().journal(nightly.account).await, ProblemKind::NotFound);
}
