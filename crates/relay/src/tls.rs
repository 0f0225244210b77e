//! TLS 1.3 and nothing else: the relay's keys, its certificate, and the pins by which clients know a self-signed one.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use pouch_statement::{RelayOrigin, Sha256Digest};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::disk::{self, Disk};

const FOLDER: &str = "keys";
const KEY: &str = "relay.key";
const NEXT_KEY: &str = "next.key";
const CERTIFICATE: &str = "relay.crt";
/// Made by a rotation, and renamed when all of them are there.
const FRESH_KEY: &str = "next.key.new";
const FRESH_CERTIFICATE: &str = "relay.crt.new";
/// Held by one rotation at a time.
const ROTATION_LOCK: &str = "rotation.lock";
/// How often the files are looked at for a change.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
/// The longest chain or key that is read.
const MAX_PEM: u64 = 256 << 10;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not PEM, or another thing in it.
    #[error("{} holds no usable {what}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// A public authority's certificate has no next key.
    #[error("this relay has a certificate of an authority: renew its files, they are read again when they change")]
    NotSelfSigned,
    /// Another one is under way.
    #[error("another rotation of the keys is under way")]
    Rotating,
    /// The library's no: key and certificate do not fit, or the certificate cannot be made.
    #[error("certificate or key cannot be used: {0}")]
    Library(String),
}

fn library(error: impl std::fmt::Display) -> TlsError {
    TlsError::Library(error.to_string())
}

fn file(path: &Path) -> impl Fn(std::io::Error) -> TlsError {
    move |source| TlsError::File { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let length = std::fs::metadata(path).map_err(file(path))?.len();
    if length > MAX_PEM {
        return Err(TlsError::Pem { path: path.to_owned(), what: "file: it is too long" });
    }
    std::fs::read(path).map_err(file(path))
}

/// SHA-256 of a key's SubjectPublicKeyInfo (RFC 7469 §2.4 has the same pin).
fn pin(key: &KeyPair) -> Sha256Digest {
    Sha256Digest::of(&key.subject_public_key_info())
}

/// A self-signed certificate for the relay's host; ECDSA P-256, what every TLS library takes.
fn self_signed(key: &KeyPair, origin: &RelayOrigin) -> Result<String, TlsError> {
    // An address in brackets is an IP name without them; `new` tells names and addresses apart.
    let host = origin.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut params = CertificateParams::new(vec![host]).map_err(library)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "pouch relay");
    Ok(params.self_signed(key).map_err(library)?.pem())
}

/// Makes the present and the next key and the present one's certificate.
pub(crate) fn create_self_signed(disk: &Disk, data: &Path, origin: &RelayOrigin) -> Result<(), TlsError> {
    let folder = data.join(FOLDER);
    disk.make_folder(&folder).map_err(file(&folder))?;
    let key = KeyPair::generate().map_err(library)?;
    let next = KeyPair::generate().map_err(library)?;
    let certificate = self_signed(&key, origin)?;
    for (name, text) in [(KEY, key.serialize_pem()), (NEXT_KEY, next.serialize_pem()), (CERTIFICATE, certificate)] {
        let path = folder.join(name);
        disk.write_new(&path, text.as_bytes()).map_err(file(&path))?;
    }
    Ok(())
}

fn key_pair(path: &Path) -> Result<KeyPair, TlsError> {
    let bad = || TlsError::Pem { path: path.to_owned(), what: "private key" };
    let text = Zeroizing::new(String::from_utf8(read(path)?).map_err(|_| bad())?);
    KeyPair::from_pem(&text).map_err(|_| bad())
}

/// The next key becomes the present one, with a certificate of its own, and a fresh one the next. A relay that runs takes it
/// within ten seconds. Clients that know both pins go on; those that know only the old one would not.
///
/// # Errors
/// An authority's certificate, or what can fail on the way. A rotation that was cut off is finished by the next one.
pub fn rotate(config: &Config) -> Result<Vec<Sha256Digest>, TlsError> {
    if config.certificate.is_some() {
        return Err(TlsError::NotSelfSigned);
    }
    let disk = Disk::default();
    let folder = config.data.join(FOLDER);
    let path = folder.join(ROTATION_LOCK);
    let _lock = disk::lock(&path).map_err(file(&path))?.ok_or(TlsError::Rotating)?;
    if finish_rotation(&disk, &folder)? {
        return pins(config);
    }
    let next = key_pair(&folder.join(NEXT_KEY))?;
    let fresh = KeyPair::generate().map_err(library)?;
    let files = [(FRESH_CERTIFICATE, self_signed(&next, &config.origin)?), (FRESH_KEY, fresh.serialize_pem())];
    for (name, text) in files {
        let path = folder.join(name);
        disk.remove(&path).map_err(file(&path))?;
        disk.write_new(&path, text.as_bytes()).map_err(file(&path))?;
    }
    rename(&disk, &folder, NEXT_KEY, KEY)?;
    finish_rotation(&disk, &folder)?;
    pins(config)
}

/// From the moment that the next key has its new name there is only forward. Whether there was something to finish.
fn finish_rotation(disk: &Disk, folder: &Path) -> Result<bool, TlsError> {
    if folder.join(NEXT_KEY).exists() || !folder.join(FRESH_KEY).exists() {
        return Ok(false);
    }
    if folder.join(FRESH_CERTIFICATE).exists() {
        rename(disk, folder, FRESH_CERTIFICATE, CERTIFICATE)?;
    }
    rename(disk, folder, FRESH_KEY, NEXT_KEY)?;
    Ok(true)
}

fn rename(disk: &Disk, folder: &Path, from: &str, to: &str) -> Result<(), TlsError> {
    let to = folder.join(to);
    disk.rename(&folder.join(from), &to).map_err(file(&to))?;
    disk.sync_folder(folder).map_err(file(folder))
}

/// Before the keys are read: a rotation that a crash cut off is finished.
pub(crate) fn recover(config: &Config) -> Result<(), TlsError> {
    if config.certificate.is_some() {
        return Ok(());
    }
    let folder = config.data.join(FOLDER);
    let path = folder.join(ROTATION_LOCK);
    // Whoever holds it is about to finish its own.
    let lock = disk::lock(&path).map_err(file(&path))?;
    if lock.is_some() && finish_rotation(&Disk::default(), &folder)? {
        tracing::info!("finished a rotation of the keys that was cut off");
    }
    Ok(())
}

/// The pins that links and cards carry: none when the certificate is an authority's.
pub(crate) fn pins(config: &Config) -> Result<Vec<Sha256Digest>, TlsError> {
    if config.certificate.is_some() {
        return Ok(Vec::new());
    }
    [KEY, NEXT_KEY]
        .into_iter()
        .map(|name| key_pair(&config.data.join(FOLDER).join(name)).map(|key| pin(&key)))
        .collect()
}

/// The certificate in force, and its files, which may change.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    present: RwLock<Arc<CertifiedKey>>,
    /// What the files looked like when they were last read.
    seen: Mutex<Stamps>,
}

/// What tells that a file is another one than before: device, inode, length, times of content and of inode.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;
type Stamps = [Stamp; 2];

fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.len(), (data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec())))
}

impl Certificate {
    /// Reads the configured files, or those of the self-signed one.
    pub(crate) fn open(config: &Config) -> Result<Arc<Self>, TlsError> {
        let own = config.data.join(FOLDER);
        let (chain, key) = match (&config.certificate, &config.key) {
            (Some(chain), Some(key)) => (chain.clone(), key.clone()),
            _ => (own.join(CERTIFICATE), own.join(KEY)),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen = [stamp(&chain), stamp(&key)];
        let present = RwLock::new(Arc::new(certified(&chain, &key, &provider)?));
        Ok(Arc::new(Self { chain, key, provider, present, seen: Mutex::new(seen) }))
    }

    /// Reads the files again if they changed, or in any case. A pair that cannot be used leaves the old one in force.
    ///
    /// # Errors
    /// Once for each change.
    pub(crate) fn reload(&self, in_any_case: bool) -> Result<bool, TlsError> {
        // Taken before reading: what changes meanwhile is read again the next time.
        let found = [stamp(&self.chain), stamp(&self.key)];
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == found && !in_any_case {
            return Ok(false);
        }
        *seen = found;
        let fresh = Arc::new(certified(&self.chain, &self.key, &self.provider)?);
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(true)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Chain and key, which must fit each other.
fn certified(chain_path: &Path, key_path: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&read(chain_path)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or(TlsError::Pem { path: chain_path.to_owned(), what: "certificate" })?;
    let key = PrivateKeyDer::from_pem_slice(&read(key_path)?)
        .map_err(|_| TlsError::Pem { path: key_path.to_owned(), what: "private key" })?;
    CertifiedKey::from_der(chain, key, provider).map_err(library)
}

/// The server's side of TLS: version 1.3, HTTP/1.1 by ALPN, no early data.
pub(crate) fn server_config(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&certificate.provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(library)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn relay() -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        create_self_signed(&Disk::default(), &config.data, &config.origin).unwrap();
        (folder, config)
    }

    #[test]
    fn rotation_makes_the_next_key_the_present_one() {
        let (_folder, config) = relay();
        let before = pins(&config).unwrap();
        let certificate = Certificate::open(&config).unwrap();
        let after = rotate(&config).unwrap();
        assert_eq!((before[1], after.len()), (after[0], 2));
        assert!(!before.contains(&after[1]));
        assert!(certificate.reload(false).unwrap() && !certificate.reload(false).unwrap());
        let names: std::collections::BTreeSet<_> =
            std::fs::read_dir(config.data.join(FOLDER)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [KEY, NEXT_KEY, CERTIFICATE, ROTATION_LOCK].map(Into::into).into());
        let authority = Config { certificate: Some("/c".into()), key: Some("/k".into()), ..config };
        assert!(matches!(rotate(&authority), Err(TlsError::NotSelfSigned)));
    }

    // A crash at each rename: the relay opens, and the pins are those from before or those from after.
    #[test]
    fn a_rotation_that_is_cut_off_is_finished() {
        for renames in 0..=3 {
            let (_folder, config) = relay();
            let before = pins(&config).unwrap();
            let disk = Disk::default();
            let folder = config.data.join(FOLDER);
            let next = key_pair(&folder.join(NEXT_KEY)).unwrap();
            let fresh = KeyPair::generate().unwrap();
            let certificate = self_signed(&next, &config.origin).unwrap();
            disk.write_new(&folder.join(FRESH_CERTIFICATE), certificate.as_bytes()).unwrap();
            disk.write_new(&folder.join(FRESH_KEY), fresh.serialize_pem().as_bytes()).unwrap();
            let steps = [(NEXT_KEY, KEY), (FRESH_CERTIFICATE, CERTIFICATE), (FRESH_KEY, NEXT_KEY)];
            for (from, to) in steps.into_iter().take(renames) {
                rename(&disk, &folder, from, to).unwrap();
            }
            recover(&config).unwrap();
            Certificate::open(&config).unwrap();
            let expected = if renames == 0 { before.clone() } else { vec![before[1], pin(&fresh)] };
            assert_eq!(pins(&config).unwrap(), expected, "{renames}");
            // And the next one goes on from there, with the leftovers of the one that came to nothing out of the way.
            assert_eq!(rotate(&config).unwrap()[0], expected[1]);
        }
    }

    #[test]
    fn one_rotation_at_a_time() {
        let (_folder, config) = relay();
        let _held = disk::lock(&config.data.join(FOLDER).join(ROTATION_LOCK)).unwrap().unwrap();
        assert!(matches!(rotate(&config), Err(TlsError::Rotating)));
    }

    #[test]
    fn a_broken_pair_leaves_the_old_one_in_force_and_is_said_once() {
        let (_folder, config) = relay();
        let certificate = Certificate::open(&config).unwrap();
        let present = || certificate.present.read().unwrap().cert.clone();
        let before = present();
        let path = config.data.join(FOLDER).join(CERTIFICATE);
        let pem = std::fs::read(&path).unwrap();
        let (_other_folder, other) = relay();
        let foreign = std::fs::read(other.data.join(FOLDER).join(CERTIFICATE)).unwrap();
        for bad in [&b"nonsense"[..], b"", &foreign, &vec![b'x'; 300 << 10]] {
            std::fs::write(&path, bad).unwrap();
            assert!(certificate.reload(false).is_err());
            assert!(!certificate.reload(false).unwrap(), "said twice");
            assert!(certificate.reload(true).is_err(), "asked for, it is said again");
            assert_eq!(present(), before);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(certificate.reload(false).is_err());
        std::fs::write(&path, pem).unwrap();
        assert!(certificate.reload(false).unwrap());
        assert_eq!(present(), before);
    }
}
