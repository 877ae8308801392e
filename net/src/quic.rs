//! QUIC endpoints for both sides, with the limits of a gateway that faces strangers.

mod initial;
mod knocking;
mod unmarked;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{hkdf, hmac};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, Runtime as _,
    ServerConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use zeroize::ZeroizeOnDrop;

use crate::udp;
use initial::DeafToInitials;
use unmarked::Unmarked;

pub use knocking::came_up;

/// The only QUIC version we speak: 1 (RFC 9000).
const VERSIONS: [u32; 1] = [1];

/// Smallest UDP payload a path must carry, so that packets of 1280 bytes fit a datagram frame (RFC 9484 section 7.2.1:
/// 1331 bytes).
pub const MIN_UDP_PAYLOAD: u16 = 1331;
/// UDP payload that is tried at once; discovery raises it.
const INITIAL_UDP_PAYLOAD: u16 = 1350;
/// UDP payload that every path of QUIC carries (RFC 9000 section 14).
const LEAST_UDP_PAYLOAD: u16 = 1200;
/// Largest UDP payload discovery looks for: an IPv4 path of 1500 bytes.
const LARGEST_UDP_PAYLOAD: u16 = 1472;

/// Silence after which a connection is given up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// When a client pings after nothing has come: keeps NAT bindings alive, which may be lost after 30 s (RFC 9000 section
/// 10.1.2). It is most of what idle clients cost their gateway, and themselves: each ping wakes a radio.
pub const KEEP_ALIVE: Duration = Duration::from_secs(28);

/// Datagrams that wait in a connection to be sent, in bytes: enough for the few batches its driver sends at once. More
/// wait in front of it (`carrier::quic`).
const DATAGRAM_SEND_BUFFER: usize = 64 * 1024;
/// Received datagrams that wait to be read, in bytes; the oldest give way. The driver may bring many before the reader
/// has its turn, so this is what one fast stream delivers meanwhile.
const DATAGRAM_RECEIVE_BUFFER: usize = 1024 * 1024;
/// Flow-control windows, in bytes. Streams carry only requests and capsules.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Streams a peer may have open: its control and QPACK streams and a little grease; one session and an enrolment or
/// renewal.
const UNI_STREAMS: u32 = 8;
const BIDI_STREAMS: u32 = 4;

/// Handshakes in progress at a gateway, and what they may buffer.
const MAX_INCOMING: usize = 2048;
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFER_TOTAL: u64 = 16 * 1024 * 1024;

/// The gateway's long-lived QUIC secrets. Kept over restarts, so that a restarted gateway can tell its clients at once.
#[derive(ZeroizeOnDrop)]
pub struct EndpointKeys {
    /// Signs stateless reset tokens (RFC 9000 section 10.3).
    pub reset: [u8; 32],
    /// Seals Retry tokens (RFC 9000 section 8.1).
    pub token: [u8; 32],
    /// Marks connection IDs as ours.
    pub connection_id: u64,
}

/// Opens the gateway's endpoint on a bound socket.
///
/// # Errors
/// What the socket refuses; `InvalidInput` if `tls` has no TLS 1.3 suite QUIC can use.
pub fn server_endpoint(socket: UdpSocket, tls: Arc<rustls::ServerConfig>, keys: &EndpointKeys) -> io::Result<Endpoint> {
    let mut config = endpoint_config(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &keys.reset)));
    let connection_id_key = keys.connection_id;
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));

    let crypto = QuicServerConfig::try_from(tls).map_err(no_suite)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .token_key(Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, b"adit quic token").extract(&keys.token)))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL)
        .transport_config(Arc::new(transport()));
    open(config, Some(server), socket)
}

/// Opens a client's endpoint on a bound socket; [`client_config`] makes what it connects with.
///
/// # Errors
/// What the socket refuses, or a system without randomness.
pub fn client_endpoint(socket: UdpSocket) -> io::Result<Endpoint> {
    open(client_endpoint_config()?, None, socket)
}

/// As [`client_endpoint`], for a path that may be too narrow for a tunnel: gateways send it the least datagrams.
///
/// # Errors
/// As [`client_endpoint`].
pub fn narrow_client_endpoint(socket: UdpSocket) -> io::Result<Endpoint> {
    let mut config = client_endpoint_config()?;
    config.max_udp_payload_size(LEAST_UDP_PAYLOAD).expect("it is what QUIC allows");
    open(config, None, socket)
}

/// Makes the QUIC settings of a client from its TLS settings.
///
/// # Errors
/// `InvalidInput` if `tls` has no TLS 1.3 suite QUIC can use.
pub fn client_config(tls: Arc<rustls::ClientConfig>) -> io::Result<ClientConfig> {
    client_config_with(tls, transport())
}

/// As [`client_config`], for a [`narrow_client_endpoint`]: begins with the least datagrams.
///
/// # Errors
/// As [`client_config`].
pub fn narrow_client_config(tls: Arc<rustls::ClientConfig>) -> io::Result<ClientConfig> {
    let mut transport = transport();
    transport.min_mtu(LEAST_UDP_PAYLOAD).initial_mtu(LEAST_UDP_PAYLOAD);
    client_config_with(tls, transport)
}

fn client_config_with(tls: Arc<rustls::ClientConfig>, mut transport: TransportConfig) -> io::Result<ClientConfig> {
    let crypto = QuicClientConfig::try_from(tls).map_err(no_suite)?;
    let mut client = ClientConfig::new(Arc::new(DeafToInitials(Arc::new(crypto))));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    client.transport_config(Arc::new(transport));
    Ok(client)
}

/// Binds a UDP socket with large buffers; `mark` sets SO_MARK, so that policy routing can tell it apart.
///
/// An IPv6 wildcard address takes IPv4 as well.
///
/// # Errors
/// What the system refuses.
pub fn bind(address: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let socket = udp::open(address, mark)?;
    udp::size_buffers(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn open(config: EndpointConfig, server: Option<ServerConfig>, socket: UdpSocket) -> io::Result<Endpoint> {
    let runtime = Arc::new(quinn::TokioRuntime);
    let socket = Arc::new(Unmarked(runtime.wrap_udp_socket(socket)?));
    Endpoint::new_with_abstract_socket(config, server, socket, runtime)
}

fn client_endpoint_config() -> io::Result<EndpointConfig> {
    let mut reset_key = [0; 32];
    aws_lc_rs::rand::fill(&mut reset_key).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(endpoint_config(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset_key))))
}

fn endpoint_config(reset_key: Arc<hmac::Key>) -> EndpointConfig {
    let mut config = EndpointConfig::new(reset_key);
    // Datagrams with the QUIC bit clear belong to ESP on the same port (RFC 9443).
    config.grease_quic_bit(false).supported_versions(VERSIONS.to_vec()).min_reset_interval(Duration::from_micros(200));
    config
}

fn transport() -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(LARGEST_UDP_PAYLOAD);
    let mut ack_frequency = AckFrequencyConfig::default();
    ack_frequency.ack_eliciting_threshold(VarInt::from_u32(10));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).expect("60 s fits a varint of milliseconds")))
        .initial_mtu(INITIAL_UDP_PAYLOAD)
        .min_mtu(MIN_UDP_PAYLOAD)
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(ack_frequency))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER);
    transport
}

fn no_suite(error: NoInitialCipherSuite) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
