//! The wire contract between pouch and its relay (docs/protocol.md): what both ends compile against.
//!
//! No network, no clock, no storage: routes, JSON messages, limits, one-time links, HTTP request
//! signatures (a profile of RFC 9421) and problem details (RFC 9457).

mod device;
pub mod limits;
mod link;
mod members;
mod message;
mod part;
mod pipeline;
mod problem;
mod rotation;
pub mod route;
mod signature;

pub use device::DeviceKey;
pub use link::{CardMac, Inviter, Link, LinkError, LinkSecret, Role as LinkRole};
pub use message::*;
pub use part::{Covered, PartField, PartFieldError, content_digest, parse_content_digest};
pub use pipeline::{NewPipeline, PipelineStatus, Pipelines};
pub use problem::{PROBLEM_TYPE, Problem, ProblemKind};
pub use rotation::{NewRotation, Rotations};
pub use signature::{Request, SignatureFields, SignatureRefused, SignedRequest, sign_request};

/// The version of the API, the first component of its paths.
pub const VERSION: u32 = 1;
/// The media type of sealed objects.
pub const OBJECT_TYPE: &str = "application/octet-stream";
/// The field of each answer that names the request in the relay's log, for who asks its operator.
pub const REQUEST_ID: &str = "pouch-request";
/// The media type of messages.
pub const MESSAGE_TYPE: &str = "application/json";
