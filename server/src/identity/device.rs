//! Device certificates.

use std::time::SystemTime;

use data_encoding::HEXLOWER;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::IdentityError;

/// What comes before the device's id in the certificate's URI name.
pub(super) const URI_PREFIX: &str = "adit:device/";
/// Longest device id that is accepted, in bytes; ours have 20.
const MAX_ID: usize = 64;

/// A certificate just issued to a device.
#[derive(Debug, Clone)]
pub struct DeviceCertificate {
    /// The certificate, PEM.
    pub pem: String,
    /// Its serial number in lower-case hexadecimal.
    pub serial: String,
    /// End of its validity.
    pub not_after: SystemTime,
}

/// What a device certificate proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// The device's id.
    pub device: String,
    /// The certificate's serial number in lower-case hexadecimal.
    pub serial: String,
}

/// Reads the identity out of a device certificate (DER) whose signature TLS has checked.
///
/// # Errors
/// The certificate has no subject alternative name, several, or one of another form than `adit:device/ID`.
pub fn device_identity(certificate: &[u8]) -> Result<DeviceIdentity, IdentityError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| IdentityError::Certificate("not a certificate"))?;
    if !rest.is_empty() {
        return Err(IdentityError::Certificate("bytes after the certificate"));
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| IdentityError::Certificate("malformed alternative names"))?
        .ok_or(IdentityError::Certificate("no alternative name"))?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(IdentityError::Certificate("not exactly one URI name"));
    };
    let device = uri.strip_prefix(URI_PREFIX).ok_or(IdentityError::Certificate("not the name of a device"))?;
    let well_formed = (1..=MAX_ID).contains(&device.len())
        && device.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !well_formed {
        return Err(IdentityError::Certificate("malformed device id"));
    }
    Ok(DeviceIdentity { device: device.to_owned(), serial: HEXLOWER.encode(parsed.raw_serial()) })
}
