//! attacks.md 52: whatever address stands in what a client says, the relay connects to nobody.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pouch_client::Unwatched;
use pouch_client::send::send;
use pouch_client::transport::{Answer, HttpRequest, Https, Network, Transport};
use pouch_tests::hostile::Trap;
use pouch_tests::{Pair, request};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Header fields that somewhere make a server fetch, resolve or call back.
const FIELDS: [&str; 16] = [
    "x-forwarded-host",
    "x-forwarded-for",
    "x-forwarded-server",
    "forwarded",
    "x-original-url",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
    "x-callback-url",
    "referer",
    "origin",
    "via",
    "link",
    "location",
    "content-location",
    "destination",
];

/// Sends every request with all of these fields.
struct Adding {
    inner: Https,
    url: String,
}

impl Transport for Adding {
    fn call(&self, mut request: HttpRequest) -> Answer<'_> {
        request.fields.extend(FIELDS.map(|name| (name, self.url.clone())));
        self.inner.call(request)
    }
}

/// Writes bytes to the relay over TLS and gives what comes back until it closes or waits.
fn exchange(pair: &Pair, bytes: &[u8]) -> String {
    let pem = fs::read(pair.relay.data().join("keys/relay.crt")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, pair.relay.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    tls.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // Whatever the end is like: what matters is the answer before it.
    let _ = tls.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The sockets of a process in one of the tables of /proc/net: the words of each line.
fn sockets(process: u32, table: &str) -> Vec<Vec<String>> {
    let mine: Vec<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| {
            fs::read_link(entry.ok()?.path()).ok()?.to_str()?.strip_prefix("socket:[").map(str::to_owned)
        })
        .map(|inode| inode.trim_end_matches(']').to_owned())
        .collect();
    let lines = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    lines.lines().skip(1).map(words).filter(|w| mine.contains(&w[9])).collect()
}

/// The relay has no socket but the one that it listens on and those that came in by it: none to connect, none to ask for
/// a name.
#[track_caller]
fn connects_to_nobody(pair: &Pair, trap: &Trap) {
    let (process, port) = (pair.relay.process().id(), format!(":{:04X}", pair.relay.port()));
    let tcp = [sockets(process, "tcp"), sockets(process, "tcp6")].concat();
    assert!(!tcp.is_empty(), "the listening socket is seen");
    assert!(tcp.iter().all(|words| words[1].ends_with(&port)), "{tcp:?}");
    let udp = [sockets(process, "udp"), sockets(process, "udp6")].concat();
    assert!(udp.is_empty(), "{udp:?}");
    assert_eq!(trap.visits(), 0);
}

#[test]
fn attack_52_the_relay_connects_to_nobody_that_a_client_names() {
    let pair = Pair::new();
    let trap = Trap::set();
    let url = format!("http://{}/x", trap.authority());
    // In what is sent, by the names of its files too, and in every field of every signed request on the way.
    let folder = pair.ada.desk().join("tree");
    fs::create_dir_all(folder.join("http:").join(trap.authority())).unwrap();
    fs::write(folder.join("http:").join(trap.authority()).join("x"), &url).unwrap();
    let (party, identity) = pair.ada.client();
    let inner = Https::new(party.relay().clone(), party.relay_pins(), &Network::default()).unwrap();
    let party = party.with_transport(Arc::new(Adding { inner, url: url.clone() }));
    let mut request = request(&folder);
    request.purpose.note = Some(url.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sent = runtime.block_on(async {
        let api = party.api().unwrap();
        let sent = send(&party, &api, &identity, request, Arc::new(Unwatched)).await.unwrap();
        connects_to_nobody(&pair, &trap);
        api.account().await.unwrap();
        api.access().await.unwrap();
        sent
    });
    let into = pair.bo.receive(&sent.sent.bundle.to_string());
    assert_eq!(fs::read_to_string(into.join("http:").join(trap.authority()).join("x")).unwrap(), url);
    connects_to_nobody(&pair, &trap);
    // A card that says it is of another relay, at that address.
    let card = pair.ada.run(&["card", "-q"]).ok().text();
    let origin = format!("https://127.0.0.1:{}", pair.relay.port());
    assert!(card.contains(&origin), "{card}");
    let elsewhere = card.replace(&origin, &format!("https://{}", trap.authority()));
    let join = serde_json::json!({ "admit": url, "card": elsewhere, "mac": url, "device": { "statement": url, "signature": url } });
    // Unsigned: in the target, in its parts, in the host, in fields, in bodies.
    let (host, there, join) = (format!("127.0.0.1:{}", pair.relay.port()), trap.authority(), join.to_string());
    let fields: String = FIELDS.iter().map(|name| format!("{name}: {url}\r\n")).collect();
    let close = "connection: close\r\n";
    let encoded = url.replace('/', "%2f");
    for (head, body, status) in [
        (format!("GET {url} HTTP/1.1\r\nhost: {there}\r\n{close}"), "", 400),
        (format!("GET {url} HTTP/1.1\r\nhost: {host}\r\n{close}"), "", 400),
        (format!("GET https://{there}/v1 HTTP/1.1\r\nhost: {host}\r\n{close}"), "", 400),
        (format!("GET /v1 HTTP/1.1\r\nhost: {there}\r\n{close}"), "", 400),
        (format!("CONNECT {there} HTTP/1.1\r\nhost: {there}\r\n{close}"), "", 400),
        (format!("GET //{there}/v1 HTTP/1.1\r\nhost: {host}\r\n{close}"), "", 404),
        (format!("GET /{encoded} HTTP/1.1\r\nhost: {host}\r\n{close}"), "", 404),
        (format!("GET /v1/bundles/{encoded}/index HTTP/1.1\r\nhost: {host}\r\n{close}"), "", 401),
        (format!("GET /v1/inbox?after={url} HTTP/1.1\r\nhost: {host}\r\n{close}"), "", 401),
        (format!("GET /v1?url={url} HTTP/1.1\r\nhost: {host}\r\n{close}{fields}"), "", 200),
        (format!("GET /j HTTP/1.1\r\nhost: {host}\r\n{close}{fields}"), "", 200),
        (format!("POST /v1/join HTTP/1.1\r\nhost: {host}\r\n{close}{fields}"), join.as_str(), 400),
        (format!("PUT {url} HTTP/1.1\r\nhost: {host}\r\n{close}{fields}"), url.as_str(), 400),
    ] {
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        let answer = exchange(&pair, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
        // Nor is anybody sent there.
        assert!(!answer.to_lowercase().contains("\r\nlocation:"), "{head:?}: {answer}");
        connects_to_nobody(&pair, &trap);
    }
    // The trap works.
    drop(TcpStream::connect(&there).unwrap());
    pouch_tests::until("a visit", Duration::from_secs(10), || (trap.visits() == 1).then_some(()));
    assert_eq!(pair.ada.run(&["inbox", "-q"]).ok().text(), "");
}
