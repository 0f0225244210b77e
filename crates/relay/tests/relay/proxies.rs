//! Behind load balancers: whose word on the client's address counts.

use std::time::Duration;

use pouch_protocol::{AccessPage, ProblemKind, route};
use tokio::io::AsyncReadExt as _;

use crate::harness::{Draft, Person, Reply, World};

fn behind(networks: &str, proxy_protocol: bool) -> impl FnOnce(&mut pouch_relay::Config) {
    let parsed = pouch_relay::Config::parse(&format!("trusted_proxies = [{networks:?}]")).unwrap();
    move |config| (config.trusted_proxies, config.proxy_protocol) = (parsed.trusted_proxies, proxy_protocol)
}

async fn over(world: &World, header: &str, draft: Draft) -> Reply {
    let stream = world.tls_behind(header.as_bytes()).await.unwrap();
    let (mut sender, connection) = world.connect_over(stream).await.unwrap();
    let reply = world.send_on(&mut sender, draft).await.unwrap();
    connection.abort();
    reply
}

/// Where the last request of this person came from, by the record.
async fn last_address(world: &World, owner: &Person, header: &str) -> String {
    let page: AccessPage = over(world, header, Draft::get(route::ACCESS).signed(world, owner)).await.json();
    page.records.into_iter().find(|row| row.account.is_some() && row.route == route::ACCOUNT).unwrap().address
}

const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

// The address in record and rates is the client's, in either version; without the header there is no TLS.
#[tokio::test]
async fn the_proxy_protocol_is_believed_from_trusted_proxies_and_required_of_them() {
    let mut world = World::with(|_| {}, None).await;
    let ada = world.owner("Ada").await;
    world.stop().await;
    behind("127.0.0.0/8", true)(&mut world.config);
    (world.config.address_requests_per_second, world.config.address_requests_burst) = (1, 10);
    world.start().await;
    let account = || Draft::get(route::ACCOUNT).signed(&world, &ada);
    assert_eq!(over(&world, LINE, account()).await.status, 200);
    assert_eq!(last_address(&world, &ada, LINE).await, "192.0.2.7");
    let six = "PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n";
    assert_eq!(over(&world, six, account()).await.status, 200);
    assert_eq!(last_address(&world, &ada, "PROXY UNKNOWN\r\n").await, "2001:db8::7");
    // Each client has its own rate, though all come through one balancer.
    let mut kinds = Vec::new();
    for _ in 0..12 {
        kinds.push(
            over(&world, "PROXY TCP4 192.0.2.8 198.51.100.1 1 443\r\n", Draft::get(route::INBOX)).await.problem(),
        );
    }
    assert_eq!(kinds.last(), Some(&ProblemKind::Rate));
    assert_eq!(over(&world, LINE, account()).await.status, 200);
    // Without it, or with a wrong one, the connection ends before TLS.
    for bad in ["", "PROXY TCP4 192.0.2.7\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let outcome = tokio::time::timeout(Duration::from_secs(10), world.tls_behind(bad.as_bytes())).await;
        assert!(outcome.unwrap().is_err(), "{bad:?}");
    }
    world.stop().await;
}

// attacks.md 43: whoever is no proxy of ours does not choose the address that the record has.
#[tokio::test]
async fn strangers_cannot_claim_an_address() {
    let mut world = World::with(behind("10.0.0.0/8", true), None).await;
    let ada = world.owner("Ada").await;
    assert!(world.tls_behind(LINE.as_bytes()).await.is_err());
    let claims = Draft::get(route::ACCOUNT).field("x-forwarded-for", "192.0.2.7").field("forwarded", "for=192.0.2.7");
    assert_eq!(world.by(&ada, claims).await.status, 200);
    assert_eq!(last_address(&world, &ada, "").await, "127.0.0.1");
    world.stop().await;
}

#[tokio::test]
async fn a_balancer_that_ends_tls_says_who_the_client_is() {
    let mut world = World::with(behind("127.0.0.1/32", false), None).await;
    let ada = world.owner("Ada").await;
    let said = Draft::get(route::ACCOUNT).field("x-forwarded-for", "203.0.113.9, 192.0.2.7");
    // The field that this balancer does not write is the client's own invention.
    let said = said.field("forwarded", "for=203.0.113.1");
    assert_eq!(world.by(&ada, said).await.status, 200);
    assert_eq!(last_address(&world, &ada, "").await, "192.0.2.7");
    // Authority is what is configured, whoever says another.
    let other = Draft::get(route::INFO).field("host", "other.example").field("x-forwarded-host", "other.example");
    assert_eq!(world.send(other).await.problem(), ProblemKind::BadRequest);
    world.stop().await;
}

// attacks.md 46: a balancer's connection that never says anything does not stay.
#[tokio::test]
async fn attack_46_a_header_that_does_not_come_is_not_waited_for() {
    let change = behind("127.0.0.0/8", true);
    let mut world = World::with(
        |config| {
            change(config);
            config.handshake_seconds = 1;
        },
        None,
    )
    .await;
    let mut mute = tokio::net::TcpStream::connect(world.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut mute, b"PROXY TCP4 192.0").await.unwrap();
    let mut nothing = Vec::new();
    let read = mute.read_to_end(&mut nothing);
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("closed");
    assert_eq!(nothing, b"");
    world.stop().await;
}
