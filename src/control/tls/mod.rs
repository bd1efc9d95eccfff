//! Who a node is: certificates of the cluster's own authority, and the TLS that proves them.
//!
//! Everything between nodes is TLS 1.3 with certificates on both sides. A node's certificate names its id and its cluster; that a
//! node *has* a certificate of the authority is not enough: [`verdict`](Tls::verdict) asks the model whether that very
//! certificate is the one the node was issued last, so a node that was removed is out at once.
//!
//! Keys are files of mode 0600 below `var/lib/blkrep/tls`. Every node holds the authority's key, for any of them may come to
//! vote and to let the next one in.

mod authority;
mod credentials;
mod pin;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;

pub use self::authority::{Authority, Issued};
pub use self::credentials::Credentials;
pub(super) use self::credentials::write_private;
pub use self::pin::{Fingerprint, pinned};
use crate::cluster::{Cluster, NodeState};
use crate::units::{ClusterId, NodeId};

/// What a connection between nodes is for, agreed on in its handshake (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Requests between members.
    Control,
    /// A node that is not a member yet asks to be let in; the only one without a client's certificate.
    Join,
    /// A lane of replication.
    Replication,
}

impl Purpose {
    /// Its name on the wire; the number changes when what is spoken changes.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Control => b"blkrep-control/1",
            Self::Join => b"blkrep-join/1",
            Self::Replication => b"blkrep-replication/1",
        }
    }

    /// The purpose of this name.
    pub fn of_alpn(name: &[u8]) -> Option<Self> {
        [Self::Control, Self::Join, Self::Replication].into_iter().find(|purpose| purpose.alpn() == name)
    }
}

/// Why TLS could not be set up, or a peer is not who it should be.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key of this node cannot be used.
    #[error("{what} cannot be used: {why}; remove this node from the cluster and join it again")]
    Own {
        /// Which.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// The peer's certificate does not name a node of this cluster.
    #[error("the peer's certificate is not one of this cluster: {0}")]
    Stranger(String),
    /// The peer was a node of this cluster, or has an old certificate of one.
    #[error("node {0} is not a member any more, or this is not its present certificate")]
    Removed(NodeId),
}

/// A node's side of every TLS connection.
pub struct Tls {
    cluster: ClusterId,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Tls {
    /// From a node's credentials.
    pub fn new(cluster: ClusterId, credentials: &Credentials) -> Result<Self, TlsError> {
        let own = |what| move |error: &dyn std::fmt::Display| TlsError::Own { what, why: error.to_string() };
        let ca = CertificateDer::from_pem_slice(credentials.ca.as_bytes()).map_err(|e| own("the cluster's certificate")(&e))?;
        let certificate =
            CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).map_err(|e| own("this node's certificate")(&e))?;
        let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).map_err(|e| own("this node's key")(&e))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(|e| own("the cluster's certificate")(&e))?;
        Ok(Self { cluster, roots: Arc::new(roots), chain: vec![certificate, ca], key })
    }

    /// What this node says when it connects.
    pub fn client(&self, purpose: Purpose) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let builder =
            rustls::ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(unusable)?;
        let builder = builder.with_root_certificates(self.roots.clone());
        let mut config = builder.with_client_auth_cert(self.chain.clone(), self.key.clone_key()).map_err(unusable)?;
        config.alpn_protocols = vec![purpose.alpn().to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// What this node says to nodes that connect for one of `purposes`. Whoever comes for [`Purpose::Join`] may have no
    /// certificate; for the others the certificate tells.
    pub fn server(&self, purposes: &[Purpose]) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let verifier = self.verifier(purposes.contains(&Purpose::Join))?;
        let builder =
            rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(unusable)?;
        let builder = builder.with_client_cert_verifier(verifier);
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key()).map_err(unusable)?;
        config.alpn_protocols = purposes.iter().map(|purpose| purpose.alpn().to_vec()).collect();
        // Nobody resumes; and a ticket would be the one thing that a server says unasked on a quiet link.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What this node says to NBD clients that ask for TLS; `with_certificate` wants one of the cluster's authority of them, too.
    pub fn nbd_server(&self, with_certificate: bool) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let builder = rustls::ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = match with_certificate {
            true => builder.with_client_cert_verifier(self.verifier(false)?),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key()).map_err(unusable)?;
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn verifier(&self, or_none: bool) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
        let verifier = if or_none { verifier.allow_unauthenticated() } else { verifier };
        verifier.build().map_err(|error| TlsError::Own { what: "the cluster's certificate", why: error.to_string() })
    }

    /// The name that the certificate of a node must have.
    pub fn server_name(&self, node: NodeId) -> ServerName<'static> {
        ServerName::try_from(authority::node_name(self.cluster, node)).expect("ids make a valid DNS name")
    }

    /// The node and the certificate's fingerprint at the other end of a finished handshake.
    pub fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<(NodeId, String), TlsError> {
        let first = certificates.and_then(<[_]>::first).ok_or_else(|| TlsError::Stranger("it showed none".into()))?;
        let (cluster, node) = authority::names_of(first).map_err(TlsError::Stranger)?;
        if cluster != self.cluster {
            return Err(TlsError::Stranger(format!("it is of cluster {cluster}")));
        }
        Ok((node, authority::fingerprint(first)))
    }

    /// Whether `node`, with the certificate of this fingerprint, is a node now. A node that has no model yet has been let in a
    /// moment ago: it goes by the members that it was told of then.
    pub fn verdict(&self, model: &Cluster, told: &[(NodeId, String)], node: NodeId, fingerprint: &str) -> Result<(), TlsError> {
        let known = if model.id.is_some() {
            let node =
                model.nodes.get(&node).filter(|node| node.certificate.as_ref().is_some_and(|c| c.fingerprint == fingerprint));
            node.is_some_and(|node| matches!(node.state, NodeState::Joining | NodeState::Member | NodeState::Leaving))
        } else {
            told.iter().any(|(id, known)| *id == node && known == fingerprint)
        };
        if known { Ok(()) } else { Err(TlsError::Removed(node)) }
    }
}

impl std::fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// The cryptography of every TLS connection: ring.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Own { what: "this node's certificate", why: error.to_string() }
}
