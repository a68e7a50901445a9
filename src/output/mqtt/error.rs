//! Why a connection to a broker failed or ended.

use super::version::{Version, VersionChoice};

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
    #[error("authentication failed: {0}")]
    NotAuthorized(Login),
    #[error("the broker does not support MQTT {0}: write version={other}, or leave version= out", other = .0.other())]
    UnsupportedVersion(Version),
    /// Old brokers fail in many ways if a client speaks MQTT 5.
    #[error(
        "{error}; or the broker does not support MQTT {version}, which version={version} forces: leave version= out"
    )]
    ForcedVersion { version: Version, error: Box<LinkError> },
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
    /// Brokers of MQTT 3.1.1, and mosquitto before 2.0.12, do not say that another client took over.
    #[error(
        "the broker closed the connection several times in a row: another client may use the identifier {client_id}: if two devices \
         share a machine identifier and a device name, give each its own device=NAME; otherwise see the broker's log"
    )]
    ClosedRepeatedly { client_id: String },
    /// The publisher has ended the connection itself.
    #[error("the password or the certificates have changed")]
    FilesChanged,
}

/// What a client that was not authorized has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, thiserror::Error)]
pub enum Login {
    #[default]
    #[error("check the user, the password and the user's rights on the broker")]
    UserAndPassword,
    #[error("the address has a user and there is no password: add password_file=/path/to/the/file, or check the user")]
    UserOnly,
    #[error("there is a password and the address has no user: write mqtt://user@host")]
    PasswordWithoutUser,
    #[error(
        "the broker wants a login, and the address has none: write mqtt://user@host and add password_file=/path/to/the/file"
    )]
    None,
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

    /// The same error, if it happened before the broker accepted the connection of a client with this login and version.
    pub fn before_acceptance(self, login: Login, version: VersionChoice) -> LinkError {
        let error = match self {
            LinkError::Closed => LinkError::ClosedBeforeAcceptance,
            LinkError::NotAuthorized(_) => LinkError::NotAuthorized(login),
            other => other,
        };
        match version {
            VersionChoice::Only(version)
                if error.suggests_another_version() && !matches!(error, LinkError::UnsupportedVersion(_)) =>
            {
                LinkError::ForcedVersion {
                    version,
                    error: Box::new(error),
                }
            }
            _ => error,
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
            LinkError::ForcedVersion { error, .. } => error.prospect(),
            LinkError::Closed
            | LinkError::ClosedBeforeAcceptance
            | LinkError::ClosedRepeatedly { .. }
            | LinkError::DisconnectedByBroker(_)
            | LinkError::PacketTooLarge
            | LinkError::Protocol(_) => Prospect::Broken,
            LinkError::NotMqtt(_)
            | LinkError::Tls(_)
            | LinkError::NotAuthorized(_)
            | LinkError::UnsupportedVersion(_)
            | LinkError::Rejected(_)
            | LinkError::SubscriptionDenied { .. }
            | LinkError::TakenOver(_) => Prospect::Refused,
        }
    }

    /// Whether a message that is too large for the broker may have ended the connection. Not all brokers name the reason.
    pub fn may_be_due_to_size(&self) -> bool {
        matches!(
            self,
            LinkError::Closed | LinkError::DisconnectedByBroker(_) | LinkError::Protocol(_)
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_before_acceptance_name_the_cause_in_the_address() {
        let error = |error: LinkError, login, version: &str| {
            error.before_acceptance(login, version.parse().unwrap()).to_string()
        };
        insta::assert_snapshot!(error(LinkError::UnsupportedVersion(Version::V5), Login::None, "5"), @"the broker does not support MQTT 5: write version=3.1.1, or leave version= out");
        insta::assert_snapshot!(error(LinkError::NotMqtt(Version::V5), Login::None, "5"), @"the other side does not speak MQTT 5: check the port, or write mqtts:// if the port expects TLS; or the broker does not support MQTT 5, which version=5 forces: leave version= out");
        insta::assert_snapshot!(error(LinkError::Closed, Login::None, "auto"), @"the broker closed the connection before it accepted the client: if the port expects TLS, write mqtts://; otherwise see the broker's log");
        let denied = |login| error(LinkError::NotAuthorized(Login::default()), login, "5");
        insta::assert_snapshot!(denied(Login::UserAndPassword), @"authentication failed: check the user, the password and the user's rights on the broker");
        insta::assert_snapshot!(denied(Login::UserOnly), @"authentication failed: the address has a user and there is no password: add password_file=/path/to/the/file, or check the user");
        insta::assert_snapshot!(denied(Login::PasswordWithoutUser), @"authentication failed: there is a password and the address has no user: write mqtt://user@host");
        insta::assert_snapshot!(denied(Login::None), @"authentication failed: the broker wants a login, and the address has none: write mqtt://user@host and add password_file=/path/to/the/file");
    }
}
