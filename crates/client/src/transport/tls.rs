//! The TLS of the client: which certificates count.

use std::sync::{Arc, OnceLock};

use pouch_statement::{RelayOrigin, Sha256Digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Network, TransportError, setup};

/// The TLS that a relay is spoken to with: version 1.3, HTTP/1.1. With pins its certificate must carry one of those keys
/// and no authority counts; without, the authorities of the system and of `network` decide, as they do about a proxy.
///
/// # Errors
/// When TLS cannot be set up.
pub fn tls(relay: &RelayOrigin, pins: &[Sha256Digest], network: &Network) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let host = relay.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let certificates = Certificates {
        relay: ServerName::try_from(host).map_err(setup)?,
        pins: pins.to_vec(),
        authorities: network.authorities.clone(),
        provider: provider.clone(),
        verifier: OnceLock::new(),
    };
    if pins.is_empty() {
        certificates.verifier().map_err(setup)?;
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(certificates));
    let mut tls = match &network.certificate {
        Some(mine) => builder.with_client_auth_cert(mine.chain.clone(), mine.key.clone_key()).map_err(setup)?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// Accepts for a pinned relay exactly the certificates whose SubjectPublicKeyInfo has one of the pinned SHA-256 digests; for
/// one without pins, and for whoever else is spoken to on the way, a proxy with TLS, those that an authority vouches for.
#[derive(Debug)]
struct Certificates {
    relay: ServerName<'static>,
    pins: Vec<Sha256Digest>,
    /// Beside the system's.
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    /// The system's authorities are read when they are needed first: a pinned relay without a proxy needs none.
    verifier: OnceLock<rustls_platform_verifier::Verifier>,
}

impl Certificates {
    fn verifier(&self) -> Result<&rustls_platform_verifier::Verifier, rustls::Error> {
        if let Some(made) = self.verifier.get() {
            return Ok(made);
        }
        let (more, provider) = (self.authorities.iter().cloned(), self.provider.clone());
        let made = rustls_platform_verifier::Verifier::new_with_extra_roots(more, provider)?;
        Ok(self.verifier.get_or_init(|| made))
    }
}

impl ServerCertVerifier for Certificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pins.is_empty() || *server_name != self.relay {
            return self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let parsed = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let pin = Sha256Digest::of(parsed.subject_public_key_info().as_ref());
        if self.pins.contains(&pin) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only tls 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
