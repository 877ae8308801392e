//! Looks at networks whose answers the tests give.

use std::fs;

use adit_program::task::{self, Task};
use adit_testing::eventually;
use adit_testing::namespace::{in_namespace_async, ip};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

pub(crate) const PORTAL: &str = "http://portal.example/in?to=1";

/// Answers everybody who comes to an address with this head; tells what was asked.
pub(crate) async fn answer(address: &str, head: String) -> (SocketAddr, mpsc::Receiver<String>, Task) {
    let listener = TcpListener::bind(address).await.unwrap();
    let (bound, (tell, asked)) = (listener.local_addr().unwrap(), mpsc::channel(8));
    let answering = task::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
            tell.send(String::from_utf8_lossy(&request[..length]).into_owned()).await.unwrap();
        }
    });
    (bound, asked, answering)
}

/// Frees the address of [`answer`].
async fn end((_, _, answering): (SocketAddr, mpsc::Receiver<String>, Task)) {
    answering.abort();
    answering.await.unwrap_err();
}

fn look(probe: CaptiveProbe, addresses: &[&str]) -> Look {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let hosts = ["vpn.example", "gw2.example"].map(str::to_owned).to_vec();
    Look { probe, hosts, addresses, own_way: None, mark: None }
}

async fn found(look: Look) -> Option<String> {
    look.portal_by(Path::new("/nonexistent")).await.map(|page| page.to_string())
}

pub(crate) fn leads_to(page: &str) -> String {
    format!("302 Found\r\nLocation: {page}")
}

#[tokio::test]
async fn site_that_is_not_reached_is_behind_a_portal() {
    for (head, expected) in [
        ("204 No Content".to_owned(), None),
        (leads_to(PORTAL), Some(PORTAL.to_owned())),
        (leads_to("javascript:alert(1)"), Some("this site".to_owned())),
        ("200 OK".to_owned(), Some("this site".to_owned())),
    ] {
        let (address, mut asked, _answering) = answer("127.0.0.1:0", head.clone()).await;
        let site = format!("http://{address}/empty?a=1");
        let page = found(look(CaptiveProbe::Site(PageAddress::parse(&site).unwrap()), &[])).await;
        assert_eq!(page, expected.map(|page| page.replace("this site", &site)), "{head}");
        let asked = asked.recv().await.unwrap().to_lowercase();
        let (line, host) = ("get /empty?a=1 http/1.1\r\n", format!("\r\nhost: {address}\r\n"));
        assert!(asked.starts_with(line) && asked.contains(&host), "{asked}");
    }
}

#[test]
fn gateways_host_is_no_portal_but_who_leads_elsewhere_or_answers_for_nobody_is() {
    in_namespace_async(|| async {
        ip("link set lo up");
        let gateway = ["192.0.2.1:443"];
        let look = |probe| look(probe, &gateway);
        assert_eq!(found(look(CaptiveProbe::Usual)).await, None, "nobody answers");
        for address in ["192.0.2.1/32", "203.0.113.80/32"] {
            ip(&format!("address add {address} dev lo"));
        }
        for own in ["https://vpn.example/", "https://gw2.example/", "https://192.0.2.1/"] {
            let server = answer("192.0.2.1:80", leads_to(own)).await;
            assert_eq!(found(look(CaptiveProbe::Usual)).await, None, "its own web server leads to {own}");
            end(server).await;
        }
        let caught = answer("192.0.2.1:80", leads_to(PORTAL)).await;
        assert_eq!(found(look(CaptiveProbe::Usual)).await.as_deref(), Some(PORTAL));
        assert_eq!(found(look(CaptiveProbe::Off)).await, None, "nobody is asked");
        end(caught).await;
        let proxy = answer("203.0.113.80:80", "504 Gateway Timeout".to_owned()).await;
        assert_eq!(found(look(CaptiveProbe::Usual)).await, None, "a proxy reaches nobody either");
        end(proxy).await;
        let _nobody = answer("203.0.113.80:80", "200 OK".to_owned()).await;
        assert_eq!(found(look(CaptiveProbe::Usual)).await.as_deref(), Some("http://203.0.113.80/"));
    });
}

#[tokio::test]
async fn who_takes_connections_and_says_nothing_holds_up_no_look() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}/", silent.local_addr().unwrap());
    let look = look(CaptiveProbe::Site(PageAddress::parse(&site).unwrap()), &[]);
    let page = timeout(adit_testing::PATIENCE, found(look)).await.expect("a look ends by itself");
    assert_eq!(page, None);
}

#[test]
fn networks_tell_of_their_apis_by_encrypted_addresses_alone() {
    let links = tempfile::tempdir().unwrap();
    fs::write(links.path().join("2"), "ADMIN_STATE=configured\nCAPTIVE_PORTAL=https://p.example/api\nDNS=\n").unwrap();
    fs::write(links.path().join("3"), "CAPTIVE_PORTAL=http://p.example/clear\n").unwrap();
    fs::write(links.path().join("4"), "CAPTIVE_PORTAL=urn:ietf:params:capport:unrestricted\n").unwrap();
    fs::write(links.path().join("5"), b"CAPTIVE_PORTAL=https://q.example/\xff\n").unwrap();
    let apis: Vec<String> = network::apis(links.path()).iter().map(PageAddress::to_string).collect();
    assert_eq!(apis, ["https://p.example/api"]);
    assert!(network::apis(Path::new("/nonexistent")).is_empty());
}

#[test]
fn api_is_asked_elsewhere_and_at_no_address_of_this_host_or_its_links() {
    in_namespace_async(|| async {
        ip("link set lo up");
        ip("link add eth0 type veth peer name router0");
        ip("address add 192.0.2.9/24 dev eth0");
        ip("address add 2001:db8::9/64 dev eth0 nodad");
        ip("link set router0 up");
        ip("link set eth0 up");
        let may_be_asked = |host: &str| network::may_be_asked(SocketAddr::new(host.parse().unwrap(), 443), None);
        for host in ["192.0.2.1", "192.0.2.10", "2001:db8::1", "::ffff:192.0.2.1"] {
            eventually(host, || may_be_asked(host).then_some(()));
        }
        let refused =
            ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "192.0.2.9", "2001:db8::9", "::ffff:192.0.2.9"];
        for host in refused.into_iter().chain(["0.0.0.0", "::", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1"]) {
            assert!(!may_be_asked(host), "{host}");
        }

        let service = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = service.local_addr().unwrap().port();
        let links = tempfile::tempdir().unwrap();
        for (link, host) in ["127.0.0.1", "192.0.2.9", "localhost"].iter().enumerate() {
            let told = format!("CAPTIVE_PORTAL=https://{host}:{port}/api\n");
            fs::write(links.path().join(link.to_string()), told).unwrap();
        }
        assert_eq!(look(CaptiveProbe::Usual, &[]).portal_by(links.path()).await, None);
        // The control: whoever comes is let in, and nobody came before.
        let control = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (_, first) = service.accept().await.unwrap();
        assert_eq!(first, control.local_addr().unwrap(), "the look came to a service of this host");
    });
}
