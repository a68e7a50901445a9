//! What a client needs to connect: the address, the content of the files it names, and a client identifier.

use std::sync::Arc;

use rustls::ClientConfig;

use super::address::Address;
use super::credentials::Credentials;
use super::tls;
use super::topics::{ClientRole, client_id};
use crate::output::contract::{HostIdentity, OutputError};

pub struct ConnectionSettings {
    pub address: Address,
    /// `None` for a connection without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    pub credentials: Option<Credentials>,
    pub client_id: String,
}

impl ConnectionSettings {
    /// Reads the files that `address` names.
    pub fn load(address: &Address, host: &HostIdentity, role: ClientRole) -> Result<ConnectionSettings, OutputError> {
        let failed = |why: String| OutputError::Failed(format!("{address}: {why}"));
        let tls = address.tls.as_ref().map(tls::client_config).transpose();
        Ok(ConnectionSettings {
            tls: tls.map_err(failed)?,
            credentials: Credentials::load(address, host).map_err(failed)?,
            client_id: client_id(address, host, role),
            address: address.clone(),
        })
    }

    /// Whether the password would cross the network unencrypted.
    pub fn exposes_password(&self) -> bool {
        let has_password = self.credentials.as_ref().is_some_and(|c| c.password.is_some());
        has_password && self.tls.is_none() && !is_local(&self.address.host)
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
