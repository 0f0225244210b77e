//! Device keys: enrolled by the identity, revoked by another key, and then as unknown as any.

use pouch_protocol::{AccessPage, DeviceKey, Devices, NewDevice, ProblemKind, route};
use pouch_relay::Clock as _;
use pouch_statement::{Device, Signed, SigningKey};

use crate::harness::{Draft, Person, World, sealed};

/// The same person at another device.
fn elsewhere(person: &Person) -> Person {
    let identity = SigningKey::from_seed(&person.identity.to_seed());
    Person { identity, device: SigningKey::generate().unwrap(), ..*person }
}

fn key(person: &Person) -> DeviceKey {
    DeviceKey(person.device.public())
}

/// What enrols the device key of `person`, said by `identity`.
fn enrolment(world: &World, person: &Person, identity: &SigningKey) -> NewDevice {
    let said = Device {
        identity: world.card(person).fingerprint(),
        device_key: person.device.public(),
        created: world.clock.now(),
    };
    NewDevice { mailbox: person.mailbox, device: Signed::sign(said, identity).unwrap().detached(), replaces: None }
}

#[tokio::test]
async fn a_second_device_is_enrolled_and_the_first_revoked() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let laptop = elsewhere(&bo);
    let enrol = |by: &Person| Draft::post(route::DEVICES, &enrolment(&world, by, &by.identity));
    let revoke = |person: &Person| Draft::new("DELETE", route::device(key(person)));
    assert_eq!(world.by(&laptop, Draft::get(route::ACCOUNT)).await.problem(), ProblemKind::Signature);
    world.by(&laptop, enrol(&laptop)).await.is_done();
    world.by(&laptop, enrol(&laptop)).await.is_done();
    let devices: Devices = world.by(&bo, Draft::get(route::DEVICES)).await.json();
    let mut keys: Vec<_> = devices.devices.iter().map(|status| status.key.to_string()).collect();
    let mut both = vec![key(&bo).to_string(), key(&laptop).to_string()];
    keys.sort();
    both.sort();
    assert_eq!(keys, both);
    // Either sends for the account.
    world.deliver(&laptop, &[sealed(1, 100)], &[&ada], false).await;
    // None revokes itself, and nobody revokes somebody else's.
    assert_eq!(world.by(&bo, revoke(&bo)).await.problem(), ProblemKind::Conflict);
    assert_eq!(world.by(&ada, revoke(&bo)).await.problem(), ProblemKind::NotFound);
    assert_eq!(world.by(&bo, Draft::new("DELETE", "/v1/devices/xyz")).await.problem(), ProblemKind::NotFound);
    world.by(&laptop, revoke(&bo)).await.is_done();
    world.by(&laptop, revoke(&bo)).await.is_done();
    // From now on its requests are refused as those of a key that nobody knows, whatever they ask for.
    let unknown = world.by(&elsewhere(&bo), Draft::get(route::ACCOUNT)).await;
    for draft in [Draft::get(route::ACCOUNT), Draft::get(route::INBOX), revoke(&laptop)] {
        let refused = world.by(&bo, draft).await;
        assert_eq!((refused.status, &refused.body), (unknown.status, &unknown.body));
    }
    assert_eq!(unknown.problem(), ProblemKind::Signature);
    // It never comes back, also after a restart.
    world.restart().await;
    let again = Draft::post(route::DEVICES, &enrolment(&world, &bo, &bo.identity));
    assert_eq!(world.by(&bo, again).await.problem(), ProblemKind::Conflict);
    let devices: Devices = world.by(&laptop, Draft::get(route::DEVICES)).await.json();
    assert_eq!(devices.devices.iter().map(|status| status.key).collect::<Vec<_>>(), [key(&laptop)]);
    let record: AccessPage = world.by(&laptop, Draft::get(route::ACCESS)).await.json();
    let done = |route: &str, method: &str| {
        let mine =
            |r: &&pouch_protocol::Access| r.account == Some(bo.mailbox) && r.route == route && r.method == method;
        record.records.iter().filter(mine).map(|r| r.status).collect::<Vec<_>>()
    };
    assert_eq!(done(route::DEVICES, "POST"), [409, 204, 204]);
    assert_eq!(done(route::DEVICE, "DELETE"), [204, 204, 404, 409]);
    world.stop().await;
}

// attacks.md 26, 42: a key is enrolled by the word of the account's own identity, for itself, and by nothing else.
#[tokio::test]
async fn attack_26_42_nobody_enrols_a_key_for_somebody_else() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, eve) = (world.member(&ada, "Bo").await, world.member(&ada, "Eve").await);
    let laptop = elsewhere(&bo);
    let good = enrolment(&world, &laptop, &bo.identity);
    let stranger = Person::new("Nobody");
    let other = elsewhere(&bo);
    let refused = [
        // Eve's identity for Bo's account; Bo's statement for Eve's account, or for none.
        (&laptop, enrolment(&world, &laptop, &eve.identity)),
        (&laptop, NewDevice { mailbox: eve.mailbox, ..good.clone() }),
        (&laptop, NewDevice { mailbox: stranger.mailbox, ..good.clone() }),
        // Whoever has the statement has not the key.
        (&other, good.clone()),
        (&eve, good.clone()),
        // A statement of another kind.
        (&laptop, NewDevice { device: world.card(&bo).detached(), ..good.clone() }),
    ];
    for (by, message) in &refused {
        let reply = world.by(by, Draft::post(route::DEVICES, message)).await;
        assert_eq!((reply.status, reply.problem()), (401, ProblemKind::Signature), "{message:?}");
    }
    let moved = Draft::post(route::DEVICES, &good).signed(&world, &laptop);
    let twisted = Draft { body: serde_json::to_vec(&refused[1].1).unwrap().into(), ..moved };
    assert_eq!(world.send(twisted).await.problem(), ProblemKind::Digest);
    assert_eq!(world.by(&laptop, Draft::get(route::ACCOUNT)).await.problem(), ProblemKind::Signature);
    // A suspended account enrols none.
    world.by(&ada, Draft::new("POST", route::suspend(bo.mailbox))).await.is_done();
    assert_eq!(world.by(&laptop, Draft::post(route::DEVICES, &good)).await.problem(), ProblemKind::Suspended);
    world.by(&ada, Draft::new("POST", route::restore(bo.mailbox))).await.is_done();
    let request = Draft::post(route::DEVICES, &good).signed(&world, &laptop);
    world.send(request.clone()).await.is_done();
    // attacks.md 43
    assert_eq!(world.send(request).await.problem(), ProblemKind::Replay);
    world.stop().await;
}
