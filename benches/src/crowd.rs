//! An honest client beside a crowd that holds connections: idle ones, and slow ones that trickle a body (attacks.md 46).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::load::{Client, Object, runtime};
use crate::options::Options;
use crate::site::Site;
use crate::{Failure, remark, say};

const IDLE: usize = 10_000;
const SLOW: usize = 500;
/// Bundles that the honest client delivers and fetches.
const BUNDLES: usize = 24;
const PART: usize = 4 << 20;

/// What the crowd knows of the relay.
struct Target {
    address: std::net::SocketAddr,
    host: String,
    tls: TlsConnector,
    /// Connections that are held at this moment.
    held: AtomicUsize,
}

pub(crate) fn measure(options: &Options) -> Result<(), Failure> {
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(20_000), maximum: Some(20_000) },
    );
    say(format_args!("## an honest client beside {IDLE} idle and {SLOW} slow connections\n"));
    say("| places of the relay | connections held | speed, of that without them | peak RSS |");
    say("| ---: | ---: | ---: | ---: |");
    // Places for all of them, who then stay; and as it comes, where each newcomer pushes another out.
    beside(options, "connections = 12000\naddress_connections = 12000\nheader_seconds = 600\n", "12,000", true)?;
    beside(options, "", "512", false)?;
    say("");
    Ok(())
}

fn beside(options: &Options, lines: &str, places: &str, fits: bool) -> Result<(), Failure> {
    let site = Site::start(&options.dir, 1, lines, "ulimit -n 20000; exec")?;
    let client = site.owner()?;
    let relay = format!("https://127.0.0.1:{}", site.port()).parse()?;
    let tls = pouch_client::transport::tls(&relay, &client.pins, &pouch_client::transport::Network::default())?;
    let target = Arc::new(Target {
        address: ([127, 0, 0, 1], site.port()).into(),
        host: format!("127.0.0.1:{}", site.port()),
        tls: TlsConnector::from(Arc::new(tls)),
        held: AtomicUsize::new(0),
    });
    let runtime = runtime()?;
    runtime.block_on(exchange(client))?;
    let alone = runtime.block_on(exchange(client))?;
    let crowd = runtime.block_on(gather(&target, fits))?;
    remark(format_args!("{} connections held", target.held.load(Ordering::Relaxed)));
    let beside = runtime.block_on(exchange(client))?;
    let held = target.held.load(Ordering::Relaxed);
    runtime.block_on(async move {
        let mut crowd = crowd;
        crowd.shutdown().await;
    });
    say(format_args!(
        "| {places} | {held} | {:.2} ({:.2} s alone, {:.2} s beside) | {} MiB |",
        alone.as_secs_f64() / beside.as_secs_f64(),
        alone.as_secs_f64(),
        beside.as_secs_f64(),
        site.peak().div_ceil(1024)
    ));
    Ok(())
}

async fn exchange(client: &Client) -> Result<Duration, Failure> {
    let (part, index) = (Object::new("part", PART), Object::new("index", 4096));
    let begun = Instant::now();
    for _ in 0..BUNDLES {
        let bundle = client.deliver(std::slice::from_ref(&part), &index, client.mailbox).await?;
        client.api.release(bundle).await?;
        let got = client.api.get_part(bundle, 0, PART).await?;
        if got != part.sealed {
            return Err("a part came back different".into());
        }
        client.api.delete_bundle(bundle).await?;
    }
    Ok(begun.elapsed())
}

/// All of the crowd; where all find a place, it is waited for until nearly all of them have.
async fn gather(target: &Arc<Target>, fits: bool) -> Result<JoinSet<()>, Failure> {
    let mut crowd = JoinSet::new();
    for number in 0..IDLE + SLOW {
        let target = Arc::clone(target);
        crowd.spawn(async move {
            loop {
                let _ = if number < IDLE { idle(&target, number % 2 == 0).await } else { trickle(&target).await };
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    let enough = if fits { (IDLE + SLOW) * 95 / 100 } else { 256 };
    for _ in 0..1200 {
        if target.held.load(Ordering::Relaxed) >= enough {
            // What comes again and again where places are few is a load of its own, which settles.
            tokio::time::sleep(Duration::from_secs(3)).await;
            return Ok(crowd);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("only {} of the crowd hold a connection", target.held.load(Ordering::Relaxed)).into())
}

/// Counts a connection for as long as it lives.
struct Held<'a>(&'a Target);

impl<'a> Held<'a> {
    fn of(target: &'a Target) -> Self {
        target.held.fetch_add(1, Ordering::Relaxed);
        Self(target)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection before or after its handshake, on which nothing happens until the relay ends it.
async fn idle(target: &Target, handshake: bool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target.address).await?;
    if handshake {
        let mut stream = target.tls.connect(name(), stream).await?;
        let _held = Held::of(target);
        stream.read_u8().await?;
    } else {
        let _held = Held::of(target);
        stream.read_u8().await?;
    }
    Ok(())
}

/// A body, a byte each second, until the relay has enough of it.
async fn trickle(target: &Target) -> std::io::Result<()> {
    let stream = TcpStream::connect(target.address).await?;
    let mut stream = target.tls.connect(name(), stream).await?;
    let _held = Held::of(target);
    let head = format!("POST /v1/join HTTP/1.1\r\nHost: {}\r\nContent-Length: 9999\r\n\r\n", target.host);
    stream.write_all(head.as_bytes()).await?;
    loop {
        stream.write_all(b"x").await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into())
}
