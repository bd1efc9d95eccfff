//! The cluster's certificate authority.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use crate::cluster::Certificate;
use crate::units::{ClusterId, Name, NodeId};

/// The name that every node's certificate has beside its own: what a node that does not know the cluster yet can ask for.
pub(super) const MEMBER: &str = "member.blkrep.internal";

/// The authority: it issues the certificates of nodes. Certificates do not expire, for a cluster that nobody looked after for years must
/// not stop for it; they end with the node's membership.
pub struct Authority {
    /// Its certificate, as PEM.
    pub certificate: String,
    key: KeyPair,
}

/// A certificate for a node.
#[derive(Clone, Debug)]
pub struct Issued {
    /// As PEM.
    pub pem: String,
    /// As the model remembers it.
    pub certificate: Certificate,
}

impl Authority {
    /// A new authority for a cluster.
    pub fn create(cluster: ClusterId) -> Result<Self, TlsError> {
        let create = || -> Result<Self, rcgen::Error> {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, format!("blkrep cluster {cluster}"));
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            let key = KeyPair::generate()?;
            let certificate = params.self_signed(&key)?.pem();
            Ok(Self { certificate, key })
        };
        create().map_err(|error| own(&error))
    }

    /// The authority from its certificate and key, as PEM.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key).map_err(|error| own(&error))?;
        Ok(Self { certificate: certificate.to_owned(), key })
    }

    /// Its key, as PEM. Whoever has it can let nodes in.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A certificate for a node's public key (PEM). The name and address are for NBD clients that ask for TLS; `serial` must be
    /// random.
    pub fn issue(
        &self,
        cluster: ClusterId,
        node: NodeId,
        name: &Name,
        address: IpAddr,
        public_key: &str,
        serial: u64,
    ) -> Result<Issued, TlsError> {
        let issue = || -> Result<Issued, rcgen::Error> {
            let key = SubjectPublicKeyInfo::from_pem(public_key)?;
            let issuer = Issuer::from_ca_cert_pem(&self.certificate, &self.key)?;
            let mut names = vec![node_name(cluster, node), MEMBER.to_owned(), "localhost".to_owned()];
            names.extend([address.to_string(), "127.0.0.1".to_owned(), "::1".to_owned()]);
            // A name that is no host name is no loss: nobody could connect to it.
            names.extend(is_host_name(name.as_str()).then(|| name.to_string()));
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, format!("blkrep node {node}"));
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.serial_number = Some(SerialNumber::from(serial));
            params.use_authority_key_identifier_extension = true;
            let signed = params.signed_by(&key, &issuer)?;
            let certificate = Certificate { serial: format!("{serial:016x}"), fingerprint: fingerprint(signed.der()) };
            Ok(Issued { pem: signed.pem(), certificate })
        };
        issue().map_err(|error| own(&error))
    }
}

/// What tells a certificate from all others.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    blake3::hash(certificate).to_hex().to_string()
}

/// The name of a node that its certificate proves.
pub(super) fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.blkrep.internal")
}

/// The cluster and node that a certificate names.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Result<(ClusterId, NodeId), String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?.ok_or("it has no names")?;
    let identity = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => {
            let (node, cluster) = name.strip_prefix("node-")?.strip_suffix(".blkrep.internal")?.split_once('.')?;
            let cluster = u128::from_str_radix(cluster, 16).ok()?;
            Some((ClusterId(cluster), NodeId(node.parse().ok()?)))
        }
        _ => None,
    });
    identity.ok_or_else(|| "it names no node".to_owned())
}

fn is_host_name(name: &str) -> bool {
    name.len() <= 63 && !name.ends_with('-') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn own(error: &rcgen::Error) -> TlsError {
    TlsError::Own { what: "the cluster's authority", why: error.to_string() }
}
