//! Problem details (RFC 9457): how the relay says no.

use serde::{Deserialize, Serialize};

/// The media type of a problem.
pub const PROBLEM_TYPE: &str = "application/problem+json";
const PREFIX: &str = "urn:pouch:problem:";

/// What kind of no it is. The client decides by this and never by the text beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// 400: not readable as what the route takes.
    BadRequest,
    /// 401: the request's signature is missing, does not cover what it must, or does not verify.
    Signature,
    /// 401: `created` is too far from the relay's clock, which stands beside.
    Clock,
    /// 401: this signed request was seen before.
    Replay,
    /// 403: the account may not do this.
    Forbidden,
    /// 403: the relay's owner suspended the account.
    Suspended,
    /// 410: the pipeline was revoked, or its time is over.
    PipelineOver,
    /// 404: not there, or not yours; the same in every detail.
    NotFound,
    /// 405: the path does not know this method.
    Method,
    /// 409: contradicts what is there: another body under the same name, a commit with parts missing, a part after commit.
    Conflict,
    /// 410: the link was used, withdrawn or is over.
    LinkSpent,
    /// 410: the bundle was there, and expired, was burnt, revoked or taken down.
    Gone,
    /// 413: more bytes than this route takes.
    TooLarge,
    /// 422: the body is not what its digest says.
    Digest,
    /// 429: too many requests; `Retry-After` says when.
    Rate,
    /// 507: the account's quota or the relay's disk is full.
    Quota,
    /// 500: the relay failed; its operator finds more in its log.
    Internal,
    /// 503: for the moment not; trying again may help.
    Unavailable,
}

/// Kind, wire word, status and title, one row each.
const KINDS: [(ProblemKind, &str, u16, &str); 18] = [
    (ProblemKind::BadRequest, "bad-request", 400, "the request cannot be read"),
    (ProblemKind::Signature, "signature", 401, "the request is not signed as it must be"),
    (ProblemKind::Clock, "clock", 401, "the request's time is too far from the relay's"),
    (ProblemKind::Replay, "replay", 401, "this signed request was seen before"),
    (ProblemKind::Forbidden, "forbidden", 403, "this account may not do that"),
    (ProblemKind::Suspended, "suspended", 403, "the relay's owner suspended this account"),
    (ProblemKind::PipelineOver, "pipeline-over", 410, "this pipeline was revoked, or its time is over"),
    (ProblemKind::NotFound, "not-found", 404, "there is nothing here for you"),
    (ProblemKind::Method, "method", 405, "this path does not take that method"),
    (ProblemKind::Conflict, "conflict", 409, "this contradicts what is there"),
    (ProblemKind::LinkSpent, "link-spent", 410, "this link was used, withdrawn or is over"),
    (ProblemKind::Gone, "gone", 410, "the bundle expired, was burnt, revoked or taken down"),
    (ProblemKind::TooLarge, "too-large", 413, "more bytes than this takes"),
    (ProblemKind::Digest, "digest", 422, "the body is not what its digest says"),
    (ProblemKind::Rate, "rate", 429, "too many requests"),
    (ProblemKind::Quota, "quota", 507, "quota or disk is full"),
    (ProblemKind::Internal, "internal", 500, "the relay failed"),
    (ProblemKind::Unavailable, "unavailable", 503, "not at the moment"),
];

impl ProblemKind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(kind, ..)| *kind)
    }

    fn row(self) -> (&'static str, u16, &'static str) {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(("internal", 500, "the relay failed"), |(_, word, status, title)| (word, *status, title))
    }

    /// The word at the end of the type URI.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// The title, the same for each kind.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().2
    }
}

/// A problem as it travels. A reader takes the kind from `type`; `detail` is somebody else's text and is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:pouch:problem:WORD`.
    pub r#type: String,
    /// The kind's title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is particular about this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The relay's clock, seconds since 1970; with `clock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
}

impl Problem {
    /// A problem of `kind`.
    #[must_use]
    pub fn new(kind: ProblemKind, detail: Option<String>) -> Self {
        let (word, status, title) = kind.row();
        Self { r#type: format!("{PREFIX}{word}"), title: title.to_owned(), status, detail, time: None }
    }

    /// Its kind, if this version knows it.
    #[must_use]
    pub fn kind(&self) -> Option<ProblemKind> {
        let word = self.r#type.strip_prefix(PREFIX)?;
        KINDS.iter().find(|(_, w, ..)| *w == word).map(|(kind, ..)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for (kind, _, status, _) in KINDS {
            let problem = Problem::new(kind, Some("x".into()));
            assert_eq!((problem.kind(), problem.status), (Some(kind), status));
        }
        let other = Problem { r#type: "about:blank".into(), ..Problem::new(ProblemKind::Rate, None) };
        assert_eq!(other.kind(), None);
    }
}
