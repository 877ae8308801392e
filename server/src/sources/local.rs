//! The gateway's own users: passwords, codes of an app, recovery codes.

pub mod hashers;
pub mod passwords;
pub mod recovery;
pub mod totp;
