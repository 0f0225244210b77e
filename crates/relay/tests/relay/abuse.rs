//! Those who send too slowly, too much, or bytes that mean two things.

use std::time::{Duration, Instant};

use pouch_protocol::{ProblemKind, route};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Draft, World, sealed};

/// Sends bytes on a TLS connection and reads until the relay closes it.
async fn exchange(world: &World, bytes: &[u8]) -> String {
    let mut stream = world.tls().await;
    // A relay that closes early may break the writing off.
    let _ = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    }
    .await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // Closed without close_notify is closed as well.
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("the relay closes");
    String::from_utf8_lossy(&answer).into_owned()
}

// attacks.md 45: two opinions on where a body ends.
#[tokio::test]
async fn attack_45_conflicting_lengths_are_refused_and_the_connection_closed() {
    let mut world = World::new().await;
    let host = world.config.origin.authority();
    let smuggled = "GET /v1 HTTP/1.1\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
    ] {
        let request = format!("POST /v1/join HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n0\r\n\r\n{smuggled}");
        let answer = exchange(&world, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields:?} gives {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{fields:?} gives {answer:?}");
    }
    world.stop().await;
}

// attacks.md 46: slow heads, slow bodies, slow readers, idle connections; an honest client is served meanwhile.
#[tokio::test]
async fn attack_46_the_slow_are_closed_and_the_honest_served() {
    let change = |config: &mut pouch_relay::Config| {
        (config.header_seconds, config.progress_seconds, config.handshake_seconds) = (2, 2, 2);
    };
    let mut world = World::with(change, None).await;
    let ada = world.owner("Ada").await;
    let host = world.config.origin.authority();
    let started = Instant::now();
    let head = format!("POST /v1/join HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9999\r\n\r\nx");
    let slow = async {
        tokio::join!(
            exchange(&world, b"GET /v1 HTTP/1.1\r\nHost: "),
            exchange(&world, head.as_bytes()),
            exchange(&world, b""),
            async {
                let mut mute = tokio::net::TcpStream::connect(world.address).await.unwrap();
                let mut nothing = Vec::new();
                let read = mute.read_to_end(&mut nothing);
                let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("the relay closes");
            }
        )
    };
    let honest = async {
        let bundle = world.deliver(&ada, &[sealed(7, 100_000)], &[&ada], false).await;
        world.by(&ada, Draft::get(route::part(bundle, 0))).await.body.len()
    };
    let ((_, stalled, idle, ()), length) = tokio::join!(slow, honest);
    assert_eq!(length, 100_000);
    assert!(stalled.starts_with("HTTP/1.1 400 ") && stalled.contains("no progress"), "{stalled}");
    assert_eq!(idle, "");
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    world.stop().await;
}

// attacks.md 46: who reads nothing of what it asked for does not keep its connection.
#[tokio::test]
async fn attack_46_a_reader_that_stalls_is_closed() {
    let mut world = World::with(|config| config.progress_seconds = 1, None).await;
    let ada = world.owner("Ada").await;
    let bundle = world.deliver(&ada, &[sealed(7, 24 << 20)], &[&ada], false).await;
    let draft = Draft::get(route::part(bundle, 0)).signed(&world, &ada);
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", draft.path, world.config.origin.authority());
    for (name, value) in &draft.fields {
        request += &format!("{name}: {value}\r\n");
    }
    let mut stream = world.tls().await;
    stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("closed");
    assert!(rest.len() < 24 << 20, "{} bytes came after all", rest.len());
    world.stop().await;
}

// attacks.md 46: with every place taken by idle connections, an honest client still gets one.
#[tokio::test]
async fn attack_46_idle_connections_make_room() {
    let mut world = World::with(|config| config.connections = 8, None).await;
    let ada = world.owner("Ada").await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(tokio::net::TcpStream::connect(world.address).await.unwrap());
    }
    let bundle = world.deliver(&ada, &[sealed(7, 5000)], &[&ada], false).await;
    assert_eq!(world.by(&ada, Draft::get(route::part(bundle, 0))).await.status, 200);
    drop(idle);
    world.stop().await;
}

// attacks.md 48: heads and bodies are bounded.
#[tokio::test]
async fn attack_48_heads_and_bodies_are_bounded() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let host = world.config.origin.authority();
    let long = format!("GET /v1 HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert!(exchange(&world, long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET /v1 HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert!(exchange(&world, many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let path = format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "x".repeat(70_000));
    assert!(exchange(&world, path.as_bytes()).await.starts_with("HTTP/1.1 4"));

    let bundle = world.begin(&ada, false).await;
    let message = vec![b' '; 300 << 10];
    for draft in [
        Draft::new("POST", route::JOIN).bytes(message.clone()),
        Draft::new("POST", route::BUNDLES).bytes(message.clone()),
        Draft::put(route::envelope(bundle, ada.mailbox), sealed(1, (256 << 10) + 1)),
    ] {
        assert_eq!(world.by(&ada, draft).await.problem(), ProblemKind::TooLarge);
    }
    // A part beyond the limit is refused by its announcement.
    let mut huge = Draft::part(bundle, 0, &sealed(1, 100));
    let field = pouch_protocol::PartField {
        number: 0,
        length: pouch_protocol::limits::MAX_PART + 1,
        blake3: pouch_statement::Blake3Digest::from_bytes([0; 32]),
    };
    huge.covered = pouch_protocol::Covered::Part(field);
    let huge = huge.field(pouch_protocol::PartField::NAME, field.to_value());
    assert_eq!(world.by(&ada, huge).await.problem(), ProblemKind::TooLarge);
    world.stop().await;
}

// attacks.md 47: there is no HTTP/2 to attack, nor an older TLS (55).
#[tokio::test]
async fn attack_47_55_http_1_1_over_tls_1_3_only() {
    let mut world = World::new().await;
    let answer = exchange(&world, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    let stream = world.tls().await;
    let (_, session) = stream.get_ref();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    drop(stream);
    // A plain request gets no plain answer.
    let mut plain = tokio::net::TcpStream::connect(world.address).await.unwrap();
    plain.write_all(b"GET /v1 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"));
    world.stop().await;
}

// attacks.md 46: whoever is suspended keeps no place from before against those who have an account.
#[tokio::test]
async fn attack_46_a_suspended_account_makes_room() {
    let mut world = World::with(|config| config.connections = 2, None).await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let account = || Draft::get(route::ACCOUNT);
    let (mut bos, _bo) = world.connect().await.unwrap();
    assert_eq!(world.send_on(&mut bos, account().signed(&world, &bo)).await.unwrap().status, 200);
    let (mut adas, _ada) = world.connect().await.unwrap();
    let suspend = Draft::new("POST", route::suspend(bo.mailbox));
    world.send_on(&mut adas, suspend.signed(&world, &ada)).await.unwrap().is_done();
    let refused = world.send_on(&mut bos, account().signed(&world, &bo)).await.unwrap();
    assert_eq!(refused.problem(), ProblemKind::Suspended);
    // Both places were of accounts that have no more than they may: without the suspension there would be none.
    assert_eq!(world.by(&ada, account()).await.status, 200);
    assert!(world.send_on(&mut bos, account().signed(&world, &bo)).await.is_err());
    assert_eq!(world.send_on(&mut adas, account().signed(&world, &ada)).await.unwrap().status, 200);
    world.stop().await;
}
