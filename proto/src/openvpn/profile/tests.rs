use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::openvpn::push::filter::Action;

const LEAST: &str = "client\ndev tun\nremote vpn.example 1194 udp\nca ca.pem\nauth-user-pass\n";

fn with(more: &str) -> Result<Parsed, Vec<Refused>> {
    parse(&format!("{LEAST}{more}\n"))
}

fn profile(more: &str) -> Profile {
    match with(more) {
        Ok(parsed) => parsed.profile,
        Err(refused) => panic!("{refused:?}"),
    }
}

/// The reasons, each with the option.
fn refused(text: &str) -> Vec<(String, String)> {
    let refused = parse(text).err().unwrap_or_default();
    refused.into_iter().map(|refused| (refused.option, refused.reason)).collect()
}

#[test]
fn profile_of_a_provider_is_read() {
    let text = "\u{feff}# made by a provider\r\nclient\r\ndev tun\r\nproto udp\r\nremote a.vpn.example 1194\r\n\
        remote 2001:db8::7 443 tcp6-client\r\nremote-random\r\nresolv-retry infinite\r\nnobind\r\npersist-key\r\n\
        remote-cert-tls server\r\nverify-x509-name 'vpn server' name\r\nauth SHA512\r\ncipher AES-256-CBC\r\n\
        data-ciphers AES-256-CBC:CHACHA20-POLY1305:AES-256-GCM\r\nkey-direction 1\r\nverb 3\r\nredirect-gateway def1 ipv6\r\n\
        reneg-sec 0\r\nauth-user-pass\r\nstatic-challenge \"Enter code\" 1\r\n\
        <ca>\r\n-----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----\r\n</ca>\r\n\
        <tls-auth>\r\nkey\r\n</tls-auth>\r\n";
    let Ok(Parsed { profile, ignored }) = parse(text) else { panic!("{:?}", refused(text)) };
    let port = |port| NonZeroU16::new(port).unwrap();
    let first =
        Remote { host: "a.vpn.example".to_owned(), port: port(1194), transport: Transport::Udp, family: Family::Any };
    let second =
        Remote { host: "2001:db8::7".to_owned(), port: port(443), transport: Transport::Tcp, family: Family::V6 };
    assert_eq!(profile.remotes, [first, second]);
    assert!(profile.remote_random && profile.must_be_server);
    assert_eq!(profile.server_name, Some(ServerName::Name("vpn server".to_owned())));
    assert_eq!(profile.suites, [Suite::ChaCha20Poly1305, Suite::Aes256Gcm]);
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(profile.ca == Some(Material::Inline(Zeroizing::new(pem.to_owned()))));
    let key = Material::Inline(Zeroizing::new("key\n".to_owned()));
    assert!(profile.wrapping == Wrapping::Auth(key, Digest::Sha512, Direction::Inverse));
    assert!(profile.user_login == UserLogin::Ask);
    assert_eq!(profile.redirect, Redirect { v4: true, v6: true, block_local: false });
    assert_eq!(profile.renegotiate, None);
    let challenge = StaticChallenge { text: "Enter code".to_owned(), echo: true };
    assert_eq!(profile.static_challenge, Some(challenge));
    let names: Vec<&str> = ignored.iter().map(|ignored| ignored.option.as_str()).collect();
    assert_eq!(names, ["resolv-retry", "nobind", "persist-key", "cipher", "verb"]);
    assert_eq!(ignored[0].line, 8);
}

#[test]
fn settings_of_the_network_are_read() {
    let text = "route 10.0.0.0 255.0.0.0\nroute 192.0.2.7 255.255.255.255 net_gateway\nroute-ipv6 fd00::/8\n\
        dhcp-option DNS 10.8.0.1\ndhcp-option DOMAIN corp.example\nblock-ipv6\nblock-outside-dns\nroute-nopull\n\
        tun-mtu 1400\nmssfix 1300\nkeepalive 10 60\npull-filter ignore \"route \"\nreneg-bytes 1000000\nhand-window 30\nexplicit-exit-notify 2";
    let profile = profile(text);
    assert_eq!(profile.routes.len(), 3);
    assert!(profile.routes[1].around);
    assert_eq!(profile.dns.resolvers.len(), 1);
    assert_eq!(profile.dns.search, ["corp.example"]);
    assert!(profile.block_v6 && profile.block_outside_dns && profile.route_nopull && profile.exit_notify);
    assert_eq!((profile.mtu, profile.mssfix), (Some(1400), Some(1300)));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!((profile.ping, profile.ping_restart, profile.hand_window), (seconds(10), seconds(60), seconds(30)));
    assert_eq!(profile.filters, [Filter { action: Action::Ignore, prefix: "route ".to_owned() }]);
    assert_eq!(profile.renegotiate_bytes, Some(1_000_000));
}

#[test]
fn blocks_of_connections_have_settings_of_their_own() {
    let text = "client\ndev tun\nca ca.pem\nauth-user-pass\nport 443\n\
        <connection>\nremote a.example\nproto tcp\n</connection>\n\
        <connection>\nremote b.example 1195\n</connection>\nproto udp4\n";
    let Ok(Parsed { profile, .. }) = parse(text) else { panic!("{:?}", refused(text)) };
    let remotes: Vec<_> =
        profile.remotes.iter().map(|remote| (remote.port.get(), remote.transport, remote.family)).collect();
    assert_eq!(remotes, [(443, Transport::Tcp, Family::Any), (1195, Transport::Udp, Family::V4)]);
    for (text, part) in [
        ("<connection>\nproto tcp\n</connection>", "names no server"),
        ("</connection>", "where none has begun"),
        ("<connection>\nremote a.example", "no end"),
    ] {
        let refused = refused(&format!("{LEAST}{text}"));
        assert!(refused.iter().any(|(_, reason)| reason.contains(part)), "{refused:?}");
    }
}

#[test]
fn wrapping_is_one_of_four() {
    let file = |name: &str| Material::File(name.to_owned());
    assert!(profile("").wrapping == Wrapping::Plain);
    assert!(profile("tls-auth ta.key").wrapping == Wrapping::Auth(file("ta.key"), Digest::Sha1, Direction::Both));
    let inverse = Wrapping::Auth(file("ta.key"), Digest::Sha256, Direction::Inverse);
    assert!(profile("tls-auth ta.key 1\nauth SHA256\nkey-direction 0").wrapping == inverse);
    assert!(profile("tls-crypt tc.key").wrapping == Wrapping::Crypt(file("tc.key")));
    assert!(profile("tls-crypt-v2 v2.key").wrapping == Wrapping::CryptV2(file("v2.key")));
    assert!(with("tls-crypt a\ntls-crypt-v2 b").is_err());
}

#[test]
fn what_would_run_a_program_is_refused() {
    for option in ["up /bin/true", "down x", "route-up x", "plugin x.so", "tls-verify x", "ipchange x", "dns-updown x"]
    {
        let refused = refused(&format!("{LEAST}{option}\n"));
        assert!(refused.len() == 1 && refused[0].1.contains("program"), "{option}: {refused:?}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_with_a_cure() {
    let cases = [
        ("compress lz4", "compression"),
        ("comp-lzo no", "compression"),
        ("data-ciphers AES-256-CBC:BF-CBC", "no CBC"),
        ("dev tap", "dev tun"),
        ("fragment 1300", "how packets look"),
        ("secret static.key", "set up the server with TLS"),
        ("http-proxy proxy.example 3128", "directly"),
        ("pkcs12 me.p12", "PEM"),
        ("mode server", "servers"),
        ("ns-cert-type server", "remote-cert-tls server"),
        ("remote-cert-tls client", "server"),
        ("auth MD5", "SHA256"),
        ("ifconfig 10.8.0.2 10.8.0.1", "pushes"),
        ("no-such-option 1", "not known"),
        ("route vpn.example", "route"),
        ("dhcp-option DNS x", "no sense"),
        ("tun-mtu 100", "576"),
        ("reneg-sec soon", "seconds"),
        ("verify-x509-name a nickname", "subject"),
        ("peer-fingerprint 00:11", "SHA-256"),
        ("pull-filter drop route", "ignore"),
        ("pull-filter ignore", "a text"),
        ("remote a/b", "name or an address"),
        ("remote a 0", "port"),
        ("remote a 1 sctp", "udp"),
        ("ca", "file"),
        ("ca [inline]", "file"),
        ("key-direction 2", "0 or 1"),
        ("static-challenge text", "0 or 1"),
        ("verb \"3", "quote"),
        ("<cert>\nAAAA", "no end"),
    ];
    for (option, part) in cases {
        let refused = refused(&format!("{LEAST}{option}\n"));
        assert!(refused.iter().any(|(_, reason)| reason.contains(part)), "{option}: {refused:?}");
    }
}

#[test]
fn every_complaint_is_told_with_its_line() {
    let found: Vec<_> =
        with("up x\nverb 3\ncompress\n").err().unwrap().into_iter().map(|one| (one.line, one.option)).collect();
    assert_eq!(found, [(6, "up".to_owned()), (8, "compress".to_owned())]);
    let of_nothing: Vec<String> = refused("").into_iter().map(|(option, _)| option).collect();
    assert_eq!(of_nothing, ["client", "remote", "ca", "cert"]);
    let endless = refused(&"strange\n".repeat(10_000));
    assert_eq!(endless.len(), 100);
    assert_eq!(refused(&"a".repeat(MAX_LEN + 1))[0].0, "profile");
}

#[test]
fn unknown_options_may_be_tolerated_but_not_dangerous_ones() {
    let tolerated = with("ignore-unknown-option new-thing other\nnew-thing 1\nsetenv opt newer-thing 2\nsetenv UV_A b");
    let names: Vec<String> = tolerated.ok().unwrap().ignored.into_iter().map(|ignored| ignored.option).collect();
    assert_eq!(names, ["new-thing", "newer-thing", "setenv"]);
    assert!(with("ignore-unknown-option up\nup x").is_err());
    assert!(with("setenv opt compress").is_err());
    assert!(with("setenv opt block-outside-dns").is_ok_and(|parsed| parsed.profile.block_outside_dns));
}

#[test]
fn something_has_to_prove_each_end_to_the_other() {
    let least = LEAST.replace("auth-user-pass\n", "");
    assert!(parse(&least).is_err());
    assert!(parse(&format!("{least}cert c.pem\n")).is_err(), "the key is missing");
    assert!(parse(&format!("{least}cert c.pem\nkey k.pem\n")).is_ok());
    let fingerprint = "ab:".repeat(31) + "cd";
    let without_ca = LEAST.replace("ca ca.pem\n", "");
    assert!(parse(&without_ca).is_err());
    let text =
        format!("{without_ca}<peer-fingerprint>\n# first\n{fingerprint}\n\n{fingerprint}\n</peer-fingerprint>\n");
    assert!(parse(&text).is_ok_and(|parsed| parsed.profile.fingerprints.len() == 2));
}

#[test]
fn each_option_has_one_fate() {
    let mut seen = BTreeSet::new();
    for name in options::all() {
        assert!(seen.insert(name), "{name} stands twice");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
    }
}

proptest! {
    #[test]
    fn no_profile_is_too_strange(
        lines in proptest::collection::vec(
            ("(client|remote|proto|<ca>|</ca>|<connection>|</connection>|route|dns|setenv|auth|[ -~]{0,12})", "[ -~]{0,20}"),
            0..30,
        ),
    ) {
        let text: String = lines.iter().map(|(name, rest)| format!("{name} {rest}\n")).collect();
        if let Err(refused) = parse(&text) {
            prop_assert!(!refused.is_empty());
        }
    }
}
