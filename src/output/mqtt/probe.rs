//! `affectd check`: connects and logs in, and publishes nothing.

use tokio::time::Instant;

use super::client::{Client, Purpose};
use super::error::LinkError;
use super::settings::ConnectionSettings;

/// Returns when the broker has accepted the client, after at most 20 seconds.
pub async fn probe(settings: &mut ConnectionSettings) -> Result<(), LinkError> {
    let first = settings.address.version.first();
    let error = match connect(settings, first).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match settings.next_version(first, &error, false) {
        second if second != first => connect(settings, second).await,
        _ => Err(error),
    }
}

async fn connect(settings: &ConnectionSettings, version: super::version::Version) -> Result<(), LinkError> {
    let client = Client::<()>::open(settings, version, &Purpose::Read, None).await?;
    client
        .disconnect(Instant::now() + std::time::Duration::from_secs(1))
        .await;
    Ok(())
}
