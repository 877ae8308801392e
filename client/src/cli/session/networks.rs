//! The networks that block UDP, in a file beside the journals.

mod blocks;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_host::{Netlink, SeenNetwork};
use adit_program::durable_file;
use adit_program::file_lock::FileLock;
use adit_program::guarded_file::{Guard, Readers};
use tokio::task::spawn_blocking;

use crate::network_memory::{KnownNetwork, NetworkMemory};
use crate::packet_source::BoxFuture;
use blocks::UdpBlocks;

/// How long another client of this host may take with the file. What cannot be noted is found out again.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether the file is free.
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// Keeps them in a file, for all profiles of this host.
pub(super) struct NetworkFile(Arc<Kept>);

struct Kept {
    path: PathBuf,
    netlink: Option<Netlink>,
    mark: Option<u32>,
}

/// A network as it was looked at on the way to a gateway.
struct LookedAt {
    kept: Arc<Kept>,
    gateway: IpAddr,
    seen: SeenNetwork,
}

impl NetworkFile {
    /// The file in a directory that is there. `mark` is the SO_MARK of the client's sockets, which routes may depend
    /// on.
    pub(super) fn new(directory: &Path, mark: Option<u32>) -> Self {
        let netlink = Netlink::open().inspect_err(|error| tracing::debug!(%error, "networks are not remembered")).ok();
        Self(Arc::new(Kept { path: directory.join("networks.json"), netlink, mark }))
    }
}

impl Kept {
    /// The network that leads to a gateway.
    async fn network(&self, gateway: IpAddr) -> Option<SeenNetwork> {
        let seen = self.netlink.as_ref()?.network_towards(gateway.to_canonical(), self.mark).await;
        seen.inspect_err(|error| tracing::debug!(%error, "it is not known which network this is")).ok()?
    }
}

impl NetworkMemory for NetworkFile {
    fn here(&self, gateway: IpAddr) -> BoxFuture<'_, Option<Arc<dyn KnownNetwork>>> {
        Box::pin(async move {
            let seen = self.0.network(gateway).await?;
            Some(Arc::new(LookedAt { kept: Arc::clone(&self.0), gateway, seen }) as Arc<dyn KnownNetwork>)
        })
    }
}

impl KnownNetwork for LookedAt {
    fn blocks_udp(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let Some(network) = self.seen.known_by() else { return false };
            let path = self.kept.path.clone();
            let looked = spawn_blocking(move || {
                let _lock = lock(&path, LOCK_WITHIN)?;
                Some(load(&path).contains(&network, now()))
            });
            looked.await.ok().flatten().unwrap_or_default()
        })
    }

    fn note_udp(&self, passes: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(seen) = self.kept.network(self.gateway).await.filter(|seen| seen.may_be(&self.seen)) else {
                return tracing::debug!("the network was left: nothing is noted of it");
            };
            let Some(network) = seen.known_by() else { return };
            let path = self.kept.path.clone();
            spawn_blocking(move || note(&path, &network, !passes, LOCK_WITHIN)).await.ok();
        })
    }
}

/// Notes of a network whether it blocks UDP, beside what other clients note.
fn note(path: &Path, network: &str, blocks: bool, patience: Duration) {
    let Some(_lock) = lock(path, patience) else { return };
    let mut kept = load(path);
    if kept.note(network, blocks, now()) {
        save(path, &kept);
    }
}

/// Keeps other clients of this host from the file until it is dropped; `None` where one takes longer with it.
fn lock(path: &Path, patience: Duration) -> Option<FileLock> {
    let (path, deadline) = (path.with_extension("lock"), Instant::now() + patience);
    loop {
        match FileLock::try_acquire(&path) {
            Ok(Some(lock)) => return Some(lock),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOCK_LOOK),
            Ok(None) => {
                tracing::debug!("another client keeps what is known of networks");
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, "what is known of networks cannot be locked");
                return None;
            }
        }
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

    use adit_testing::PATIENCE;
    use adit_testing::namespace::{in_namespace_async, ip};

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

    #[test]
    fn clients_that_note_at_the_same_time_lose_nothing_of_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks.json");
        thread::scope(|scope| {
            for client in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    (0..8).for_each(|turn| note(path, &format!("network {client} {turn}"), true, PATIENCE));
                });
            }
        });
        let kept = load(&path);
        for (client, turn) in (0..4).flat_map(|client| (0..8).map(move |turn| (client, turn))) {
            assert!(kept.contains(&format!("network {client} {turn}"), now()), "{client} {turn}: {kept:?}");
        }
    }

    #[test]
    fn client_that_keeps_the_file_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks.json");
        let held = lock(&path, PATIENCE).unwrap();
        note(&path, "hotel", true, Duration::ZERO);
        assert!(!path.exists(), "it is not noted without the lock");
        drop(held);
        note(&path, "hotel", true, Duration::ZERO);
        assert!(load(&path).contains("hotel", now()));
    }

    #[test]
    fn network_that_was_left_meanwhile_is_not_blamed_and_neither_is_the_next_one() {
        in_namespace_async(|| async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("networks.json");
            let networks = NetworkFile::new(directory.path(), None);
            let here = async || networks.here("198.51.100.7".parse().unwrap()).await;
            assert!(here().await.is_none(), "there is no way");
            ip("link add in0 type veth peer name out0");
            ip("link set in0 up");
            ip("link set out0 up");
            ip("address add 192.0.2.18/28 dev in0");
            ip("route add default via 192.0.2.17");
            let first = here().await.unwrap();
            // By then this host has spoken to the router.
            ip("neighbour add 192.0.2.17 lladdr 02:00:00:00:0a:01 dev in0");
            first.note_udp(false).await;
            let kept = load(&path);
            assert!(kept.contains("router 02:00:00:00:0a:01", now()), "{kept:?}");
            let home = here().await.unwrap();
            assert!(home.blocks_udp().await);

            ip("neighbour replace 192.0.2.17 lladdr 02:00:00:00:0a:02 dev in0");
            home.note_udp(true).await;
            home.note_udp(false).await;
            assert_eq!(load(&path), kept, "the host has left");
            let away = here().await.unwrap();
            assert!(!away.blocks_udp().await && home.blocks_udp().await);
            away.note_udp(false).await;
            assert!(away.blocks_udp().await);
        });
    }
}
