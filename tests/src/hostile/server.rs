//! The server: TLS, HTTP/1.1 by hand, and rules that rewrite, delay, cut, repeat, withhold or invent answers.
//!
//! By hand, because an honest HTTP library would not write what these tests need written.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pouch_client::transport::{HttpRequest, Https, Transport as _};
use pouch_statement::RelayOrigin;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::listening::Listening;

/// The longest answer of the honest relay that is passed on.
const MAX_PASSED: usize = 400 << 20;
/// A connection on which nothing moves for so long is dropped.
const IDLE: Duration = Duration::from_secs(30);

/// A request as it came from a client.
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    shared: Arc<Shared>,
}

/// An answer that is written as HTTP wants it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What the hostile relay does with a request.
pub enum Reply {
    /// Answers by the rules of HTTP.
    Answer(Answer),
    /// Writes these bytes as they are and closes.
    Raw(Vec<u8>),
    /// Writes the first bytes, then the second ones again and again until the client has enough, at most so many.
    Endless(Vec<u8>, Vec<u8>, u64),
    /// Closes without a word.
    Close,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl Answer {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let fields = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, fields, body: body.into() }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::new(200, "application/json", value.to_string())
    }

    pub fn object(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "application/octet-stream", bytes)
    }

    pub fn problem(status: u16, word: &str, detail: &str) -> Self {
        let problem = serde_json::json!({
            "type": format!("urn:pouch:problem:{word}"), "title": detail, "status": status, "detail": detail,
        });
        Self::new(status, "application/problem+json", problem.to_string())
    }

    pub fn with_field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Changes the body as JSON.
    pub fn edit(mut self, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let mut value = serde_json::from_slice(&self.body).unwrap();
        change(&mut value);
        self.body = value.to_string().into_bytes();
        self
    }

    /// Changes the body as bytes.
    pub fn twist(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.body);
        self
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} Hostile\r\n", self.status).into_bytes();
        for (name, value) in &self.fields {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if self.status != 204 {
            out.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

impl Seen {
    /// What the honest relay behind answers to this.
    pub fn pass(&self) -> Answer {
        let method = ["GET", "PUT", "POST", "DELETE"].into_iter().find(|m| *m == self.method).unwrap();
        const PASSED: [&str; 7] =
            ["signature-input", "signature", "content-digest", "pouch-part", "content-type", "if-match", "range"];
        let mut fields: Vec<(&'static str, String)> = vec![("host", self.shared.authority.clone())];
        for name in PASSED {
            if let Some((_, value)) = self.fields.iter().find(|(n, _)| n == name) {
                fields.push((name, value.clone()));
            }
        }
        let target = self.query.as_ref().map_or_else(|| self.path.clone(), |q| format!("{}?{q}", self.path));
        let body = (!self.body.is_empty()).then(|| self.body.clone().into());
        let request = HttpRequest { method, target, fields, body, max_answer: MAX_PASSED };
        let answer = self.shared.runtime.block_on(self.shared.relay.call(request)).unwrap();
        let fields = answer.content_type.map(|t| ("content-type".to_owned(), t)).into_iter().collect();
        Answer { status: answer.status, fields, body: answer.body.to_vec() }
    }

    /// The n-th component of the path, from 0.
    pub fn component(&self, n: usize) -> &str {
        self.path.split('/').nth(n + 1).unwrap()
    }

    fn matches(&self, method: &str, pattern: &str) -> bool {
        let (path, pattern): (Vec<_>, Vec<_>) = (self.path.split('/').collect(), pattern.split('/').collect());
        self.method == method
            && path.len() == pattern.len()
            && path.iter().zip(pattern).all(|(have, want)| want == "*" || *have == want)
    }
}

type Act = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;
/// Method, pattern of the path, and what is done then.
type Rule = (&'static str, &'static str, Act);
/// A connection, to be shut, and the thread that serves it.
type Open = (Option<TcpStream>, JoinHandle<io::Result<()>>);

struct Shared {
    relay: Https,
    authority: String,
    runtime: tokio::runtime::Runtime,
    tls: Mutex<Arc<ServerConfig>>,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<String>>,
    streamed: AtomicU64,
    stopped: AtomicBool,
    open: Mutex<Vec<Open>>,
}

/// The hostile relay. Stops when dropped.
pub struct Hostile {
    shared: Arc<Shared>,
    listening: Option<Listening>,
}

/// TLS with the key and certificate in these files.
pub fn tls_of(certificate: &Path, key: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(&std::fs::read(certificate).unwrap()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&std::fs::read(key).unwrap()).unwrap();
    tls(chain, key, &rustls::version::TLS13)
}

/// TLS with a key that was made this moment.
pub fn tls_of_a_stranger() -> Arc<ServerConfig> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    tls(vec![certificate.der().clone()], key, &rustls::version::TLS13)
}

/// The same key and certificate with TLS 1.2 and nothing newer.
pub fn tls_1_2_of(certificate: &Path, key: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(&std::fs::read(certificate).unwrap()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&std::fs::read(key).unwrap()).unwrap();
    tls(chain, key, &rustls::version::TLS12)
}

fn tls(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

impl Hostile {
    /// Stands on `listener` in front of the honest relay at `relay`; both answer for `origin`.
    pub fn start(listener: TcpListener, tls: Arc<ServerConfig>, relay: Https, origin: &RelayOrigin) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Shared {
            relay,
            authority: origin.authority(),
            runtime,
            tls: Mutex::new(tls),
            rules: Mutex::default(),
            seen: Mutex::default(),
            streamed: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let listening = Listening::start(listener, {
            let shared = shared.clone();
            move |stream| take(&shared, stream)
        });
        Self { shared, listening: Some(listening) }
    }

    /// From now on requests with this method and path (`*` is any one component) are answered by `act`. A later rule
    /// stands before an earlier one.
    pub fn on(&self, method: &'static str, path: &'static str, act: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        self.shared.rules.lock().unwrap().insert(0, (method, path, Arc::new(act)));
    }

    /// Becomes an honest relay again.
    pub fn behave(&self) {
        self.shared.rules.lock().unwrap().clear();
        self.shared.seen.lock().unwrap().clear();
    }

    /// Shows another certificate from now on.
    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        *self.shared.tls.lock().unwrap() = tls;
        // A client process has its own connections, so none that is open now will be used for the next one.
    }

    /// Methods and paths that were asked for since [`Hostile::behave`].
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Bytes that endless answers wrote before the clients had enough.
    pub fn streamed(&self) -> u64 {
        self.shared.streamed.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Before the connections, so that none comes after them.
        drop(self.listening.take());
        let open: Vec<_> = std::mem::take(&mut *self.shared.open.lock().unwrap());
        for (stream, thread) in open {
            if let Some(stream) = stream {
                let _ = stream.shutdown(Shutdown::Both);
            }
            let _ = thread.join();
        }
    }
}

fn take(shared: &Arc<Shared>, stream: TcpStream) {
    let also = stream.try_clone().ok();
    let thread = {
        let shared = shared.clone();
        // A client that hangs up is what many of these tests are about, so errors are none here.
        std::thread::spawn(move || {
            let last = stream.try_clone();
            drop(serve(&shared, stream));
            // The copy that is kept for stopping would hold the connection open.
            last.and_then(|stream| stream.shutdown(Shutdown::Both))
        })
    };
    shared.open.lock().unwrap().push((also, thread));
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn serve(shared: &Arc<Shared>, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let config = shared.tls.lock().unwrap().clone();
    let mut tls = StreamOwned::new(ServerConnection::new(config).map_err(io::Error::other)?, stream);
    let mut left = Vec::new();
    while let Some(seen) = request(shared, &mut tls, &mut left)? {
        shared.seen.lock().unwrap().push(format!("{} {}", seen.method, seen.path));
        let rules = shared.rules.lock().unwrap();
        let act = rules.iter().find(|(method, path, _)| seen.matches(method, path)).map(|(.., act)| act.clone());
        drop(rules);
        match act.map_or_else(|| seen.pass().into(), |act| act(&seen)) {
            Reply::Answer(answer) => {
                tls.write_all(&answer.to_bytes())?;
                tls.flush()?;
            }
            Reply::Raw(bytes) => {
                tls.write_all(&bytes)?;
                return tls.flush();
            }
            Reply::Endless(head, piece, most) => return endless(shared, &mut tls, &head, &piece, most),
            Reply::Close => return Ok(()),
        }
    }
    Ok(())
}

fn endless(shared: &Shared, tls: &mut Tls, head: &[u8], piece: &[u8], most: u64) -> io::Result<()> {
    tls.write_all(head)?;
    let mut written = 0;
    while written < most && !shared.stopped.load(Ordering::Relaxed) {
        tls.write_all(piece)?;
        tls.flush()?;
        written += piece.len() as u64;
        shared.streamed.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Reads a request; `None` when the client has hung up.
fn request(shared: &Arc<Shared>, tls: &mut Tls, left: &mut Vec<u8>) -> io::Result<Option<Seen>> {
    let end = loop {
        if let Some(at) = left.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if !more(tls, left)? {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&left[..end]).into_owned();
    left.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default().to_owned();
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = fields.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    while left.len() < length {
        if !more(tls, left)? {
            return Ok(None);
        }
    }
    let body = left.drain(..length).collect();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target, None),
    };
    Ok(Some(Seen { method, path, query, fields, body, shared: shared.clone() }))
}

fn more(tls: &mut Tls, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 64 << 10];
    let count = tls.read(&mut buffer)?;
    into.extend_from_slice(&buffer[..count]);
    Ok(count > 0)
}
