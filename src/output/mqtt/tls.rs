//! Trust roots and client identity for `mqtts://`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::address::{ClientFiles, TlsFiles};

/// Reads the files; the error is one line that names the file.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let roots = match &files.ca {
        Some(path) => roots_in(path)?,
        None => system_roots()?,
    };
    // Named explicitly: the features that another crate enables could make the default ambiguous.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the cipher suites of both TLS versions")
        .with_root_certificates(roots);
    let config = match &files.client {
        None => config.with_no_client_auth(),
        Some(ClientFiles { cert, key }) => {
            let chain = certificates(cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, &e, "private key"))?;
            config.with_client_auth_cert(chain, key_der).map_err(|e| {
                format!(
                    "{} and {}: the key does not fit the certificate ({e}): give a certificate and its own key",
                    cert.display(),
                    key.display()
                )
            })?
        }
    };
    Ok(Arc::new(config))
}

fn roots_in(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| {
            format!(
                "{}: contains an unusable certificate ({e}): replace the file",
                path.display()
            )
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        false => Ok(roots),
        true => {
            Err("the system has no trusted certificates: install ca-certificates, or add ca=/path/to/ca.pem".into())
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match all {
        Ok(certificates) if certificates.is_empty() => Err(format!(
            "{}: contains no certificate: use a PEM file, which has the line BEGIN CERTIFICATE",
            path.display()
        )),
        Ok(certificates) => Ok(certificates),
        Err(e) => Err(unusable(path, &e, "certificate")),
    }
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

/// A TLS error and its correction.
pub fn problem(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = error else {
        return match error {
            rustls::Error::InvalidMessage(_) => {
                "the broker does not use TLS on this port: check the port, or write mqtt://".into()
            }
            rustls::Error::AlertReceived(alert) => {
                format!(
                    "the broker ended the handshake ({alert:?}): if it requires a client certificate, add cert and key"
                )
            }
            other => other.to_string(),
        };
    };
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
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "the broker's certificate is for another host name: use the host name in the certificate".into()
        }
        other => format!("the broker's certificate is invalid ({other:?}): replace it"),
    }
}
