//! A single connection, for commands that do not stay connected.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Client, Purpose};
use super::error::{LinkError, Login};
use super::message::Qos;
use super::settings::ConnectionSettings;

/// `affectd check`: connects and logs in, and publishes nothing. Returns what the broker has told about itself.
pub async fn probe(settings: &mut ConnectionSettings) -> Result<String, LinkError> {
    let client = connect(settings).await?;
    let (version, limits) = (client.version, client.limits);
    client.disconnect(Instant::now() + Duration::from_secs(1)).await;
    let mut text = match settings.login() {
        Login::UserAndPassword | Login::UserOnly => format!("logged in with MQTT {version}"),
        Login::PasswordWithoutUser | Login::None => format!("accepted without a login, MQTT {version}"),
    };
    if limits.qos == Qos::AtMostOnce {
        text.push_str(", the broker acknowledges nothing (it allows QoS 0 only)");
    }
    if !limits.retain {
        text.push_str(", the broker retains nothing");
    }
    if let Some(bytes) = limits.packet_bytes {
        let _ = write!(text, ", messages up to {bytes} bytes");
    }
    text.push_str("; publishing was not tried: the broker may still deny topics");
    Ok(text)
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
