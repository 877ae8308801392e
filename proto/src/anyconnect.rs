//! The protocol of AnyConnect and OpenConnect clients: TLS on TCP, and a login in XML forms over HTTP/1.1, then
//! frames on the same connection.
//!
//! [`login`] translates between the forms of the gateway's login and the documents of these clients, [`frame`] and
//! [`channel`] are what follows. What stock clients send and take was found out with openconnect 9.01 and 9.21;
//! `draft-mavrogiannopoulos-openconnect` describes the protocol.

pub mod channel;
pub mod form_body;
pub mod frame;
pub mod login;
mod xml;
