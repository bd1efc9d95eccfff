//! Trust of a node that does not know the cluster yet: the fingerprint of the authority, from the join token.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{Purpose, TlsError, authority, provider};

/// The first half of the BLAKE3 hash of the authority's certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of a certificate in PEM.
    pub fn of_pem(pem: &str) -> Result<Self, TlsError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes());
        der.map(|der| Self::of(&der)).map_err(|error| TlsError::Own { what: "the cluster's certificate", why: error.to_string() })
    }

    fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&blake3::hash(certificate).as_bytes()[..16]);
        Self(half)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a node says that connects to join the cluster whose authority has this fingerprint.
pub fn pinned(fingerprint: Fingerprint) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let unusable = |error: Error| TlsError::Own { what: "TLS", why: error.to_string() };
    let builder = rustls::ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(unusable)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Pin(fingerprint)));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![Purpose::Join.alpn().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts members of the cluster whose authority has the fingerprint, whichever member it is.
#[derive(Debug)]
struct Pin(Fingerprint);

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates.iter().find(|certificate| Fingerprint::of(certificate) == self.0);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
        let member = ServerName::try_from(authority::MEMBER).expect("a constant that is a valid name");
        verifier.verify_server_cert(end_entity, &[], &member, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("nodes speak TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = provider();
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
