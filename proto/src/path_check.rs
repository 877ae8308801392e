//! Measures a path to a QUIC server before any handshake, with datagrams that every such server answers.

pub mod version_question;
pub mod width;
