use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::esp::capsule::{FLAG_EXTENDED_SEQUENCE, REKEY_REQUEST, SA_INIT, SaInit};
use crate::esp::spi::Spi;
use crate::http::fault::Fault;
use crate::sealing::suite::Suite;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn encoded(capsule: &Capsule) -> Vec<u8> {
    let mut out = Vec::new();
    encode(capsule, &mut out);
    out
}

/// A capsule of any type and value.
fn raw(kind: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::encode(kind, &mut out);
    varint::encode(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

/// All capsules and the outcome of a whole stream.
fn read(stream: &[u8]) -> (Vec<Capsule>, Result<(), Fault>) {
    read_pieces(&[stream])
}

fn read_pieces(pieces: &[&[u8]]) -> (Vec<Capsule>, Result<(), Fault>) {
    read_by(CapsuleDecoder::new(), pieces)
}

fn expecting_esp() -> CapsuleDecoder {
    let mut decoder = CapsuleDecoder::new();
    decoder.expect_esp();
    decoder
}

fn read_by(mut decoder: CapsuleDecoder, pieces: &[&[u8]]) -> (Vec<Capsule>, Result<(), Fault>) {
    let outcome = pieces.iter().try_for_each(|piece| decoder.handle(piece)).and_then(|()| decoder.handle_fin());
    (std::iter::from_fn(|| decoder.poll_event()).collect(), outcome)
}

fn is_malformed(kind: u64, value: &[u8]) -> bool {
    let (capsules, outcome) = read(&raw(kind, value));
    capsules.is_empty() && matches!(outcome, Err(Fault::Malformed(_)))
}

fn route(start: &str, end: &str, protocol: u8) -> RouteRange {
    RouteRange { start: start.parse().unwrap(), end: end.parse().unwrap(), protocol }
}

fn routes_outcome(routes: Vec<RouteRange>) -> Result<(), Fault> {
    read(&encoded(&Capsule::RouteAdvertisement(routes))).1
}

#[test]
fn capsules_are_encoded_as_worked_out_by_hand() {
    let request = Capsule::AddressRequest(vec![RequestedAddress::any_v4(1)]);
    assert_eq!(encoded(&request), [0x02, 0x07, 1, 4, 0, 0, 0, 0, 32]);
    let assign = Capsule::AddressAssign(vec![AssignedAddress { request_id: 1, prefix: net("192.0.2.11/32") }]);
    assert_eq!(encoded(&assign), [0x01, 0x07, 1, 4, 0xc0, 0, 2, 0x0b, 32]);
    let default_route = Capsule::RouteAdvertisement(vec![route("0.0.0.0", "255.255.255.255", 0)]);
    assert_eq!(encoded(&default_route), [0x03, 0x0a, 4, 0, 0, 0, 0, 255, 255, 255, 255, 0]);
    let v6 = Capsule::AddressAssign(vec![AssignedAddress { request_id: 0, prefix: net("2001:db8::1/128") }]);
    assert_eq!(encoded(&v6).get(..5), Some(&[0x01, 0x13, 0, 6, 0x20][..]));
    let dns = Capsule::DnsAssign(DnsAssign::plain(&["192.0.2.53".parse().unwrap()], &[]));
    let expected = [0x9a, 0xce, 0x79, 0xec, 14, 1, 0, 1, 1, 192, 0, 2, 53, 0, 0, 0, 1, 0, 0];
    assert_eq!(encoded(&dns), expected);
}

#[test]
fn empty_assignment_and_advertisement_are_valid() {
    let (capsules, outcome) = read(&[1, 0, 3, 0]);
    assert_eq!(outcome, Ok(()));
    assert_eq!(capsules, [Capsule::AddressAssign(vec![]), Capsule::RouteAdvertisement(vec![])]);
}

#[test]
fn longer_integers_than_needed_are_accepted() {
    let (capsules, outcome) = read(&[0x40, 0x02, 0x80, 0, 0, 8, 0x40, 1, 4, 0, 0, 0, 0, 32]);
    assert_eq!((capsules, outcome), (vec![Capsule::AddressRequest(vec![RequestedAddress::any_v4(1)])], Ok(())));
}

#[test]
fn unknown_capsules_are_skipped() {
    let stream =
        [raw(0x21, b"grease"), raw(0x274c_0fbc, &[0; 40]), raw(0x00, b"\0packet"), raw(0x1234_5678_9abc, b"")].concat();
    assert_eq!(read(&stream), (vec![Capsule::Datagram(Bytes::from_static(b"\0packet"))], Ok(())));
}

#[test]
fn unknown_capsule_is_skipped_without_being_held() {
    let mut decoder = CapsuleDecoder::new();
    let mut head = Vec::new();
    varint::encode(0x21, &mut head);
    varint::encode(16 * 1024 * 1024, &mut head);
    assert_eq!(decoder.handle(&head), Ok(()));
    for _ in 0..256 {
        assert_eq!(decoder.handle(&[0xff; 65_536]), Ok(()));
    }
    assert_eq!(decoder.handle_fin(), Ok(()));
}

#[test]
fn too_long_capsules_are_excessive_load() {
    for (kind, length) in [(0x01, 65_544), (0x00, varint::MAX), (0x21, 16 * 1024 * 1024 + 1)] {
        let mut head = Vec::new();
        varint::encode(kind, &mut head);
        varint::encode(length, &mut head);
        let error = CapsuleDecoder::new().handle(&head).unwrap_err();
        assert!(matches!(error, Fault::Excessive(_)));
    }
}

fn sa_init() -> EspCapsule {
    let spi = Spi::new(0, 1).unwrap();
    let flags = FLAG_EXTENDED_SEQUENCE;
    EspCapsule::SaInit(SaInit { epoch: 0, suite: Suite::Aes256Gcm, flags, spi, group: None, share: Bytes::new() })
}

#[test]
fn esp_capsules_are_read_only_when_expected() {
    let capsules = [sa_init(), EspCapsule::RekeyRequest(1)].map(Capsule::Esp);
    let stream: Vec<u8> = capsules.iter().flat_map(encoded).collect();
    for size in [1, 7, stream.len()] {
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(read_pieces(&pieces), (vec![], Ok(())));
        assert_eq!(read_by(expecting_esp(), &pieces), (capsules.to_vec(), Ok(())));
    }
}

#[test]
fn malformed_esp_capsule_is_a_message_error_only_when_expected() {
    for (kind, value) in [(SA_INIT, &[0; 13][..]), (SA_INIT, &[]), (REKEY_REQUEST, &[0; 5]), (REKEY_REQUEST, &[])] {
        assert_eq!(read(&raw(kind, value)), (vec![], Ok(())));
        let (capsules, outcome) = read_by(expecting_esp(), &[&raw(kind, value)]);
        let error = outcome.unwrap_err();
        assert_eq!(capsules, []);
        assert!(matches!(error, Fault::Malformed(_)));
    }
}

#[test]
fn long_esp_capsule_is_refused_unread() {
    let mut head = Vec::new();
    varint::encode(SA_INIT, &mut head);
    varint::encode(1232, &mut head);
    assert!(matches!(expecting_esp().handle(&head), Err(Fault::Excessive(_))));
    assert_eq!(CapsuleDecoder::new().handle(&head), Ok(()));
}

#[test]
fn end_inside_a_capsule_is_a_message_error() {
    for whole in [raw(0x01, &[1, 4, 192, 0, 2, 11, 32]), raw(0x40, b"unknown")] {
        for end in 1..whole.len() {
            let (capsules, outcome) = read(whole.get(..end).unwrap());
            let error = outcome.unwrap_err();
            assert_eq!(capsules, []);
            assert!(matches!(error, Fault::Malformed(_)));
        }
    }
}

#[test]
fn value_cut_short_is_a_message_error() {
    let whole_values = [
        (0x01, vec![0x40, 1, 4, 192, 0, 2, 11, 32]),
        (0x02, [&[1, 6][..], &[0; 16], &[128]].concat()),
        (0x03, vec![4, 0, 0, 0, 0, 255, 255, 255, 255, 0]),
        (0x1ace_79ec, vec![1, 0, 1, 1, 192, 0, 2, 53, 0, 1, b'a', 1, 0, 1, 0, 1, 1, b'b']),
    ];
    for (kind, value) in whole_values {
        assert_eq!(read(&raw(kind, &value)).1, Ok(()));
        for end in 1..value.len() {
            assert!(is_malformed(kind, value.get(..end).unwrap()), "{kind:#x} cut at {end}");
        }
        let with_rest = [value, vec![0]].concat();
        assert!(is_malformed(kind, &with_rest), "{kind:#x} with a byte too many");
    }
}

#[test]
fn bad_addresses_are_message_errors() {
    for (value, why) in [
        (&[1, 5, 192, 0, 2, 11, 32][..], "version 5"),
        (&[1, 4, 192, 0, 2, 11, 33], "prefix longer than the address"),
        (&[1, 4, 192, 0, 2, 11, 24], "host bits"),
        (&[1, 4, 0, 0, 0, 1, 0], "host bits below /0"),
    ] {
        assert!(is_malformed(0x01, value), "{why}");
        assert!(is_malformed(0x02, value), "{why}");
    }
    let v6 = |prefix_length: u8| [&[1, 6][..], &[0x20; 16], &[prefix_length]].concat();
    assert!(is_malformed(0x01, &v6(129)));
    assert!(is_malformed(0x01, &v6(64)));
}

#[test]
fn address_request_without_entries_or_with_id_0_is_a_message_error() {
    assert!(is_malformed(0x02, &[]));
    assert!(is_malformed(0x02, &[0, 4, 0, 0, 0, 0, 32]));
}

#[test]
fn routes_in_order_are_accepted() {
    let routes = vec![
        route("10.0.0.0", "10.255.255.255", 0),
        route("192.0.2.0", "192.0.2.0", 0),
        route("10.0.0.0", "10.0.0.1", 6),
        route("2001:db8::", "2001:db8::ffff", 0),
        route("2001:db8::", "2001:db8::ffff", 17),
    ];
    let capsule = Capsule::RouteAdvertisement(routes);
    assert_eq!(read(&encoded(&capsule)), (vec![capsule], Ok(())));
}

#[test]
fn routes_out_of_order_are_message_errors() {
    for routes in [
        vec![route("::", "::1", 0), route("10.0.0.0", "10.0.0.1", 0)],
        vec![route("10.0.0.0", "10.0.0.1", 6), route("11.0.0.0", "11.0.0.1", 0)],
        vec![route("11.0.0.0", "11.0.0.1", 0), route("10.0.0.0", "10.0.0.1", 0)],
        vec![route("10.0.0.0", "10.0.0.9", 0), route("10.0.0.9", "10.0.0.20", 0)],
        vec![route("10.0.0.0", "10.0.0.9", 0), route("10.0.0.0", "10.0.0.9", 0)],
        vec![route("10.0.0.9", "10.0.0.0", 0)],
        vec![route("2001:db8::1", "2001:db8::", 0)],
    ] {
        assert!(matches!(routes_outcome(routes.clone()), Err(Fault::Malformed(_))), "{routes:?}");
    }
    assert!(is_malformed(0x03, &[5, 0, 0, 0, 0, 255, 255, 255, 255, 0]));
}

#[test]
fn bad_dns_assignments_are_message_errors() {
    for (value, why) in [
        (&[][..], "no configuration"),
        (&[1, 0, 0, 1, 192, 0, 2, 53, 0, 0, 0, 0, 0], "priority 0"),
        (&[1, 0, 1, 0, 0, 0, 0, 0, 0], "neither address nor name"),
        (&[0, 1, 1, b' ', 0], "space in a domain"),
        (&[0, 1, 1, 0xff, 0], "domain that is not text"),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "count beyond the value"),
    ] {
        assert!(is_malformed(0x1ace_79ec, value), "{why}");
    }
}

#[test]
fn plain_dns_is_read_back() {
    let servers: Vec<IpAddr> = vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
    let all = DnsAssign::plain(&servers, &[]);
    assert_eq!((all.plain_servers(), all.domains()), (servers.clone(), vec![]));
    let domains = vec!["corp.example".to_owned()];
    let split = DnsAssign::plain(&servers, &domains);
    assert_eq!((split.plain_servers(), split.domains()), (servers, domains));
    assert_eq!(DnsAssign::none().plain_servers(), Vec::<IpAddr>::new());
    assert_eq!(read(&encoded(&Capsule::DnsAssign(DnsAssign::none()))).1, Ok(()));
}

#[test]
fn preferred_and_encrypted_nameservers_are_told_apart() {
    let server =
        |priority, last: u8| Nameserver { priority, ..Nameserver::plain(Ipv4Addr::new(192, 0, 2, last).into()) };
    let encrypted = Nameserver { authentication_name: "dns.example".into(), ..server(1, 9) };
    let configuration =
        DnsConfiguration { nameservers: vec![server(7, 1), encrypted, server(2, 2)], ..DnsConfiguration::default() };
    let dns = DnsAssign { configurations: vec![configuration] };
    let expected: [IpAddr; 2] = [Ipv4Addr::new(192, 0, 2, 2).into(), Ipv4Addr::new(192, 0, 2, 1).into()];
    assert_eq!(dns.plain_servers(), expected);
}

#[test]
fn capsules_before_the_fault_are_given_and_the_error_is_repeated() {
    let mut decoder = CapsuleDecoder::new();
    let error = decoder.handle(&[1, 0, 2, 0, 1, 0]).unwrap_err();
    assert_eq!(decoder.poll_event(), Some(Capsule::AddressAssign(vec![])));
    assert_eq!(decoder.poll_event(), None);
    assert_eq!(decoder.handle(&[1, 0]), Err(error));
    assert_eq!(decoder.handle_fin(), Err(error));
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0_u8..=128).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length.min(32) } else { length };
        IpNet::new(address, length).unwrap().trunc()
    })
}

fn any_routes() -> impl Strategy<Value = Vec<RouteRange>> {
    let any_route = (any::<IpAddr>(), any::<u32>(), 0_u8..3).prop_map(|(start, size, protocol)| {
        let end = match start {
            IpAddr::V4(start) => Ipv4Addr::from(u32::from(start).saturating_add(size >> 8)).into(),
            IpAddr::V6(start) => Ipv6Addr::from(u128::from(start).saturating_add(size.into())).into(),
        };
        RouteRange { start, end, protocol }
    });
    vec(any_route, 0..6).prop_map(|mut routes| {
        routes.sort_by_key(|route| (route.start.is_ipv6(), route.protocol, route.start));
        routes.dedup_by(|later, earlier| {
            (later.start.is_ipv6(), later.protocol) == (earlier.start.is_ipv6(), earlier.protocol)
                && later.start <= earlier.end
        });
        routes
    })
}

fn any_dns() -> impl Strategy<Value = DnsAssign> {
    let domains = || vec("[a-z0-9.-]{0,12}", 0..3);
    let nameserver =
        (1_u16.., vec(any::<Ipv4Addr>(), 1..3), vec(any::<Ipv6Addr>(), 0..3), "[a-z.]{0,9}", vec(any::<u8>(), 0..6));
    let nameserver = nameserver.prop_map(|(priority, v4, v6, authentication_name, parameters)| Nameserver {
        priority,
        v4,
        v6,
        authentication_name,
        service_parameters: parameters.into(),
    });
    let configuration =
        (vec(nameserver, 0..3), domains(), domains()).prop_map(|(nameservers, internal_domains, search_domains)| {
            DnsConfiguration { nameservers, internal_domains, search_domains }
        });
    vec(configuration, 1..3).prop_map(|configurations| DnsAssign { configurations })
}

fn any_capsule() -> impl Strategy<Value = Capsule> {
    let assigned =
        (0..=varint::MAX, any_prefix()).prop_map(|(request_id, prefix)| AssignedAddress { request_id, prefix });
    let requested =
        (1..=varint::MAX, any_prefix()).prop_map(|(request_id, prefix)| RequestedAddress { request_id, prefix });
    prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(|payload| Capsule::Datagram(payload.into())),
        vec(assigned, 0..4).prop_map(Capsule::AddressAssign),
        vec(requested, 1..4).prop_map(Capsule::AddressRequest),
        any_routes().prop_map(Capsule::RouteAdvertisement),
        any_dns().prop_map(Capsule::DnsAssign),
    ]
}

proptest! {
    #[test]
    fn round_trip(capsules in vec(any_capsule(), 0..4)) {
        let stream: Vec<u8> = capsules.iter().flat_map(encoded).collect();
        prop_assert_eq!(read(&stream), (capsules, Ok(())));
    }

    #[test]
    fn chunking_changes_nothing(capsules in vec(any_capsule(), 0..4), garbage in vec(any::<u8>(), 0..12), size in 1_usize..20) {
        let mut stream: Vec<u8> = capsules.iter().flat_map(encoded).collect();
        stream.extend(garbage);
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        prop_assert_eq!(read_pieces(&pieces), read(&stream));
    }

    #[test]
    fn arbitrary_values_never_panic(kind in prop_oneof![0_u64..4, Just(0x1ace_79ec)], value in vec(any::<u8>(), 0..64)) {
        let (capsules, _outcome) = read(&raw(kind, &value));
        let again: Vec<u8> = capsules.iter().flat_map(encoded).collect();
        prop_assert_eq!(read(&again), (capsules, Ok(())));
    }
}
