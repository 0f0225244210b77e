//! Proxies on loopback as companies have them: HTTP with CONNECT, the same behind TLS, SOCKS 5.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// It stops when it is dropped.
pub struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

#[derive(Clone)]
enum Kind {
    Http,
    Https(Arc<ServerConfig>),
    Socks,
}

impl Proxy {
    /// Takes CONNECT (RFC 9110 §9.3.6) from whoever says `Basic` with `ada:open`.
    #[must_use]
    pub fn http() -> Self {
        Self::start(Kind::Http)
    }

    /// The same, behind TLS.
    #[must_use]
    pub fn https(tls: Arc<ServerConfig>) -> Self {
        Self::start(Kind::Https(tls))
    }

    /// SOCKS 5 without authentication (RFC 1928).
    #[must_use]
    pub fn socks() -> Self {
        Self::start(Kind::Socks)
    }

    fn start(kind: Kind) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        runtime.spawn({
            let asked = Arc::clone(&asked);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(kind.clone(), client, Arc::clone(&asked)));
                }
            }
        });
        Self { port, asked, _runtime: runtime }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it was asked to connect to, each time, as it was written.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(kind: Kind, client: TcpStream, asked: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    match kind {
        Kind::Http => connect(client, &asked).await,
        Kind::Https(tls) => connect(TlsAcceptor::from(tls).accept(client).await?, &asked).await,
        Kind::Socks => socks(client, &asked).await,
    }
}

async fn connect(mut client: impl AsyncRead + AsyncWrite + Unpin, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    // ada:open
    let may = head.lines().any(|line| line.eq_ignore_ascii_case("proxy-authorization: Basic YWRhOm9wZW4="));
    if !head.starts_with("CONNECT ") || !may {
        return client.write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n").await;
    }
    let mut relay = TcpStream::connect(&target).await?;
    asked.lock().unwrap().push(target);
    client.write_all(b"HTTP/1.1 200 Go on\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut relay).await.map(drop)
}

async fn socks(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut greeting = [0; 2];
    client.read_exact(&mut greeting).await?;
    let mut methods = vec![0; greeting[1].into()];
    client.read_exact(&mut methods).await?;
    client.write_all(&[5, 0]).await?;
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    assert_eq!(request[..3], [5, 1, 0], "CONNECT alone is asked for");
    let host = match request[3] {
        1 => Ipv4Addr::from(client.read_u32().await?).to_string(),
        3 => {
            let mut name = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).unwrap()
        }
        other => panic!("no address of kind {other} is expected"),
    };
    let target = format!("{host}:{}", client.read_u16().await?);
    let mut relay = TcpStream::connect(&target).await?;
    asked.lock().unwrap().push(target);
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut client, &mut relay).await.map(drop)
}
