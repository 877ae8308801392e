//! Wire formats, state machines and packet logic of Adit.
//!
//! This crate is pure: it opens no socket, reads no file, starts no thread and knows no clock. Time, packets, seeds and
//! limits come in as arguments.
//!
//! State machines share one set of verbs. `handle_…(input, now)` pushes input in; `poll_transmit()`, `poll_event()` and
//! `poll_timeout()` pull results out. After any `handle_…`, drain every `poll_…`, then sleep until `poll_timeout`.

#![forbid(unsafe_code)]

pub mod address_pool;
pub mod anyconnect;
pub mod capsule;
pub mod captive_portal;
pub mod carrier_choice;
pub mod connect_ip;
pub mod datagram;
pub mod dns;
pub mod drop_reason;
pub mod dtls;
pub mod enrollment;
pub mod esp;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod invite;
pub mod login;
pub mod mark;
pub mod nat64;
pub mod offload;
pub mod openvpn;
pub mod packet;
pub mod path_check;
pub mod policy;
pub mod queue;
pub mod radius;
pub mod range;
pub mod restart;
pub mod role;
pub mod route_table;
pub mod sealing;
pub mod varint;
pub mod waking;
