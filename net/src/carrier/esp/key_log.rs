//! A log of keys for Wireshark, which an operator asks for with [`VARIABLE`].

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;

use adit_proto::esp::keys::DirectionKeys;
use adit_proto::esp::spi::Spi;
use adit_proto::sealing::suite::Suite;

/// The environment variable that names the file.
pub const VARIABLE: &str = "ADIT_ESP_KEYLOG";

/// The log of the process; `None` without [`VARIABLE`].
static PROCESS: OnceLock<Option<KeyLog>> = OnceLock::new();

/// A file of lines as Wireshark reads them in its `esp_sa` table. Whoever reads it can read every packet.
pub struct KeyLog(File);

impl KeyLog {
    /// The log that [`VARIABLE`] names, opened once per process. Warns then, and if it cannot be opened.
    pub fn from_environment() -> Option<&'static Self> {
        PROCESS.get_or_init(|| std::env::var_os(VARIABLE).and_then(|path| Self::open_loudly(Path::new(&path)))).as_ref()
    }

    fn open_loudly(path: &Path) -> Option<Self> {
        match Self::open(path) {
            Ok(log) => {
                tracing::warn!(
                    "{VARIABLE} is set: THE KEYS OF EVERY ESP PACKET ARE WRITTEN TO A FILE, and who reads it reads all traffic"
                );
                Some(log)
            }
            Err(error) => {
                tracing::warn!(%error, "{VARIABLE} is set, but its file cannot be opened; no keys are written");
                None
            }
        }
    }

    /// Opens the file to append to it, for nobody but its owner. A symbolic link is not followed.
    ///
    /// # Errors
    /// If it cannot be created, opened, or closed to others.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Ok(Self(file))
    }

    /// Writes the keys of one SA, for IPv4 and for IPv6 outside. If that fails, they are missing.
    pub fn record(&self, spi: Spi, keys: &DirectionKeys) {
        let lines = ["IPv4", "IPv6"].map(|family| line(family, spi, keys)).concat();
        // One call, so that the lines of several processes do not mix.
        (&self.0).write_all(lines.as_bytes()).ok();
    }
}

/// A line of the table: protocol, source, destination, index, cipher, key and salt, authentication and its key, length
/// of sequence numbers, and their high half, which is 0 for the first 2^32 packets.
///
/// Wireshark 4.0 ignores the last two, so it decrypts but calls the ICV incorrect, and refuses ChaCha20-Poly1305; later
/// ones know all.
fn line(family: &str, spi: Spi, keys: &DirectionKeys) -> String {
    let cipher = match keys.suite() {
        Suite::Aes256Gcm | Suite::Aes128Gcm => "AES-GCM with 16 octet ICV [RFC4106]",
        Suite::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
    };
    let salt = keys.salt();
    let secret: String = keys.key().iter().chain(&salt).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{family}\",\"*\",\"*\",\"{spi}\",\"{cipher}\",\"0x{secret}\",\"NULL\",\"\",\"64-bit\",\"0\"\n")
}

#[cfg(test)]
mod tests;
