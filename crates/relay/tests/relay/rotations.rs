//! Identities whose keys change: the account goes with them, and what a stolen key can bring about ends.

use std::time::Duration;

use futures_util::future::join_all;
use pouch_protocol::{DeviceKey, Devices, LinkSecret, Links, NewDevice, NewRotation, ProblemKind, Rotations, route};
use pouch_relay::Clock as _;
use pouch_services::Postgres;
use pouch_statement::{Card, Detached, Device, Signed, SignedCard, SignedRotation, SigningKey};
use sqlx::Connection as _;

use crate::harness::{Draft, Person, World};

/// The next card of somebody, whose keys are new.
fn renewed(world: &World, old: &SignedCard, key: &SigningKey, serial: u64) -> Card {
    Card {
        age_recipient: format!("age1rotated{serial}").parse().unwrap(),
        signing_key: key.public(),
        serial,
        created: world.clock.now(),
        ..old.card().clone()
    }
}

/// The rotation of `person` from `old` to `new_key`, and the new identity's word for their device key.
fn rotating(world: &World, person: &Person, old: &SignedCard, new_key: &SigningKey) -> (NewRotation, SignedCard) {
    let serial = old.card().serial + 1;
    let new = renewed(world, old, new_key, serial);
    let rotation = SignedRotation::sign(old, &person.identity, new, new_key).unwrap();
    let card = rotation.card().clone();
    let device =
        Device { identity: card.fingerprint(), device_key: person.device.public(), created: world.clock.now() };
    let device = Signed::sign(device, new_key).unwrap().detached();
    (NewRotation { rotation: rotation.detached(), device }, card)
}

fn enrolment(world: &World, person: &Person, card: &SignedCard, identity: &SigningKey) -> NewDevice {
    let device_key = person.device.public();
    let said = Device { identity: card.fingerprint(), device_key, created: world.clock.now() };
    NewDevice { mailbox: person.mailbox, device: Signed::sign(said, identity).unwrap().detached(), replaces: None }
}

/// The same account at another device.
fn elsewhere(person: &Person, identity: &SigningKey) -> Person {
    let identity = SigningKey::from_seed(&identity.to_seed());
    Person { identity, device: SigningKey::generate().unwrap(), ..*person }
}

/// The keys that sign for somebody's account.
async fn devices(world: &World, person: &Person) -> Vec<DeviceKey> {
    let devices: Devices = world.by(person, Draft::get(route::DEVICES)).await.json();
    devices.devices.iter().map(|status| status.key).collect()
}

#[tokio::test]
async fn an_account_moves_to_the_new_card_and_its_other_devices_end() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let old = world.card(&bo);
    let laptop = elsewhere(&bo, &bo.identity);
    world.by(&laptop, Draft::post(route::DEVICES, &enrolment(&world, &laptop, &old, &bo.identity))).await.is_done();
    let new_key = SigningKey::generate().unwrap();
    let (request, card) = rotating(&world, &bo, &old, &new_key);
    let fetched: Rotations = world.by(&ada, Draft::get(route::rotations_of(bo.mailbox))).await.json();
    assert!(fetched.rotations.is_empty());
    world.by(&bo, Draft::post(route::ROTATIONS, &request)).await.is_done();
    world.by(&bo, Draft::post(route::ROTATIONS, &request)).await.is_done();
    for by in [&ada, &bo] {
        let fetched: Rotations = world.by(by, Draft::get(route::rotations_of(bo.mailbox))).await.json();
        assert_eq!(fetched.rotations, std::slice::from_ref(&request.rotation));
    }
    // The key that signed stays, the other one was enrolled by whoever had the old identity.
    assert_eq!(devices(&world, &bo).await, [DeviceKey(bo.device.public())]);
    assert_eq!(world.by(&laptop, Draft::get(route::ACCOUNT)).await.problem(), ProblemKind::Signature);
    // The old identity enrols nothing any more, whichever fingerprint it says; the new one does. Also after a restart.
    world.restart().await;
    let other = elsewhere(&bo, &new_key);
    for by in [&old, &card] {
        let stale = enrolment(&world, &other, by, &bo.identity);
        assert_eq!(world.by(&other, Draft::post(route::DEVICES, &stale)).await.problem(), ProblemKind::Signature);
    }
    let fresh = enrolment(&world, &other, &card, &new_key);
    world.by(&other, Draft::post(route::DEVICES, &fresh)).await.is_done();
    // Ada's link still shows the card that was made for it.
    let links: Links = world.by(&ada, Draft::get(route::LINKS)).await.json();
    assert_eq!(links.links[0].joiner.as_ref().unwrap().card, old.detached());
    // A link of Bo's names the new card.
    let secret = LinkSecret::random().unwrap();
    let stale = world.new_link(&bo, &secret);
    assert_eq!(world.by(&bo, Draft::post(route::LINKS, &stale)).await.problem(), ProblemKind::BadRequest);
    world.stop().await;
}

// attacks.md 37: enrolments that were held against the old card, while it still was the account's.
#[tokio::test]
async fn attack_37_the_old_identity_enrols_nothing_during_a_rotation() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    for name in ["Bo", "Cy", "Di", "Ed"] {
        let bo = world.member(&ada, name).await;
        let old = world.card(&bo);
        let (rotation, _) = rotating(&world, &bo, &old, &SigningKey::generate().unwrap());
        let rotates = world.by(&bo, Draft::post(route::ROTATIONS, &rotation));
        let enrols = (0..12).map(|_| async {
            let other = elsewhere(&bo, &bo.identity);
            let stale = enrolment(&world, &other, &old, &bo.identity);
            world.by(&other, Draft::post(route::DEVICES, &stale)).await
        });
        let (rotated, enrolled) = tokio::join!(rotates, join_all(enrols));
        rotated.is_done();
        for reply in enrolled {
            assert!(reply.status == 204 || reply.problem() == ProblemKind::Signature, "{reply:?}");
        }
        assert_eq!(devices(&world, &bo).await, [DeviceKey(bo.device.public())]);
    }
    world.stop().await;
}

// The same with the order made sure of: the rotation has the account's row before the enrolment, whose card was read before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attack_37_an_enrolment_that_waits_for_a_rotation_is_refused() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    postgres.create("rotations");
    let mut world = World::over(postgres.url("rotations"), |config| config.ledger_connections = 8).await;
    let ada = world.owner("Ada").await;
    let old = world.card(&ada);
    let (rotation, _) = rotating(&world, &ada, &old, &SigningKey::generate().unwrap());
    let other = elsewhere(&ada, &ada.identity);
    let stale = enrolment(&world, &other, &old, &ada.identity);
    let mut holding = sqlx::PgConnection::connect(&postgres.url("rotations")).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT 1 FROM account FOR NO KEY UPDATE").execute(&mut holding).await.unwrap();
    let waiting = async |count: i64| {
        let mut conn = sqlx::PgConnection::connect(&postgres.url("rotations")).await.unwrap();
        for _ in 0..500 {
            let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            if sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut conn).await.unwrap() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} do not wait");
    };
    let rotates = world.by(&ada, Draft::post(route::ROTATIONS, &rotation));
    let enrols = async {
        waiting(1).await;
        world.by(&other, Draft::post(route::DEVICES, &stale)).await
    };
    let lets_go = async {
        waiting(2).await;
        sqlx::raw_sql("COMMIT").execute(&mut holding).await.unwrap();
    };
    let (rotated, enrolled, ()) = tokio::join!(rotates, enrols, lets_go);
    rotated.is_done();
    assert_eq!(enrolled.problem(), ProblemKind::Signature);
    assert_eq!(devices(&world, &ada).await, [DeviceKey(ada.device.public())]);
    world.stop().await;
}

// attacks.md 35, 37: nobody moves somebody else's account, nor one's own back or aside.
#[tokio::test]
async fn attack_37_rotations_that_are_not_the_accounts_are_refused() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, eve) = (world.member(&ada, "Bo").await, world.member(&ada, "Eve").await);
    let (old, new_key, other_key) = (world.card(&bo), SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let (good, card) = rotating(&world, &bo, &old, &new_key);
    let (second, _) = rotating(&world, &bo, &old, &other_key);
    let post = |message: &NewRotation| Draft::post(route::ROTATIONS, message);
    // Eve with Bo's rotation; Bo without the new identity's word for his device; a signature that is missing, or twice the old
    // one's.
    assert_eq!(world.by(&eve, post(&good)).await.problem(), ProblemKind::Conflict);
    let unsaid = NewRotation { device: second.device.clone(), ..good.clone() };
    let Detached { statement, signature } = good.rotation.clone();
    let half = signature.rfind("-----BEGIN").unwrap();
    let twice = signature[..half].repeat(2);
    let cut = |signature: &str| Detached { statement: statement.clone(), signature: signature.to_owned() };
    let one = NewRotation { rotation: cut(&signature[..half]), ..good.clone() };
    let twice = NewRotation { rotation: cut(&twice), ..good.clone() };
    for bad in [unsaid, one, twice] {
        assert_eq!(world.by(&bo, post(&bad)).await.problem(), ProblemKind::BadRequest);
    }
    world.by(&bo, post(&good)).await.is_done();
    // A second one with the same serial, by whoever has the old key as well; and the first again in Eve's name.
    assert_eq!(world.by(&bo, post(&second)).await.problem(), ProblemKind::Conflict);
    assert_eq!(world.by(&eve, post(&good)).await.problem(), ProblemKind::Conflict);
    // Eve cannot become Bo: the identity has an account.
    let theirs = world.card(&eve);
    let stolen = Card { mailbox: eve.mailbox, serial: 2, ..card.card().clone() };
    let rotation = SignedRotation::sign(&theirs, &eve.identity, stolen, &new_key).unwrap();
    let device =
        Device { identity: rotation.card().fingerprint(), device_key: eve.device.public(), created: world.clock.now() };
    let device = Signed::sign(device, &new_key).unwrap().detached();
    let taken = NewRotation { rotation: rotation.detached(), device };
    assert_eq!(world.by(&eve, post(&taken)).await.problem(), ProblemKind::Conflict);
    let kept: Rotations = world.by(&eve, Draft::get(route::rotations_of(eve.mailbox))).await.json();
    assert!(kept.rotations.is_empty());
    // Onwards it goes, and what is kept is bounded.
    let (mut from, mut key) = (card, new_key);
    for _ in 0..17 {
        let next = SigningKey::generate().unwrap();
        let by = Person { identity: key, device: SigningKey::from_seed(&bo.device.to_seed()), ..bo };
        let (request, card) = rotating(&world, &by, &from, &next);
        world.by(&by, post(&request)).await.is_done();
        (from, key) = (card, next);
    }
    let kept: Rotations = world.by(&ada, Draft::get(route::rotations_of(bo.mailbox))).await.json();
    assert_eq!(kept.rotations.len(), 16);
    let last = kept.rotations.last().unwrap();
    assert!(last.statement.contains("age1rotated19"), "{last:?}");
    world.stop().await;
}

// attacks.md 42: a contractor learns of nobody's keys but of those it may send to.
#[tokio::test]
async fn attack_42_rotations_are_fetched_by_those_who_may_send_there() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.contractor(&ada, "Cy").await);
    let of = |person: &Person| Draft::get(route::rotations_of(person.mailbox));
    let nobody = Person::new("Nobody");
    assert_eq!(world.by(&cy, of(&ada)).await.status, 200);
    assert_eq!(world.by(&cy, of(&bo)).await.problem(), ProblemKind::Forbidden);
    assert_eq!(world.by(&cy, of(&nobody)).await.problem(), ProblemKind::Forbidden);
    assert_eq!(world.by(&bo, of(&cy)).await.status, 200);
    assert_eq!(world.by(&bo, of(&nobody)).await.problem(), ProblemKind::NotFound);
    assert_eq!(world.by(&bo, Draft::get("/v1/rotations/x")).await.problem(), ProblemKind::NotFound);
    assert_eq!(world.by(&nobody, of(&ada)).await.problem(), ProblemKind::Signature);
    world.stop().await;
}
