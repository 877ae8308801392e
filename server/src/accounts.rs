//! Who may use the gateway: users, their devices, what these prove themselves with, and the addresses kept for them.

pub mod sqlite;

mod name;
mod types;

pub use name::{NameError, UserName};
pub use types::{
    AuthError, Device, DeviceKind, EnrollError, Enrolled, RenewError, Revoked, StoreFault, StoredLease, User,
};
