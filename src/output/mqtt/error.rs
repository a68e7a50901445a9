//! Why a connection to a broker failed or ended.

use super::version::Version;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("the host name cannot be resolved ({0}): check the name and this machine's network")]
    UnknownHost(String),
    #[error("no program accepts connections there: start the broker, or check host and port")]
    ConnectionRefused,
    #[error("the network failed ({0})")]
    Network(String),
    #[error("the broker does not answer")]
    Timeout,
    #[error("the broker closed the connection")]
    Closed,
    #[error("the other side does not speak MQTT {0}: check the port, or write mqtts:// if the port expects TLS")]
    NotMqtt(Version),
    #[error("no secure connection: {0}")]
    Tls(String),
    #[error("authentication failed: check the user, the password and the user's rights on the broker")]
    NotAuthorized,
    #[error("the broker does not support MQTT {0}: try version=3.1.1 or version=5")]
    UnsupportedVersion(Version),
    #[error("the broker rejected the request ({0})")]
    Rejected(String),
    #[error("the broker ended the connection ({0})")]
    DisconnectedByBroker(String),
}
