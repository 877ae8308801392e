//! The gateway's end of an accepted tunnel, and refusals.
//!
//! The gateway assigns addresses at once and unasked, then tells its routes and resolvers, and sends anew whatever
//! changes.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use ipnet::IpNet;

use super::request::ConnectIpRequest;
use super::{capsule_protocol, dns_capability, esp_field};
use crate::capsule::{self, AssignedAddress, Capsule, CapsuleDecoder, DnsAssign, RequestedAddress, RouteRange};
use crate::datagram::{PACKET_CONTEXT, split_context};
use crate::esp::capsule::EspCapsule;
use crate::esp::field::Answer;
use crate::http::fault::Fault;
use crate::http::field::Field;

/// Addresses a client may request during a tunnel's life; needed to notice a request ID that is used again. 8 KiB.
const MAX_REQUESTS: usize = 1024;

/// What a client is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Its addresses, each at full prefix length, or prefixes it may use as a whole; host bits are not sent.
    pub addresses: Vec<IpNet>,
    /// The ranges it may reach, in the order of RFC 9484 section 4.7.3 ([`crate::range::from_prefixes`]).
    pub routes: Vec<RouteRange>,
    /// The resolvers; sent only if the client named the capability.
    pub dns: Option<DnsAssign>,
}

/// What the client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// An IP packet that came on the stream instead of in a QUIC datagram.
    Packet(Bytes),
    /// A capsule of the ESP carrier, which was negotiated.
    Esp(EspCapsule),
}

/// The gateway's end of one tunnel.
#[derive(Debug)]
pub struct Server {
    dns: bool,
    esp: Option<Answer>,
    assignment: Assignment,
    seen_requests: BTreeSet<u64>,
    capsules: CapsuleDecoder,
    events: VecDeque<ServerEvent>,
    transmits: VecDeque<Capsule>,
}

impl Server {
    /// Accepts a tunnel; the assignment is to be sent right after the response. `esp` is what to answer to the client's
    /// offer of the ESP carrier ([`Offer::choose`](crate::esp::field::Offer::choose)); what it did not offer is not
    /// answered.
    pub fn new(request: &ConnectIpRequest, assignment: Assignment, esp: Option<Answer>) -> Self {
        let offer = request.esp.as_ref();
        let esp = esp.filter(|answer| offer.is_some_and(|offer| offer.permits(answer)));
        let mut capsules = CapsuleDecoder::new();
        if esp.is_some() {
            capsules.expect_esp();
        }
        let mut server = Self {
            esp,
            dns: request.wants_dns,
            assignment,
            seen_requests: BTreeSet::new(),
            capsules,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
        };
        server.send_addresses(&[]);
        server.send_routes();
        if server.assignment.dns.is_some() {
            server.send_dns();
        }
        server
    }

    /// The header section of the response (RFC 9484 section 4.5).
    pub fn response(&self) -> Vec<Field> {
        let mut response = vec![Field::new(":status", "200"), capsule_protocol()];
        response.extend(self.dns.then(dns_capability));
        response.extend(self.esp.as_ref().map(esp_field));
        response
    }

    /// What was answered to the client's offer of the ESP carrier.
    pub const fn esp(&self) -> Option<Answer> {
        self.esp
    }

    /// Queues a capsule of the ESP carrier for [`Self::poll_transmit`]. Without [`Self::esp`] it is dropped.
    pub fn send_esp(&mut self, capsule: EspCapsule) {
        if self.esp.is_some() {
            self.transmits.push_back(Capsule::Esp(capsule));
        }
    }

    /// Takes content of the request. What a client assigns or advertises to the gateway is not used.
    ///
    /// # Errors
    /// Those of [`CapsuleDecoder::handle`]; [`Fault::Malformed`] for a request ID used again (RFC 9484 section 4.7.2)
    /// or a datagram without a context ID; [`Fault::Excessive`] for too many address requests.
    pub fn handle_data(&mut self, data: &[u8]) -> Result<(), Fault> {
        let decoded = self.capsules.handle(data);
        while let Some(capsule) = self.capsules.poll_event() {
            self.handle_capsule(capsule)?;
        }
        decoded
    }

    /// Takes the end of the request, which is the end of the tunnel.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if it ends inside a capsule (RFC 9297 section 3.3).
    pub fn handle_end(&mut self) -> Result<(), Fault> {
        self.transmits.clear();
        self.capsules.handle_fin()
    }

    /// Changes what the client is given, and sends what differs.
    pub fn update(&mut self, assignment: Assignment) {
        let before = std::mem::replace(&mut self.assignment, assignment);
        if before.addresses != self.assignment.addresses {
            self.send_addresses(&[]);
        }
        if before.routes != self.assignment.routes {
            self.send_routes();
        }
        if before.dns != self.assignment.dns {
            self.send_dns();
        }
    }

    /// Capsule bytes to send as content of the response.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let capsule = self.transmits.pop_front()?;
        let mut bytes = Vec::new();
        capsule::encode(&capsule, &mut bytes);
        Some(bytes)
    }

    /// What the client sent, in order.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    fn handle_capsule(&mut self, capsule: Capsule) -> Result<(), Fault> {
        match capsule {
            Capsule::AddressRequest(requested) => self.handle_request(&requested),
            Capsule::Datagram(payload) => self.handle_datagram(payload),
            Capsule::Esp(esp) => {
                self.events.push_back(ServerEvent::Esp(esp));
                Ok(())
            }
            Capsule::AddressAssign(_) | Capsule::RouteAdvertisement(_) | Capsule::DnsAssign(_) => Ok(()),
        }
    }

    fn handle_request(&mut self, requested: &[RequestedAddress]) -> Result<(), Fault> {
        for request in requested {
            if self.seen_requests.len() >= MAX_REQUESTS {
                return Err(Fault::Excessive("too many address requests"));
            }
            if !self.seen_requests.insert(request.request_id) {
                return Err(Fault::Malformed("request id used again"));
            }
        }
        self.send_addresses(requested);
        Ok(())
    }

    fn handle_datagram(&mut self, payload: Bytes) -> Result<(), Fault> {
        let (context, packet) =
            split_context(payload).ok_or(Fault::Malformed("datagram capsule without context id"))?;
        if context == PACKET_CONTEXT {
            self.events.push_back(ServerEvent::Packet(packet));
        }
        Ok(())
    }

    /// Sends the whole list, as an answer to `requested` where an address of the family is there (the very one asked
    /// for, if possible) and a refusal where none is left (RFC 9484 section 4.7.1).
    fn send_addresses(&mut self, requested: &[RequestedAddress]) {
        let unasked = |prefix: &IpNet| AssignedAddress { request_id: 0, prefix: prefix.trunc() };
        let mut list: Vec<AssignedAddress> = self.assignment.addresses.iter().map(unasked).collect();
        for request in requested {
            match answer_for(request, &mut list) {
                Some(answer) => answer.request_id = request.request_id,
                None => list.push(AssignedAddress::refusal(request)),
            }
        }
        self.transmits.push_back(Capsule::AddressAssign(list));
    }

    fn send_routes(&mut self) {
        self.transmits.push_back(Capsule::RouteAdvertisement(self.assignment.routes.clone()));
    }

    fn send_dns(&mut self) {
        if self.dns {
            let dns = self.assignment.dns.clone().unwrap_or_else(DnsAssign::none);
            self.transmits.push_back(Capsule::DnsAssign(dns));
        }
    }
}

/// The entry of the list that answers a request.
fn answer_for<'a>(request: &RequestedAddress, list: &'a mut [AssignedAddress]) -> Option<&'a mut AssignedAddress> {
    let is_free = |entry: &AssignedAddress| {
        entry.request_id == 0 && entry.prefix.addr().is_ipv4() == request.prefix.addr().is_ipv4()
    };
    let exact = list.iter().position(|entry| is_free(entry) && entry.prefix == request.prefix);
    let place = exact.or_else(|| list.iter().position(is_free))?;
    list.get_mut(place)
}

/// The header section of a response that opens no tunnel, with further fields such as `www-authenticate`.
pub fn reject(status: u16, extra: &[Field]) -> Vec<Field> {
    let mut response = vec![Field::new(":status", status.to_string())];
    response.extend_from_slice(extra);
    response
}

#[cfg(test)]
mod tests {
    use super::super::template::Target;
    use super::*;
    use crate::esp::field::Offer;

    fn request(wants_dns: bool) -> ConnectIpRequest {
        let authority = "vpn.example".into();
        ConnectIpRequest { authority, target: Target::ANY, authorization: None, wants_dns, login: None, esp: None }
    }

    /// A server that chose from the offer of a client.
    fn with_esp(offer: Offer) -> Server {
        let answer = Offer::default().choose(&offer);
        Server::new(&ConnectIpRequest { esp: Some(offer), ..request(false) }, assignment(), answer)
    }

    fn assignment() -> Assignment {
        Assignment {
            addresses: vec!["10.64.0.2/32".parse().unwrap(), "fd00::2/128".parse().unwrap()],
            routes: vec![RouteRange { start: [0; 4].into(), end: [255; 4].into(), protocol: 0 }],
            dns: Some(DnsAssign::plain(&[[10, 64, 0, 1].into()], &[])),
        }
    }

    fn encoded(capsule: &Capsule) -> Vec<u8> {
        let mut bytes = Vec::new();
        capsule::encode(capsule, &mut bytes);
        bytes
    }

    /// What the server wants to send, decoded.
    fn sent(server: &mut Server) -> Vec<Capsule> {
        let mut decoder = CapsuleDecoder::new();
        while let Some(bytes) = server.poll_transmit() {
            decoder.handle(&bytes).unwrap();
        }
        decoder.handle_fin().unwrap();
        std::iter::from_fn(|| decoder.poll_event()).collect()
    }

    fn entry(request_id: u64, prefix: &str) -> AssignedAddress {
        AssignedAddress { request_id, prefix: prefix.parse().unwrap() }
    }

    fn requested(request_id: u64, prefix: &str) -> RequestedAddress {
        RequestedAddress { request_id, prefix: prefix.parse().unwrap() }
    }

    #[test]
    fn everything_is_sent_at_once() {
        let mut server = Server::new(&request(true), assignment(), None);
        let expected = [
            Capsule::AddressAssign(vec![entry(0, "10.64.0.2/32"), entry(0, "fd00::2/128")]),
            Capsule::RouteAdvertisement(assignment().routes),
            Capsule::DnsAssign(assignment().dns.unwrap()),
        ];
        assert_eq!(sent(&mut server), expected);
        assert_eq!(server.response(), [Field::new(":status", "200"), capsule_protocol(), dns_capability()]);
    }

    #[test]
    fn standard_client_sees_no_private_capsule_or_field() {
        let mut server = Server::new(&request(false), assignment(), None);
        assert!(!sent(&mut server).iter().any(|capsule| matches!(capsule, Capsule::DnsAssign(_))));
        assert_eq!(server.response(), [Field::new(":status", "200"), capsule_protocol()]);
        server.update(Assignment { dns: None, ..assignment() });
        assert_eq!(sent(&mut server), []);
    }

    #[test]
    fn address_request_is_answered_with_the_whole_list() {
        let mut server = Server::new(&request(false), assignment(), None);
        sent(&mut server);
        let request = Capsule::AddressRequest(vec![RequestedAddress::any_v4(7), RequestedAddress::any_v6(9)]);
        server.handle_data(&encoded(&request)).unwrap();
        let expected = Capsule::AddressAssign(vec![entry(7, "10.64.0.2/32"), entry(9, "fd00::2/128")]);
        assert_eq!(sent(&mut server), [expected]);
    }

    #[test]
    fn what_the_gateway_has_not_is_refused_with_all_zero() {
        let only_v4 = Assignment { addresses: vec!["10.64.0.2/32".parse().unwrap()], ..assignment() };
        let mut server = Server::new(&request(false), only_v4, None);
        sent(&mut server);
        let request = vec![RequestedAddress::any_v6(1), requested(2, "192.0.2.1/32"), RequestedAddress::any_v4(3)];
        server.handle_data(&encoded(&Capsule::AddressRequest(request))).unwrap();
        let expected = vec![entry(2, "10.64.0.2/32"), entry(1, "::/128"), entry(3, "0.0.0.0/32")];
        assert_eq!(sent(&mut server), [Capsule::AddressAssign(expected)]);
    }

    #[test]
    fn very_address_asked_for_is_preferred() {
        let two = Assignment {
            addresses: vec!["10.64.0.2/32".parse().unwrap(), "10.64.0.3/32".parse().unwrap()],
            ..Assignment::default()
        };
        let mut server = Server::new(&request(false), two, None);
        sent(&mut server);
        server.handle_data(&encoded(&Capsule::AddressRequest(vec![requested(4, "10.64.0.3/32")]))).unwrap();
        let expected = Capsule::AddressAssign(vec![entry(0, "10.64.0.2/32"), entry(4, "10.64.0.3/32")]);
        assert_eq!(sent(&mut server), [expected]);
    }

    #[test]
    fn request_id_used_again_is_a_message_error() {
        let mut server = Server::new(&request(false), assignment(), None);
        let request = encoded(&Capsule::AddressRequest(vec![RequestedAddress::any_v4(1)]));
        server.handle_data(&request).unwrap();
        assert!(matches!(server.handle_data(&request), Err(Fault::Malformed(_))));
    }

    #[test]
    fn too_many_requests_are_excessive_load() {
        let mut server = Server::new(&request(false), assignment(), None);
        let ids = 1..=MAX_REQUESTS as u64 + 1;
        let flood: Vec<u8> =
            ids.flat_map(|id| encoded(&Capsule::AddressRequest(vec![RequestedAddress::any_v4(id)]))).collect();
        assert!(matches!(server.handle_data(&flood), Err(Fault::Excessive(_))));
    }

    #[test]
    fn update_sends_what_changed() {
        let mut server = Server::new(&request(true), assignment(), None);
        sent(&mut server);
        server.update(assignment());
        assert_eq!(sent(&mut server), []);
        server.update(Assignment { routes: vec![], ..assignment() });
        assert_eq!(sent(&mut server), [Capsule::RouteAdvertisement(vec![])]);
        server.update(Assignment::default());
        assert_eq!(sent(&mut server), [Capsule::AddressAssign(vec![]), Capsule::DnsAssign(DnsAssign::none())]);
    }

    #[test]
    fn packets_are_events_and_other_capsules_are_ignored() {
        let mut server = Server::new(&request(false), assignment(), None);
        let mut content = encoded(&Capsule::AddressAssign(vec![entry(0, "192.0.2.1/32")]));
        content.extend(encoded(&Capsule::RouteAdvertisement(vec![])));
        content.extend([0x21, 2, 0xff, 0xff]);
        content.extend(encoded(&Capsule::Datagram(Bytes::from_static(&[4, 0x45]))));
        content.extend(encoded(&Capsule::Datagram(Bytes::from_static(&[0, 0x45]))));
        server.handle_data(&content).unwrap();
        assert_eq!(server.poll_event(), Some(ServerEvent::Packet(Bytes::from_static(&[0x45]))));
        assert_eq!(server.poll_event(), None);
        assert_eq!(server.handle_end(), Ok(()));
    }

    #[test]
    fn esp_capsules_pass_both_ways_once_answered() {
        let mut server = with_esp(Offer::default());
        let answer = server.esp().unwrap();
        assert!(server.response().contains(&Field::new("adit-esp", answer.to_string())));
        drop(sent(&mut server));
        let capsule = EspCapsule::RekeyRequest(1);
        server.handle_data(&encoded(&Capsule::Esp(capsule.clone()))).unwrap();
        assert_eq!(server.poll_event(), Some(ServerEvent::Esp(capsule.clone())));
        server.send_esp(capsule.clone());
        assert_eq!(server.poll_transmit(), Some(encoded(&Capsule::Esp(capsule))));
        let error = server.handle_data(&[0xaa, 0xd1, 0x7e, 0x01, 1, 0]).unwrap_err();
        assert!(matches!(error, Fault::Malformed(_)));
    }

    #[test]
    fn esp_is_neither_answered_nor_used_unless_offered() {
        let narrow = Offer { vouched: false, ..Offer::default() };
        let beyond = Offer::default().choose(&Offer::default());
        for (offer, answer) in [(None, beyond), (Some(narrow), beyond), (Some(Offer::default()), None)] {
            let request = ConnectIpRequest { esp: offer, ..request(false) };
            let mut server = Server::new(&request, assignment(), answer);
            assert_eq!((server.esp(), server.response().len()), (None, 2));
            drop(sent(&mut server));
            server.handle_data(&encoded(&Capsule::Esp(EspCapsule::RekeyRequest(1)))).unwrap();
            server.handle_data(&[0xaa, 0xd1, 0x7e, 0x01, 1, 0]).unwrap();
            server.send_esp(EspCapsule::RekeyRequest(1));
            assert_eq!((server.poll_event(), server.poll_transmit()), (None, None));
        }
    }

    #[test]
    fn malformed_content_is_a_message_error() {
        for content in [&[2, 0][..], &[0, 0], &[0, 1, 0x40], &[1, 1, 0]] {
            let mut server = Server::new(&request(false), assignment(), None);
            assert!(matches!(server.handle_data(content), Err(Fault::Malformed(_))), "{content:?}");
        }
        let mut cut = Server::new(&request(false), assignment(), None);
        cut.handle_data(&[2]).unwrap();
        assert!(matches!(cut.handle_end(), Err(Fault::Malformed(_))));
    }

    #[test]
    fn refusal_carries_status_and_further_fields() {
        let challenge = Field::new("www-authenticate", "Bearer");
        assert_eq!(reject(401, std::slice::from_ref(&challenge)), [Field::new(":status", "401"), challenge]);
    }
}
