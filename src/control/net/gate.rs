//! Who may come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    logged: Arc<Logged>,
}

/// The model at the end of this node's own log as it started, committed or not.
///
/// How much of the log is committed is known for certain only after a leader has told. After a loss of power the model may be that of
/// long ago, or empty: a node that went by it alone would refuse the leader that could tell it, for ever.
struct Logged {
    cluster: Cluster,
    /// The model has got that far.
    reached: AtomicBool,
}

/// A peer that was let in.
#[derive(Clone, Debug)]
pub(in super::super) struct Visitor {
    pub(in super::super) node: NodeId,
    fingerprint: String,
}

impl Gate {
    /// A gate that goes by `model`; as long as that is empty, by the members that this node was told of when it joined; and as long as
    /// it is behind `logged`, the model at the end of this node's log, by that, too.
    pub fn new(tls: Arc<Tls>, model: watch::Receiver<Arc<Cluster>>, told: Vec<(NodeId, String)>, logged: Cluster) -> Self {
        let logged = Logged { cluster: logged, reached: AtomicBool::new(false) };
        Self { tls, model, told: told.into(), logged: Arc::new(logged) }
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
        if model.revision >= self.logged.cluster.revision {
            // For good: a node that follows a new epoch counts from the beginning, and what it had logged is no news then.
            self.logged.reached.store(true, Ordering::Relaxed);
        }
        let by = |model: &Cluster| self.tls.verdict(model, &self.told, visitor.node, &visitor.fingerprint);
        match by(&model) {
            Err(_) if !self.logged.reached.load(Ordering::Relaxed) => by(&self.logged.cluster),
            verdict => verdict,
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Certificate, Command, NodeKind, Ports};
    use crate::control::tls::{Authority, Credentials};
    use crate::units::ClusterId;

    const CLUSTER: ClusterId = ClusterId(0xc1);

    /// A cluster of one node, and what it is after another command.
    fn cluster() -> (Cluster, Cluster) {
        let mut cluster = Cluster::default();
        let (name, address) = ("n0".parse().unwrap(), "127.0.0.1".parse().unwrap());
        let certificate = Certificate { serial: "7".into(), fingerprint: "f".into() };
        let (ports, kind) = (Ports::default(), NodeKind::Storage);
        cluster.apply(Command::Init { cluster: CLUSTER, name, address, ports, kind, certificate }).unwrap();
        let mut later = Cluster { revision: cluster.revision + 1, ..cluster.clone() };
        later.nodes.clear();
        (cluster, later)
    }

    fn tls() -> Arc<Tls> {
        let authority = Authority::create(CLUSTER).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let address = "127.0.0.1".parse().unwrap();
        let issued = authority.issue(CLUSTER, NodeId(0), &"n".parse().unwrap(), address, &key.public_key_pem(), 7).unwrap();
        let (ca, ca_key) = (authority.certificate.clone(), authority.key_pem());
        let credentials = Credentials { ca, ca_key, certificate: issued.pem, key: key.serialize_pem() };
        Arc::new(Tls::new(CLUSTER, &credentials).unwrap())
    }

    /// A founder loses power before it has noted that anything is committed: its model is empty, and nobody ever told it of members. It
    /// knows those of its own log, until the model has caught up; who is removed later is out at once.
    #[test]
    fn a_node_without_a_model_lets_in_those_that_its_log_names() {
        let (logged, later) = cluster();
        let (seen, model) = watch::channel(Arc::new(Cluster::default()));
        let gate = Gate::new(tls(), model, Vec::new(), logged.clone());
        let visitor = |fingerprint: &str| Visitor { node: NodeId(0), fingerprint: fingerprint.into() };
        assert!(gate.verdict(&visitor("f")).is_ok(), "the log names it");
        assert!(gate.verdict(&visitor("other")).is_err(), "with that certificate alone");
        seen.send_replace(Arc::new(logged));
        assert!(gate.verdict(&visitor("f")).is_ok(), "the model names it");
        seen.send_replace(Arc::new(later));
        assert!(gate.verdict(&visitor("f")).is_err(), "it was removed since");
        seen.send_replace(Arc::new(Cluster { id: Some(CLUSTER), ..Cluster::default() }));
        assert!(gate.verdict(&visitor("f")).is_err(), "a new epoch that does not know it");
    }
}
