//! Looks whether the network keeps this host from its gateway by a captive portal.
//!
//! Nobody is asked who could make anything of it: the network's own API, if it told of one (RFC 8910), the gateway's
//! host in clear, and addresses that nobody has. Who shows a page there is a portal. The sockets bear the mark of the
//! client's outer sockets, so that a closed host lets them out.

mod network;

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_net::carrier::stream::open;
use adit_net::http::h1;
use adit_proto::captive_portal::{Asked, MAX_API_ANSWER, PageAddress, UserStanding, portal_of, user_standing};
use adit_proto::http::field::{self, Field};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::own_question::LocalResolvers;

/// How long a look takes at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most addresses of the gateway, or of a site, that are asked.
const MOST_ASKED: usize = 4;
/// Most APIs that are asked: a host is in no more networks at a time that have one.
const MOST_APIS: usize = 4;
/// Addresses that nobody has, since they are kept for documentation (RFC 5737, RFC 3849).
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xcafe, 0, 0, 0, 0, 0x80))];

/// What people are told of a portal.
pub(crate) fn in_words(page: impl Display) -> String {
    format!("this network has a captive portal: {page}")
}

/// Whom a client asks for a page in clear, to see whether a portal answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CaptiveProbe {
    /// The gateway's host, and addresses that nobody has.
    #[default]
    Usual,
    /// Nobody, and no API either.
    Off,
    /// This site, which answers with status 204.
    Site(PageAddress),
}

impl CaptiveProbe {
    /// As a profile says it; `None` if it says nothing new.
    pub(crate) fn written(&self) -> Option<&str> {
        match self {
            Self::Usual => None,
            Self::Off => Some("off"),
            Self::Site(page) => Some(page.as_str()),
        }
    }
}

/// One look at the network.
pub(crate) struct Look {
    pub(crate) probe: CaptiveProbe,
    /// Names and addresses of the gateway, of which there is at least one; the first is asked for.
    pub(crate) hosts: Vec<String>,
    /// Its addresses, best first.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whom to ask for names, and the mark of the questions, where the host's own resolver may not get out.
    pub(crate) own_way: Option<(LocalResolvers, u32)>,
    /// Mark of the sockets.
    pub(crate) mark: Option<u32>,
}

/// A request in clear.
struct PlainRequest {
    asked: Asked,
    page: PageAddress,
    /// Other names and addresses of who is asked.
    own: Arc<[String]>,
    address: SocketAddr,
}

impl Look {
    /// The page of the network's portal, if it has one that holds this host up.
    pub(crate) async fn portal(self) -> Option<PageAddress> {
        self.portal_by(Path::new(network::LINKS)).await
    }

    async fn portal_by(self, links: &Path) -> Option<PageAddress> {
        if self.probe == CaptiveProbe::Off || self.is_on_this_host() {
            return None;
        }
        let (told, shown) = tokio::join!(timeout(PATIENCE, self.told(links)), timeout(PATIENCE, self.shown()));
        let shown = shown.ok().flatten();
        match told {
            // A portal shows its page to whoever asks for any.
            Ok(Some(UserStanding::Captive(page))) => page.or(shown).or_else(|| page_of(NOBODY[0])),
            Ok(Some(UserStanding::Open) | None) | Err(_) => shown,
        }
    }

    /// Whether no network is between this host and its gateway.
    fn is_on_this_host(&self) -> bool {
        !self.addresses.is_empty() && self.addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
    }

    /// How this host stands as the network's own API tells; the first that says it is captive counts.
    async fn told(&self, links: &Path) -> Option<UserStanding> {
        let mut told = None;
        for api in network::apis(links).into_iter().take(MOST_APIS) {
            let answer = self.ask_api(&api).await;
            if matches!(answer, Some(UserStanding::Captive(_))) {
                return answer;
            }
            told = told.or(answer);
        }
        told
    }

    /// What an API answers; nothing where it is not who its certificate says, or at no address that may be asked.
    async fn ask_api(&self, api: &PageAddress) -> Option<UserStanding> {
        let tls = network::tls()?;
        for address in self.addresses_of(api).await {
            if !network::may_be_asked(address, self.mark) {
                continue;
            }
            let Ok(socket) = open(address, self.mark).await else { continue };
            let Ok(stream) = h1::connect(socket, Arc::clone(&tls), api.host()).await else { continue };
            let mut head = head(api);
            head.push(Field::new("accept", "application/captive+json"));
            // One more than is read tells that there was more.
            let Ok(reply) = h1::get(stream, api.path(), head, MAX_API_ANSWER + 1).await else { continue };
            return Some(reply).filter(|reply| reply.status == 200).and_then(|reply| user_standing(&reply.body));
        }
        None
    }

    /// The portal that answers in clear.
    async fn shown(&self) -> Option<PageAddress> {
        let mut asking = JoinSet::new();
        for probe in self.probes().await {
            let mark = self.mark;
            asking.spawn(async move { probe.ask(mark).await });
        }
        while let Some(asked) = asking.join_next().await {
            if let Ok(Some(page)) = asked {
                return Some(page);
            }
        }
        None
    }

    async fn probes(&self) -> Vec<PlainRequest> {
        match &self.probe {
            CaptiveProbe::Off => Vec::new(),
            CaptiveProbe::Site(page) => {
                let addresses = self.addresses_of(page).await;
                let own: Arc<[String]> = Arc::default();
                let probe = |address| PlainRequest {
                    asked: Asked::TestSite,
                    page: page.clone(),
                    own: Arc::clone(&own),
                    address,
                };
                addresses.into_iter().map(probe).collect()
            }
            CaptiveProbe::Usual => {
                let addresses = self.addresses.iter().map(|address| address.ip().to_string());
                let own: Arc<[String]> = self.hosts.iter().cloned().chain(addresses).collect();
                let request = |asked, page: Option<PageAddress>, address: IpAddr| {
                    let (page, own) = (page?, Arc::clone(&own));
                    Some(PlainRequest { asked, address: SocketAddr::new(address, page.port()), page, own })
                };
                let first_page = || PageAddress::first_of(self.hosts.first()?);
                let addresses = self.addresses.iter().take(MOST_ASKED);
                let gateway = addresses.map(|address| request(Asked::Somebody, first_page(), address.ip()));
                let nobody = NOBODY.into_iter().map(|address| request(Asked::Nobody, page_of(address), address));
                gateway.chain(nobody).flatten().collect()
            }
        }
    }

    /// The addresses of a page's host, with its port.
    async fn addresses_of(&self, page: &PageAddress) -> Vec<SocketAddr> {
        let found = match page.host().parse() {
            Ok(address) => vec![address],
            Err(_) => network::resolve(page.host(), self.own_way.as_ref()).await,
        };
        found.into_iter().take(MOST_ASKED).map(|address| SocketAddr::new(address, page.port())).collect()
    }
}

impl PlainRequest {
    async fn ask(self, mark: Option<u32>) -> Option<PageAddress> {
        let stream = open(self.address, mark).await.ok()?;
        let reply = h1::get(stream, self.page.path(), head(&self.page), 0).await.ok()?;
        let location = field::value(&reply.fields, "location");
        portal_of(self.asked, &self.page, &self.own, reply.status, location)
    }
}

fn page_of(address: IpAddr) -> Option<PageAddress> {
    PageAddress::first_of(&address.to_string())
}

/// The fields of a request for a page.
fn head(page: &PageAddress) -> Vec<Field> {
    vec![
        Field::new("host", page.authority()),
        Field::new("cache-control", "no-cache"),
        Field::new("connection", "close"),
    ]
}

#[cfg(test)]
pub(crate) mod tests;
