//! Trust roots and client identity for `mqtts://`, and the remedies for errors of TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::address::{ClientFiles, TlsFiles};
use crate::small_file;

/// A file with all certificates of a system is a quarter of this.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// The keys that ring supports.
const KEY_TYPES: &str = "RSA, P-256, P-384 or Ed25519";

/// Reads the files; the error is one line that names the file.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    // Named explicitly: the features that another crate enables could make the default ambiguous.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match &files.ca {
        Some(path) => Verifier::trusting(path, &provider)?,
        None => Verifier::system(&provider)?,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the cipher suites of both TLS versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match &files.client {
        None => config.with_no_client_auth(),
        Some(ClientFiles { cert, key }) => {
            let chain = certificates(cert)?;
            let key_der = private_key(key)?;
            config.with_client_auth_cert(chain, key_der).map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => format!(
                    "{} and {}: the key does not fit the certificate: give a certificate and its own key",
                    cert.display(),
                    key.display()
                ),
                rustls::Error::InvalidCertificate(CertificateError::Other(_)) => format!(
                    "{}: the client certificate is of X.509 version 1: make one of version 3",
                    cert.display()
                ),
                _ => format!(
                    "{}: this type of key is not supported ({e}): use {KEY_TYPES}",
                    key.display()
                ),
            })?
        }
    };
    Ok(Arc::new(config))
}

/// Verifies as usual. In addition it trusts the certificates that the user named for themselves: many brokers have a self-signed
/// one, which is its own authority and often names no host.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn trusting(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Verifier, String> {
        let pinned = certificates(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &pinned {
            roots.add(certificate.clone()).map_err(|e| {
                format!(
                    "{}: contains an unusable certificate ({e}): replace the file",
                    path.display()
                )
            })?;
        }
        Verifier::new(roots, pinned, provider)
    }

    fn system(provider: &Arc<CryptoProvider>) -> Result<Verifier, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(
                "the system has no trusted certificates: install ca-certificates, or add ca=/path/to/ca.pem".into(),
            );
        }
        Verifier::new(roots, Vec::new(), provider)
    }

    fn new(
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|e| format!("the trusted certificates cannot be used ({e}): give others with ca="))?;
        Ok(Verifier { usual, pinned })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError as Bad;
        let usual = self
            .usual
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match usual {
            // The times of a pinned certificate count, too.
            Err(rustls::Error::InvalidCertificate(
                Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
            )) => usual,
            Err(_) if self.pinned.iter().any(|pinned| pinned == end_entity) => Ok(ServerCertVerified::assertion()),
            _ => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = read_pem(path, "certificate")?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&all).collect();
    match all {
        Ok(certificates) if certificates.is_empty() => Err(format!(
            "{}: contains no certificate: use a PEM file, which has the line BEGIN CERTIFICATE",
            path.display()
        )),
        Ok(certificates) => Ok(certificates),
        Err(e) => Err(unusable(path, &e, "certificate")),
    }
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read_pem(path, "private key")?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| {
        // Both forms, `BEGIN ENCRYPTED PRIVATE KEY` and `Proc-Type: 4,ENCRYPTED`, have the word.
        if pem.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) {
            let path = path.display();
            return format!(
                "{path}: the key is encrypted, and nobody can type its password: decrypt it with openssl pkey -in {path} \
                 -out KEY.pem, and make KEY.pem readable for affectd only"
            );
        }
        unusable(path, &e, "private key")
    })
}

fn read_pem(path: &Path, what: &str) -> Result<Vec<u8>, String> {
    use rustls::pki_types::pem::Error;
    small_file::read(path, MAX_FILE_BYTES).map_err(|e| unusable(path, &Error::Io(e), what))
}

fn unusable(path: &Path, error: &rustls::pki_types::pem::Error, what: &str) -> String {
    use rustls::pki_types::pem::Error;
    let path = path.display();
    match error {
        Error::Io(e) => format!("{path}: cannot be read ({e}): check the path and its permissions"),
        Error::NoItemsFound => format!("{path}: contains no {what}: use a PEM file"),
        other => format!("{path}: is damaged ({other}): replace it with a PEM file that contains a {what}"),
    }
}

/// An error of TLS and its remedy.
pub fn problem(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(bad) => certificate_problem(bad),
        rustls::Error::InvalidMessage(_) => {
            "the broker does not use TLS on this port: check the port, or write mqtt://".into()
        }
        rustls::Error::AlertReceived(alert) => alert_problem(*alert),
        rustls::Error::PeerIncompatible(why) => format!(
            "the broker's TLS is too old or has other options ({why:?}): it needs TLS 1.2 or 1.3 and a key of type {KEY_TYPES}"
        ),
        other => other.to_string(),
    }
}

fn alert_problem(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::ProtocolVersion => "the broker's TLS is older than version 1.2: update the broker".into(),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => format!(
            "the broker found no common TLS options ({alert:?}): it needs TLS 1.2 or 1.3 and a key of type {KEY_TYPES}; if it \
             requires a client certificate, add cert and key"
        ),
        Alert::CertificateRequired => "the broker requires a client certificate: add cert and key".into(),
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::AccessDenied => format!(
            "the broker rejected the client certificate ({alert:?}): give one in cert and key that the broker's authority signed"
        ),
        Alert::UnrecognisedName => {
            "the broker does not know this host name: use the name that the broker was set up with".into()
        }
        other => format!("the broker ended the handshake ({other:?}): see the broker's log"),
    }
}

fn certificate_problem(bad: &CertificateError) -> String {
    use CertificateError as Bad;
    const PIN: &str = "to trust exactly this certificate, add ca=/path/to/the/broker's/certificate.pem";
    match bad {
        Bad::Expired | Bad::ExpiredContext { .. } => {
            "the broker's certificate has expired: renew it, and check this machine's clock".into()
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet: check this machine's clock".into()
        }
        Bad::UnknownIssuer => {
            "the broker's certificate is signed by an unknown authority: add ca=/path/to/ca.pem".into()
        }
        Bad::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "the broker's certificate names no host in subjectAltName (a common name does not count): make one that does; {PIN}"
        ),
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "the broker's certificate is for another host name: use the host name in the certificate".into()
        }
        Bad::BadEncoding => "the broker's certificate is damaged: make a new one, of X.509 version 3".into(),
        Bad::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                format!("the broker's certificate is self-signed or that of an authority: {PIN}")
            }
            Some(webpki::Error::UnsupportedCertVersion) => {
                "the broker's certificate is of X.509 version 1: make one of version 3, for example with openssl req -x509 \
                 -addext subjectAltName=DNS:broker"
                    .into()
            }
            _ => format!("the broker's certificate is invalid ({other}): replace it; the key can be {KEY_TYPES}"),
        },
        other => format!("the broker's certificate is invalid ({other:?}): replace it; the key can be {KEY_TYPES}"),
    }
}
