//! What a refusal looks like.

use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// A refusal or failure, for programs and for people: the code says which kind it is, the message what happened and to what,
/// the hint what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Which kind of failure; stable across versions.
    pub code: Code,
    /// What happened, and to what: `resource 'web' does not exist`.
    pub message: String,
    /// What to do next; empty when there is nothing to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl ApiError {
    /// A failure without a hint; add one with [`hint`](Self::hint).
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: String::new() }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = hint.to_string();
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code.status(), Json(self)).into_response()
    }
}

/// The kinds of failure. A program may act on these; the messages are for people and may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request cannot be read, or asks for something that makes no sense.
    BadRequest,
    /// What the request names does not exist.
    NotFound,
    /// What the request would create exists already.
    AlreadyExists,
    /// Somebody uses it: clients are connected, or replicas exist.
    InUse,
    /// No node has the space, or there are not enough nodes.
    NoSpace,
    /// The cluster's nodes that could decide are not reachable; nothing was changed.
    NoQuorum,
    /// No replica with the newest data is reachable.
    NoData,
    /// A join token is wrong, used up or expired; or the caller may not ask this.
    Denied,
    /// A pool or disk failed, or cannot be used.
    Storage,
    /// The node is not part of a cluster yet.
    NotInitialized,
    /// The node is part of a cluster already.
    AlreadyInitialized,
    /// The daemon, or the node that would have to answer, cannot be reached.
    Unreachable,
    /// No answer in time; the change may still happen.
    TimedOut,
    /// The daemon is shutting down.
    ShuttingDown,
    /// A file or socket of this machine could not be used.
    Io,
    /// A defect: something that should not be possible.
    Internal,
}

impl Code {
    /// The HTTP status that carries it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::InUse | Self::AlreadyInitialized | Self::NotInitialized => StatusCode::CONFLICT,
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Self::NoQuorum | Self::NoData | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Storage | Self::Io | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_travels_as_code_message_and_hint() {
        let error = ApiError::new(Code::AlreadyExists, "node 'beta' exists already").hint("choose another name");
        let json = serde_json::to_string(&error).unwrap();
        assert_eq!(json, r#"{"code":"already-exists","message":"node 'beta' exists already","hint":"choose another name"}"#);
        assert_eq!(serde_json::from_str::<ApiError>(&json).unwrap(), error);
    }

    #[test]
    fn a_hint_may_be_absent() {
        let error: ApiError = serde_json::from_str(r#"{"code":"io","message":"no"}"#).unwrap();
        assert_eq!(error, ApiError::new(Code::Io, "no"));
    }
}
