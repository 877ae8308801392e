use proptest::prelude::*;

use super::dns::MAX_NAMES;
use super::filter::{Action, Filter};
use super::read::{MAX_ROUTES, PushError, Reader, Reply};
use super::write::messages;
use super::*;
use crate::openvpn::message::{FromServer, LONGEST_SENT};
use crate::openvpn::peer_info::Abilities;

/// What a server must push at least.
const LEAST: &str = "ifconfig 10.8.0.2 255.255.255.0,topology subnet,cipher AES-256-GCM,protocol-flags tls-ekm";

fn options(message: &str) -> String {
    let FromServer::PushReply(options) = FromServer::parse(message) else { panic!("{message}") };
    options
}

fn read(text: &str) -> Result<Reply, PushError> {
    Reader::default().handle(text).map(|reply| reply.expect("it is whole"))
}

fn with(more: &str) -> Result<Settings, PushError> {
    read(&format!("{LEAST},{more}")).map(|reply| reply.settings)
}

fn error(text: &str) -> Option<PushError> {
    read(text).err()
}

#[test]
fn reply_of_a_stock_server_is_read() {
    let reply = read(
        "route-gateway 10.8.0.1,topology subnet,ping 10,ping-restart 60,ifconfig-ipv6 fd00::2/64 fd00::1,\
         ifconfig 10.8.0.2 255.255.255.0,peer-id 5,cipher AES-128-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt \
         aead-epoch,tun-mtu 1400,route 10.66.0.0 255.255.0.0,route-ipv6 fd01::/48,redirect-gateway def1 ipv6,\
         dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN corp.example,sndbuf 0,auth-token SESS_ID_AT_x,\
         auth-token-user YWRh,explicit-exit-notify,block-outside-dns",
    );
    let Reply { settings, unknown } = reply.unwrap();
    assert_eq!(settings.v4, Some("10.8.0.2/24".parse().unwrap()));
    assert_eq!(settings.v6, Some("fd00::2/64".parse().unwrap()));
    assert_eq!(settings.v4_gateway, Some("10.8.0.1".parse().unwrap()));
    let around = false;
    let routes = ["10.66.0.0/16", "fd01::/48"].map(|to| Route { to: to.parse().unwrap(), around });
    assert_eq!(settings.routes, routes);
    assert_eq!(settings.redirect, Redirect { v4: true, v6: true, block_local: false });
    assert_eq!((settings.peer_id, settings.mtu), (Some(5), Some(1400)));
    assert_eq!((settings.suite, settings.format), (Suite::Aes128Gcm, Format::Epoch));
    assert!(settings.exit_message && settings.dynamic_tls_crypt && settings.exit_notify && settings.block_outside_dns);
    assert_eq!(settings.dns.resolvers, ["10.8.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!((settings.dns.search, settings.dns.domains), (vec!["corp.example".to_owned()], Vec::new()));
    let token = settings.token.unwrap();
    assert_eq!((token.token.as_str(), token.user.as_deref()), ("SESS_ID_AT_x", Some("ada")));
    assert_eq!(settings.liveness.restart, Some(Duration::from_secs(60)));
    assert_eq!(unknown, ["sndbuf"]);
}

#[test]
fn what_gives_no_tunnel_is_refused() {
    assert!(error(LEAST).is_none());
    let without = |part: &str| error(&LEAST.replace(part, "x"));
    assert_eq!(without("ifconfig 10.8.0.2 255.255.255.0"), Some(PushError::NoAddress));
    assert_eq!(without("cipher AES-256-GCM"), Some(PushError::NoCipher));
    assert_eq!(without("protocol-flags tls-ekm"), Some(PushError::KeyDerivation));
    assert!(error(&LEAST.replace("protocol-flags tls-ekm", "key-derivation tls-ekm")).is_none());
    let refused = |more: &str| with(more).err();
    assert_eq!(refused("cipher AES-256-CBC"), Some(PushError::Cipher));
    assert_eq!(refused("comp-lzo no"), Some(PushError::Compression));
    assert_eq!(refused("compress stub-v2"), Some(PushError::Compression));
    assert_eq!(refused("key-derivation prf"), Some(PushError::KeyDerivation));
    let senseless = [
        ("ifconfig 10.8.0.2", "ifconfig"),
        ("ifconfig 10.8.0.2 255.0.255.0", "ifconfig"),
        ("ifconfig-ipv6 fd00::2", "ifconfig-ipv6"),
        ("route 10.0.0.1 255.0.0.0", "route"),
        ("route vpn.example", "route"),
        ("route 10.0.0.0 255.0.0.0 elsewhere", "route"),
        ("route-ipv6 fd00::1/64", "route-ipv6"),
        ("peer-id 16777215", "peer-id"),
        ("tun-mtu 100", "tun-mtu"),
        ("tun-mtu", "tun-mtu"),
        ("ping x", "ping"),
        ("keepalive 10", "keepalive"),
        ("dns server 0 address 10.8.0.1:5353", "dns"),
        ("dns server", "dns"),
        ("dhcp-option DNS x", "dhcp-option"),
        ("dhcp-option DOMAIN a/b", "dhcp-option"),
        ("auth-token", "auth-token"),
        ("auth-token-user !", "auth-token-user"),
        ("ping \"10", "an option"),
    ];
    for (option, name) in senseless {
        assert_eq!(refused(option), Some(PushError::Value(name)), "{option}");
    }
    assert_eq!(refused("ifconfig-ipv6 fd00::2/64 fd00::1,tun-mtu 1279"), Some(PushError::Value("tun-mtu")));
}

#[test]
fn older_topologies_name_the_other_end() {
    let text = LEAST.replace("10.8.0.2 255.255.255.0,topology subnet", "10.8.0.6 10.8.0.5,topology net30");
    let settings = read(&text).unwrap().settings;
    assert_eq!(settings.v4, Some("10.8.0.6/32".parse().unwrap()));
    assert_eq!(settings.v4_gateway, Some("10.8.0.5".parse().unwrap()));
}

#[test]
fn newer_way_of_dns_replaces_the_older_one_wherever_it_stands() {
    let newer = "dns server 0 address 10.8.0.1 [fd00::1] 10.8.0.3:53,dns server 0 resolve-domains a.example b.example,\
                 dns search-domains c.example,dns server 0 dnssec optional";
    let older = "dhcp-option DNS 10.9.9.9,dhcp-option DOMAIN d.example";
    for text in [format!("{older},{newer}"), format!("{newer},{older}"), newer.to_owned()] {
        let dns = with(&text).unwrap().dns;
        let resolvers = ["10.8.0.1", "fd00::1", "10.8.0.3"].map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(dns.resolvers, resolvers);
        assert_eq!(dns.domains, ["a.example", "b.example"]);
        assert_eq!(dns.search, ["c.example"]);
    }
}

#[test]
fn messages_that_go_on_are_waited_for() {
    let mut reader = Reader::default();
    let first = "ifconfig 10.8.0.2 255.255.255.0,topology subnet,push-continuation 2";
    assert!(reader.handle(first).is_ok_and(|reply| reply.is_none()));
    let last = "cipher AES-256-GCM,protocol-flags tls-ekm,push-continuation 1";
    assert!(reader.handle(last).is_ok_and(|reply| reply.is_some()));
    assert!(reader.handle(first).is_ok_and(|reply| reply.is_none()), "and it begins anew");
    let endless = format!("{},push-continuation 2", "route 10.0.0.0 255.0.0.0,".repeat(1000));
    let refused = (0..20).find_map(|_| reader.handle(&endless).err());
    assert_eq!(refused, Some(PushError::TooMuch));
}

#[test]
fn filters_of_the_profile_are_asked_about_each_option() {
    let filter = |action, prefix: &str| Filter { action, prefix: prefix.to_owned() };
    let filters = vec![filter(Action::Ignore, "redirect-gateway"), filter(Action::Reject, "route-ipv6")];
    let mut reader = Reader::new(filters);
    let mut read = |more: &str| reader.handle(&format!("{LEAST},{more}")).map(|reply| reply.unwrap().settings.redirect);
    for _ in 0..2 {
        assert_eq!(read("redirect-gateway def1"), Ok(Redirect::default()));
        assert_eq!(read("route-ipv6 fd00::/8"), Err(PushError::Rejected("route-ipv6 fd00::/8".to_owned())));
    }
}

#[test]
fn lists_have_bounds() {
    let many = |option: &str, count: usize| with(&vec![option; count].join(",")).err();
    assert_eq!(many("route 10.0.0.0 255.0.0.0", MAX_ROUTES), None);
    assert_eq!(many("route 10.0.0.0 255.0.0.0", MAX_ROUTES + 1), Some(PushError::TooMuch));
    assert_eq!(many("dhcp-option DNS 10.8.0.1", MAX_NAMES), None);
    assert_eq!(many("dhcp-option DNS 10.8.0.1", MAX_NAMES + 1), Some(PushError::TooMuch));
    let strange = (0..1000).map(|number| format!("strange-{number}")).collect::<Vec<_>>().join(",");
    assert_eq!(read(&format!("{LEAST},{strange}")).unwrap().unknown.len(), 64);
}

#[test]
fn routes_around_the_tunnel_are_told_apart() {
    let settings =
        with("route 192.0.2.7 255.255.255.255 net_gateway,route 192.0.2.8,route 10.0.0.0 255.0.0.0 vpn_gateway 5");
    let around: Vec<bool> = settings.unwrap().routes.iter().map(|route| route.around).collect();
    assert_eq!(around, [true, false, false]);
}

#[test]
fn settings_of_many_routes_are_split_and_read_again() {
    let mut settings = settings();
    settings.routes = (0..400_u32)
        .map(|number| Route {
            to: IpNet::new(Ipv4Addr::from(0x0a00_0000 + number * 256).into(), 24).unwrap(),
            around: false,
        })
        .collect();
    let written = messages(&settings, Abilities::DNS_OPTION).unwrap();
    assert!(written.len() > 5);
    assert!(written.iter().all(|message| message.len() <= LONGEST_SENT));
    let mut reader = Reader::default();
    let mut replies: Vec<_> = written.iter().map(|message| reader.handle(&options(message)).unwrap()).collect();
    let last = replies.pop().flatten().unwrap();
    assert!(replies.iter().all(Option::is_none));
    assert_eq!(last, Reply { settings, unknown: Vec::new() });
}

#[test]
fn option_that_fits_no_message_is_an_error() {
    let mut settings = settings();
    settings.token = Some(Token { token: Zeroizing::new("x".repeat(LONGEST_SENT)), user: None });
    assert!(messages(&settings, Abilities::default()).is_err());
}

#[test]
fn dns_is_told_in_the_way_that_the_client_understands() {
    let mut settings = settings();
    settings.dns.domains = Vec::new();
    let text = |abilities| messages(&settings, abilities).unwrap().concat();
    for abilities in [Abilities::DNS_OPTION, Abilities::DNS_OPTION_V2] {
        assert!(text(abilities).contains("dns server 0 address 10.8.0.1 fd00::1") && !text(abilities).contains("dhcp"));
    }
    let old = text(Abilities::default());
    assert!(old.contains("dhcp-option DNS 10.8.0.1,dhcp-option DNS6 fd00::1") && !old.contains("dns server"));
    assert_eq!(read(&options(&old)).unwrap().settings, settings);
}

fn settings() -> Settings {
    let dns = Dns {
        resolvers: vec!["10.8.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        domains: vec!["corp.example".to_owned()],
        search: vec!["a.example".to_owned()],
    };
    Settings {
        v4: Some("10.8.0.2/24".parse().unwrap()),
        v6: Some("fd00::2/64".parse().unwrap()),
        v4_gateway: Some("10.8.0.1".parse().unwrap()),
        v6_gateway: Some("fd00::1".parse().unwrap()),
        dns,
        peer_id: Some(7),
        ..Settings::new(Suite::Aes256Gcm)
    }
}

fn times() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of((1..=u32::MAX).prop_map(|seconds| Duration::from_secs(seconds.into())))
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let route = (any::<Ipv4Addr>(), any::<Ipv6Addr>(), any::<bool>(), any::<bool>(), 0..=32_u8).prop_map(
        |(v4, v6, is_v4, around, bits)| {
            let to = if is_v4 { IpNet::new(v4.into(), bits) } else { IpNet::new(v6.into(), bits) };
            Route { to: to.unwrap().trunc(), around }
        },
    );
    let redirect = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(v4, v6, block)| Redirect {
        v4,
        v6,
        block_local: block && (v4 || v6),
    });
    let liveness = [times(), times(), times()].prop_map(|[ping, restart, exit]| Liveness { ping, restart, exit });
    let token = proptest::option::of(("[!-+--~]{1,80}", proptest::option::of("[a-zäö ]{1,9}"))).prop_map(|token| {
        token.map(|(token, user)| {
            let token = token.replace(['"', '\'', '\\', '#', ';'], "x");
            Token { token: Zeroizing::new(token), user }
        })
    });
    let session = (proptest::sample::select(Suite::ALL.to_vec()), any::<[bool; 6]>(), [times(), times()], token);
    let networks = (proptest::option::of(0..=MAX_PEER_ID), proptest::option::of(1280..=u16::MAX), redirect, liveness);
    (proptest::collection::vec(route, 0..30), networks, session).prop_map(
        |(routes, (peer_id, mtu, redirect, liveness), (suite, bits, [renegotiate, session_timeout], token))| {
            let [block_v6, block_outside_dns, exit_message, dynamic_tls_crypt, exit_notify, is_epoch] = bits;
            let format = if is_epoch { Format::Epoch } else { Format::V2 };
            Settings {
                routes,
                redirect,
                block_v6,
                block_outside_dns,
                mtu,
                liveness,
                peer_id,
                suite,
                format,
                exit_message,
                dynamic_tls_crypt,
                exit_notify,
                renegotiate,
                session_timeout,
                token,
                ..settings()
            }
        },
    )
}

proptest! {
    #[test]
    fn settings_survive_being_written(settings in any_settings()) {
        let mut reader = Reader::default();
        let written = messages(&settings, Abilities::DNS_OPTION_V2).unwrap();
        let replies: Vec<_> = written.iter().map(|message| reader.handle(&options(message)).unwrap()).collect();
        let reply = replies.into_iter().next_back().flatten().unwrap();
        prop_assert_eq!(reply.settings, settings);
    }

    #[test]
    fn no_options_are_too_strange(words in proptest::collection::vec("(ifconfig|route|dns|dhcp-option|server|DNS|cipher|[ -~]{0,12}|[0-9.:/]{1,12}|,| ){1}", 0..40)) {
        drop(Reader::default().handle(&words.concat()));
    }
}
