//! HTTP as a CONNECT-IP gateway and client need it.
//!
//! [`field`] and [`fault`] hold for every version of HTTP and are all that the rest of this crate knows of it; [`h3`]
//! is HTTP/3, and [`h1`] what tunnels are in HTTP/1.1.

pub mod fault;
pub mod field;
pub mod h1;
pub mod h3;
