//! Request signatures: a profile of HTTP Message Signatures (RFC 9421) with nothing to choose.
//!
//! Ed25519 by a device key over method, authority, path, query, what covers the body, time and nonce.
//! The verifier builds the one `Signature-Input` that a request of this shape may carry from the values it
//! read, and compares: a signature that covers less, more, or in another order is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_statement::{BundleId as Nonce, PublicKey, SigningKey, Timestamp};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::limits::CLOCK_WINDOW;
use crate::part::{Covered, PartField, content_digest};

const LABEL: &str = "pouch";
const TAG: &str = "pouch.v1";

/// The request as both ends see it. Path and query are as they stand in the request line.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `PUT`, `POST` or `DELETE`.
    pub method: &'a str,
    /// Host and port; the verifier takes it from its configuration, never from the request.
    pub authority: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query without `?`, if there is one.
    pub query: Option<&'a str>,
    /// What covers the body.
    pub covered: Covered,
}

/// The two fields of a signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureFields {
    /// `Signature-Input`.
    pub input: String,
    /// `Signature`.
    pub signature: String,
}

/// A request whose signature was found good; whether the key is enrolled and the nonce fresh is for the ledger to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    /// The device key that signed.
    pub key: PublicKey,
    /// 128 random bits, unique for each request.
    pub nonce: [u8; 16],
    /// When it was signed, by the signer's clock.
    pub created: Timestamp,
}

/// Why a request's signature was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignatureRefused {
    /// A field is missing or unreadable.
    #[error("the request carries no signature of the form that docs/protocol.md gives")]
    Form,
    /// It covers something else than it must.
    #[error("the signature does not cover exactly what it must")]
    Coverage,
    /// Signed too long ago, or in the future.
    #[error("the request's time is {0} s away from the relay's")]
    Clock(u64),
    /// Does not verify.
    #[error("the signature does not verify")]
    Mismatch,
}

/// The covered components and parameters: the value of `@signature-params` (RFC 9421 §2.3).
fn params(covered: &Covered, key: &PublicKey, nonce: &[u8; 16], created: Timestamp) -> String {
    let body = match covered {
        Covered::Nothing => String::new(),
        Covered::Digest(_) => " \"content-digest\"".to_owned(),
        Covered::Part(_) => format!(" \"{}\"", PartField::NAME),
    };
    format!(
        "(\"@method\" \"@authority\" \"@path\" \"@query\"{body});created={};nonce=\"{}\";keyid=\"{}\";alg=\"ed25519\";tag=\"{TAG}\"",
        created.unix(),
        Nonce::from_bytes(*nonce),
        STANDARD.encode(key.as_bytes()),
    )
}

/// The signature base (RFC 9421 §2.5).
fn base(request: &Request<'_>, params: &str) -> String {
    let body = match &request.covered {
        Covered::Nothing => String::new(),
        Covered::Digest(digest) => format!("\"content-digest\": {}\n", content_digest(digest)),
        Covered::Part(part) => format!("\"{}\": {}\n", PartField::NAME, part.to_value()),
    };
    format!(
        "\"@method\": {}\n\"@authority\": {}\n\"@path\": {}\n\"@query\": ?{}\n{body}\"@signature-params\": {params}",
        request.method,
        request.authority,
        request.path,
        request.query.unwrap_or(""),
    )
}

/// Signs a request.
#[must_use]
pub fn sign_request(request: &Request<'_>, key: &SigningKey, nonce: [u8; 16], created: Timestamp) -> SignatureFields {
    let params = params(&request.covered, &key.public(), &nonce, created);
    let signature = key.sign_raw(base(request, &params).as_bytes());
    SignatureFields {
        input: format!("{LABEL}={params}"),
        signature: format!("{LABEL}=:{}:", STANDARD.encode(signature)),
    }
}

impl SignatureFields {
    /// Checks the fields against the request as it arrived.
    ///
    /// # Errors
    /// Unreadable, another coverage, a clock more than [`CLOCK_WINDOW`] seconds off, or a wrong signature.
    pub fn verify(&self, request: &Request<'_>, now: Timestamp) -> Result<SignedRequest, SignatureRefused> {
        let claim = self.claim().ok_or(SignatureRefused::Form)?;
        let params = params(&request.covered, &claim.key, &claim.nonce, claim.created);
        if self.input != format!("{LABEL}={params}") {
            return Err(SignatureRefused::Coverage);
        }
        let off = now.since(claim.created).max(claim.created.since(now));
        if off > CLOCK_WINDOW {
            return Err(SignatureRefused::Clock(off));
        }
        let signature = self.raw().ok_or(SignatureRefused::Form)?;
        if claim.key.verify_raw(base(request, &params).as_bytes(), &signature) {
            Ok(claim)
        } else {
            Err(SignatureRefused::Mismatch)
        }
    }

    /// What the parameters claim, before anything is checked.
    fn claim(&self) -> Option<SignedRequest> {
        let dictionary: Dictionary = Parser::new(&self.input).parse().ok()?;
        let ListEntry::InnerList(list) = dictionary.get(LABEL)? else { return None };
        let text = |name: &str| match list.params.get(name)? {
            BareItem::String(s) => Some(s.as_str()),
            _ => None,
        };
        let BareItem::Integer(created) = list.params.get("created")? else { return None };
        let created = Timestamp::from_unix(u64::try_from(i64::from(*created)).ok()?).ok()?;
        let nonce: Nonce = text("nonce")?.parse().ok()?;
        let key: [u8; 32] = STANDARD.decode(text("keyid")?).ok()?.try_into().ok()?;
        Some(SignedRequest { key: PublicKey::from_bytes(&key).ok()?, nonce: *nonce.as_bytes(), created })
    }

    fn raw(&self) -> Option<[u8; 64]> {
        let text = self.signature.strip_prefix(LABEL)?.strip_prefix("=:")?.strip_suffix(':')?;
        STANDARD.decode(text).ok()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pouch_statement::{Blake3Digest, Sha256Digest};

    const NOW: u64 = 1_700_000_000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds).unwrap()
    }

    fn request(covered: Covered) -> Request<'static> {
        Request { method: "PUT", authority: "relay.example", path: "/v1/x", query: None, covered }
    }

    fn part() -> Covered {
        Covered::Part(PartField { number: 1, length: 2, blake3: Blake3Digest::from_bytes([3; 32]) })
    }

    #[test]
    fn good_requests_verify() {
        let key = SigningKey::from_seed(&[1; 32]);
        for covered in [Covered::Nothing, Covered::Digest(Sha256Digest::of(b"body")), part()] {
            let request = request(covered);
            let fields = sign_request(&request, &key, [7; 16], at(NOW));
            let signed = fields.verify(&request, at(NOW + CLOCK_WINDOW)).unwrap();
            assert_eq!((signed.key, signed.nonce, signed.created), (key.public(), [7; 16], at(NOW)));
        }
    }

    // attacks.md 42 and 43: sent to another host, method, path, query or body, or with less covered: refused.
    #[test]
    fn attack_42_43_anything_else_than_what_was_signed_is_refused() {
        let key = SigningKey::from_seed(&[1; 32]);
        let good = request(part());
        let fields = sign_request(&good, &key, [7; 16], at(NOW));
        let other = Covered::Part(PartField { number: 2, length: 2, blake3: Blake3Digest::from_bytes([3; 32]) });
        let moved = [
            Request { method: "POST", ..good },
            Request { authority: "evil.example", ..good },
            Request { path: "/v1/y", ..good },
            Request { query: Some("a=1"), ..good },
            Request { covered: other, ..good },
        ];
        for request in moved {
            assert_eq!(fields.verify(&request, at(NOW)), Err(SignatureRefused::Mismatch), "{request:?}");
        }
        for covered in [Covered::Nothing, Covered::Digest(Sha256Digest::of(b"x"))] {
            assert_eq!(fields.verify(&request(covered), at(NOW)), Err(SignatureRefused::Coverage));
        }
        let twisted = [
            fields.input.replace("\"@authority\" ", ""),
            fields.input.replace("\"@method\" \"@authority\"", "\"@authority\" \"@method\""),
            fields.input.replace(";alg=\"ed25519\"", ""),
            fields.input.replace("pouch.v1", "pouch.v2"),
            format!("{}, pouch=()", fields.input),
            format!("{}, more=()", fields.input),
            fields.input.replace("pouch=", "sig1="),
            String::new(),
        ];
        for input in twisted {
            let fields = SignatureFields { input, ..fields.clone() };
            assert!(fields.verify(&good, at(NOW)).is_err(), "{}", fields.input);
        }
    }

    // attacks.md 32: the clock's distance is named.
    #[test]
    fn attack_32_clocks_too_far_apart() {
        let key = SigningKey::from_seed(&[1; 32]);
        let good = request(Covered::Nothing);
        let fields = sign_request(&good, &key, [7; 16], at(NOW));
        assert_eq!(fields.verify(&good, at(NOW + 301)), Err(SignatureRefused::Clock(301)));
        assert_eq!(fields.verify(&good, at(NOW - 301)), Err(SignatureRefused::Clock(301)));
    }
}
