//! The ways to a relay that companies have: proxies, authorities of their own, certificates for clients, little bandwidth.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pouch_tests::{Pair, Party, Proxy, Relay, noise, text};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// An authority of a company, which no system knows, and what it vouches for: certificates and keys in PEM files.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn vouch(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let files = ["pem", "key"].map(|kind| self.folder.join(format!("{name}.{kind}")));
        fs::write(&files[0], made.pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        files.into()
    }

    /// TLS that asks whoever comes for a certificate of this authority.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let (certificate, key) = self.vouch(name);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        Arc::new(server.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap())
    }
}

#[test]
fn proxies_are_used_and_passed_by_as_the_variables_say() {
    let pair = Pair::new();
    let relay = format!("127.0.0.1:{}", pair.relay.port());
    let http = Proxy::http();
    let through = |proxy: String| pair.bo.pouch(["inbox"]).env("HTTPS_PROXY", proxy);
    through(format!("http://ada:open@127.0.0.1:{}", http.port())).end().ok();
    assert!(!http.asked().is_empty() && http.asked().iter().all(|target| *target == relay), "{:?}", http.asked());
    // Neither a refusal nor a proxy that is gone lets anything past it.
    through(format!("http://eve:open@127.0.0.1:{}", http.port())).end().ends(7);
    let before = http.asked().len();
    for around in ["127.0.0.1", "127.0.0.0/8", "relay.example,127.0.0.1"] {
        let direct = through(format!("http://ada:open@127.0.0.1:{}", http.port())).env("NO_PROXY", around);
        direct.end().ok();
        assert_eq!(http.asked().len(), before, "{around}");
    }
    let gone = http.port();
    drop(http);
    through(format!("http://ada:open@127.0.0.1:{gone}")).end().ends(7);
    for scheme in ["socks5", "socks5h"] {
        let socks = Proxy::socks();
        let file = pair.ada.file("f", noise(scheme, 300_000));
        let proxy = format!("{scheme}://127.0.0.1:{}", socks.port());
        let id = pair.ada.pouch(["send", text(&file), "--to", "bo", "-q"]).env("ALL_PROXY", &proxy).end().ok().word();
        assert!(socks.asked().contains(&relay), "{:?}", socks.asked());
        assert_eq!(fs::read(pair.bo.receive(&id).join("f")).unwrap(), fs::read(&file).unwrap());
    }
}

#[test]
fn an_authority_of_the_company_counts_where_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let (certificate, key) = authority.vouch("127.0.0.1");
    let relay = Relay::start_certified(folder.path(), &certificate, &key);
    let ada = Party::new(folder.path(), "ada");
    let join = ["join", "--name", "ada", "--no-passphrase"];
    ada.pouch(join).input(relay.owner_link()).end().fails(4, "certificate");
    let file = authority.file();
    ada.pouch(join).args(["--ca-file", text(&file)]).input(relay.owner_link()).end().ok();
    ada.run(&["inbox"]).fails(4, "certificate");
    ada.pouch(["inbox"]).env("POUCH_CA_FILE", &file).end().ok();
    ada.pouch(["inbox"]).env("SSL_CERT_FILE", &file).end().ok();
    // Another one does not.
    let other = tempfile::tempdir().unwrap();
    let other = Authority::new(other.path()).file();
    fs::write(folder.path().join("other.pem"), fs::read(&other).unwrap()).unwrap();
    ada.run(&["inbox", "--ca-file", text(&other)]).fails(4, "certificate");
    // What is none is said before anything else happens.
    for bad in [&key, &folder.path().join("nothing")] {
        ada.run(&["inbox", "--ca-file", text(bad)]).fails(2, "no certificate in PEM");
    }
    ada.run(&["inbox", "--client-certificate", text(&certificate)]).fails(2, "--client-key");
}

// The relay is pinned, the proxy is not: each is known in its own way.
#[test]
fn a_proxy_that_asks_for_a_certificate_gets_one() {
    let pair = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let proxy = Proxy::https(authority.server("localhost"));
    let (certificate, key) = authority.vouch("ada");
    let inbox = || pair.ada.pouch(["inbox"]).env("HTTPS_PROXY", format!("https://ada:open@localhost:{}", proxy.port()));
    inbox().end().fails(4, "certificate");
    inbox().env("POUCH_CA_FILE", authority.file()).end().ends(7);
    assert!(proxy.asked().is_empty());
    let shown = || {
        let run = inbox().env("POUCH_CA_FILE", authority.file());
        run.env("POUCH_CLIENT_CERTIFICATE", &certificate).env("POUCH_CLIENT_KEY", &key)
    };
    shown().end().ok();
    assert_eq!(proxy.asked().last(), Some(&format!("127.0.0.1:{}", pair.relay.port())));
    // Behind it the pins hold as ever, whatever the authority says.
    let (certificate, key) = authority.vouch("127.0.0.1");
    for (from, to) in [(certificate, "tls.crt"), (key, "tls.key")] {
        fs::copy(from, folder.path().join(to)).unwrap();
    }
    let impostor =
        Relay::start_certified(folder.path(), &folder.path().join("tls.crt"), &folder.path().join("tls.key"));
    let account = pair.ada.home().join("account.json");
    let stored = fs::read_to_string(&account).unwrap();
    let (mine, theirs) = (format!(":{}\"", pair.relay.port()), format!(":{}\"", impostor.port()));
    assert!(stored.contains(&mine));
    fs::write(&account, stored.replace(&mine, &theirs)).unwrap();
    shown().end().fails(4, "its key is not the one");
}

#[test]
fn no_more_passes_than_the_rate_allows() {
    let pair = Pair::new();
    let file = pair.ada.file("f", noise("f", 600 << 10));
    let begun = Instant::now();
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--limit-rate", "200K"]);
    // The padded part alone is more; the last bytes of it leave at once.
    assert!(begun.elapsed() >= Duration::from_millis(2800), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let into = pair.bo.fresh();
    pair.bo.pouch(["receive", &id, "-o", text(&into)]).env("POUCH_LIMIT_RATE", "200K").end().ok();
    assert!(begun.elapsed() >= Duration::from_millis(2500), "{:?}", begun.elapsed());
    assert_eq!(fs::read(into.join("f")).unwrap(), fs::read(&file).unwrap());
    pair.ada.run(&["send", text(&file), "--to", "bo", "--limit-rate", "15K"]).fails(2, "16K at least");
}
