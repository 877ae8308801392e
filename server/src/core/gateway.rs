//! The core of the gateway: opens and ends sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_proto::address_pool::{AddressPool, PoolConfig, PoolError};

use crate::accounts::sqlite::{Store, StoreError};
use crate::accounts::{Accounts as _, Device, StoreFault, StoredLease};
use crate::config::Config;
use crate::core::leases::Leases;
use crate::core::router::Router;
use crate::core::sessions::{Connection, Ending, Session, SessionTable};

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `limits.sessions` sessions are live.
    #[error("the gateway has no room for another session")]
    Full,
    /// The device was revoked while it logged in.
    #[error("this device was revoked")]
    Revoked,
    /// No address is free.
    #[error("no address is free")]
    NoAddress(#[from] PoolError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreFault),
}

/// The running gateway.
pub struct Gateway {
    store: Arc<Store>,
    leases: Leases,
    sessions: Arc<SessionTable>,
    router: Arc<Router>,
    listen: Vec<SocketAddr>,
    last_session: AtomicU64,
    since: Instant,
}

/// Makes the pool and gives every remembered address back to its device.
///
/// # Errors
/// The store failed.
pub fn restore_pool(config: &Config, store: &Store, now: Instant) -> Result<AddressPool, StoreError> {
    let mut pool =
        AddressPool::new(PoolConfig { v4: config.pool.v4, v6: config.pool.v6, cooldown: config.lease_cooldown });
    for StoredLease { device, lease } in store.leases()? {
        match pool.lease(&device, Some(lease), now) {
            Ok(_) => pool.release(&device, now),
            Err(error) => tracing::debug!(%error, device, "remembered address no longer fits the pools"),
        }
    }
    Ok(pool)
}

impl Gateway {
    /// Makes the core of a gateway that listens on `listen`.
    pub fn new(
        config: &Config,
        store: Arc<Store>,
        pool: AddressPool,
        sessions: Arc<SessionTable>,
        router: Arc<Router>,
        listen: Vec<SocketAddr>,
    ) -> Self {
        Self {
            leases: Leases::new(Arc::<Store>::clone(&store), pool, config.limits.sessions),
            store,
            sessions,
            router,
            listen,
            last_session: AtomicU64::new(0),
            since: Instant::now(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The live sessions.
    pub fn table(&self) -> &SessionTable {
        &self.sessions
    }

    /// Sockets it listens on.
    pub fn listen(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        self.since.elapsed()
    }

    /// Where packets go.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// Leases addresses to an authenticated device and opens its session; a session it already has is replaced.
    ///
    /// Blocks for transactions of the store. The lease is durable before anybody hears of the session.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_session(&self, device: Device, connection: Arc<dyn Connection>) -> Result<Arc<Session>, OpenError> {
        let now = Instant::now();
        let id = self.last_session.fetch_add(1, Ordering::Relaxed) + 1;
        let claimant = device.id.clone();
        let claim = self.leases.claim(&claimant, now)?;
        claim.make_durable()?;
        let session = Session::new(id, device, claim.lease(), connection, now);
        claim.keep();
        if let Some(old) = self.sessions.insert(Arc::clone(&session)) {
            old.close(Ending::Replaced);
            self.leases.release(&old.device.id, now);
        }
        self.confirm(&session)?;
        tracing::info!(session = id, carrier = session.carriers.name(), "session opened");
        tracing::debug!(session = id, user = session.device.user, device = session.device.id, remote = %session.connection.remote(), "session of");
        Ok(session)
    }

    /// Ends a session: nothing passes from now on, and its addresses rest before another device gets them.
    pub fn end_session(&self, session: &Session) {
        session.carriers.close();
        if self.sessions.remove(session) {
            self.leases.release(&session.device.id, Instant::now());
            tracing::info!(session = session.id, "session ended");
        }
    }

    /// Ends all sessions.
    pub fn close_all(&self, ending: Ending) {
        for session in self.sessions.all() {
            session.close(ending);
        }
    }

    /// Looks at the store once more now that the session can be found: a revocation since the login saw no session to end.
    fn confirm(&self, session: &Session) -> Result<(), OpenError> {
        let confirmed = match self.store.device(&session.device.id) {
            Ok(Some(device)) if device.revoked_at.is_none() => Ok(()),
            Ok(_) => Err(OpenError::Revoked),
            Err(error) => Err(error.into()),
        };
        confirmed.inspect_err(|_| self.end_session(session))
    }
}
