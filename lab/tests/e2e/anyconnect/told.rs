//! What a client is told of its session, as it tells the script that sets its host up.

use super::*;

/// More of IPv6 than of IPv4: clients keep three.
const RESOLVERS: [&str; 3] = ["fd00:1::53", "fd00:1::54", "10.1.0.53"];
const DOMAIN: &str = "corp.example";
const ROUTES: [&str; 2] = ["10.1.0.0/16", "fd00:1::/48"];

#[test]
fn client_hears_of_addresses_resolvers_domains_and_routes() {
    let (resolvers, routes) = (RESOLVERS.join(","), ROUTES.join(","));
    let settings = [("dns.servers", resolvers.as_str()), ("dns.domains", DOMAIN), ("routes", &routes)];
    let Some(tunnel) = start_many(&[Version::Own, Version::Newest], &settings) else { return };
    for client in [0, 1] {
        let folder = tunnel.clients[client].host().folder();
        let (script, file) = (folder.join("tell"), folder.join("told"));
        let writes =
            format!("#!/bin/sh\n[ $reason = connect ] || exit 0\nenv >{0}.new && mv {0}.new {0}\n", file.display());
        fs::write(&script, writes).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let arguments = ["--user", "alice", "--passwd-on-stdin", "--script", script.to_str().unwrap()];
        let (_stranger, session) = up_at(&tunnel, client, &arguments, &format!("{PASSWORD}\n"));
        let told = eventually("the script is called", || fs::read_to_string(&file).ok());
        let value = |name: &str| {
            told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_else(|| panic!("{told}"))
        };
        let addresses = [value("INTERNAL_IP4_ADDRESS"), value("INTERNAL_IP6_ADDRESS")];
        assert!(session.addresses.iter().all(|own| addresses.contains(&own.to_string().as_str())), "{told}");
        assert_eq!(value("INTERNAL_IP4_DNS").split(' ').collect::<Vec<_>>(), RESOLVERS);
        assert_eq!(value("CISCO_SPLIT_DNS"), DOMAIN);
        for (family, route) in ["CISCO_SPLIT_INC", "CISCO_IPV6_SPLIT_INC"].into_iter().zip(ROUTES) {
            let number: usize = value(family).parse().unwrap();
            let said =
                |number| [value(&format!("{family}_{number}_ADDR")), value(&format!("{family}_{number}_MASKLEN"))];
            assert!((0..number).any(|number| said(number).join("/") == route), "{route}: {told}");
        }
        assert_eq!(value("INTERNAL_IP4_MTU").parse(), Ok(tunnel.session_of(session.addresses[0]).unwrap().mtu));
    }
}
