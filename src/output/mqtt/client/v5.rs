//! The client for MQTT 5.

use std::future::Future;
use std::time::Duration;

use rumqttc_v5::mqttbytes::Error as PacketError;
use rumqttc_v5::{
    AsyncClient, ClientError, ConnAck, ConnectReturnCode, ConnectionError, DisconnectReasonCode, Event, EventLoop,
    LastWill, MqttOptions, Packet, Publish, PublishNoticeError, PublishOptions, PublishProperties, PublishResult, QoS,
    StateError, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::mpsc::Sender;

use super::protocol::{
    FromBroker, Gate, Limits, Outcome, PublishError, Purpose, READ_BATCH, REQUEST_QUEUE, WINDOW, words,
};
use crate::output::mqtt::error::{LinkError, Login};
use crate::output::mqtt::message::{IncomingMessage, Message, Qos};
use crate::output::mqtt::network;
use crate::output::mqtt::settings::ConnectionSettings;
use crate::output::mqtt::version::Version;

pub struct Requests(AsyncClient);

/// Prepares a connection. [`read`] makes it.
pub fn start(settings: &ConnectionSettings, purpose: &Purpose) -> (Requests, EventLoop) {
    let address = &settings.address;
    let mut options = MqttOptions::new(&settings.client_id, (address.host.clone(), address.port));
    options
        .set_keep_alive(purpose.keep_alive_s())
        .set_clean_start(true)
        .set_max_packet_size(Some(purpose.max_packet_bytes()))
        .set_read_batch_size(READ_BATCH)
        .set_outgoing_inflight_upper_limit(u16::try_from(WINDOW).expect("a small constant"));
    // The caller's own limit is shorter.
    options.set_connect_timeout(Duration::from_secs(60));
    if let Some(credentials) = &settings.credentials {
        match &credentials.password {
            Some(password) => options.set_credentials(&credentials.user, password.as_bytes().to_vec()),
            None => options.set_username(&credentials.user),
        };
    }
    if let Some(will) = purpose.will() {
        let (topic, payload) = (will.topic.as_str(), will.payload.as_slice());
        options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, will.retain, None));
    }
    if let Some(tls) = &settings.tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
    }
    let endpoint = settings.endpoint();
    options.set_socket_connector(move |_, _| network::connect(endpoint.clone()));
    let (client, events) = AsyncClient::builder(options).capacity(REQUEST_QUEUE).build();
    (Requests(client), events)
}

/// Connects, and passes on what arrives until the connection ends.
pub async fn read(mut events: EventLoop, mut gate: Gate, to: Sender<FromBroker>, client_id: String) {
    loop {
        let event = match events.poll().await {
            Ok(Event::Incoming(packet)) => match packet {
                Packet::ConnAck(ack) => FromBroker::Connected(limits(&ack)),
                Packet::Publish(publish) => {
                    gate.pass_message(bytes(&publish)).await;
                    FromBroker::Message(message(publish))
                }
                // These answer requests. An answer without a request ends the connection.
                Packet::PubAck(_) | Packet::SubAck(_) => continue,
                _ => {
                    gate.pass().await;
                    continue;
                }
            },
            Ok(Event::Outgoing(_) | Event::Auth(_)) => continue,
            Err(error) => FromBroker::Ended(link_error(error, &client_id)),
        };
        let ended = matches!(event, FromBroker::Ended(_));
        if to.send(event).await.is_err() || ended {
            return;
        }
    }
}

impl Requests {
    pub fn publish(&self, message: Message) -> Result<impl Future<Output = Outcome> + Send + use<>, PublishError> {
        let qos = match message.qos {
            Qos::AtMostOnce => QoS::AtMostOnce,
            Qos::AtLeastOnce => QoS::AtLeastOnce,
        };
        let mut options = PublishOptions::new(qos).retain(message.retain);
        if let Some(data) = message.correlation_data {
            options = options.properties(PublishProperties {
                correlation_data: Some(data.into()),
                ..PublishProperties::default()
            });
        }
        let notice = self
            .0
            .try_publish_tracked(message.topic, message.payload, options)
            .map_err(refused)?;
        Ok(async move {
            match notice.wait_async().await {
                // Codes from 0x80 are errors.
                Ok(PublishResult::Qos1(ack)) if ack.reason as u8 >= 0x80 => Outcome::Refused(words(&ack.reason)),
                Ok(_) => Outcome::Done,
                Err(PublishNoticeError::V5PubAck(reason)) => Outcome::Refused(words(&reason)),
                Err(_) => Outcome::Unknown,
            }
        })
    }

    pub fn subscribe(&self, topic: &str) -> Result<impl Future<Output = Outcome> + Send + use<>, PublishError> {
        let notice = self.0.try_subscribe_tracked(topic, QoS::AtMostOnce).map_err(refused)?;
        Ok(async move {
            let Ok(ack) = notice.wait_async().await else {
                return Outcome::Unknown;
            };
            let refused = |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
            match ack.return_codes.iter().find(refused) {
                Some(code) => Outcome::Refused(words(code)),
                None => Outcome::Done,
            }
        })
    }

    /// Ends a subscription. The broker's answer does not matter.
    pub fn unsubscribe(&self, topic: &str) -> Result<(), PublishError> {
        self.0.try_unsubscribe(topic).map_err(refused)
    }

    /// Whether the request was accepted.
    pub fn disconnect(&self) -> bool {
        self.0.try_disconnect().is_ok()
    }
}

fn refused(error: ClientError) -> PublishError {
    match error {
        ClientError::InvalidRequest(_) => PublishError::InvalidTopic,
        _ => PublishError::Disconnected,
    }
}

fn limits(ack: &ConnAck) -> Limits {
    let properties = ack.properties.as_ref();
    let bytes = properties.and_then(|p| p.max_packet_size);
    let window = properties.and_then(|p| p.receive_max).map_or(WINDOW, usize::from);
    Limits {
        packet_bytes: bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        window: window.clamp(1, WINDOW),
        qos: match properties.and_then(|p| p.max_qos) {
            Some(0) => Qos::AtMostOnce,
            _ => Qos::AtLeastOnce,
        },
        retain: properties.and_then(|p| p.retain_available) != Some(0),
    }
}

/// The size of the packet, without what is always small.
fn bytes(publish: &Publish) -> usize {
    let pairs = publish.properties.iter().flat_map(|p| &p.user_properties);
    let properties: usize = pairs.map(|(name, value)| 5 + name.len() + value.len()).sum();
    publish.topic.len() + publish.payload.len() + properties
}

fn message(publish: Publish) -> IncomingMessage {
    let properties = publish.properties.unwrap_or_default();
    IncomingMessage {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.to_vec(),
        retained: publish.retain,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data.map(|data| data.to_vec()),
    }
}

fn link_error(error: ConnectionError, client_id: &str) -> LinkError {
    match error {
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => network::link_error(error),
        ConnectionError::Tls(error) => network::tls_link_error(error),
        ConnectionError::Timeout(_) => LinkError::Timeout,
        ConnectionError::ConnectionRefused(code) => rejection(&code, client_id),
        ConnectionError::NotConnAck(_) => LinkError::NotMqtt(Version::V5),
        ConnectionError::RequestsDone => LinkError::Closed,
        ConnectionError::MqttState(error) => state_error(error, client_id),
        other => LinkError::Protocol(other.to_string()),
    }
}

fn state_error(error: StateError, client_id: &str) -> LinkError {
    match error {
        StateError::ServerDisconnect { reason_code, .. } => disconnection(reason_code, client_id),
        StateError::AwaitPingResp => LinkError::Timeout,
        StateError::ConnectionAborted => LinkError::Closed,
        StateError::IncomingPacketTooLarge { .. }
        | StateError::Deserialization(PacketError::PayloadSizeLimitExceeded { .. }) => LinkError::PacketTooLarge,
        // A broker without MQTT 5 answers in the format of MQTT 3.1.1, which is too short.
        StateError::Deserialization(PacketError::InvalidConnectReturnCode(1)) => {
            LinkError::UnsupportedVersion(Version::V5)
        }
        StateError::Deserialization(PacketError::Io(error)) => network::stream_error(error, Version::V5),
        StateError::Deserialization(_) => LinkError::NotMqtt(Version::V5),
        other => LinkError::Protocol(other.to_string()),
    }
}

fn rejection(code: &ConnectReturnCode, client_id: &str) -> LinkError {
    use ConnectReturnCode as Code;
    match code {
        Code::BadUserNamePassword | Code::NotAuthorized => LinkError::NotAuthorized(Login::default()),
        Code::Banned => LinkError::Rejected("this client is banned: ask the broker's administrator".into()),
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => LinkError::UnsupportedVersion(Version::V5),
        Code::BadClientId | Code::ClientIdentifierNotValid => LinkError::rejected_client_id(client_id),
        Code::UseAnotherServer | Code::ServerMoved => {
            LinkError::Rejected("it asks for another server: change the host in the address".into())
        }
        Code::ServerBusy | Code::ServerUnavailable | Code::ServiceUnavailable | Code::ConnectionRateExceeded => {
            LinkError::Rejected(format!("{}: it should accept later", words(code)))
        }
        Code::QuotaExceeded => LinkError::Rejected("quota exceeded: raise the limit on the broker".into()),
        other => LinkError::Rejected(words(other)),
    }
}

fn disconnection(code: DisconnectReasonCode, client_id: &str) -> LinkError {
    use DisconnectReasonCode as Code;
    match code {
        Code::SessionTakenOver => LinkError::TakenOver(client_id.into()),
        Code::NotAuthorized => LinkError::NotAuthorized(Login::default()),
        Code::PacketTooLarge => {
            LinkError::DisconnectedByBroker("packet too large: raise the packet limit on the broker".into())
        }
        Code::QuotaExceeded | Code::MessageRateTooHigh => LinkError::DisconnectedByBroker(format!(
            "{}: lower rate_hz, or raise the limit on the broker",
            words(&code)
        )),
        other => LinkError::DisconnectedByBroker(words(&other)),
    }
}
