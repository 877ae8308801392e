//! The client's end of a tunnel.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Requested
//!     Requested --> Open: response 2xx
//!     Requested --> Closed: any other response
//!     Open --> Closed: end of stream or protocol error
//! ```
//!
//! A gateway may assign addresses unasked, and some close the tunnel when they are asked; so the client asks only when
//! none came for a while.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;

use super::{PROTOCOL, capsule_protocol, check_capsule_message, dns_capability, esp_field, esp_value, names_dns};
use crate::capsule::{self, AssignedAddress, Capsule, CapsuleDecoder, DnsAssign, RequestedAddress, RouteRange};
use crate::datagram::{PACKET_CONTEXT, split_context};
use crate::esp::capsule::EspCapsule;
use crate::esp::field::{Answer, Offer};
use crate::http::fault::Fault;
use crate::http::field::{self, Field};
use crate::login::message::LOGIN_FIELD;

/// How long to wait for an unasked assignment before asking; several times the pause a gateway makes between its
/// response and its first capsules, and short beside a person's patience.
pub const ASSIGNMENT_WAIT: Duration = Duration::from_millis(300);

/// Answers to the gateway's own address requests that may wait to be sent.
const MAX_PENDING_ANSWERS: usize = 64;

/// What the client asks for. `Debug` does not show the token.
#[derive(Clone)]
pub struct ClientConfig {
    /// The gateway: host and port.
    pub authority: String,
    /// The path, such as [`FULL_TUNNEL_PATH`](super::template::FULL_TUNNEL_PATH).
    pub path: String,
    /// A bearer token (RFC 6750), for devices without a certificate.
    pub bearer: Option<String>,
    /// Offer to take DNS_ASSIGN capsules.
    pub wants_dns: bool,
    /// The session token of the user's last login. It is private to Adit: only for the gateway that gave it.
    pub login: Option<String>,
    /// Offer the ESP carrier so; `None` does not name it.
    pub esp: Option<Offer>,
}

/// What the gateway sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// All addresses assigned now; replaces the former list. Empty if there are none, or none left.
    Addresses(Vec<IpNet>),
    /// All ranges reachable now; replaces the former list.
    Routes(Vec<RouteRange>),
    /// The resolvers now; replaces the former ones.
    Dns(DnsAssign),
    /// An IP packet that came on the stream instead of in a QUIC datagram.
    Packet(Bytes),
    /// A capsule of the ESP carrier, which was negotiated.
    Esp(EspCapsule),
}

/// Why the response opens no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The gateway refused; 401 and 403 are about credentials, 429 and 503 about load.
    #[error("the gateway answered {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The response breaks the protocol.
    #[error(transparent)]
    Malformed(#[from] Fault),
}

/// The client's end of one tunnel.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    state: State,
    /// The gateway named the DNS capability too.
    dns: bool,
    /// What the gateway chose of the offer.
    esp: Option<Answer>,
    /// When to ask for addresses, unless some come before.
    ask_at: Option<Instant>,
    capsules: CapsuleDecoder,
    events: VecDeque<ClientEvent>,
    transmits: VecDeque<Capsule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Requested,
    Open,
    Closed,
}

impl Client {
    /// Makes the state for a tunnel that is about to be requested.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config,
            state: State::Requested,
            dns: false,
            esp: None,
            ask_at: None,
            capsules: CapsuleDecoder::new(),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
        }
    }

    /// The header section of the request (RFC 9484 section 4.4).
    pub fn request(&self) -> Vec<Field> {
        let mut request = vec![
            Field::new(":method", "CONNECT"),
            Field::new(":protocol", PROTOCOL),
            Field::new(":scheme", "https"),
            Field::new(":authority", &self.config.authority),
            Field::new(":path", &self.config.path),
            capsule_protocol(),
        ];
        let bearer = self.config.bearer.as_ref().map(|token| Field::new("authorization", format!("Bearer {token}")));
        request.extend(bearer);
        request.extend(self.config.wants_dns.then(dns_capability));
        request.extend(self.config.login.as_ref().map(|token| Field::new(LOGIN_FIELD, token)));
        request.extend(self.config.esp.as_ref().map(esp_field));
        request
    }

    /// Takes the header section of the response.
    ///
    /// # Errors
    /// [`ResponseError::Refused`] for any status but 2xx (RFC 9484 section 4.5). [`ResponseError::Malformed`] without a
    /// valid status, for 204, 205 and 206, and for fields that are forbidden with capsules (RFC 9297 section 3.2).
    pub fn handle_response(&mut self, response: &[Field], now: Instant) -> Result<(), ResponseError> {
        self.state = State::Closed;
        match field::status(response)? {
            204..=206 => return Err(Fault::Malformed("status that is forbidden with capsules").into()),
            200..=299 => {}
            status => return Err(ResponseError::Refused { status }),
        }
        check_capsule_message(response)?;
        self.state = State::Open;
        self.dns = self.config.wants_dns && names_dns(response);
        self.handle_esp_answer(response);
        self.ask_at = now.checked_add(ASSIGNMENT_WAIT);
        Ok(())
    }

    /// What the gateway chose for the ESP carrier; `None` before the response, or if the carrier was not offered, not
    /// answered, or answered beyond the offer.
    pub const fn esp(&self) -> Option<Answer> {
        self.esp
    }

    /// Queues a capsule of the ESP carrier for [`Self::poll_transmit`]. Without [`Self::esp`], or when the tunnel is
    /// closed, it is dropped.
    pub fn send_esp(&mut self, capsule: EspCapsule) {
        if self.state == State::Open && self.esp.is_some() {
            self.transmits.push_back(Capsule::Esp(capsule));
        }
    }

    /// Takes content of the response.
    ///
    /// # Errors
    /// Those of [`CapsuleDecoder::handle`]; [`Fault::Malformed`] for content before the response or after its end, or a
    /// datagram without a context ID; [`Fault::Excessive`] for too many address requests at once.
    pub fn handle_data(&mut self, data: &[u8]) -> Result<(), Fault> {
        if self.state != State::Open {
            return Err(Fault::Malformed("content outside of a tunnel"));
        }
        let decoded = self.capsules.handle(data);
        while let Some(capsule) = self.capsules.poll_event() {
            self.handle_capsule(capsule).inspect_err(|_| self.close())?;
        }
        decoded.inspect_err(|_| self.close())
    }

    /// Takes the end of the response, which is the end of the tunnel.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if it ends inside a capsule (RFC 9297 section 3.3).
    pub fn handle_end(&mut self) -> Result<(), Fault> {
        self.close();
        self.capsules.handle_fin()
    }

    /// Tells the time, when [`poll_timeout`](Self::poll_timeout) asked for it.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ask_at.is_some_and(|at| now >= at) {
            self.ask_at = None;
            let both = vec![RequestedAddress::any_v4(1), RequestedAddress::any_v6(2)];
            self.transmits.push_back(Capsule::AddressRequest(both));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Capsule bytes to send as content of the request.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let capsule = self.transmits.pop_front()?;
        let mut bytes = Vec::new();
        capsule::encode(&capsule, &mut bytes);
        Some(bytes)
    }

    /// What the gateway sent, in order.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    fn handle_esp_answer(&mut self, response: &[Field]) {
        let Some(offer) = &self.config.esp else { return };
        self.esp = Answer::parse(&esp_value(response)).filter(|answer| offer.permits(answer));
        if self.esp.is_some() {
            self.capsules.expect_esp();
        }
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.ask_at = None;
        self.transmits.clear();
    }

    fn handle_capsule(&mut self, capsule: Capsule) -> Result<(), Fault> {
        match capsule {
            Capsule::AddressAssign(assigned) => self.handle_assign(&assigned),
            Capsule::RouteAdvertisement(routes) => self.events.push_back(ClientEvent::Routes(routes)),
            Capsule::DnsAssign(dns) if self.dns => self.events.push_back(ClientEvent::Dns(dns)),
            Capsule::DnsAssign(_not_negotiated) => {}
            Capsule::Esp(esp) => self.events.push_back(ClientEvent::Esp(esp)),
            Capsule::AddressRequest(requested) => return self.refuse(&requested),
            Capsule::Datagram(payload) => return self.handle_datagram(payload),
        }
        Ok(())
    }

    fn handle_assign(&mut self, assigned: &[AssignedAddress]) {
        let addresses: Vec<IpNet> =
            assigned.iter().filter(|entry| !entry.is_refusal()).map(|entry| entry.prefix).collect();
        if !addresses.is_empty() {
            self.ask_at = None;
        }
        self.events.push_back(ClientEvent::Addresses(addresses));
    }

    /// Every ADDRESS_REQUEST is answered (RFC 9484 section 4.7.2), but a client has no addresses to give.
    fn refuse(&mut self, requested: &[RequestedAddress]) -> Result<(), Fault> {
        if self.transmits.len() >= MAX_PENDING_ANSWERS {
            return Err(Fault::Excessive("too many address requests"));
        }
        let refusals = requested.iter().map(AssignedAddress::refusal).collect();
        self.transmits.push_back(Capsule::AddressAssign(refusals));
        Ok(())
    }

    fn handle_datagram(&mut self, payload: Bytes) -> Result<(), Fault> {
        let (context, packet) =
            split_context(payload).ok_or(Fault::Malformed("datagram capsule without context id"))?;
        if context == PACKET_CONTEXT {
            self.events.push_back(ClientEvent::Packet(packet));
        }
        Ok(())
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("authority", &self.authority)
            .field("path", &self.path)
            .field("bearer", &self.bearer.as_ref().map(|_| "…"))
            .field("wants_dns", &self.wants_dns)
            .field("login", &self.login.as_ref().map(|_| "…"))
            .field("esp", &self.esp)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ClientConfig {
        let path = super::super::template::FULL_TUNNEL_PATH.to_owned();
        ClientConfig {
            authority: "vpn.example:443".into(),
            path,
            bearer: None,
            wants_dns: true,
            login: None,
            esp: None,
        }
    }

    fn response(pairs: &[(&str, &str)]) -> Vec<Field> {
        pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect()
    }

    fn encoded(capsules: &[Capsule]) -> Vec<u8> {
        let mut bytes = Vec::new();
        capsules.iter().for_each(|capsule| capsule::encode(capsule, &mut bytes));
        bytes
    }

    fn assigned(prefix: &str) -> AssignedAddress {
        AssignedAddress { request_id: 0, prefix: prefix.parse().unwrap() }
    }

    fn open(now: Instant) -> Client {
        let mut client = Client::new(config());
        client
            .handle_response(&response(&[(":status", "200"), ("capsule-protocol", "?1"), ("adit-caps", "dns")]), now)
            .unwrap();
        client
    }

    #[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
    fn now() -> Instant {
        Instant::now()
    }

    fn events(client: &mut Client) -> Vec<ClientEvent> {
        std::iter::from_fn(|| client.poll_event()).collect()
    }

    #[test]
    fn request_names_everything_a_gateway_needs() {
        let client = Client::new(ClientConfig { bearer: Some("abc".into()), ..config() });
        let expected = response(&[
            (":method", "CONNECT"),
            (":protocol", "connect-ip"),
            (":scheme", "https"),
            (":authority", "vpn.example:443"),
            (":path", "/.well-known/masque/ip/*/*/"),
            ("capsule-protocol", "?1"),
            ("authorization", "Bearer abc"),
            ("adit-caps", "dns"),
        ]);
        assert_eq!(client.request(), expected);
        assert!(!format!("{client:?}").contains("abc"));
    }

    #[test]
    fn only_statuses_for_capsules_open_a_tunnel() {
        for status in ["200", "201", "299"] {
            assert_eq!(Client::new(config()).handle_response(&response(&[(":status", status)]), now()), Ok(()));
        }
        for status in [301, 400, 401, 403, 404, 429, 502, 503] {
            let fields = response(&[(":status", &status.to_string())]);
            assert_eq!(Client::new(config()).handle_response(&fields, now()), Err(ResponseError::Refused { status }));
        }
        for bad in [
            response(&[(":status", "204")]),
            response(&[(":status", "205")]),
            response(&[(":status", "206")]),
            response(&[(":status", "abc")]),
            response(&[]),
            response(&[(":status", "200"), ("content-length", "0")]),
            response(&[(":status", "200"), ("content-type", "text/html")]),
        ] {
            let outcome = Client::new(config()).handle_response(&bad, now());
            assert!(matches!(outcome, Err(ResponseError::Malformed(Fault::Malformed(_)))), "{bad:?}");
        }
    }

    #[test]
    fn unasked_assignment_is_taken_and_nothing_is_asked() {
        let start = now();
        let mut client = open(start);
        assert_eq!(client.poll_timeout(), Some(start + ASSIGNMENT_WAIT));
        let list = vec![assigned("192.0.2.11/32"), assigned("2001:db8::1/128")];
        client.handle_data(&encoded(&[Capsule::AddressAssign(list)])).unwrap();
        let expected = vec!["192.0.2.11/32".parse().unwrap(), "2001:db8::1/128".parse().unwrap()];
        assert_eq!(events(&mut client), [ClientEvent::Addresses(expected)]);
        assert_eq!(client.poll_timeout(), None);
        client.handle_timeout(start + ASSIGNMENT_WAIT);
        assert_eq!(client.poll_transmit(), None);
    }

    #[test]
    fn addresses_are_asked_for_when_none_came_in_time() {
        let start = now();
        let mut client = open(start);
        client.handle_timeout(start + ASSIGNMENT_WAIT - Duration::from_millis(1));
        assert_eq!(client.poll_transmit(), None);
        client.handle_timeout(start + ASSIGNMENT_WAIT);
        let request = Capsule::AddressRequest(vec![RequestedAddress::any_v4(1), RequestedAddress::any_v6(2)]);
        assert_eq!(client.poll_transmit(), Some(encoded(&[request])));
        assert_eq!((client.poll_transmit(), client.poll_timeout()), (None, None));
    }

    #[test]
    fn empty_or_refused_list_is_no_assignment() {
        let start = now();
        let mut client = open(start);
        let refusal = AssignedAddress::refusal(&RequestedAddress::any_v6(2));
        client.handle_data(&encoded(&[Capsule::AddressAssign(vec![]), Capsule::AddressAssign(vec![refusal])])).unwrap();
        assert_eq!(events(&mut client), [ClientEvent::Addresses(vec![]), ClientEvent::Addresses(vec![])]);
        assert_eq!(client.poll_timeout(), Some(start + ASSIGNMENT_WAIT));
    }

    #[test]
    fn routes_dns_and_packets_are_events() {
        let mut client = open(now());
        let routes = vec![RouteRange { start: [0; 4].into(), end: [255; 4].into(), protocol: 0 }];
        let dns = DnsAssign::plain(&[[192, 0, 2, 53].into()], &[]);
        client
            .handle_data(&encoded(&[
                Capsule::RouteAdvertisement(routes.clone()),
                Capsule::DnsAssign(dns.clone()),
                Capsule::Datagram(Bytes::from_static(&[0, 0x45])),
                Capsule::Datagram(Bytes::from_static(&[2, 0x45])),
            ]))
            .unwrap();
        let packet = ClientEvent::Packet(Bytes::from_static(&[0x45]));
        assert_eq!(events(&mut client), [ClientEvent::Routes(routes), ClientEvent::Dns(dns), packet]);
    }

    #[test]
    fn dns_is_ignored_unless_both_named_it() {
        let dns = encoded(&[Capsule::DnsAssign(DnsAssign::none())]);
        let silent = response(&[(":status", "200")]);
        let mut client = Client::new(config());
        client.handle_response(&silent, now()).unwrap();
        client.handle_data(&dns).unwrap();
        assert_eq!(client.poll_event(), None);
        let mut client = Client::new(ClientConfig { wants_dns: false, ..config() });
        client.handle_response(&response(&[(":status", "200"), ("adit-caps", "dns")]), now()).unwrap();
        client.handle_data(&dns).unwrap();
        assert_eq!(client.poll_event(), None);
    }

    const ANSWER: &str = "v=1, suite=1, group=29, vouched";

    fn offering() -> ClientConfig {
        ClientConfig { esp: Some(Offer::default()), ..config() }
    }

    /// A client whose offer, if it made one, got `answer`.
    fn answered(config: ClientConfig, answer: &str) -> Client {
        let mut client = Client::new(config);
        client.handle_response(&response(&[(":status", "200"), ("adit-esp", answer)]), now()).unwrap();
        client
    }

    #[test]
    fn esp_is_offered_and_its_capsules_pass_once_answered() {
        let mut client = Client::new(offering());
        let offer = Offer::default().to_string();
        assert!(client.request().contains(&Field::new("adit-esp", offer)));
        client.send_esp(EspCapsule::RekeyRequest(1));
        assert_eq!((client.esp(), client.poll_transmit()), (None, None), "nothing before the answer");
        client = answered(offering(), ANSWER);
        assert_eq!(client.esp(), Answer::parse(ANSWER));
        let capsule = EspCapsule::RekeyRequest(1);
        client.handle_data(&encoded(&[Capsule::Esp(capsule.clone())])).unwrap();
        assert_eq!(events(&mut client), [ClientEvent::Esp(capsule.clone())]);
        client.send_esp(capsule.clone());
        assert_eq!(client.poll_transmit(), Some(encoded(&[Capsule::Esp(capsule.clone())])));
        client.handle_end().unwrap();
        client.send_esp(capsule);
        assert_eq!(client.poll_transmit(), None, "nothing after the end");
    }

    #[test]
    fn esp_is_not_used_unless_the_answer_fits_the_offer() {
        let narrow = Offer { vouched: false, ..Offer::default() };
        for (offer, answer) in [
            (None, ANSWER),
            (Some(narrow), ANSWER),
            (Some(Offer::default()), "v=2, suite=1, group=29"),
            (Some(Offer::default()), "v=1, suite=9, group=29"),
            (Some(Offer::default()), ""),
        ] {
            let mut client = answered(ClientConfig { esp: offer, ..config() }, answer);
            assert_eq!(client.esp(), None, "{answer}");
            client.handle_data(&encoded(&[Capsule::Esp(EspCapsule::RekeyRequest(1))])).unwrap();
            client.handle_data(&[0xaa, 0xd1, 0x7e, 0x01, 1, 0]).unwrap();
            client.send_esp(EspCapsule::RekeyRequest(1));
            assert_eq!((client.poll_event(), client.poll_transmit()), (None, None), "{answer}");
        }
        assert!(!Client::new(config()).request().iter().any(|field| field.name == "adit-esp"));
    }

    #[test]
    fn malformed_esp_capsule_ends_the_tunnel() {
        let mut client = answered(offering(), ANSWER);
        let error = client.handle_data(&[0xaa, 0xd1, 0x7e, 0x01, 1, 0]).unwrap_err();
        assert!(matches!(error, Fault::Malformed(_)));
        assert!(client.handle_data(&[]).is_err());
    }

    #[test]
    fn greased_capsules_are_ignored() {
        let mut client = open(now());
        client.handle_data(&[0x21, 3, 1, 2, 3, 0x5c, 0x21, 0]).unwrap();
        assert_eq!(client.poll_event(), None);
    }

    #[test]
    fn address_request_of_the_gateway_is_refused() {
        let mut client = open(now());
        client.handle_data(&encoded(&[Capsule::AddressRequest(vec![RequestedAddress::any_v4(5)])])).unwrap();
        let refusal =
            Capsule::AddressAssign(vec![AssignedAddress { request_id: 5, prefix: "0.0.0.0/32".parse().unwrap() }]);
        assert_eq!(client.poll_transmit(), Some(encoded(&[refusal])));
        let flood: Vec<_> = (1..=65).map(|id| Capsule::AddressRequest(vec![RequestedAddress::any_v4(id)])).collect();
        assert!(matches!(client.handle_data(&encoded(&flood)), Err(Fault::Excessive(_))));
    }

    #[test]
    fn malformed_content_ends_the_tunnel() {
        let mut client = open(now());
        assert!(matches!(client.handle_data(&[2, 0]), Err(Fault::Malformed(_))));
        assert!(matches!(client.handle_data(&[]), Err(Fault::Malformed(_))));
        assert_eq!(client.poll_timeout(), None);
        let mut client = open(now());
        assert!(matches!(client.handle_data(&[0, 0]), Err(Fault::Malformed(_))));
        let mut early = Client::new(config());
        assert!(matches!(early.handle_data(&[]), Err(Fault::Malformed(_))));
    }

    #[test]
    fn end_of_the_stream_ends_the_tunnel() {
        let mut client = open(now());
        assert_eq!((client.handle_end(), client.poll_timeout()), (Ok(()), None));
        let mut cut = open(now());
        cut.handle_data(&[1, 7, 0]).unwrap();
        assert!(matches!(cut.handle_end(), Err(Fault::Malformed(_))));
    }
}
