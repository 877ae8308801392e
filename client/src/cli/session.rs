//! `adit-client up`: one session in this process, with TUN device, host changes, control socket and signals.

mod control;
mod networks;
mod recovery;
mod started_from;

use std::sync::Arc;
use std::time::Duration;

use adit_net::control::{ControlServer, serve};
use adit_net::tun::Tun;
use adit_program::exit::{Exit, Failure};
use adit_program::service;
use adit_program::signals::{SignalRequest, Signals};
use tokio::sync::watch;

use super::Carrier;
use super::lock::ClientLock;
use crate::host_plan::managed::{Closing, ManagedHost, journal_failure, open_tun};
use crate::packet_path::{PacketPath, PacketPathSettings};
use crate::packet_source::Packets;
use crate::profile::{Directories, Profile, ProfileStore};
use crate::run::{ClientSession, SessionConfig, SessionHandle, Snapshot, Status};
use crate::state::State;
use control::ControlHandler;
use networks::NetworkFile;
use recovery::{open_journal, recover_others};

/// What `up` needs.
pub(super) struct UpOptions {
    /// The gateway to connect to.
    pub(super) profile: Profile,
    /// Where files are kept.
    pub(super) directories: Directories,
    /// Name of the TUN device; `None` takes the first free of `adit0`, `adit1`, ….
    pub(super) tun: Option<String>,
    /// How packets travel, as far as the profile permits.
    pub(super) carrier: Carrier,
    /// Whether the host is closed in a full tunnel this time; `None` leaves it to the profile.
    pub(super) kill_switch: Option<bool>,
    /// How long the first connection may take to come about; `None` tries for ever.
    pub(super) patience: Option<Duration>,
    /// Called once, after the first connection.
    pub(super) on_connected: Box<dyn FnOnce(&Status) + Send>,
}

/// Connects, stays connected until a signal or `down`, and leaves the host as it was.
///
/// # Errors
/// A [`Failure`] with its exit code; nothing is left on the host then but a closed kill switch.
pub(super) async fn up(options: UpOptions) -> Result<(), Failure> {
    let UpOptions { profile, directories, tun, carrier, kill_switch, patience, on_connected } = options;
    let name = profile.name.clone();
    directories.create_for_running()?;
    // Whoever holds the lock may touch this profile's journal, socket and changes.
    let _lock = ClientLock::acquire(&directories, &name)?;
    let mut signals = Signals::listen()?;
    let journal = directories.journal(&name);
    // Leftovers are undone before the device is made: they may bear its name.
    recover_others(&directories, &name).await;
    let mut changes = open_journal(&journal).await?;
    changes.listen_for_waking();
    let closing = Closing::of(&profile, kill_switch);
    closing.begin(&mut changes).await.map_err(|error| journal_failure(&journal, &error))?;
    // The device and its worker. Without them nothing is begun, and the journal goes again.
    let opened = open_tun(&directories.run, tun.as_deref(), profile.workers.tun_offload);
    let offers_esp = matches!(carrier, Carrier::Auto | Carrier::Esp);
    let started = opened.and_then(|(device, slot)| Ok((start_packet_path(device, &profile, offers_esp)?, slot)));
    let (path, slot) = match started {
        Ok(started) => started,
        Err(failure) => {
            changes.undo_but_kill_switch().await.map_err(|error| journal_failure(&journal, &error))?;
            return Err(failure);
        }
    };
    // The session changes the host as the gateway says, and undoes it at its end.
    let mark = profile.mark;
    let host = ManagedHost::new(changes, path.link(), slot, &directories.run)
        .with_gso_max_segs(profile.workers.gso_max_segs)
        .with_mark(mark)
        .with_started_from(started_from::started_from())
        .with_kill_switch(closing);
    let start = match carrier {
        Carrier::Auto => ClientSession::start,
        Carrier::Esp | Carrier::Quic => ClientSession::start_over_udp,
        Carrier::Tls => ClientSession::start_over_tls,
    };
    let session = start(SessionConfig {
        profile,
        packets: Packets::Device(Arc::new(path)),
        host: Some(Box::new(host)),
        patience,
        mark: Some(mark.value),
        store: Some(ProfileStore::new(&directories.clients)),
        networks: Some(Arc::new(NetworkFile::new(&directories.state, Some(mark.value)))),
    });
    let control = serve_control(&directories.socket(&name), session.handle());
    let ended = accompany(session, &mut signals, on_connected).await;
    if let Some(control) = &control {
        control.followers_gone().await;
    }
    ended
}

fn start_packet_path(device: Tun, profile: &Profile, esp: bool) -> Result<PacketPath, Failure> {
    let settings = PacketPathSettings {
        esp: profile.esp.settings().filter(|_| esp),
        mtu: profile.esp.mtu,
        worker: profile.workers.settings,
        udp_offload: profile.workers.udp_offload,
        mark: Some(profile.mark.value),
    };
    PacketPath::start(device, settings)
        .map_err(|error| Failure::new(Exit::Other, "start the packet path", error.to_string(), ""))
}

/// Serves the control socket. The tunnel matters more than the socket, so a failure is only a warning.
fn serve_control(socket: &std::path::Path, handle: SessionHandle) -> Option<ControlServer> {
    match serve(socket, Arc::new(ControlHandler::new(handle))) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!(%error, "no control socket; `status` and `down` will not work");
            None
        }
    }
}

/// Stays with a session until its end: passes signals on and tells the service manager how it goes.
async fn accompany(
    session: ClientSession,
    signals: &mut Signals,
    on_connected: Box<dyn FnOnce(&Status) + Send>,
) -> Result<(), Failure> {
    let handle = session.handle();
    let mut snapshots = session.snapshots();
    let mut on_connected = Some(on_connected);
    let ended = session.wait();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            result = &mut ended => {
                service::stopping();
                return result;
            }
            signal = signals.next() => match signal {
                // A closed terminal must not leave routes behind.
                SignalRequest::Stop | SignalRequest::HangUp => handle.stop().await,
                SignalRequest::Statistics => log_statistics(&handle).await,
            },
            state = next_state(&mut snapshots) => {
                service::status(state.label());
                // "Ready" is said once, when the first connection stands.
                if state == State::Connected
                    && let Some(announce) = on_connected.take()
                    && let Some(status) = handle.status().await
                {
                    announce(&status);
                    service::ready();
                }
            }
        }
    }
}

async fn next_state(snapshots: &mut watch::Receiver<Snapshot>) -> State {
    match snapshots.changed().await {
        Ok(()) => snapshots.borrow_and_update().state,
        // The session is about to end, which `accompany` waits for.
        Err(_closed) => std::future::pending().await,
    }
}

async fn log_statistics(handle: &SessionHandle) {
    let Some(status) = handle.status().await else { return };
    let counters = status.counters;
    tracing::info!(
        state = status.state,
        carrier = status.carrier,
        suite = status.suite,
        mtu = status.mtu,
        rtt_ms = status.rtt_ms,
        rx_packets = counters.rx_packets,
        rx_bytes = counters.rx_bytes,
        rx_reordered = counters.rx_reordered,
        tx_packets = counters.tx_packets,
        tx_bytes = counters.tx_bytes,
        drops = ?status.drops,
        "statistics"
    );
}
