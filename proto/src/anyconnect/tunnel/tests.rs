use proptest::prelude::*;

use super::*;

fn fields(pairs: &[(&str, &str)]) -> Vec<Field> {
    pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect()
}

/// What openconnect 9.01 sends.
fn request() -> Vec<Field> {
    fields(&[
        ("host", "127.0.0.1"),
        ("user-agent", "Open AnyConnect VPN Agent v9.01-3"),
        ("cookie", "webvpn=t0ken"),
        ("x-cstp-version", "1"),
        ("x-cstp-hostname", "laptop"),
        ("x-cstp-base-mtu", "65535"),
        ("x-cstp-mtu", "1390"),
        ("x-cstp-address-type", "IPv6,IPv4"),
        ("x-cstp-full-ipv6-capability", "true"),
        ("x-dtls-ciphersuite", "PSK-NEGOTIATE:OC-DTLS1_2-AES256-GCM:AES128-SHA"),
    ])
}

fn offer() -> Offer<'static> {
    let seconds = Duration::from_secs;
    Offer {
        v4: Some(Ipv4Addr::new(10, 77, 0, 2)),
        v6: Some("fd00::2".parse().unwrap()),
        routes: &[],
        resolvers: &[],
        domains: &[],
        mtu: 1420,
        dpd: seconds(30),
        keepalive: seconds(20),
        rekey: seconds(86_400),
        lasts: Some(seconds(43_200)),
        idle: None,
        banner: None,
        dtls: None,
    }
}

/// The values of a header, by its exact name.
fn values(head: &str, name: &str) -> Vec<String> {
    let prefix = format!("{name}: ");
    head.split("\r\n").filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

fn routes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn what_a_stock_client_asks_for_is_understood() {
    let asked = TunnelRequest::of(&request());
    assert_eq!(asked.token.as_ref().map(|token| token.as_str()), Some("t0ken"));
    assert_eq!(asked.group, None);
    assert_eq!(asked.host_name.as_deref(), Some("laptop"));
    assert_eq!(asked.agent.as_deref(), Some("Open AnyConnect VPN Agent v9.01-3"));
    assert_eq!((asked.mtu, asked.takes_v4, asked.takes_v6), (Some(1390), true, true));
    assert!(matches!(asked.dtls, Some(Keying::PreSharedKey)));
}

#[test]
fn what_is_not_said_or_makes_no_sense_counts_as_not_said() {
    let bare = TunnelRequest::of(&fields(&[("cookie", "other=1")]));
    assert!(bare.token.is_none() && bare.host_name.is_none() && bare.agent.is_none() && bare.mtu.is_none());
    assert!(bare.takes_v4 && !bare.takes_v6, "an old client");
    assert!(bare.dtls.is_none());
    let older = TunnelRequest::of(&fields(&[("x-dtls-ciphersuite", "OC-DTLS1_2-AES256-GCM:AES128-SHA")]));
    assert!(older.dtls.is_none(), "it has no secret to resume a session of TLS with");
    for mtu in ["", "-1", "65536", "99999999999999999999", "1390 "] {
        assert_eq!(TunnelRequest::of(&fields(&[("x-cstp-mtu", mtu)])).mtu, None, "{mtu:?}");
    }
    let long = "n".repeat(MAX_TEXT + 1);
    assert!(TunnelRequest::of(&fields(&[("x-cstp-hostname", &long)])).host_name.is_none());
    let only_v6 = fields(&[("x-cstp-address-type", "IPv6"), ("x-cstp-full-ipv6-capability", "true")]);
    let only_v6 = TunnelRequest::of(&only_v6);
    assert!(!only_v6.takes_v4 && only_v6.takes_v6);
    let halfway = TunnelRequest::of(&fields(&[("x-cstp-address-type", "IPv6,IPv4")]));
    assert!(halfway.takes_v4 && !halfway.takes_v6, "it takes one address only");
}

#[test]
fn client_gets_the_largest_packet_it_wants_within_bounds() {
    let wants = |mtu: &str| TunnelRequest::of(&fields(&[("x-cstp-mtu", mtu)])).mtu_within(1420);
    assert_eq!([wants("1390"), wants("65535"), wants("0"), wants("?")], [1390, 1420, 1280, 1420]);
}

#[test]
fn our_client_asks_as_stock_clients_do() {
    let (authority, agent, host_name) = ("gw.test:8443", "Open AnyConnect VPN Agent v9", "lap\r\nX: top");
    let head = |takes_dtls| Wish { authority, agent, host_name, token: "t0+/=", mtu: 1420, takes_dtls }.head();
    assert!(!head(false).contains("DTLS"));
    let head = head(true);
    let (first, rest) = head.strip_suffix("\r\n\r\n").unwrap().split_once("\r\n").unwrap();
    assert_eq!(first, format!("CONNECT {TUNNEL_PATH} HTTP/1.1"));
    assert!(rest.contains("Cookie: webvpn=t0+/=\r\n"), "gateways know these letters alone: {rest}");
    let lines = rest.split("\r\n").map(|line| line.split_once(": ").unwrap());
    let fields: Vec<Field> = lines.map(|(name, value)| Field::new(name.to_ascii_lowercase(), value)).collect();
    let asked = TunnelRequest::of(&fields);
    assert_eq!(asked.token.as_ref().map(|token| token.as_str()), Some("t0+/="));
    assert_eq!((asked.host_name.as_deref(), asked.mtu), (Some("lapX: top"), Some(1420)), "and adds no line");
    assert!(asked.takes_v4 && asked.takes_v6);
    assert!(rest.contains("X-DTLS-CipherSuite: PSK-NEGOTIATE"), "{rest}");
}

#[test]
fn answer_begins_and_ends_as_clients_want_it() {
    let head = offer().head();
    assert!(head.starts_with("HTTP/1.1 200 CONNECTED\r\nX-CSTP-Version: 1\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n") && head.matches("\r\n\r\n").count() == 1, "{head}");
    for (name, value) in [
        ("X-CSTP-Address", "10.77.0.2"),
        ("X-CSTP-Netmask", "255.255.255.255"),
        ("X-CSTP-Address-IP6", "fd00::2/128"),
        ("X-CSTP-MTU", "1420"),
        ("X-CSTP-DPD", "30"),
        ("X-CSTP-Keepalive", "20"),
        ("X-CSTP-Rekey-Time", "86400"),
        ("X-CSTP-Rekey-Method", "new-tunnel"),
        ("X-CSTP-Session-Timeout", "43200"),
        ("X-CSTP-Idle-Timeout", "none"),
    ] {
        assert_eq!(values(&head, name), [value], "{name}");
    }
    assert!(!head.contains("DTLS") && !head.contains("Encoding"), "neither is offered");
}

#[test]
fn records_are_offered_with_the_names_that_clients_look_for() {
    let dtls = DtlsOffer { port: 443, app_id: [0xa5; APP_ID_LEN], resumed: None, dpd: Duration::from_secs(10) };
    let head = Offer { dtls: Some(dtls), ..offer() }.head();
    for (name, value) in [
        ("X-DTLS-Port", "443"),
        ("X-DTLS-CipherSuite", "PSK-NEGOTIATE"),
        ("X-DTLS-App-ID", &"a5".repeat(32)),
        ("X-DTLS-DPD", "10"),
        ("X-DTLS-Keepalive", "20"),
        ("X-CSTP-Base-MTU", "1500"),
    ] {
        assert_eq!(values(&head, name), [value], "{name}");
    }
    assert!(!head.contains("Rekey-Method: ssl") && !head.contains("Session-ID"), "no renegotiation, no resumption");
    assert!(head.ends_with("\r\n\r\n") && head.matches("\r\n\r\n").count() == 1, "{head}");
}

#[test]
fn session_that_is_resumed_is_told_with_the_suite_that_the_client_named() {
    let resumed =
        |suite| DtlsOffer { port: 443, app_id: [0xa5; APP_ID_LEN], resumed: Some(suite), dpd: Duration::from_secs(10) };
    for (suite, header) in
        NamedSuite::ALL.iter().zip(["X-DTLS12-CipherSuite"; 4].iter().chain(&["X-DTLS-CipherSuite"; 2]))
    {
        let head = Offer { dtls: Some(resumed(*suite)), ..offer() }.head();
        assert_eq!(values(&head, header), [suite.name]);
        assert_eq!(values(&head, "X-DTLS-Session-ID"), ["a5".repeat(32)]);
        assert_eq!(values(&head, "X-DTLS-MTU"), ["1414"], "with headers of IPv6 and UDP that is 1500");
        assert!(!head.contains("App-ID") && !head.contains("PSK"), "{head}");
    }
    let narrow = Offer { mtu: 1280, dtls: Some(resumed(NamedSuite::ALL[0])), ..offer() }.head();
    assert_eq!(values(&narrow, "X-DTLS-MTU"), ["1280"]);
}

#[test]
fn banner_comes_in_one_line_whatever_letters_it_has() {
    let head = Offer { banner: Some("F\u{fc}r 100% B\r\nX-CSTP-MTU: 1"), ..offer() }.head();
    assert_eq!(values(&head, "X-CSTP-Banner"), ["F%c3%bcr 100%25 B%0d%0aX-CSTP-MTU: 1"]);
    assert_eq!(values(&head, "X-CSTP-MTU"), ["1420"]);
    assert!(values(&offer().head(), "X-CSTP-Banner").is_empty());
}

#[test]
fn resolvers_and_the_names_they_answer_for_are_told() {
    let resolvers = ["fd00::53".parse().unwrap(), "10.0.0.53".parse().unwrap()];
    let all = Offer { resolvers: &resolvers, ..offer() }.head();
    assert_eq!(values(&all, "X-CSTP-DNS"), ["fd00::53", "10.0.0.53"]);
    assert_eq!(values(&all, "X-CSTP-DNS-IP6"), ["fd00::53"]);
    assert!(
        all.find("X-CSTP-DNS-IP6") > all.find("X-CSTP-DNS: 10"),
        "who takes the first three gets none twice: {all}"
    );
    assert_eq!(values(&all, "X-CSTP-Tunnel-All-DNS"), ["true"]);
    let domains = ["corp.example".to_owned(), "lab.example".to_owned()];
    let split = Offer { resolvers: &resolvers, domains: &domains, ..offer() }.head();
    assert_eq!(values(&split, "X-CSTP-Split-DNS"), ["corp.example", "lab.example"]);
    assert_eq!(values(&split, "X-CSTP-Tunnel-All-DNS"), ["false"]);
}

#[test]
fn family_that_goes_through_the_tunnel_as_a_whole_has_no_route_told() {
    let included = |texts: &[&str]| {
        let routes = routes(texts);
        let head = Offer { routes: &routes, ..offer() }.head();
        (values(&head, "X-CSTP-Split-Include"), values(&head, "X-CSTP-Split-Include-IP6"))
    };
    let none = || Vec::<String>::new();
    assert_eq!(included(&["0.0.0.0/0", "::/0", "10.77.0.1/32"]), (none(), none()));
    let split = included(&["10.1.0.0/16", "10.77.0.1/32", "2001:db8::/32"]);
    let v4 = vec!["10.1.0.0/255.255.0.0".to_owned(), "10.77.0.1/255.255.255.255".to_owned()];
    assert_eq!(split, (v4, vec!["2001:db8::/32".to_owned()]));
    let nothing_of_v6 = included(&["0.0.0.0/0"]);
    assert_eq!(nothing_of_v6, (none(), vec!["fd00::2/128".to_owned()]), "or all of it would go through");
    assert_eq!(included(&["::/0"]), (vec!["10.77.0.2/255.255.255.255".to_owned()], none()));
}

proptest! {
    #[test]
    fn no_text_adds_a_line(domain in "\\PC*", more in any::<String>()) {
        let (plain, domains) = (offer().head(), [domain, more]);
        let head = Offer { domains: &domains, ..offer() }.head();
        prop_assert_eq!(head.split("\r\n").count(), plain.split("\r\n").count() + 2);
        prop_assert!(head.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')));
    }

    #[test]
    fn nothing_disturbs_the_reader(names in proptest::collection::vec(0_usize..10, 0..9), value in any::<String>()) {
        let known = request();
        let fields: Vec<Field> = names.iter().map(|name| Field::new(known[*name].name.as_str(), value.as_str())).collect();
        let asked = TunnelRequest::of(&fields);
        prop_assert!((1280..=1420).contains(&asked.mtu_within(1420)));
    }
}
