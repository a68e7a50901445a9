//! The client for MQTT 3.1.1, which has no reason codes: a broker that denies a message does not say so.

use std::future::Future;

use rumqttc_v4::{
    AsyncClient, ClientError, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Packet,
    Publish, PublishOptions, QoS, StateError, SubscribeReasonCode, TlsConfiguration, Transport, mqttbytes,
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

/// The largest packet that is sent, in bytes. The broker does not tell its own limit.
const MAX_OUTGOING_BYTES: usize = 1 << 20;

pub struct Requests(AsyncClient);

/// Prepares a connection. [`read`] makes it.
pub fn start(settings: &ConnectionSettings, purpose: &Purpose) -> (Requests, EventLoop) {
    let address = &settings.address;
    let mut options = MqttOptions::new(&settings.client_id, (address.host.clone(), address.port));
    options
        .set_keep_alive(purpose.keep_alive_s())
        .set_clean_session(true)
        .set_max_packet_size(
            usize::try_from(purpose.max_packet_bytes()).expect("a small constant"),
            MAX_OUTGOING_BYTES,
        )
        .set_read_batch_size(READ_BATCH)
        .set_inflight(u16::try_from(WINDOW).expect("a small constant"));
    if let Some(credentials) = &settings.credentials {
        match &credentials.password {
            Some(password) => options.set_credentials(&credentials.user, password.as_bytes().to_vec()),
            None => options.set_username(&credentials.user),
        };
    }
    if let Some(will) = purpose.will() {
        let (topic, payload) = (will.topic.as_str(), will.payload.as_slice());
        options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, will.retain));
    }
    if let Some(tls) = &settings.tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
    }
    let endpoint = settings.endpoint();
    options.set_socket_connector(move |_, _| network::connect(endpoint.clone()));
    let (client, mut events) = AsyncClient::builder(options).capacity(REQUEST_QUEUE).build();
    // The caller's own limit is shorter.
    let mut network = events.network_options();
    network.set_connection_timeout(60);
    events.set_network_options(network);
    (Requests(client), events)
}

/// Connects, and passes on what arrives until the connection ends.
pub async fn read(mut events: EventLoop, mut gate: Gate, to: Sender<FromBroker>, client_id: String) {
    loop {
        let event = match events.poll().await {
            Ok(Event::Incoming(packet)) => match packet {
                Packet::ConnAck(_) => FromBroker::Connected(Limits {
                    packet_bytes: Some(MAX_OUTGOING_BYTES),
                    window: WINDOW,
                    qos: Qos::AtLeastOnce,
                    retain: true,
                }),
                Packet::Publish(publish) => {
                    gate.pass_message(publish.topic.len() + publish.payload.len()).await;
                    FromBroker::Message(message(publish))
                }
                // These answer requests. An answer without a request ends the connection.
                Packet::PubAck(_) | Packet::SubAck(_) => continue,
                _ => {
                    gate.pass().await;
                    continue;
                }
            },
            Ok(Event::Outgoing(_)) => continue,
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
        let options = PublishOptions::new(qos).retain(message.retain);
        let notice = self
            .0
            .try_publish_tracked(message.topic, message.payload, options)
            .map_err(refused)?;
        Ok(async move { notice.wait_async().await.map_or(Outcome::Unknown, |_| Outcome::Done) })
    }

    pub fn subscribe(&self, topic: &str) -> Result<impl Future<Output = Outcome> + Send + use<>, PublishError> {
        let notice = self.0.try_subscribe_tracked(topic, QoS::AtMostOnce).map_err(refused)?;
        Ok(async move {
            match notice.wait_async().await {
                Ok(ack) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                    Outcome::Refused("not authorized".into())
                }
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Unknown,
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

fn message(publish: Publish) -> IncomingMessage {
    IncomingMessage {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.to_vec(),
        retained: publish.retain,
        response_topic: None,
        correlation_data: None,
    }
}

fn link_error(error: ConnectionError, client_id: &str) -> LinkError {
    match error {
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => network::link_error(error),
        ConnectionError::Tls(error) => network::tls_link_error(error),
        ConnectionError::NetworkTimeout
        | ConnectionError::FlushTimeout
        | ConnectionError::MqttState(StateError::AwaitPingResp) => LinkError::Timeout,
        ConnectionError::ConnectionRefused(code) => rejection(code, client_id),
        ConnectionError::NotConnAck(_) => LinkError::NotMqtt(Version::V3),
        ConnectionError::RequestsDone | ConnectionError::MqttState(StateError::ConnectionAborted) => LinkError::Closed,
        ConnectionError::MqttState(StateError::Deserialization(error)) => match error {
            mqttbytes::Error::PayloadSizeLimitExceeded { .. } => LinkError::PacketTooLarge,
            mqttbytes::Error::Io(error) => network::stream_error(error, Version::V3),
            _ => LinkError::NotMqtt(Version::V3),
        },
        other => LinkError::Protocol(other.to_string()),
    }
}

fn rejection(code: ConnectReturnCode, client_id: &str) -> LinkError {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            LinkError::NotAuthorized(Login::default())
        }
        ConnectReturnCode::RefusedProtocolVersion => LinkError::UnsupportedVersion(Version::V3),
        ConnectReturnCode::BadClientId => LinkError::rejected_client_id(client_id),
        other => LinkError::Rejected(words(&other)),
    }
}
