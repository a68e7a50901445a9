//! A single connection, for commands that do not stay connected.

use std::time::Duration;

use tokio::time::Instant;

use super::client::{Client, Purpose};
use super::error::LinkError;
use super::settings::ConnectionSettings;

/// `affectd check`: connects and logs in, and publishes nothing. Returns when the broker has accepted the client.
pub async fn probe(settings: &mut ConnectionSettings) -> Result<(), LinkError> {
    let client = connect(settings).await?;
    client.disconnect(Instant::now() + Duration::from_secs(1)).await;
    Ok(())
}

/// Connects within 20 seconds, with the other version of MQTT if the first fails for that reason.
pub async fn connect(settings: &mut ConnectionSettings) -> Result<Client<()>, LinkError> {
    let first = settings.address.version.first();
    let error = match Client::open(settings, first, &Purpose::Read, None).await {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    match settings.next_version(first, &error, false) {
        second if second != first => Client::open(settings, second, &Purpose::Read, None).await,
        _ => Err(error),
    }
}
