//! The networks that block UDP, in a file beside the journals.

mod blocks;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use adit_host::Netlink;
use adit_program::durable_file;
use adit_program::guarded_file::{Guard, Readers};
use tokio::task::spawn_blocking;

use crate::network_memory::NetworkMemory;
use crate::packet_source::BoxFuture;
use blocks::UdpBlocks;

/// Keeps them in a file, for all profiles of this host.
pub(super) struct NetworkFile {
    path: PathBuf,
    netlink: Option<Netlink>,
    mark: Option<u32>,
}

impl NetworkFile {
    /// The file in a directory that is there. `mark` is the SO_MARK of the client's sockets, which routes may depend
    /// on.
    pub(super) fn new(directory: &Path, mark: Option<u32>) -> Self {
        let netlink = Netlink::open().inspect_err(|error| tracing::debug!(%error, "networks are not remembered")).ok();
        Self { path: directory.join("networks.json"), netlink, mark }
    }

    /// What the network is known by that leads to a gateway.
    async fn network(&self, gateway: IpAddr) -> Option<String> {
        let known_by = self.netlink.as_ref()?.network_towards(gateway.to_canonical(), self.mark).await;
        known_by.inspect_err(|error| tracing::debug!(%error, "it is not known which network this is")).ok()?
    }
}

impl NetworkMemory for NetworkFile {
    fn blocks_udp(&self, gateway: IpAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let Some(network) = self.network(gateway).await else { return false };
            let path = self.path.clone();
            let looked = spawn_blocking(move || load(&path).contains(&network, now())).await;
            looked.unwrap_or_default()
        })
    }

    fn note_udp(&self, gateway: IpAddr, passes: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(network) = self.network(gateway).await else { return };
            let path = self.path.clone();
            let noting = move || {
                let mut blocks = load(&path);
                if blocks.note(&network, !passes, now()) {
                    save(&path, &blocks);
                }
            };
            spawn_blocking(noting).await.ok();
        })
    }
}

/// What the file says; nothing if it cannot be used, which is said, and the file goes.
fn load(path: &Path) -> UdpBlocks {
    let content = match Guard::default().read(path, Readers::Owner) {
        Ok(content) => content,
        Err(error) if error.is_missing() => return UdpBlocks::default(),
        Err(error) => return begin_anew(path, &error.to_string()),
    };
    serde_json::from_slice(&content).unwrap_or_else(|error| begin_anew(path, &error.to_string()))
}

fn begin_anew(path: &Path, reason: &str) -> UdpBlocks {
    tracing::warn!(file = %path.display(), reason, "what is known of networks cannot be used; it begins anew");
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "the file stays, and is replaced later");
        }
        Ok(()) | Err(_) => {}
    }
    UdpBlocks::default()
}

/// What cannot be kept is found out again.
fn save(path: &Path, blocks: &UdpBlocks) {
    let kept = serde_json::to_vec(blocks).map_err(io::Error::from);
    if let Err(error) = kept.and_then(|text| durable_file::replace(path, &text, 0o600)) {
        tracing::debug!(%error, "it is not kept that a network blocks UDP");
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn blocks() -> UdpBlocks {
        let mut blocks = UdpBlocks::default();
        blocks.note("hotel", true, now());
        blocks
    }

    #[test]
    fn networks_are_private_and_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks.json");
        assert_eq!(load(&path), UdpBlocks::default());
        save(&path, &blocks());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(load(&path), blocks());
    }

    #[test]
    fn file_that_is_damaged_or_of_others_is_not_believed_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks.json");
        for damage in [&b"{\"networks\":[{}]}"[..], b"\xff", b""] {
            fs::write(&path, damage).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(load(&path), UdpBlocks::default());
            assert!(!path.exists(), "it is said once");
        }
        save(&path, &blocks());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(load(&path), UdpBlocks::default());
        save(&path, &blocks());
        assert_eq!(load(&path), blocks(), "and begins anew");
    }
}
