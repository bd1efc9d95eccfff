//! Who may come in.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::control::tls::{Tls, TlsError};
use crate::units::NodeId;

/// Asks the model about everyone who connects, and again whenever it changes.
#[derive(Clone)]
pub struct Gate {
    /// This node's side of TLS.
    pub tls: Arc<Tls>,
    model: watch::Receiver<Arc<Cluster>>,
    told: Arc<[(NodeId, String)]>,
}

/// A peer that was let in.
#[derive(Clone, Debug)]
pub(in super::super) struct Visitor {
    pub(in super::super) node: NodeId,
    fingerprint: String,
}

impl Gate {
    /// A gate that goes by `model`; as long as that is empty, by the members that this node was told of when it joined.
    pub fn new(tls: Arc<Tls>, model: watch::Receiver<Arc<Cluster>>, told: Vec<(NodeId, String)>) -> Self {
        Self { tls, model, told: told.into() }
    }

    /// Who the peer of a finished handshake is, if it may come in.
    pub(in super::super) fn admit(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<Visitor, TlsError> {
        let (node, fingerprint) = self.tls.peer(certificates)?;
        let visitor = Visitor { node, fingerprint };
        self.verdict(&visitor)?;
        Ok(visitor)
    }

    /// Waits until a visitor has to go.
    pub(in super::super) async fn expelled(&self, visitor: &Visitor) -> TlsError {
        let mut model = self.model.clone();
        loop {
            if let Err(error) = self.verdict(visitor) {
                return error;
            }
            if model.changed().await.is_err() {
                // The model's keeper is gone: the node is stopping, and so is everyone who serves visitors.
                std::future::pending::<()>().await;
            }
        }
    }

    fn verdict(&self, visitor: &Visitor) -> Result<(), TlsError> {
        let model = self.model.borrow().clone();
        self.tls.verdict(&model, &self.told, visitor.node, &visitor.fingerprint)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
