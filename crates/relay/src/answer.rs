//! Answers: the header fields that all of them carry, and problem details for every no.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pouch_protocol::{MESSAGE_TYPE, OBJECT_TYPE, PROBLEM_TYPE, Problem, ProblemKind};
use pouch_statement::Timestamp;
use serde::Serialize;

use crate::blob::{ReceiveError, StoreError};
use crate::body::BodyError;
use crate::ledger::{Cause, LedgerError};

/// What `Retry-After` says with `unavailable`, in seconds.
const LATER: HeaderValue = HeaderValue::from_static("5");

/// Why a request gets no; becomes the answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The protocol's no.
    Problem(ProblemKind, Cow<'static, str>),
    /// `clock`, with ours.
    Clock(Timestamp),
    /// 416, with the object's length.
    Range(u64),
    /// 412: another object was wanted than there is.
    Precondition,
    /// Ours to explain in the log, nobody else's to read.
    Internal(String),
}

/// What is behind an `internal`: for the log, which has the request's id beside it.
#[derive(Clone)]
pub(crate) struct Explained(pub(crate) String);

/// The word of a problem, for the access record.
#[derive(Clone, Copy)]
pub(crate) struct ProblemWord(pub(crate) &'static str);

impl Failure {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Problem(kind, detail.into())
    }

    /// The one answer to what is not there or not yours (attacks.md 40).
    pub(crate) fn not_found() -> Self {
        Self::new(ProblemKind::NotFound, "")
    }

    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match &error {
            LedgerError::Refused(kind, detail) => Self::new(*kind, detail.clone()),
            _ => match error.cause() {
                Cause::Full => Self::new(ProblemKind::Quota, "the relay's disk is full"),
                Cause::Passing => {
                    tracing::warn!(%error, "the ledger is not to be had");
                    Self::new(ProblemKind::Unavailable, "the ledger is busy")
                }
                Cause::Broken => Self::internal(error),
            },
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLong => Self::new(ProblemKind::TooLarge, ""),
            BodyError::Stalled | BodyError::Broken => Self::new(ProblemKind::BadRequest, error.to_string()),
        }
    }
}

impl From<ReceiveError> for Failure {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Body(error) => error.into(),
            ReceiveError::Digest => Self::new(ProblemKind::Digest, ""),
            ReceiveError::NotAge => Self::new(ProblemKind::BadRequest, "sealed objects are age files"),
            ReceiveError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(why) => {
                tracing::error!(why, "there is no room for blobs");
                Self::new(ProblemKind::Quota, "the relay's disk is full")
            }
            StoreError::Unavailable(why) => {
                tracing::warn!(why, "blobs cannot be stored or read at the moment");
                Self::new(ProblemKind::Unavailable, "the relay's storage is not available at the moment")
            }
            StoreError::NotFound(_) | StoreError::Broken(_) => Self::internal(error),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        let mut problem = match &self {
            Self::Problem(kind, detail) => Problem::new(*kind, Some(detail.to_string()).filter(|d| !d.is_empty())),
            Self::Clock(_) => Problem::new(ProblemKind::Clock, None),
            Self::Range(_) => Problem::new(ProblemKind::BadRequest, Some("the object has no such bytes".to_owned())),
            Self::Precondition => Problem::new(ProblemKind::BadRequest, Some("the object is another one".to_owned())),
            Self::Internal(_) => Problem::new(ProblemKind::Internal, None),
        };
        let mut explained = None;
        match self {
            Self::Problem(ProblemKind::Unavailable, _) => {
                headers.insert(RETRY_AFTER, LATER);
            }
            Self::Internal(error) => explained = Some(Explained(error)),
            Self::Clock(now) => problem.time = Some(now.unix()),
            Self::Precondition => problem.status = StatusCode::PRECONDITION_FAILED.as_u16(),
            Self::Range(length) => {
                problem.status = StatusCode::RANGE_NOT_SATISFIABLE.as_u16();
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}")) {
                    headers.insert(CONTENT_RANGE, value);
                }
            }
            _ => {}
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let word = problem.kind().map_or("internal", ProblemKind::word);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, headers, body).into_response();
        response.extensions_mut().insert(ProblemWord(word));
        if let Some(explained) = explained {
            response.extensions_mut().insert(explained);
        }
        response
    }
}

/// What handlers return.
pub(crate) type Answer = Result<Response, Failure>;

/// A message.
pub(crate) fn message<T: Serialize>(message: &T) -> Answer {
    let body = serde_json::to_vec(message).map_err(Failure::internal)?;
    Ok(([(CONTENT_TYPE, MESSAGE_TYPE)], body).into_response())
}

/// Done, and nothing to say.
pub(crate) fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A sealed object: for saving, never for showing (attacks.md 53).
pub(crate) fn object(status: StatusCode, body: Body) -> Response {
    let headers = [(CONTENT_TYPE, OBJECT_TYPE), (CONTENT_DISPOSITION, "attachment")];
    (status, headers, body).into_response()
}

const EVERYWHERE: [(HeaderName, &str); 3] = [
    (http::header::CACHE_CONTROL, "no-store"),
    (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (http::header::REFERRER_POLICY, "no-referrer"),
];

/// The fields that every answer carries (docs/protocol.md, beginning).
pub(crate) fn harden(headers: &mut HeaderMap) {
    for (name, value) in EVERYWHERE {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'"));
}
