//! Why the brokers cannot be reached, as clients last heard it, with what mends it.
//!
//! librdkafka's calls only time out; the reason comes through its error callback, sooner or later. It says identical
//! errors once in half a minute, so the last one is kept until a broker answers.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer as _,
};

use super::{producer, settings::Settings};

/// What clients last heard. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Reach(Arc<Mutex<Option<Trouble>>>);

/// What keeps a client from a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    code: RDKafkaErrorCode,
    /// librdkafka's words, in which no value of a property stands.
    reason: String,
    /// It was found out that the broker's certificate is trusted, and for another host.
    other_host: bool,
}

/// How long it is waited for what a broker makes of a hello.
const HELLO_MAX: Duration = Duration::from_secs(2);

impl Reach {
    /// A client's error callback.
    pub(super) fn heard(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        // That all are down is no reason, but follows from one. The first of its kind is kept: the same trouble is told in
        // other words for each broker and each way in which a connection ends.
        if mend(code).is_some() && self.code() != Some(code) {
            // How long a state lasted differs each time.
            let reason = reason.rsplit_once(" (after ").map_or(reason, |(reason, _)| reason).to_owned();
            *self.trouble() = Some(Trouble { code, reason, other_host: false });
        }
    }

    /// A broker answered.
    pub(super) fn answered(&self) {
        *self.trouble() = None;
    }

    /// librdkafka gives one reason for a certificate that nobody vouches for and one that is for another host: finds out
    /// which it is. Blocks for a moment.
    pub(super) fn look_closer(&self, settings: &Settings) {
        let is_about_tls = self.trouble().as_ref().is_some_and(|trouble| trouble.code == RDKafkaErrorCode::SSL);
        if is_about_tls && trusts_any_host(settings) {
            self.trouble().iter_mut().for_each(|trouble| trouble.other_host = true);
        }
    }

    /// As [`Reach::why`]. A connection that a broker closes is no error to librdkafka, which then only times out.
    pub(super) fn why_or(&self, said: &KafkaError) -> String {
        match self.why() {
            why if why.is_empty() => format!(": {said}; to mend it: {CONNECTION}"),
            why => why,
        }
    }

    fn code(&self) -> Option<RDKafkaErrorCode> {
        self.trouble().as_ref().map(|trouble| trouble.code)
    }

    /// `: ` and the reason with its mend; nothing where none was heard.
    pub(super) fn why(&self) -> String {
        self.trouble().as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default()
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mend = if self.other_host { Some(OTHER_HOST) } else { mend(self.code) };
        write!(f, "{}; to mend it: {}", self.reason, mend.unwrap_or_default())
    }
}

const CONNECTION: &str = "look whether --kafka names a broker that listens and can be reached from here (NetworkPolicy, \
                          firewall), whether security.protocol is that of its listener, and whether that asks for a \
                          certificate (ssl.certificate.location, ssl.key.location)";

const OTHER_HOST: &str = "the broker's certificate is trusted, but is not for the host that was connected to: use a name \
                          that stands in it (subjectAltName), in --kafka and in the broker's advertised.listeners";

/// Whether TLS succeeds where the certificate may be for any host. Nobody knows then who that is, so that this client
/// says hello and nothing more: no name, no password.
fn trusts_any_host(settings: &Settings) -> bool {
    let mut config = settings.admin();
    for secret in ["sasl.username", "sasl.password", "sasl.mechanism", "sasl.mechanisms"] {
        config.remove(secret);
    }
    config.set("security.protocol", "ssl").set("ssl.endpoint.identification.algorithm", "none");
    let heard = Reach::default();
    let Ok(client) = producer::create(&config, &heard) else { return false };
    let answered = client.client().fetch_metadata(None, HELLO_MAX).is_ok();
    producer::listen(&client);
    producer::discard(client);
    // A listener that wants a name hangs up: after the handshake, which is all that was asked, and in silence.
    answered || heard.code().is_none()
}

/// What to look at, by the kind of trouble; `None`: it is not about reaching a broker.
fn mend(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => {
            "give sasl.username, sasl.password and sasl.mechanism as the broker knows them, by --kafka-config-file or \
             --kafka-config NAME=@/PATH: a changed file is read without a restart"
        }
        Code::SSL => {
            "ssl.ca.location must name the CA of the broker's certificate, and that certificate must hold the host that \
             is connected to, as --kafka and the broker's advertised.listeners name it; where the broker asks for a \
             certificate, ssl.certificate.location and ssl.key.location must name one that it trusts"
        }
        Code::Resolve => "name hosts in --kafka, and in the broker's advertised.listeners, that can be resolved here",
        Code::BrokerTransportFailure => CONNECTION,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_with_its_mend_until_a_broker_answers() {
        use RDKafkaErrorCode as Code;
        let cases = [
            (Code::Authentication, "invalid credentials (after 31ms in state AUTH_REQ)", "sasl.password"),
            (Code::SSL, "certificate verify failed (after 2ms in state SSL_HANDSHAKE)", "ssl.ca.location"),
            (Code::Resolve, "Failed to resolve 'nowhere:9092' (after 5ms in state CONNECT)", "--kafka"),
            (Code::BrokerTransportFailure, "Connection refused (after 0ms in state CONNECT)", "security.protocol"),
        ];
        for (code, said, property) in cases {
            let reach = Reach::default();
            assert_eq!(reach.why(), "");
            reach.heard(&KafkaError::Global(code), said);
            reach.heard(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
            let why = reach.why();
            let reason = said.split(" (after").next().unwrap_or_default();
            assert!(why.starts_with(&format!(": {reason}; to mend it: ")) && why.contains(property), "{why}");
            reach.answered();
            assert_eq!(reach.why(), "");
        }
    }
}
