//! A relay over TLS on loopback, people with keys, and a client so plain that it can also do wrong.

#[path = "cast.rs"]
pub mod cast;
#[path = "openapi.rs"]
pub mod openapi;
#[path = "wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request as HttpRequest;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use pouch_protocol::{Account, Link, REQUEST_ID, route};
use pouch_relay::{
    Clock, Config, DiskHook, InitOptions, OpenError, OperationsAddress, Relay, Reloader, Seams, SystemClock, init,
};
use pouch_statement::{Sha256Digest, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

pub use cast::Person;
pub use wire::{Draft, Reply, blake3, sealed};

/// The machine's clock, and a number of seconds more.
#[derive(Default)]
pub struct TestClock {
    ahead: AtomicU64,
    panics: AtomicBool,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "a test made this clock panic");
        SystemClock.now().plus(self.ahead.load(Ordering::SeqCst))
    }
}

impl TestClock {
    pub fn forward(&self, seconds: u64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn ahead(&self) -> u64 {
        self.ahead.load(Ordering::SeqCst)
    }

    /// The next to ask for the time panics.
    pub fn panic_once(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }
}

/// What stops a relay, and the task that serves it.
type Running = (Option<oneshot::Sender<()>>, JoinHandle<()>);

/// What a running relay says of itself.
pub struct Serving {
    pub operations: Option<OperationsAddress>,
    pub reloader: Reloader,
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub config: Config,
    pub address: SocketAddr,
    pub clock: Arc<TestClock>,
    pub owner_link: Option<Link>,
    pub owner_pins: Vec<Sha256Digest>,
    /// The one that it was made with.
    first_certificate: Option<CertificateDer<'static>>,
    pub serving: Option<Serving>,
    running: Mutex<Option<Running>>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}, None).await
    }

    /// A relay whose configuration was changed and whose disk is watched.
    pub async fn with(change: impl FnOnce(&mut Config), disk: Option<DiskHook>) -> Self {
        Self::make(None, change, disk).await.unwrap()
    }

    /// One that may not open.
    pub async fn try_with(change: impl FnOnce(&mut Config)) -> Result<Self, OpenError> {
        Self::make(None, change, None).await
    }

    /// A relay whose ledger lies in that database, with a changed configuration.
    pub async fn over(ledger: String, change: impl FnOnce(&mut Config)) -> Self {
        Self::make(Some(ledger), change, None).await.unwrap()
    }

    /// A further node of it: with a copy of configuration and keys and the same blobs, on a port of its own.
    pub async fn node(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("relay");
        for sub in ["keys", "staging"] {
            std::fs::create_dir_all(data.join(sub)).unwrap();
        }
        std::os::unix::fs::symlink(self.data().join("blobs"), data.join("blobs")).unwrap();
        std::fs::copy(self.data().join("relay.toml"), data.join("relay.toml")).unwrap();
        for file in std::fs::read_dir(self.data().join("keys")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), data.join("keys").join(file.file_name())).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut node = Self {
            folder,
            config: Config { data, ..self.config.clone() },
            address: listener.local_addr().unwrap(),
            clock: Arc::clone(&self.clock),
            first_certificate: self.first_certificate.clone(),
            owner_pins: self.owner_pins.clone(),
            owner_link: None,
            serving: None,
            running: Mutex::new(None),
        };
        node.serve(listener, None).await.unwrap();
        node
    }

    async fn make(
        ledger: Option<String>,
        change: impl FnOnce(&mut Config),
        disk: Option<DiskHook>,
    ) -> Result<Self, OpenError> {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = InitOptions {
            data: folder.path().join("relay"),
            origin: format!("https://127.0.0.1:{}", address.port()).parse().unwrap(),
            listen: address,
            certificate: None,
            ledger,
            ledger_password_file: None,
        };
        let outcome = init(options).await.unwrap();
        let mut config = outcome.config;
        config.shutdown_seconds = 3;
        config.operations = Some("127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let mut world = Self {
            folder,
            config,
            address,
            clock: Arc::default(),
            first_certificate: None,
            owner_pins: outcome.link.pins.clone(),
            owner_link: Some(outcome.link),
            serving: None,
            running: Mutex::new(None),
        };
        world.first_certificate = world.certificate();
        world.serve(listener, disk).await?;
        Ok(world)
    }

    /// Asks the operations listener.
    pub async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let address = self.serving.as_ref().unwrap().operations.clone().unwrap();
        let io: Box<dyn Duplex> = match address {
            OperationsAddress::Loopback(address) => Box::new(TcpStream::connect(address).await.unwrap()),
            OperationsAddress::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = HttpRequest::builder().method(method).uri(path).header("host", "localhost");
        let response = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What the metrics say, if this is among them.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (status, text) = self.ask("GET", "/metrics").await;
        assert_eq!(status, 200, "{text}");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// Waits, a bounded time, for a line of the metrics.
    pub async fn wait_for_metric(&self, line: &str) {
        let mut text = String::new();
        for _ in 0..500 {
            text = self.ask("GET", "/metrics").await.1;
            if text.lines().any(|l| l == line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{line} is not in\n{text}");
    }

    pub fn data(&self) -> PathBuf {
        self.config.data.clone()
    }

    /// The one that lies in the folder now, if it can be read.
    fn certificate(&self) -> Option<CertificateDer<'static>> {
        let pem = std::fs::read(self.data().join("keys/relay.crt")).ok()?;
        CertificateDer::from_pem_slice(&pem).ok()
    }

    async fn serve(&mut self, listener: TcpListener, disk: Option<DiskHook>) -> Result<(), OpenError> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let relay = Relay::open_with(self.config.clone(), Seams { clock, disk }).await?;
        self.serving = Some(Serving { operations: relay.operations(), reloader: relay.reloader() });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            relay.serve(listener, async { drop(stopped.await) }).await.unwrap();
        });
        *self.running.lock().unwrap() = Some((Some(stop), task));
        Ok(())
    }

    pub async fn stop(&mut self) {
        self.begin_stop();
        let running = self.running.lock().unwrap().take();
        if let Some((_, task)) = running {
            tokio::time::timeout(Duration::from_secs(20), task).await.expect("the relay stops").unwrap();
        }
    }

    /// Says stop and does not wait.
    pub fn begin_stop(&self) {
        if let Some((stop, _)) = self.running.lock().unwrap().as_mut() {
            stop.take();
        }
    }

    /// After its runtime was shut down there is nothing to stop.
    pub fn forget_running(&mut self) {
        self.running.lock().unwrap().take();
    }

    /// Stops and starts again on the same folder and port.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Starts again; what was over while nobody served is swept when this returns.
    pub async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener, None).await.unwrap();
        for _ in 0..1000 {
            if self.metric("pouch_relay_swept_total{what=\"rounds\"}").await.is_some_and(|count| count > 0.0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was swept");
    }

    /// A connection, or none when nobody listens.
    pub async fn connect_or_not(&self) -> Option<(SendRequest<Full<Bytes>>, JoinHandle<()>)> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        let io = TokioIo::new(self.tls_over(stream).await.ok()?);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
        Some((sender, tokio::spawn(async { drop(connection.await) })))
    }

    pub async fn tls(&self) -> TlsStream<TcpStream> {
        self.tls_behind(b"").await.unwrap()
    }

    /// TLS after what a load balancer says before it.
    pub async fn tls_behind(&self, header: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(header).await?;
        self.tls_over(stream).await
    }

    async fn tls_over(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in [self.certificate(), self.first_certificate.clone()].into_iter().flatten() {
            roots.add(certificate).unwrap();
        }
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let name = rustls_pki_types::ServerName::from(self.address.ip());
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub async fn send(&self, draft: Draft) -> Reply {
        tokio::time::timeout(Duration::from_secs(60), self.try_send(draft)).await.expect("an answer").unwrap()
    }

    pub async fn try_send(&self, draft: Draft) -> Result<Reply, hyper::Error> {
        let (mut sender, connection) = self.connect().await?;
        let reply = self.send_on(&mut sender, draft).await;
        connection.abort();
        reply
    }

    /// A connection for several requests.
    pub async fn connect(&self) -> Result<(SendRequest<Full<Bytes>>, JoinHandle<()>), hyper::Error> {
        self.connect_over(self.tls().await).await
    }

    pub async fn connect_over(
        &self,
        stream: TlsStream<TcpStream>,
    ) -> Result<(SendRequest<Full<Bytes>>, JoinHandle<()>), hyper::Error> {
        let io = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        Ok((sender, tokio::spawn(async { drop(connection.await) })))
    }

    pub async fn send_on(&self, sender: &mut SendRequest<Full<Bytes>>, draft: Draft) -> Result<Reply, hyper::Error> {
        let target = draft.query.as_ref().map_or(draft.path.clone(), |query| format!("{}?{query}", draft.path));
        let mut request = HttpRequest::builder().method(draft.method).uri(target);
        if !draft.fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.config.origin.authority());
        }
        for (name, value) in &draft.fields {
            request = request.header(*name, value);
        }
        let response = sender.send_request(request.body(Full::new(draft.body.clone())).unwrap()).await?;
        let (mut head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let request = head.headers.remove(REQUEST_ID).expect("a name").to_str().unwrap().to_owned();
        assert!(request.len() == 16 && request.bytes().all(|c| c.is_ascii_hexdigit()), "{request}");
        let reply = Reply { status: head.status.as_u16(), headers: head.headers, body, request };
        openapi::compare(&draft, &reply);
        Ok(reply)
    }

    pub async fn by(&self, person: &Person, draft: Draft) -> Reply {
        self.send(draft.signed(self, person)).await
    }

    /// All files that hold bytes of objects; the store's id is none.
    pub fn blob_files(&self) -> Vec<PathBuf> {
        let all = ["blobs", "staging"].map(|folder| beneath(self.data().join(folder))).concat();
        all.into_iter().filter(|path| !path.is_dir() && !path.ends_with("blobs/store")).collect()
    }

    /// Waits, a bounded time, until as many blob files are left.
    pub async fn wait_for_blobs(&self, count: usize) {
        for _ in 0..200 {
            if self.blob_files().len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} blobs are left, not {count}", self.blob_files().len());
    }

    /// Room is given back once the files are deleted.
    pub async fn wait_for_room(&self, person: &Person, used: u64) {
        let mut found = 0;
        for _ in 0..200 {
            found = self.by(person, Draft::get(route::ACCOUNT)).await.json::<Account>().used;
            if found == used {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{found} bytes are taken, not {used}");
    }
}

/// A folder, and all that is beneath it.
pub fn beneath(folder: PathBuf) -> Vec<PathBuf> {
    let mut all = vec![folder];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        if path.is_dir() {
            all.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
        next += 1;
    }
    all
}
