//! Requests and answers, plain enough to do wrong with.

use bytes::Bytes;
use http::HeaderMap;
use pouch_protocol::{
    Covered, PartField, Problem, ProblemKind, Request, SignatureFields, content_digest, route, sign_request,
};
use pouch_relay::Clock as _;
use pouch_statement::{Blake3Digest, BundleId, Sha256Digest, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Person, World};

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The name of the request, which every answer carries.
    pub request: String,
}

/// All but the name of the request, which is random.
impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        (self.status, &self.headers, &self.body) == (other.status, &other.headers, &other.body)
    }
}

impl Reply {
    pub fn json<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn problem(&self) -> ProblemKind {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem.kind().unwrap()
    }

    pub fn is_done(&self) {
        assert_eq!((self.status, self.body.as_ref()), (204, &b""[..]), "{self:?}");
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A request before it is sent; tests twist it in between.
#[derive(Clone, Debug)]
pub struct Draft {
    pub method: &'static str,
    pub path: String,
    pub query: Option<String>,
    pub covered: Covered,
    pub fields: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Draft {
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: None, covered: Covered::Nothing, fields: vec![], body: Bytes::new() }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub fn post<T: Serialize>(path: impl Into<String>, message: &T) -> Self {
        Self::new("POST", path).bytes(serde_json::to_vec(message).unwrap())
    }

    pub fn put(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new("PUT", path).bytes(body)
    }

    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        let digest = Sha256Digest::of(&self.body);
        self.covered = Covered::Digest(digest);
        self.field("content-digest", content_digest(&digest))
    }

    pub fn part(bundle: BundleId, number: u32, sealed: &Bytes) -> Self {
        let field = PartField { number, length: sealed.len() as u64, blake3: Blake3Digest::from_bytes(blake3(sealed)) };
        let mut draft = Self::new("PUT", route::part(bundle, number)).field(PartField::NAME, field.to_value());
        draft.covered = Covered::Part(field);
        draft.body = sealed.clone();
        draft
    }

    pub fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.retain(|(n, _)| *n != name);
        self.fields.push((name, value.into()));
        self
    }

    pub fn query(mut self, query: &str) -> Self {
        self.query = Some(query.to_owned());
        self
    }

    pub fn signed(self, world: &World, person: &Person) -> Self {
        let nonce = pouch_statement::random().unwrap();
        self.signed_at(&world.config.origin.authority(), person, nonce, world.clock.now())
    }

    pub fn signed_at(self, authority: &str, person: &Person, nonce: [u8; 16], created: Timestamp) -> Self {
        let request = Request {
            method: self.method,
            authority,
            path: &self.path,
            query: self.query.as_deref(),
            covered: self.covered,
        };
        let SignatureFields { input, signature } = sign_request(&request, &person.device, nonce, created);
        self.field("signature-input", input).field("signature", signature)
    }
}

pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// Something that begins like an age file.
pub fn sealed(filler: u8, length: usize) -> Bytes {
    let mut out = b"age-encryption.org/v1\n".to_vec();
    out.resize(length.max(out.len()), filler);
    out.into()
}
