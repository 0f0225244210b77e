//! TLS 1.3 and nothing else: the relay's keys, its certificate, and the pins by which clients know a self-signed one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pouch_statement::{RelayOrigin, Sha256Digest};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;
use crate::disk::Disk;

const FOLDER: &str = "keys";
const KEY: &str = "relay.key";
const NEXT_KEY: &str = "next.key";
const CERTIFICATE: &str = "relay.crt";

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
    /// The library's no: key and certificate do not fit, or the certificate cannot be made.
    #[error("certificate or key cannot be used: {0}")]
    Library(String),
}

fn library(error: impl std::fmt::Display) -> TlsError {
    TlsError::Library(error.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// SHA-256 of a key's SubjectPublicKeyInfo (RFC 7469 §2.4 has the same pin).
fn pin(key: &KeyPair) -> Sha256Digest {
    Sha256Digest::of(&key.subject_public_key_info())
}

/// Makes the present and the next key and the present one's certificate; ECDSA P-256, what every TLS library takes.
pub(crate) fn create_self_signed(disk: &Disk, data: &Path, origin: &RelayOrigin) -> Result<(), TlsError> {
    let folder = data.join(FOLDER);
    let file = |path: &Path, source| TlsError::File { path: path.to_owned(), source };
    disk.make_folder(&folder).map_err(|e| file(&folder, e))?;
    let key = KeyPair::generate().map_err(library)?;
    let next = KeyPair::generate().map_err(library)?;
    // An address in brackets is an IP name without them; `new` tells names and addresses apart.
    let host = origin.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut params = CertificateParams::new(vec![host]).map_err(library)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "pouch relay");
    let certificate = params.self_signed(&key).map_err(library)?;
    for (name, text) in [(KEY, key.serialize_pem()), (NEXT_KEY, next.serialize_pem()), (CERTIFICATE, certificate.pem())]
    {
        let path = folder.join(name);
        disk.write_new(&path, text.as_bytes()).map_err(|e| file(&path, e))?;
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
        .map(|name| {
            let path = config.data.join(FOLDER).join(name);
            let bad = |_| TlsError::Pem { path: path.clone(), what: "private key" };
            let text = String::from_utf8(read(&path)?)
                .map_err(|_| TlsError::Pem { path: path.clone(), what: "private key" })?;
            KeyPair::from_pem(&text).map(|key| pin(&key)).map_err(bad)
        })
        .collect()
}

/// The server's side of TLS: version 1.3, HTTP/1.1 by ALPN, no early data.
pub(crate) fn server_config(config: &Config) -> Result<Arc<ServerConfig>, TlsError> {
    let own = config.data.join(FOLDER);
    let (chain_path, key_path) = match (&config.certificate, &config.key) {
        (Some(chain), Some(key)) => (chain.clone(), key.clone()),
        _ => (own.join(CERTIFICATE), own.join(KEY)),
    };
    let chain = CertificateDer::pem_slice_iter(&read(&chain_path)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or(TlsError::Pem { path: chain_path, what: "certificate" })?;
    let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?)
        .map_err(|_| TlsError::Pem { path: key_path, what: "private key" })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(library)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(library)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}
