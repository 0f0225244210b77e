//! A whole relay over TLS: routes, fields, signatures and bodies. The first byte says how the request is signed; then come
//! a line with method and target, lines with fields, an empty line and the body. `BUNDLE` and `MAILBOX` in the target stand
//! for what is there.
#![no_main]

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pouch_client::Home;
use pouch_client::clock::now;
use pouch_client::join::{NewIdentity, join};
use pouch_client::transport::{HttpAnswer, HttpRequest, Https, Network, Transport};
use pouch_protocol::{Covered, NewBundle, PartField, Problem, Request, content_digest, route, sign_request};
use pouch_relay::{Config, InitOptions, Relay};
use pouch_statement::{BundleId, RelayOrigin, Sha256Digest, SigningKey};
use tokio::runtime::Runtime;

/// The owner of a relay that runs in this process.
struct Site {
    runtime: Runtime,
    transport: Https,
    authority: String,
    device: SigningKey,
    mailbox: String,
    /// The present one: requests end it, and then there is another.
    bundle: Mutex<BundleId>,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let folder = std::env::temp_dir().join(format!("pouch-fuzz-{}", std::process::id()));
    runtime.block_on(found(folder)).run(runtime)
});

/// What is known before the runtime is moved to its place.
struct Founded {
    transport: Https,
    origin: RelayOrigin,
    device: SigningKey,
    mailbox: String,
}

impl Founded {
    fn run(self, runtime: Runtime) -> Site {
        let site = Site {
            runtime,
            transport: self.transport,
            authority: self.origin.authority(),
            device: self.device,
            mailbox: self.mailbox,
            bundle: Mutex::new(BundleId::random().expect("randomness")),
        };
        site.begin();
        site
    }
}

async fn found(folder: PathBuf) -> Founded {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
    let origin: RelayOrigin = format!("https://127.0.0.1:{port}").parse().expect("an origin");
    let options = InitOptions {
        data: folder.join("relay"),
        origin: origin.clone(),
        listen: ([127, 0, 0, 1], port).into(),
        certificate: None,
        ledger: None,
        ledger_password_file: None,
    };
    let made = pouch_relay::init(options).await.expect("a relay");
    let config = Config {
        account_requests_per_second: 1_000_000,
        account_requests_burst: 1_000_000,
        address_requests_per_second: 1_000_000,
        address_requests_burst: 1_000_000,
        ..made.config
    };
    let relay = Relay::open(config).await.expect("it opens");
    let listener = relay.bind().await.expect("it listens");
    let pins = relay.pins().to_vec();
    tokio::spawn(relay.serve(listener, std::future::pending()));
    let home = Home::open(Some(&folder.join("home"))).expect("a home");
    let name = "ada".parse().expect("a name");
    let new = NewIdentity { passphrase: None, classic: true };
    let joined = join(&home, &made.link, &name, new, &Network::default()).await.expect("the owner joins");
    let text = std::fs::read_to_string(home.config("device.key")).expect("a device key");
    let mut seed = [0; 32];
    for (byte, digits) in seed.iter_mut().zip(text.trim().as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok()).expect("hexadecimal");
    }
    Founded {
        transport: Https::new(origin.clone(), &pins, &Network::default()).expect("TLS"),
        origin,
        device: SigningKey::from_seed(&seed),
        mailbox: joined.card.card().mailbox.to_string(),
    }
}

impl Site {
    /// A new bundle that is pending.
    fn begin(&self) {
        let bundle = BundleId::random().expect("randomness");
        let body = serde_json::to_vec(&NewBundle { bundle, expires: now().plus(600), burn: false, recipients: vec![] })
            .expect("JSON");
        let answer = self.ask("POST", route::BUNDLES, vec![], &body, 1).expect("it answers");
        assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
        *self.bundle.lock().expect("nobody panicked") = bundle;
    }

    fn ask(
        &self,
        method: &'static str,
        target: &str,
        mut fields: Vec<(&'static str, String)>,
        body: &[u8],
        signed: u8,
    ) -> Option<HttpAnswer> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let part = fields.iter().find(|(name, _)| *name == PartField::NAME);
        let covered = match part.and_then(|(_, value)| PartField::parse(value).ok()) {
            Some(part) => Covered::Part(part),
            None if body.is_empty() => Covered::Nothing,
            None => Covered::Digest(Sha256Digest::of(body)),
        };
        if signed % 8 != 0 {
            // Now and then with a mistake in it.
            let authority = if signed % 8 == 7 { "relay.example" } else { &self.authority };
            let request = Request { method, authority, path, query, covered };
            let signature = sign_request(&request, &self.device, pouch_statement::random().expect("randomness"), now());
            fields.push(("signature-input", signature.input));
            fields.push(("signature", signature.signature));
        }
        if let Covered::Digest(digest) = &covered {
            fields.push(("content-digest", content_digest(digest)));
        }
        let body = (!body.is_empty()).then(|| Bytes::copy_from_slice(body));
        let request = HttpRequest { method, target: target.to_owned(), fields, body, max_answer: 64 << 20 };
        self.runtime.block_on(self.transport.call(request)).ok()
    }
}

const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"];
const FIELDS: [&str; 7] =
    ["range", "if-range", "if-match", "if-none-match", "content-type", PartField::NAME, "x-forwarded-for"];

fuzz_target!(|bytes: &[u8]| {
    let site = &*SITE;
    let Some((signed, rest)) = bytes.split_first() else { return };
    let end = rest.windows(2).position(|two| two == b"\n\n").unwrap_or(rest.len());
    let (head, body) = (rest.get(..end).unwrap_or_default(), rest.get(end + 2..).unwrap_or_default());
    let Ok(head) = std::str::from_utf8(head) else { return };
    let mut lines = head.lines();
    let Some((method, target)) = lines.next().and_then(|line| line.split_once(' ')) else { return };
    let Some(method) = METHODS.into_iter().find(|known| *known == method) else { return };
    let bundle = *site.bundle.lock().expect("nobody panicked");
    // It would wait for a minute.
    let target =
        target.replace("BUNDLE", &bundle.to_string()).replace("MAILBOX", &site.mailbox).replace("wait", "weit");
    if !target.starts_with('/') {
        return;
    }
    let named = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((FIELDS.into_iter().find(|known| *known == name)?, value.to_owned()))
    };
    let fields = lines.filter_map(named).collect();
    let Some(answer) = site.ask(method, &target, fields, body, *signed) else { return };
    assert!(answer.status < 500, "{method} {target}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    if answer.status >= 400 && method != "HEAD" {
        let problem: Problem = serde_json::from_slice(&answer.body).expect("a problem is said");
        assert!(problem.kind().is_some(), "{problem:?}");
    }
    if answer.status == 204 && matches!(method, "DELETE" | "POST") {
        site.begin();
    }
});
