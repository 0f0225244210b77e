//! A crowd that holds connections while somebody honest sends (attacks.md 46).

use std::time::{Duration, Instant};

use pouch_protocol::route;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::harness::{Draft, Person, World, sealed};

/// How many idle ones; a twentieth of them are slow besides. `POUCH_CROWD=10000` is the full size, which needs as many
/// descriptors twice over.
fn size() -> usize {
    std::env::var("POUCH_CROWD").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

/// Sends and fetches bundles, and tells how long it took.
async fn exchange(world: &World, person: &Person) -> Duration {
    let begun = Instant::now();
    for _ in 0..8 {
        let bundle = world.deliver(person, &[sealed(7, 1 << 20), sealed(8, 1 << 20)], &[person], false).await;
        let part = world.by(person, Draft::get(route::part(bundle, 1))).await;
        assert_eq!(part.body.len(), 1 << 20);
    }
    begun.elapsed()
}

/// How many connections the relay has.
async fn connections(world: &World) -> f64 {
    world.metric("pouch_relay_connections").await.unwrap()
}

/// A body, a byte each second, until the relay has enough of it.
async fn trickle(world: &World) {
    let host = world.config.origin.authority();
    let head = format!("POST /v1/join HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9999\r\n\r\n");
    let Ok(mut stream) = world.tls_behind(b"").await else { return };
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A connection after its handshake, or before it, on which nothing happens until the relay ends it.
async fn idle(world: &World, handshake: bool) {
    let mut nothing = [0; 1];
    if handshake {
        if let Ok(mut stream) = world.tls_behind(b"").await {
            let _ = stream.read(&mut nothing).await;
        }
    } else if let Ok(mut stream) = tokio::net::TcpStream::connect(world.address).await {
        let _ = stream.read(&mut nothing).await;
    }
}

/// With places for all of the crowd it sits there until its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_46_an_honest_client_finishes_beside_a_crowd() {
    let size = size();
    beside(size, 2 * size).await;
}

/// With places for half of it each newcomer pushes another out, which comes again: a flood of handshakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_46_an_honest_client_finishes_beside_a_crowd_that_pushes() {
    let size = size();
    beside(size, size / 2).await;
}

async fn beside(size: usize, places: usize) {
    let change = |config: &mut pouch_relay::Config| {
        config.connections = places.max(64);
        config.address_connections = config.connections;
    };
    let mut world = World::with(change, None).await;
    let ada = world.owner("Ada").await;
    let alone = exchange(&world, &ada).await;
    let shared = std::sync::Arc::new(world);
    let mut crowd = JoinSet::new();
    for n in 0..size {
        let world = std::sync::Arc::clone(&shared);
        crowd.spawn(async move {
            loop {
                idle(&world, n % 2 == 0).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    for _ in 0..size / 20 {
        let world = std::sync::Arc::clone(&shared);
        crowd.spawn(async move {
            loop {
                trickle(&world).await;
            }
        });
    }
    // By the relay's own count the crowd is there; some are always just coming back.
    let there = (size.min(places.max(64)) * 8 / 10) as f64;
    let arriving = async {
        while connections(&shared).await < there {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), arriving).await.expect("the crowd arrives");
    let before = connections(&shared).await;
    let beside = exchange(&shared, &ada).await;
    let after = connections(&shared).await;
    crowd.shutdown().await;
    // Told and not asserted: it depends on the machine.
    eprintln!(
        "beside {size} idle and {} slow connections, {places} places, {before} to {after} connected: {beside:.2?}, alone {alone:.2?}: {:.2} of the speed",
        size / 20,
        alone.as_secs_f64() / beside.as_secs_f64()
    );
    let mut world = std::sync::Arc::into_inner(shared).unwrap();
    world.stop().await;
}
