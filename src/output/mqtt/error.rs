//! Why a connection to a broker failed or ended.

use super::version::Version;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("the host name cannot be resolved ({0}): check the name and this machine's network")]
    UnknownHost(String),
    #[error("no program accepts connections there: start the broker, or check host and port")]
    ConnectionRefused,
    #[error("the network failed ({0})")]
    Network(String),
    #[error("the broker does not answer")]
    Timeout,
    #[error("a program accepts the connection and does not answer: see the broker's log, or check the port")]
    NoAnswer,
    #[error("the broker closed the connection")]
    Closed,
    #[error(
        "the broker closed the connection before it accepted the client: if the port expects TLS, write mqtts://; \
         otherwise see the broker's log"
    )]
    ClosedBeforeAcceptance,
    #[error("the other side does not speak MQTT {0}: check the port, or write mqtts:// if the port expects TLS")]
    NotMqtt(Version),
    #[error("the broker violates the MQTT protocol ({0}): update the broker")]
    Protocol(String),
    #[error("the broker sent a larger packet than affectd accepts")]
    PacketTooLarge,
    #[error("no secure connection: {0}")]
    Tls(String),
    #[error("authentication failed: check the user, the password and the user's rights on the broker")]
    NotAuthorized,
    #[error("the broker does not support MQTT {0}: try version=3.1.1 or version=5")]
    UnsupportedVersion(Version),
    #[error("the broker rejected the connection ({0})")]
    Rejected(String),
    #[error("the broker denied the subscription to {topic} ({why}): allow it in the broker's access list")]
    SubscriptionDenied { topic: String, why: String },
    #[error("the broker ended the connection ({0})")]
    DisconnectedByBroker(String),
    #[error(
        "another client with the identifier {0} took over the session: two devices share a machine identifier and a \
         device name; give each its own device=NAME"
    )]
    TakenOver(String),
    /// The publisher has ended the connection itself.
    #[error("the password or the certificates have changed")]
    FilesChanged,
}

/// How soon another attempt makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// The broker was not reached. It may be back at any moment, and an attempt costs it nothing.
    Unreachable,
    /// The broker or a program in front of it answered and ended the connection.
    Broken,
    /// The broker refused this client. That lasts until somebody changes something.
    Refused,
}

impl LinkError {
    pub fn rejected_client_id(client_id: &str) -> LinkError {
        LinkError::Rejected(format!(
            "invalid client identifier: allow {client_id} in the broker's access list"
        ))
    }

    /// The same error, if it happened before the broker accepted the connection.
    pub fn before_acceptance(self) -> LinkError {
        match self {
            LinkError::Closed => LinkError::ClosedBeforeAcceptance,
            other => other,
        }
    }

    /// The same error, if it happened after the broker accepted the connection: then it does speak MQTT.
    pub fn after_acceptance(self) -> LinkError {
        match self {
            LinkError::NotMqtt(version) => LinkError::Protocol(format!("a packet that MQTT {version} does not have")),
            other => other,
        }
    }

    pub fn prospect(&self) -> Prospect {
        match self {
            LinkError::FilesChanged
            | LinkError::UnknownHost(_)
            | LinkError::ConnectionRefused
            | LinkError::Network(_)
            | LinkError::Timeout
            | LinkError::NoAnswer => Prospect::Unreachable,
            LinkError::Closed
            | LinkError::ClosedBeforeAcceptance
            | LinkError::DisconnectedByBroker(_)
            | LinkError::PacketTooLarge
            | LinkError::Protocol(_) => Prospect::Broken,
            LinkError::NotMqtt(_)
            | LinkError::Tls(_)
            | LinkError::NotAuthorized
            | LinkError::UnsupportedVersion(_)
            | LinkError::Rejected(_)
            | LinkError::SubscriptionDenied { .. }
            | LinkError::TakenOver(_) => Prospect::Refused,
        }
    }

    /// Whether the broker may only lack this version of MQTT. Old brokers do not say so: they close the connection, or
    /// answer in another format.
    pub fn suggests_another_version(&self) -> bool {
        matches!(
            self,
            LinkError::UnsupportedVersion(_)
                | LinkError::NoAnswer
                | LinkError::ClosedBeforeAcceptance
                | LinkError::NotMqtt(_)
                | LinkError::Protocol(_)
        )
    }
}
