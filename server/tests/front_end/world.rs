//! A gateway's core and front-end on loopback, in a network namespace of the test's own, and clients that talk to it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use adit_host::{HostError, LinkSettings, Netlink};
use adit_net::carrier::Origin;
use adit_net::carrier::esp::EspSettings;
use adit_net::http::StreamError;
use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_net::quic::{self, EndpointKeys};
use adit_net::tls::{self, ServerIdentity};
use adit_net::tun::Tun;
use adit_net::udp::bind_group;
use adit_net::worker::{self, DataPlane, Installation, Workers, WorkersHandle};
use adit_program::task::{self, Task};
use adit_proto::address_pool::Lease;
use adit_proto::connect_ip::client::{Client, ClientConfig};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::enrollment::EnrollRequest;
use adit_proto::esp::spi::Spi;
use adit_proto::http::field::{Field, status, value};
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::role::Role;
use adit_server::accounts::sqlite::Store;
use adit_server::accounts::{Accounts, Device, UserName};
use adit_server::admin::GatewayView;
use adit_server::config::{
    AcmeConfig, AnyConnectConfig, Config, DnsConfig, EspConfig, Limits, LoginConfig, OidcConfig, Pools, PublicAddress,
    SecondFactor, SourceName, TlsConfig, TunConfig, WorkersConfig,
};
use adit_server::core::Core;
use adit_server::core::grant::Terms;
use adit_server::core::leases::{Flows, restore_pool};
use adit_server::core::local::LocalCore;
use adit_server::core::router::Router;
use adit_server::core::sessions::{Session, SessionTable};
use adit_server::directories::{RuntimeDir, StateDir};
use adit_server::enroll::Enrollment;
use adit_server::front_ends::connect_ip::FrontEnd;
use adit_server::identity::Authority;
use adit_server::sources::ldap::settings::LdapSettings;
use adit_server::sources::radius::settings::RadiusSettings;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Name of the gateway in its certificate.
pub(crate) const HOST: &str = "gw.example";
/// Longest wait for what should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) core: Arc<LocalCore>,
    pub(crate) gateway: GatewayView,
    pub(crate) store: Arc<Store>,
    pub(crate) sessions: Arc<SessionTable>,
    pub(crate) plane: Arc<Watched>,
    authority: Arc<Authority>,
    enrollment: Arc<Enrollment>,
    address: SocketAddr,
    directory: tempfile::TempDir,
    _serving: Task,
    _workers: Workers<Session>,
}

/// The gateway's workers, and which SAs they receive on.
pub(crate) struct Watched {
    workers: Arc<WorkersHandle<Session>>,
    installed: Mutex<HashSet<Spi>>,
}

impl Watched {
    pub(crate) fn installed(&self) -> HashSet<Spi> {
        self.installed.lock().unwrap().clone()
    }
}

impl DataPlane<Session> for Watched {
    fn claim_spi(&self, beside: Option<Spi>) -> Option<Spi> {
        self.workers.claim_spi(beside)
    }

    fn install(&self, installation: Installation<Session>) {
        self.installed.lock().unwrap().insert(installation.sa.spi());
        self.workers.install(installation);
    }

    fn retire(&self, spi: Spi) {
        self.installed.lock().unwrap().remove(&spi);
        self.workers.retire(spi);
    }

    fn origin(&self, to: SocketAddr) -> Origin {
        self.workers.origin(to)
    }

    fn send(&self, origin: Origin, to: SocketAddr, datagram: &[u8], ecn: u8) -> io::Result<()> {
        self.workers.send(origin, to, datagram, ecn)
    }
}

fn config(directory: &std::path::Path) -> Config {
    Config {
        tls: TlsConfig::default(),
        acme: AcmeConfig::default(),
        anyconnect: AnyConnectConfig::default(),
        path: directory.join("server.toml"),
        public: vec![PublicAddress { host: HOST.to_owned(), port: 443 }],
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        listen_tcp: false,
        tun: TunConfig { name: "adit0".to_owned(), mtu: 1400 },
        pool: Pools { v4: "10.77.0.0/24".parse().ok(), v6: "fd77::/64".parse().ok() },
        routes: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        dns: DnsConfig { servers: Vec::new(), domains: Vec::new() },
        client_to_client: false,
        local_services: Vec::new(),
        masquerade: true,
        limits: Limits { sessions: 100, pending_sessions: 100, connections_per_client: 100, devices_per_user: 100 },
        login: LoginConfig {
            sources: vec![SourceName::Local],
            session_lifetime: Duration::from_secs(3600),
            recheck: Duration::from_secs(3600),
            second_factor: SecondFactor::Device,
            banner: None,
        },
        oidc: OidcConfig::default(),
        radius: RadiusSettings::default(),
        ldap: LdapSettings::default(),
        esp: EspConfig { enabled: true, permitted: EspSettings::default() },
        workers: WorkersConfig {
            count: 2,
            settings: worker::Settings { yields: 20 },
            tun_offload: true,
            udp_offload: true,
            quic_threads: 0,
        },
        lease_cooldown: Duration::from_secs(120),
        invite_lifetime: Duration::from_secs(60),
        certificate_lifetime: Duration::from_secs(3600),
        certificate_renewal: true,
        log: "info".to_owned(),
        policy: None,
        state_dir: StateDir::new(directory),
        runtime_dir: RuntimeDir::new(directory),
    }
}

/// A host that tracks no connection.
struct NoFlows;

impl Flows for NoFlows {
    fn end(&self, _addresses: Lease) -> Result<(), HostError> {
        Ok(())
    }

    fn addresses(&self) -> Result<HashSet<IpAddr>, HostError> {
        Ok(HashSet::new())
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Makes a gateway whose configuration `change` has changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Netlink::open()
            .unwrap()
            .set_link("lo", LinkSettings { up: Some(true), ..LinkSettings::default() })
            .await
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        change(&mut config);
        let now = SystemTime::now();
        let authority = Arc::new(Authority::create(&config.state_dir, now).unwrap());
        let store = Arc::new(Store::create(&config.state_dir.store()).unwrap());
        let pool = restore_pool(&config, store.leases().unwrap(), Instant::now());
        let own = pool.gateway();
        let sessions = Arc::new(SessionTable::default());
        let tun = Tun::create("adit0", config.workers.threads(), true).unwrap();
        let router = Arc::new(Router::new(tun, Arc::clone(&sessions)));
        let group = bind_group(config.listen[0], config.workers.threads(), true).unwrap();
        let sockets = group.esp.into_iter().map(|socket| vec![Arc::new(socket)]).collect();
        let workers = Workers::start(&router, router.queues(), sockets, config.workers.settings).unwrap();
        let plane = Arc::new(Watched { workers: Arc::clone(workers.handle()), installed: Mutex::default() });
        let issued = authority.issue_server(&config.certificate_names(), now).unwrap();
        let identity = Arc::new(ServerIdentity::new(issued.chain, issued.key).unwrap());
        let tls = tls::server_config(identity, &authority.certificate()).unwrap();
        let keys = EndpointKeys { reset: [1; 32], token: [2; 32], connection_id: 3 };
        let endpoint = quic::server_endpoint(group.main, tls, &keys).unwrap();
        let address = endpoint.local_addr().unwrap();
        let listen = vec![address];
        let accounts: Arc<dyn Accounts> = Arc::<Store>::clone(&store);
        let (terms, limit) = (Terms::of(&config, own), config.limits.sessions);
        let core = Arc::new(LocalCore::new(accounts, Arc::new(NoFlows), pool, terms, limit, Arc::clone(&sessions)));
        let gateway = GatewayView::new(Arc::clone(&core), Arc::clone(&router), listen, tokio::sync::mpsc::channel(1).0);
        let enrollment =
            Arc::new(Enrollment::new(Arc::clone(&store), Arc::clone(&authority), config.certificate_lifetime));
        let front_end = FrontEnd::new(
            Arc::<LocalCore>::clone(&core) as Arc<dyn Core>,
            router,
            Arc::clone(&enrollment),
            &config,
            Arc::<Watched>::clone(&plane),
        );
        let serving = task::spawn(Arc::new(front_end).serve(endpoint));
        Self {
            core,
            gateway,
            store,
            sessions,
            plane,
            authority,
            enrollment,
            address,
            directory,
            _serving: serving,
            _workers: workers,
        }
    }

    /// Enrols a device of a user.
    pub(crate) fn enroll(&self, user: &str) -> Certificate {
        self.enroll_at(user, SystemTime::now())
    }

    /// Enrols a device when the clock says so.
    pub(crate) fn enroll_at(&self, user: &str, now: SystemTime) -> Certificate {
        let code = self.store.invite(&UserName::parse(user).unwrap(), Duration::from_secs(60), now).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let request = EnrollRequest {
            code: Some(data_encoding::BASE64URL_NOPAD.encode(&code)),
            login: None,
            csr,
            device_name: "laptop".to_owned(),
        };
        let enrolled = self.enrollment.enroll(&request, now);
        let certificate = CertificateDer::from_pem_slice(enrolled.unwrap().certificate.as_bytes()).unwrap();
        (vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// A certificate of the gateway's authority without the name of a device.
    pub(crate) fn nameless_certificate(&self) -> Certificate {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).unwrap();
        let authority_key = KeyPair::from_pem(&read("authority.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("authority.pem"), authority_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["device.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (vec![certificate.into()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// A bearer token of a user, and its device.
    pub(crate) fn token(&self, user: &str) -> (Device, String) {
        self.store.token(&UserName::parse(user).unwrap(), SystemTime::now()).unwrap()
    }

    pub(crate) async fn connect(&self, certificate: Option<Certificate>) -> H3Connection {
        self.connect_with(certificate, |_| {}).await
    }

    /// Connects with transport settings that `change` has changed.
    pub(crate) async fn connect_with(
        &self,
        certificate: Option<Certificate>,
        change: impl FnOnce(&mut quinn::TransportConfig),
    ) -> H3Connection {
        let tls = tls::client_config(&self.authority.certificate(), certificate).unwrap();
        let mut transport = quinn::TransportConfig::default();
        transport.initial_mtu(1350);
        change(&mut transport);
        let mut config = quic::client_config(tls).unwrap();
        config.transport_config(Arc::new(transport));
        let socket = quic::bind((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
        let endpoint = quic::client_endpoint(socket).unwrap();
        let quic = endpoint.connect_with(config, self.address, HOST).unwrap().await.unwrap();
        H3Connection::start(quic, Role::Client)
    }
}

/// What a gateway answered to a request for a tunnel.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: Option<String>,
    /// Keeps the tunnel open.
    pub(crate) stream: TunnelStream,
}

/// Asks for a tunnel.
pub(crate) async fn tunnel(http: &H3Connection, bearer: Option<&str>) -> Result<Answer, StreamError> {
    tunnel_at(http, FULL_TUNNEL_PATH, bearer).await
}

/// Asks for a tunnel at another path.
pub(crate) async fn tunnel_at(http: &H3Connection, path: &str, bearer: Option<&str>) -> Result<Answer, StreamError> {
    let mut stream = ask(http, path, bearer).await?;
    match stream.next_event().await? {
        Some(MessageEvent::Headers(fields)) => Ok(Answer {
            status: status(&fields).unwrap(),
            reason: value(&fields, "adit-reason").map(str::to_owned),
            stream,
        }),
        other => panic!("unexpected {other:?}"),
    }
}

/// Sends a request for a tunnel and does not wait for the answer.
pub(crate) async fn ask(http: &H3Connection, path: &str, bearer: Option<&str>) -> Result<TunnelStream, StreamError> {
    http.peer_settings().await?;
    let mut stream = TunnelStream::from(http.open_request().await?);
    stream.expect_tunnel();
    stream.send_headers(&request(path, bearer)).await?;
    Ok(stream)
}

fn request(path: &str, bearer: Option<&str>) -> Vec<Field> {
    let config = ClientConfig {
        authority: HOST.to_owned(),
        path: path.to_owned(),
        bearer: bearer.map(str::to_owned),
        wants_dns: true,
        login: None,
        esp: None,
    };
    Client::new(config).request()
}

/// Waits until `probe` holds.
pub(crate) async fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !probe() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
