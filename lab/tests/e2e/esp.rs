//! The ESP carrier as users meet it: the real programs, what they say of themselves, what the wire shows, and what
//! arrives.

mod carrier;
mod ending;
mod flows;
mod impostors;
mod insider;
mod jumbo;
mod key_log;
mod listen;
mod observe;
mod path_mtu;
mod rekey;
mod transfers;

pub(crate) use observe::counters;
pub(crate) use path_mtu::takes;
