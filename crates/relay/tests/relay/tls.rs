//! The certificate: read again when its files change, and the next key taken into use.

use std::time::Duration;

use pouch_protocol::route;
use pouch_statement::Sha256Digest;

use crate::harness::{Draft, World};

/// SHA-256 of the key of the certificate that the relay shows, as clients compare it with their pins.
async fn shown(world: &World) -> Sha256Digest {
    let stream = world.tls().await;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let parsed = webpki::EndEntityCert::try_from(&certificate).unwrap();
    Sha256Digest::of(parsed.subject_public_key_info().as_ref())
}

// Both pins are in every link and card: who knows them goes on through a rotation, without a restart.
#[tokio::test]
async fn attack_55_the_next_key_is_what_clients_already_know() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let before = world.owner_pins.clone();
    assert_eq!((before.len(), before[0]), (2, shown(&world).await));
    let after = pouch_relay::rotate_key(&world.config).unwrap();
    assert_eq!(after[0], before[1]);
    world.serving.as_ref().unwrap().reloader.reload();
    for _ in 0..500 {
        if shown(&world).await == before[1] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shown(&world).await, before[1]);
    assert_eq!(world.by(&ada, Draft::get(route::ACCOUNT)).await.status, 200);
    // And the relay starts with it.
    world.restart().await;
    assert_eq!(shown(&world).await, before[1]);
    world.stop().await;
}

#[tokio::test]
async fn a_broken_certificate_leaves_the_old_one_in_force() {
    let mut world = World::new().await;
    let before = shown(&world).await;
    let path = world.data().join("keys/relay.crt");
    let pem = std::fs::read(&path).unwrap();
    std::fs::write(&path, "nonsense").unwrap();
    world.serving.as_ref().unwrap().reloader.reload();
    world.wait_for_metric("pouch_relay_certificate_reads_total{what=\"refused\"} 1").await;
    std::fs::write(&path, pem).unwrap();
    assert_eq!(shown(&world).await, before);
    world.serving.as_ref().unwrap().reloader.reload();
    world.wait_for_metric("pouch_relay_certificate_reads_total{what=\"loaded\"} 1").await;
    assert_eq!(shown(&world).await, before);
    world.stop().await;
}
