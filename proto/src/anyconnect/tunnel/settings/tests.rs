use proptest::prelude::*;

use super::super::{DtlsOffer, Offer};
use super::*;

/// What ocserv 1.1.6 gives.
const STOCK: [(&str, &str); 12] = [
    ("x-cstp-version", "1"),
    ("x-cstp-address", "10.79.0.50"),
    ("x-cstp-netmask", "255.255.255.0"),
    ("x-cstp-address-ip6", "fd79::9a7c/128"),
    ("x-cstp-dns", "10.79.0.1"),
    ("x-cstp-split-dns", "corp.example"),
    ("x-cstp-split-include", "198.51.100.0/255.255.255.0"),
    ("x-cstp-split-include-ip6", "2001:db8:3::/64"),
    ("x-cstp-tunnel-all-dns", "false"),
    ("x-cstp-dpd", "60"),
    ("x-cstp-keepalive", "300"),
    ("x-cstp-mtu", "1472"),
];

fn fields(pairs: &[(&str, &str)]) -> Vec<Field> {
    pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect()
}

/// The answer of [`STOCK`] with other values of a field: none, one or several.
fn with(name: &str, values: &[&str]) -> Result<TunnelSettings, SettingsFault> {
    let others = STOCK.iter().filter(|(known, _)| *known != name).copied();
    let pairs: Vec<(&str, &str)> = others.chain(values.iter().map(|value| (name, *value))).collect();
    TunnelSettings::of(&fields(&pairs))
}

fn ranges(texts: &[&str]) -> Vec<RouteRange> {
    let prefixes: Vec<IpNet> = texts.iter().map(|text| text.parse().unwrap()).collect();
    range::from_prefixes(&prefixes)
}

/// The routes of a client with both addresses for these prefixes within and without.
fn routes(included: &[&str], excluded: &[&str]) -> Vec<RouteRange> {
    let mut pairs = vec![("x-cstp-address", "10.9.0.2"), ("x-cstp-address-ip6", "fd00::2/128"), ("x-cstp-mtu", "1400")];
    let name = |prefix: &str, v4: &'static str, v6: &'static str| if prefix.contains(':') { v6 } else { v4 };
    pairs.extend(
        included.iter().map(|prefix| (name(prefix, "x-cstp-split-include", "x-cstp-split-include-ip6"), *prefix)),
    );
    pairs.extend(
        excluded.iter().map(|prefix| (name(prefix, "x-cstp-split-exclude", "x-cstp-split-exclude-ip6"), *prefix)),
    );
    TunnelSettings::of(&fields(&pairs)).unwrap().routes
}

#[test]
fn answer_of_a_stock_gateway_is_understood() {
    let settings = TunnelSettings::of(&fields(&STOCK)).unwrap();
    let addresses: Vec<IpNet> = vec!["10.79.0.50/32".parse().unwrap(), "fd79::9a7c/128".parse().unwrap()];
    assert_eq!(settings.addresses(), addresses);
    let through = ["10.79.0.0/24", "198.51.100.0/24", "2001:db8:3::/64", "fd79::9a7c/128"];
    assert_eq!(settings.routes, ranges(&through), "and the network that the address is in");
    assert_eq!(settings.resolvers, ["10.79.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(settings.domains, ["corp.example"]);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!((settings.mtu, settings.dpd, settings.keepalive), (1472, seconds(60), seconds(300)));
}

#[test]
fn what_is_missing_doubled_or_senseless_gives_no_tunnel() {
    let both = |v4: &[&str]| {
        let others = STOCK.iter().filter(|(name, _)| !name.starts_with("x-cstp-address"));
        let pairs: Vec<(&str, &str)> = others.copied().chain(v4.iter().map(|v4| ("x-cstp-address", *v4))).collect();
        TunnelSettings::of(&fields(&pairs)).err()
    };
    let (twice, senseless) = (SettingsFault::Twice, SettingsFault::Senseless);
    assert_eq!(both(&[]), Some(SettingsFault::NoAddress));
    assert_eq!(both(&["10.0.0.1", "10.0.0.1", "fd00::1"]), None, "one of each family");
    assert_eq!(both(&["10.0.0.1", "10.0.0.2"]), Some(twice("X-CSTP-Address")));
    for address in ["10.0.0", "10.0.0.256", "10.0.0.1/33", "gw.example", "::1%eth0", "10.0.0.1 10.0.0.2"] {
        assert_eq!(both(&[address]), Some(senseless("X-CSTP-Address")), "{address}");
    }
    for mask in ["255.0.255.0", "0.0.0.0", "24", "255.255.255.256"] {
        assert_eq!(with("x-cstp-netmask", &[mask]).err(), Some(senseless("X-CSTP-Netmask")), "{mask}");
    }
    let masks = ["255.255.255.0", "255.255.0.0"];
    assert_eq!(with("x-cstp-netmask", &masks).err(), Some(twice("X-CSTP-Netmask")));
    assert_eq!(with("x-cstp-dns", &["10.0.0"]).err(), Some(senseless("X-CSTP-DNS")));
}

#[test]
fn packets_are_as_large_as_ipv6_needs_and_as_a_frame_takes() {
    let mtu = |values: &[&str]| with("x-cstp-mtu", values).map(|settings| settings.mtu);
    assert_eq!(mtu(&[]), Err(SettingsFault::NoMtu));
    assert_eq!(mtu(&["1400", "1400"]), Ok(1400));
    assert_eq!(mtu(&["1400", "1401"]), Err(SettingsFault::Twice("X-CSTP-MTU")));
    assert_eq!((mtu(&["1279"]), mtu(&["1280"])), (Err(SettingsFault::Narrow(1279)), Ok(1280)));
    assert_eq!(mtu(&["65535"]), Ok(MAX_PAYLOAD));
    for wrapped in ["65536", "66936", "-1", "99999999999999999999", "1400x", "0x578"] {
        assert_eq!(mtu(&[wrapped]), Err(SettingsFault::Senseless("X-CSTP-MTU")), "{wrapped}");
    }
}

#[test]
fn intervals_are_bounded_and_may_be_none() {
    let dpd = |value: &str| with("x-cstp-dpd", &[value]).unwrap().dpd.map(|dpd| dpd.as_secs());
    assert_eq!([dpd("none"), dpd("0"), dpd("-5"), dpd("4294967296"), dpd("")], [None; 5]);
    assert_eq!([dpd("1"), dpd("30"), dpd("4294967295")], [Some(5), Some(30), Some(3600)]);
    let lasts = |value: &str| with("x-cstp-session-timeout", &[value]).unwrap().lasts.map(|lasts| lasts.as_secs());
    assert_eq!([lasts("none"), lasts("0"), lasts("1"), lasts("86400")], [None, None, Some(1), Some(86_400)]);
}

#[test]
fn records_are_for_who_has_all_that_they_need() {
    let app_id = "a5".repeat(APP_ID_LEN);
    let offer = [
        ("x-dtls-ciphersuite", "PSK-NEGOTIATE"),
        ("x-dtls-app-id", app_id.as_str()),
        ("x-dtls-port", "4443"),
        ("x-dtls-dpd", "60"),
        ("x-dtls-keepalive", "none"),
    ];
    let with = |name: &str, values: &[&str]| {
        let others = STOCK.iter().chain(&offer).filter(|(known, _)| *known != name).copied();
        let pairs: Vec<(&str, &str)> = others.chain(values.iter().map(|value| (name, *value))).collect();
        TunnelSettings::of(&fields(&pairs)).unwrap().dtls
    };
    let port = NonZeroU16::new(4443).unwrap();
    let minute = Some(Duration::from_secs(60));
    let whole = DtlsSettings { port, app_id: [0xa5; APP_ID_LEN], dpd: minute, keepalive: None };
    assert_eq!(with("other", &[]), Some(whole));
    assert_eq!(with("x-dtls-app-id", &[&app_id.to_uppercase()]), Some(whole));
    assert_eq!(with("x-dtls-port", &["4443", "4443"]), Some(whole));
    for (name, values) in [
        ("x-dtls-ciphersuite", &[][..]),
        ("x-dtls-ciphersuite", &["OC-DTLS1_2-AES256-GCM"]),
        ("x-dtls-app-id", &[]),
        ("x-dtls-app-id", &[&app_id[2..]]),
        ("x-dtls-app-id", &["zz"]),
        ("x-dtls-app-id", &[&app_id, "a5"]),
        ("x-dtls-port", &[]),
        ("x-dtls-port", &["0"]),
        ("x-dtls-port", &["65536"]),
        ("x-dtls-port", &["4443", "4444"]),
    ] {
        assert_eq!(with(name, values), None, "{name} {values:?}");
    }
}

#[test]
fn new_keys_are_made_by_a_new_tunnel_or_not_at_all() {
    let rekey = |method: &str, time: &str| {
        let pairs = STOCK.iter().copied().chain([("x-cstp-rekey-method", method), ("x-cstp-rekey-time", time)]);
        TunnelSettings::of(&fields(&pairs.collect::<Vec<_>>())).unwrap().rekey.map(|rekey| rekey.as_secs())
    };
    assert_eq!([rekey("new-tunnel", "86400"), rekey("new-tunnel", "1")], [Some(86_400), Some(5)]);
    let none = [("ssl", "86400"), ("none", "86400"), ("", "86400"), ("new-tunnel", "0"), ("new-tunnel", "none")];
    assert_eq!(none.map(|(method, time)| rekey(method, time)), [None; 5]);
    assert_eq!(with("other", &[]).unwrap().rekey, None);
}

#[test]
fn family_of_which_nothing_is_named_goes_through_as_a_whole() {
    assert_eq!(routes(&[], &[]), ranges(&["0.0.0.0/0", "::/0"]));
    let only_v6 = ["0.0.0.0/0", "2001:db8::/32", "fd00::2/128"];
    assert_eq!(routes(&["2001:db8::/32"], &[]), ranges(&only_v6));
    let only_v4 = ["10.1.0.0/16", "10.9.0.2/32", "2000::/3", "fc00::/7"];
    assert_eq!(routes(&["10.1.9.9/255.255.0.0"], &[]), ranges(&only_v4), "and the rest of IPv4 is left alone");
    assert_eq!(routes(&["0.0.0.0/0.0.0.0", "::/0"], &[]), ranges(&["0.0.0.0/0", "::/0"]));
    let no_v6 = TunnelSettings::of(&fields(&[("x-cstp-address", "10.9.0.2"), ("x-cstp-mtu", "1400")])).unwrap();
    assert_eq!(no_v6.routes, ranges(&["0.0.0.0/0"]));
}

#[test]
fn excluded_prefixes_are_cut_out() {
    let v4 = |ranges: Vec<RouteRange>| {
        let v4 = ranges.into_iter().filter(|range| range.start.is_ipv4());
        v4.map(|range| format!("{}-{}", range.start, range.end)).collect::<Vec<_>>()
    };
    let cut = v4(routes(&["10.0.0.0/8"], &["10.1.0.0/16", "10.255.0.0/16", "192.0.2.0/24", "10.0.0.0/255.255.255.0"]));
    assert_eq!(cut, ["10.0.1.0-10.0.255.255", "10.2.0.0-10.254.255.255"]);
    assert_eq!(v4(routes(&[], &["0.0.0.0/1"])), ["128.0.0.0-255.255.255.255"]);
    assert_eq!(v4(routes(&[], &["128.0.0.0/1"])), ["0.0.0.0-127.255.255.255"]);
    assert_eq!(v4(routes(&[], &["0.0.0.0/0"])), Vec::<String>::new());
    let local = routes(&[], &["0.0.0.0/255.255.255.255", "::/128"]);
    assert_eq!(local, ranges(&["0.0.0.0/0", "::/0"]), "what is local is the client's own business");
    let cut = routes(&[], &["fd00::/8"]);
    assert!(cut.iter().all(|range| !range.contains("fd00::9".parse().unwrap())), "{cut:?}");
}

#[test]
fn lists_are_bounded_and_their_values_checked() {
    for prefix in
        ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.255.0", "10.0.0.0/ffff::", "default", "/8", "10.0.0.0/8/8"]
    {
        let said = SettingsFault::Senseless("X-CSTP-Split-Include");
        assert_eq!(with("x-cstp-split-include", &[prefix]).err(), Some(said), "{prefix}");
    }
    let many = |name: &str, value: &str, number: usize| with(name, &vec![value; number]).err();
    assert_eq!(many("x-cstp-split-exclude", "192.0.2.0/24", MAX_PREFIXES), None);
    let too_many = Some(SettingsFault::TooMany("X-CSTP-Split-Exclude"));
    assert_eq!(many("x-cstp-split-exclude", "192.0.2.0/24", MAX_PREFIXES + 1), too_many);
    assert_eq!(many("x-cstp-split-dns", "a", MAX_NAMES), None);
    assert_eq!(many("x-cstp-split-dns", "a", MAX_NAMES + 1), Some(SettingsFault::TooMany("X-CSTP-Split-DNS")));
}

#[test]
fn resolvers_for_all_names_have_no_domains() {
    let domains = |value: &str| with("x-cstp-tunnel-all-dns", &[value]).unwrap().domains;
    assert_eq!((domains("true"), domains("false")), (vec![], vec!["corp.example".to_owned()]));
    assert_eq!(
        with("x-cstp-split-dns", &["a.example, b.example", "c"]).unwrap().domains,
        ["a.example", "b.example", "c"]
    );
}

/// The gateway of this crate on the other side.
#[test]
fn what_our_gateway_offers_is_what_our_client_gets() {
    let routes = ["0.0.0.0/0", "2001:db8::/32"].map(|text| text.parse().unwrap());
    let resolvers = ["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()];
    let domains = ["corp.example".to_owned()];
    let offer = Offer {
        v4: Some(Ipv4Addr::new(10, 77, 0, 2)),
        v6: Some("fd00::2".parse().unwrap()),
        routes: &routes,
        resolvers: &resolvers,
        domains: &domains,
        mtu: 1420,
        dpd: Duration::from_secs(30),
        keepalive: Duration::from_secs(20),
        rekey: Duration::from_secs(86_400),
        lasts: Some(Duration::from_secs(43_200)),
        idle: None,
        banner: None,
        dtls: Some(DtlsOffer { port: 443, app_id: [0xa5; APP_ID_LEN], resumed: None, dpd: Duration::from_secs(10) }),
    };
    let head = offer.head();
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let told: Vec<Field> = lines.map(|(name, value)| Field::new(name.to_ascii_lowercase(), value)).collect();
    let settings = TunnelSettings::of(&told).unwrap();
    assert_eq!((settings.v4, settings.v6, settings.mtu), (offer.v4, offer.v6, 1420));
    assert_eq!(settings.routes, ranges(&["0.0.0.0/0", "2001:db8::/32", "fd00::2/128"]));
    assert_eq!((settings.resolvers, settings.domains), (resolvers.to_vec(), domains.to_vec()));
    assert_eq!((settings.dpd, settings.keepalive), (Some(offer.dpd), Some(offer.keepalive)));
    assert_eq!((settings.lasts, settings.rekey), (offer.lasts, Some(offer.rekey)));
    let (dtls, offered) = (settings.dtls.unwrap(), offer.dtls.unwrap());
    assert_eq!((dtls.port.get(), dtls.app_id, dtls.dpd), (offered.port, offered.app_id, Some(offered.dpd)));
    assert_eq!(dtls.keepalive, Some(offer.keepalive));
}

proptest! {
    #[test]
    fn nothing_disturbs_the_reader(names in proptest::collection::vec(0_usize..12, 0..20), value in "[0-9a-f:./, ]{0,20}") {
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (STOCK[*name].0, value.as_str())).collect();
        if let Ok(settings) = TunnelSettings::of(&fields(&pairs)) {
            prop_assert!((1280..=MAX_PAYLOAD).contains(&settings.mtu) && !settings.addresses().is_empty());
        }
    }

    #[test]
    fn holes_are_free_and_the_rest_is_as_before(
        included in proptest::collection::vec((any::<u32>(), 0_u8..=32), 0..5),
        excluded in proptest::collection::vec((any::<u32>(), 1_u8..=32), 0..5),
        probes in proptest::collection::vec(any::<u32>(), 1..20),
    ) {
        let nets = |prefixes: &[(u32, u8)]| -> Vec<IpNet> {
            let net = |(bits, length): &(u32, u8)| Ipv4Net::new(Ipv4Addr::from_bits(*bits), *length).unwrap().trunc();
            prefixes.iter().map(|prefix| IpNet::V4(net(prefix))).collect()
        };
        let (included, excluded) = (nets(&included), nets(&excluded));
        let cut = without(range::from_prefixes(&included), &excluded);
        let edges = excluded.iter().chain(&included).flat_map(|net| [net.network(), net.broadcast()]);
        for address in probes.iter().map(|bits| IpAddr::from(Ipv4Addr::from_bits(*bits))).chain(edges) {
            let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
            let is_local = address.is_unspecified();
            let left = cut.iter().any(|range| range.contains(address));
            prop_assert!(is_local || left == (is_in(&included) && !is_in(&excluded)), "{}", address);
        }
    }
}
