//! The protocol of AnyConnect and OpenConnect clients: TLS on TCP, a login in XML forms over HTTP/1.1, then a CONNECT
//! after which the same connection carries packets.
//!
//! [`login`] translates between the forms of the gateway's login and the documents of these clients; [`form`] is what a
//! client makes of such documents, and [`link`] of where they lead. [`tunnel`] is the CONNECT and its answer, from both
//! ends, and [`frame`] and [`channel`] are what follows on the stream. What stock clients and gateways send and take
//! was found out with openconnect 9.01 and 9.21 and ocserv 1.1.6; `draft-mavrogiannopoulos-openconnect` describes the
//! protocol.
//!
//! A login in a browser of the client's own host ends with a token for the client alone ([`external_browser`]).
//!
//! Packets may also travel beside the stream, in records of DTLS ([`record`]). [`record_path`] decides that at the
//! client, and [`datagrams`] follows it at the gateway.

pub mod channel;
pub mod cookie;
pub mod datagrams;
pub mod external_browser;
pub mod form;
pub mod form_body;
pub mod frame;
pub mod link;
pub mod login;
pub mod record;
pub mod record_path;
pub mod tunnel;
mod xml;

/// Longest cookie that a client has a use for, in bytes: a session token, or the handle of a login.
pub const MAX_COOKIE: usize = 8 * 1024;
