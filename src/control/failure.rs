//! Refusals and failures of the control plane as the API tells them.

use drbdpool::PoolError;

use super::consensus::{ProposeError, StoreError};
use super::tls::TlsError;
use crate::api::{ApiError, Code};
use crate::cluster::{Refusal, RefusalKind};
use crate::runtime::PlaneError;

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let code = match (&refusal, refusal.kind()) {
            (Refusal::NotInitialised, _) => Code::NotInitialized,
            (Refusal::AlreadyInitialised, _) => Code::AlreadyInitialized,
            (Refusal::LastUpToDate(..), _) => Code::NoData,
            (_, RefusalKind::NotFound) => Code::NotFound,
            (_, RefusalKind::Exists) => Code::AlreadyExists,
            (_, RefusalKind::Invalid) => Code::BadRequest,
            (_, RefusalKind::NoSpace) => Code::NoSpace,
            (_, RefusalKind::Conflict) => Code::InUse,
            (_, RefusalKind::Denied) => Code::Denied,
        };
        Self::new(code, &refusal).hint(refusal.hint())
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Refused(refusal) => refusal.into(),
            ProposeError::NoLeader(_) => Self::new(Code::NoQuorum, error).hint(
                "bring back the nodes that `blkrep list-nodes` shows offline; if those with a vote are lost for good: \
                 `blkrep recover --force`. Volumes go on working meanwhile",
            ),
            ProposeError::Unknown => Self::new(Code::TimedOut, error).hint("look whether it did before trying again"),
            ProposeError::Stopped(_) => Self::new(Code::Internal, error).hint("look into the daemon's log, and restart it"),
        }
    }
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> Self {
        Self::new(Code::Storage, error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Io, error)
    }
}

impl From<TlsError> for ApiError {
    fn from(error: TlsError) -> Self {
        Self::new(Code::Denied, error)
    }
}

impl From<PlaneError> for ApiError {
    fn from(error: PlaneError) -> Self {
        let code = match &error {
            PlaneError::NotOpen(_) => Code::NotFound,
            PlaneError::Busy(_) | PlaneError::InUse(_) | PlaneError::NotHeld(_) | PlaneError::Refused(_) => Code::InUse,
            PlaneError::NoData(_) => Code::NoData,
            PlaneError::NoQuorum(_) => Code::NoQuorum,
            PlaneError::Storage(_) | PlaneError::Metadata(_) => Code::Storage,
            PlaneError::ShuttingDown => Code::ShuttingDown,
        };
        Self::new(code, error)
    }
}
