use adit_proto::captive_portal::PageAddress;

use super::*;

pub(crate) fn authority_pem() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(vec!["authority".into()]).unwrap().self_signed(&key).unwrap().pem()
}

pub(crate) fn profile(name: &str) -> Profile {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["device".into()]).unwrap().self_signed(&key).unwrap();
    Profile {
        name: name.parse().unwrap(),
        host: "vpn.example.org".into(),
        port: 4443,
        others: Vec::new(),
        protocol: GatewayProtocol::ConnectIp,
        user: "alice".into(),
        device: "d1".into(),
        addresses: vec!["192.0.2.1:4443".parse().unwrap(), "[2001:db8::1]:4443".parse().unwrap()],
        kill_switch: None,
        lan: LanAccess::Block,
        captive_probe: CaptiveProbe::default(),
        full_tunnel: false,
        authority_pem: authority_pem(),
        pin: None,
        identity: Identity::Certificate { chain_pem: certificate.pem(), key_pem: Zeroizing::new(key.serialize_pem()) },
        login: LoginTable::default(),
        esp: EspTable::default(),
        workers: WorkersTable::default(),
        mark: Mark::default(),
    }
}

fn name() -> ProfileName {
    "home".parse().unwrap()
}

#[test]
fn profile_survives_encode_and_parse() {
    let mut original = profile("home");
    original.others =
        ["vpn2.example.org:443", "[2001:db8::2]:8443"].map(|text| Place::parse(text, 1).unwrap()).to_vec();
    let text = original.encode().unwrap();
    let read = Profile::parse(name(), &text).unwrap();
    assert_eq!(read.encode().unwrap(), text);
    assert_eq!(read.places()[1..], original.others);
    assert_eq!(read.addresses, original.addresses);
    assert!(matches!(read.identity, Identity::Certificate { .. }));
}

#[test]
fn token_profile_needs_no_certificate_and_defaults_the_port() {
    let text = format!("host = \"h\"\ntoken = \"t\"\nauthority = '''\n{}'''\n", authority_pem());
    let read = Profile::parse(name(), &text).unwrap();
    assert_eq!(read.port, 443);
    assert!(matches!(read.identity, Identity::Token(token) if token.as_str() == "t"));
}

#[test]
fn anyconnect_profile_names_who_vouches_for_the_gateway_and_no_device() {
    let read = |more: &str| {
        let text = format!("host = \"h\"\nprotocol = \"anyconnect\"\nuser = \"alice\"\n{more}");
        Profile::parse(name(), &text).map_err(|error| error.to_string())
    };
    let (authority, pin) = (format!("authority = '''\n{}'''\n", authority_pem()), "ab".repeat(32));
    let pin = format!("pin = \"{pin}\"\n");
    for known_by in ["", &authority, &pin] {
        let profile = read(known_by).unwrap();
        assert!(matches!(profile.identity, Identity::Login) && profile.protocol == GatewayProtocol::AnyConnect);
        let text = profile.encode().unwrap();
        assert_eq!(Profile::parse(name(), &text).unwrap().encode().unwrap(), text);
    }
    assert_eq!(read(&pin).unwrap().pin, Some([0xab; 32]));
    assert!(read("token = \"t\"\n").unwrap_err().contains("users log in"));
    assert!(read(&format!("{authority}{pin}")).unwrap_err().contains("`pin` is for"));
    assert!(read("pin = \"ab\"\n").unwrap_err().contains("64 hexadecimal digits"));
    let of_user = format!("certificate = '''\n{}'''\nkey = \"k\"\n", authority_pem());
    assert!(matches!(read(&of_user).unwrap().identity, Identity::Certificate { .. }));
    assert!(read("key = \"k\"\n").unwrap_err().contains("`key` without `certificate`"));
    let native = Profile::parse(name(), "host = \"h\"\ntoken = \"t\"\n").unwrap_err().to_string();
    assert!(native.contains("`authority` is missing"), "{native}");
}

#[test]
fn ways_of_a_login_survive_encode_and_parse_and_are_for_anyconnect_gateways() {
    let read = |more: &str| {
        let text = format!("host = \"h\"\nprotocol = \"anyconnect\"\n{more}");
        Profile::parse(name(), &text).map_err(|error| error.to_string())
    };
    assert!(!read("").unwrap().encode().unwrap().contains("login"));
    for (path, group, command) in [("/staff", "", ""), ("/", "Staff & guests", "pass vpn"), ("/a/b", "staff", "")] {
        let table = LoginTable {
            path: path.into(),
            group: group.into(),
            credential_command: command.into(),
            browser: group.is_empty(),
        };
        let login = format!("path = \"{path}\"\ngroup = \"{group}\"\ncredential_command = \"{command}\"\n");
        let login = format!("{login}browser = {}\n", group.is_empty());
        let profile = read(&format!("[login]\n{login}")).unwrap();
        assert_eq!(profile.login, table);
        assert_eq!(Profile::parse(name(), &profile.encode().unwrap()).unwrap().login, table);
    }
    for path in ["", "staff", "//elsewhere.test/", "/a b"] {
        let refused = read(&format!("[login]\npath = \"{path}\"\n")).unwrap_err();
        assert!(refused.contains("is no path of a link"), "{path}: {refused}");
    }
    let native = with("[login]\ngroup = \"staff\"\n").unwrap_err().to_string();
    assert!(native.contains("`[login]` is for AnyConnect gateways"), "{native}");
}

#[test]
fn probe_for_portals_survives_encode_and_parse_and_goes_in_clear() {
    let read = |value: &str| with(&format!("captive_probe = \"{value}\"\n")).map_err(|error| error.to_string());
    let site = CaptiveProbe::Site(PageAddress::parse("http://test.example.org/empty").unwrap());
    for (value, probe) in
        [("usual", CaptiveProbe::Usual), ("off", CaptiveProbe::Off), ("http://test.example.org/empty", site)]
    {
        let profile = read(value).unwrap();
        assert_eq!(profile.captive_probe, probe);
        assert_eq!(Profile::parse(name(), &profile.encode().unwrap()).unwrap().captive_probe, probe);
    }
    for value in ["", "on", "https://test.example.org/", "test.example.org"] {
        assert!(read(value).unwrap_err().contains("neither `usual` nor `off`"), "{value}");
    }
}

#[test]
fn token_and_certificate_together_are_refused() {
    let text = format!("{}token = \"t\"\n", profile("home").encode().unwrap().as_str());
    let error = Profile::parse(name(), &text).unwrap_err();
    assert!(error.to_string().contains("`token` excludes"), "{error}");
}

#[test]
fn key_without_certificate_is_refused() {
    let text = format!("host = \"h\"\nkey = \"k\"\nauthority = '''\n{}'''\n", authority_pem());
    assert!(Profile::parse(name(), &text).unwrap_err().to_string().contains("`key` without `certificate`"));
}

#[test]
fn unknown_key_is_named_with_the_nearest_known_one() {
    let text = format!("{}autority = \"x\"\n", profile("home").encode().unwrap().as_str());
    let error = Profile::parse(name(), &text).unwrap_err();
    assert!(matches!(&error, ProfileError::UnknownKey { key, nearest: Some("authority"), .. } if key == "autority"));
}

fn with(tables: &str) -> Result<Profile, ProfileError> {
    Profile::parse(name(), &format!("host = \"h\"\ntoken = \"t\"\nauthority = '''\n{}'''\n{tables}", authority_pem()))
}

#[test]
fn tables_that_say_nothing_new_are_not_written() {
    let original = profile("home");
    let text = original.encode().unwrap();
    assert!(!text.contains("[esp]") && !text.contains("[workers]"), "{}", text.as_str());
    let documented = "[esp]\nenabled = true\nsuites = [\"aes-256-gcm\", \"aes-128-gcm\", \"chacha20-poly1305\"]\n\
        vouched = true\nrekey_after = \"1h\"\nmtu = 1420\n\
        [workers]\nyields = 0\ntun_offload = true\nudp_offload = true\ngso_max_segs = 44\n";
    for defaults in ["", "[esp]\n[workers]\n", documented] {
        let read = with(defaults).unwrap();
        assert_eq!((&read.esp, &read.workers), (&original.esp, &original.workers), "{defaults}");
    }
}

#[test]
fn what_closes_a_host_survives_encode_and_parse() {
    let silent = profile("home").encode().unwrap();
    assert!(["kill_switch", "lan", "full_tunnel"].iter().all(|key| !silent.contains(key)), "{}", silent.as_str());
    let original = Profile { kill_switch: Some(false), lan: LanAccess::Allow, full_tunnel: true, ..profile("home") };
    let read = Profile::parse(name(), &original.encode().unwrap()).unwrap();
    assert_eq!((read.kill_switch, read.lan, read.full_tunnel), (Some(false), LanAccess::Allow, true));
    let error = with("lan = \"perhaps\"\n").unwrap_err().to_string();
    assert!(error.contains("`perhaps`"), "{error}");
}

#[test]
fn tables_survive_encode_and_parse() {
    let tables = "[esp]\nsuites = [\"chacha20-poly1305\"]\nvouched = false\nrekey_after = \"90s\"\nmtu = 8900\n\
        [workers]\nyields = 7\nudp_offload = false\n";
    let read = with(tables).unwrap();
    let settings = read.esp.settings().unwrap();
    assert_eq!(settings.offer.suites, [adit_proto::sealing::suite::Suite::ChaCha20Poly1305]);
    assert!(!settings.offer.vouched && !settings.offer.groups.is_empty());
    assert_eq!(settings.policy.after, std::time::Duration::from_secs(90));
    assert_eq!(
        read.workers,
        WorkersTable {
            settings: adit_net::worker::Settings { yields: 7 },
            udp_offload: false,
            ..WorkersTable::default()
        }
    );
    assert_eq!(read.esp.mtu, 8900);
    let again = Profile::parse(name(), &read.encode().unwrap()).unwrap();
    assert_eq!((again.esp, again.workers), (read.esp, read.workers));
    assert!(with("[esp]\nenabled = false\n").unwrap().esp.settings().is_none());
}

#[test]
fn mark_is_written_only_where_it_is_another() {
    assert!(!profile("home").encode().unwrap().contains("mark"));
    let read = with("mark = \"0x200/0x300\"\n").unwrap();
    assert_eq!(read.mark, Mark { value: 0x200, mask: 0x300 });
    assert_eq!(Profile::parse(name(), &read.encode().unwrap()).unwrap().mark, read.mark);
    let error = with("mark = \"0x10/0x1\"\n").unwrap_err().to_string();
    assert!(error.contains("bits outside its mask"), "{error}");
}

#[test]
fn tables_with_nonsense_are_refused_in_words() {
    for (tables, words) in [
        ("[esp]\nsuites = []\n", "`esp.suites` is empty"),
        ("[esp]\nsuites = [\"rot13\"]\n", "unknown suite `rot13`; known are aes-256-gcm"),
        ("[esp]\nrekey_after = \"999ms\"\n", "between 1s and 24h"),
        ("[esp]\nrekey_after = \"25h\"\n", "between 1s and 24h"),
        ("[esp]\nrekey_after = 60\n", "line"),
        ("[workers]\nyields = 1001\n", "more than 1000"),
        ("[workers]\nyields = -1\n", "line"),
        ("[workers]\ngso_max_segs = 0\n", "between 1 and 65535"),
        ("[esp]\nmtu = 1279\n", "between 1280 and 9216"),
        ("[esp]\nmtu = 9217\n", "between 1280 and 9216"),
        ("esp = true\n", "line"),
    ] {
        let error = with(tables).unwrap_err().to_string();
        assert!(error.contains(words), "{tables}{error}");
    }
}

#[test]
fn unknown_key_of_a_table_is_named_with_its_table() {
    let error = with("[esp]\nsuite = []\n").unwrap_err();
    assert!(
        matches!(&error, ProfileError::UnknownKey { key, nearest: Some("suites"), .. } if key == "esp.suite"),
        "{error}"
    );
    let error = with("[workers]\nthreads_of_all_kinds = 3\n").unwrap_err();
    assert!(matches!(&error, ProfileError::UnknownKey { nearest: None, .. }), "{error}");
}

#[test]
fn syntax_error_names_the_line_and_hides_the_secret_on_it() {
    let error = Profile::parse(name(), "host = \"h\"\ntoken = \"hush-hush\" x\n").unwrap_err().to_string();
    assert!(error.contains("line 2") && !error.contains("hush-hush"), "{error}");
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", profile("home"));
    assert!(!text.contains("PRIVATE") && !text.contains("vpn.example.org"), "{text}");
}
