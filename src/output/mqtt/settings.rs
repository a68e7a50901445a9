//! What a client needs to connect: the address, the content of the files it names, and a client identifier.

use std::sync::Arc;

use rustls::ClientConfig;
use sha2::{Digest, Sha256};

use super::address::Address;
use super::credentials::Credentials;
use super::error::{LinkError, Login};
use super::network::Endpoint;
use super::tls;
use super::topics::{ClientRole, client_id};
use super::version::{Version, VersionChoice};
use crate::output::contract::{HostIdentity, OutputError};
use crate::small_file;

pub struct ConnectionSettings {
    pub address: Address,
    /// `None` for a connection without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    pub credentials: Option<Credentials>,
    pub client_id: String,
    endpoint: Endpoint,
    host: HostIdentity,
    /// A hash of the files.
    fingerprint: Fingerprint,
    /// The broker has accepted MQTT 5.
    knows_v5: bool,
}

impl ConnectionSettings {
    /// Reads the files that `address` names.
    pub fn load(address: &Address, host: &HostIdentity, role: ClientRole) -> Result<ConnectionSettings, OutputError> {
        let failed = |why: String| OutputError::Failed(format!("{address}: {why}"));
        let fingerprint = fingerprint(address, host);
        let (tls, credentials) = read_files(address, host).map_err(failed)?;
        Ok(ConnectionSettings {
            tls,
            credentials,
            client_id: client_id(address, host, role),
            endpoint: Endpoint::new(&address.host, address.port),
            address: address.clone(),
            host: host.clone(),
            fingerprint,
            knows_v5: false,
        })
    }

    /// Reads the files again, if they have changed. Returns whether they have. If one is invalid, the old ones stay in use.
    pub fn reload(&mut self) -> Result<bool, String> {
        let fingerprint = fingerprint(&self.address, &self.host);
        if fingerprint == self.fingerprint {
            return Ok(false);
        }
        (self.tls, self.credentials) = read_files(&self.address, &self.host)?;
        self.fingerprint = fingerprint;
        Ok(true)
    }

    /// The broker's host and port. All clones share the known addresses of the host.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// The version of MQTT for the attempt after one with `tried`, which ended with `error`.
    pub fn next_version(&mut self, tried: Version, error: &LinkError, accepted: bool) -> Version {
        self.knows_v5 |= accepted && tried == Version::V5;
        match self.address.version {
            VersionChoice::Automatic if accepted || self.knows_v5 => Version::V5,
            VersionChoice::Automatic if error.suggests_another_version() => tried.other(),
            VersionChoice::Automatic | VersionChoice::Only(_) => tried,
        }
    }

    /// What the client sends to log in.
    pub fn login(&self) -> Login {
        match &self.credentials {
            Some(Credentials { password: Some(_), .. }) => Login::UserAndPassword,
            Some(Credentials { password: None, .. }) => Login::UserOnly,
            None if Credentials::file(&self.address, &self.host).is_some() => Login::PasswordWithoutUser,
            None => Login::None,
        }
    }

    /// Whether the password would cross the network unencrypted.
    pub fn exposes_password(&self) -> bool {
        let has_password = self.credentials.as_ref().is_some_and(|c| c.password.is_some());
        has_password && self.tls.is_none() && !is_local(&self.address.host)
    }
}

/// A hash of the files that an address names. A file that cannot be read counts as empty.
type Fingerprint = [u8; 32];

fn fingerprint(address: &Address, host: &HostIdentity) -> Fingerprint {
    let password = Credentials::file(address, host);
    let tls = address.tls.iter().flat_map(|files| {
        let client = files.client.iter().flat_map(|client| [&client.cert, &client.key]);
        files.ca.iter().chain(client)
    });
    let mut hash = Sha256::new();
    for path in password.iter().chain(tls) {
        let content = small_file::read(path, tls::MAX_FILE_BYTES).unwrap_or_default();
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    hash.finalize().into()
}

type Files = (Option<Arc<ClientConfig>>, Option<Credentials>);

fn read_files(address: &Address, host: &HostIdentity) -> Result<Files, String> {
    let tls = address.tls.as_ref().map(tls::client_config).transpose()?;
    Ok((tls, Credentials::load(address, host)?))
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
