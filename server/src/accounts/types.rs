//! What accounts are made of, whatever keeps them.

use std::error::Error;
use std::time::Duration;

use adit_proto::address_pool::Lease;
use adit_proto::login::token::LoginId;

use crate::identity::DeviceCertificate;

/// One device of a user.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// The device's id, `dev-` and 16 characters.
    pub id: String,
    /// The user who owns it.
    pub user: String,
    /// What the device called itself, cleaned of control characters.
    pub name: String,
    /// How it proves who it is.
    pub kind: DeviceKind,
    /// Creation, in seconds of Unix time.
    pub created_at: i64,
    /// Revocation, in seconds of Unix time.
    pub revoked_at: Option<i64>,
}

/// How a device proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// By a certificate of the gateway's authority.
    Certificate,
    /// By a bearer token, for standard CONNECT-IP clients.
    Token,
}

impl DeviceKind {
    /// The word in the store and in listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Token => "token",
        }
    }
}

/// A login that has just been made.
#[derive(Debug, Clone, Copy)]
pub struct BegunLogin<'a> {
    /// By which it is known from now on.
    pub id: &'a LoginId,
    /// The user, whom the accounts know.
    pub user: &'a str,
    /// The generation of the user that was let in.
    pub generation: u64,
    /// How long it lasts from now on.
    pub lifetime: Duration,
}

/// A login that began without a device.
#[derive(Debug, Clone, Copy)]
pub struct ClientLogin<'a> {
    /// Which one.
    pub id: &'a LoginId,
    /// The user, whom the accounts know.
    pub user: &'a str,
    /// What the client calls its host.
    pub device_name: &'a str,
}

/// The addresses kept for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLease {
    /// The device.
    pub device: String,
    /// Its addresses.
    pub lease: Lease,
}

/// What revoking did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The devices that may not connect any longer.
    pub devices: Vec<String>,
    /// Unused invites that were withdrawn.
    pub invites: u32,
}

/// What a user hears who has as many devices as may be.
pub const TOO_MANY_DEVICES: &str = "this user has as many devices as may be; have the administrator revoke one that is \
     not used, or raise limits.devices_per_user, and try again";

/// Why a device is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No such device, certificate or token.
    #[error("unknown credential")]
    Unknown,
    /// The device or its certificate was revoked.
    #[error("revoked credential")]
    Revoked,
    /// The certificate's time is over.
    #[error("expired credential")]
    Expired,
    /// The user is shut out until further notice.
    #[error("disabled user")]
    Disabled,
    /// It would be one more device of a user who has as many as may be.
    #[error("the user has {0} devices already")]
    TooManyDevices(u32),
    /// The store failed.
    #[error(transparent)]
    Store(StoreFault),
}

/// Why an invite was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError<E: Error + 'static> {
    /// No invite has this code.
    #[error("unknown invite code")]
    UnknownCode,
    /// The invite was used before.
    #[error("invite used before")]
    UsedCode,
    /// The invite's time is over.
    #[error("invite expired")]
    ExpiredCode,
    /// The login of whose ticket a device wants to be enrolled is over.
    #[error("login is over")]
    LoginOver,
    /// The user has as many devices as may be; the invite is still good.
    #[error("the user has {0} devices already")]
    TooManyDevices(u32),
    /// The certificate could not be signed; the invite is still good.
    #[error("sign certificate")]
    Sign(#[source] E),
    /// The store failed; the invite is still good.
    #[error(transparent)]
    Store(StoreFault),
}

/// Why a device gets no further certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError<E: Error + 'static> {
    /// No device with certificates has this id.
    #[error("unknown device")]
    Unknown,
    /// The device was revoked.
    #[error("revoked device")]
    Revoked,
    /// As many certificates of the device are good as may be.
    #[error("too many certificates")]
    TooMany,
    /// The certificate could not be signed.
    #[error("sign certificate")]
    Sign(#[source] E),
    /// The store failed.
    #[error(transparent)]
    Store(StoreFault),
}

/// A device just enrolled.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The device.
    pub device: Device,
    /// Its certificate.
    pub certificate: DeviceCertificate,
}

/// Why accounts could not be read or written. The cause is for the gateway's own log.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreFault(Box<dyn Error + Send + Sync>);

impl StoreFault {
    /// Wraps the error of whatever keeps the accounts.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}
