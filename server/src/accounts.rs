//! Who may use the gateway: users, their devices, what these prove themselves with, and the addresses kept for them.

pub mod sqlite;

mod name;
mod person;
mod subject;
mod types;

use std::time::{Duration, SystemTime};

use adit_proto::address_pool::Lease;
use adit_proto::login::token::LoginId;

pub(crate) use name::is_invisible;
pub use name::{NameError, UserName};
pub use person::{FirstPassword, KnownPerson, LinkError, LocalUser, PersonError, User, UserError};
pub use subject::OidcSubject;
pub use types::{
    AuthError, BegunLogin, ClientLogin, Device, DeviceKind, EnrollError, Enrolled, RenewError, Revoked, StoreFault,
    StoredLease, TOO_MANY_DEVICES,
};

/// What the core asks of whatever keeps the accounts.
///
/// Every method blocks, those that write perhaps until a disk has written. So none may be called on the runtime's
/// threads, or while a lock is held that these threads take.
pub trait Accounts: Send + Sync {
    /// Admits a device whose identity TLS has proved: the certificate must be one that is known, for this device, and
    /// neither may be revoked or expired, nor its user disabled. To be called after every handshake, since resumption
    /// skips TLS's own checks.
    ///
    /// # Errors
    /// See [`AuthError`].
    fn authenticate_certificate(&self, device: &str, serial: &str, now: SystemTime) -> Result<Device, AuthError>;

    /// Admits a device by its bearer token.
    ///
    /// # Errors
    /// See [`AuthError`].
    fn authenticate_token(&self, token: &str) -> Result<Device, AuthError>;

    /// One device, revoked or not.
    ///
    /// # Errors
    /// The accounts could not be read.
    fn device(&self, id: &str) -> Result<Option<Device>, StoreFault>;

    /// Whether a device may be connected now: neither it is revoked nor its user disabled.
    ///
    /// # Errors
    /// The accounts could not be read.
    fn may_connect(&self, device: &str) -> Result<bool, StoreFault>;

    /// Whether a device was enrolled by a login, so that its user must have one that lasts to connect.
    ///
    /// # Errors
    /// The accounts could not be read.
    fn needs_login(&self, device: &str) -> Result<bool, StoreFault>;

    /// How much is left of a login, by how long the host was seen running since it began; `None` where it was ended,
    /// its user is of another generation since, or it is not known.
    ///
    /// # Errors
    /// The accounts could not be read, or the host's time.
    fn login_left(&self, login: &LoginId) -> Result<Option<Duration>, StoreFault>;

    /// The device of a login that began without one; `None` if the login is over. Its first call makes the device, or
    /// takes over one of the same user and name that `is_live` says has no session; from then on it is the same.
    ///
    /// # Errors
    /// [`AuthError::TooManyDevices`], or the accounts could not be read or written.
    fn device_of_login(
        &self,
        login: &ClientLogin<'_>,
        is_live: &dyn Fn(&str) -> bool,
        now: SystemTime,
    ) -> Result<Option<Device>, AuthError>;

    /// Ends a login for ever, and with it whatever came of it.
    ///
    /// # Errors
    /// The accounts could not be written.
    fn end_login(&self, login: &LoginId) -> Result<(), StoreFault>;

    /// When the last certificate of a device is over that was not revoked; `None` for a device without any. Blocks
    /// longer where that is past, since then it is looked whether the clock was set.
    ///
    /// # Errors
    /// The accounts could not be read, or take no note of the clock.
    fn certificates_end(&self, device: &str) -> Result<Option<SystemTime>, StoreFault>;

    /// What decides whether a user may connect, and as what; `None` if there is no such user.
    ///
    /// # Errors
    /// The accounts could not be read.
    fn person(&self, user: &str) -> Result<Option<KnownPerson>, StoreFault>;

    /// Whether these addresses are remembered for a device, so that remembering them once more writes nothing. Waits
    /// for nobody who writes.
    ///
    /// # Errors
    /// The accounts could not be read.
    fn has_lease(&self, device: &str, lease: Lease) -> Result<bool, StoreFault>;

    /// Remembers the addresses of a device, durably. Whoever else had one of them forgets it. Where they are remembered
    /// already, nothing is written.
    ///
    /// # Errors
    /// The accounts could not be written.
    fn save_lease(&self, device: &str, lease: Lease) -> Result<(), StoreFault>;
}
