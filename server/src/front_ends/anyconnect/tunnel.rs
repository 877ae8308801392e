//! One CONNECT: the session of a client that comes with a token, from its answer to the end of the connection.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use adit_net::carrier::cstp::{ChannelEnd, Cstp, FollowedChannel};
use adit_program::causes::with_causes;
use adit_program::foreign_text::printable;
use adit_proto::anyconnect::channel::Channel;
use adit_proto::anyconnect::datagrams::Farewell;
use adit_proto::anyconnect::tunnel::keying::Keying;
use adit_proto::anyconnect::tunnel::{DtlsOffer, Offer, PSK_LABEL, PSK_LEN, TunnelRequest};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue};
use tokio::sync::mpsc;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::FrontEnd;
use super::connection::TlsConnection;
use super::dtls_door::{FromClient, Registration};
use super::records::{self, Records, Secret};
use crate::core::callers::{self, CallerSession};
use crate::core::grant::Grant;
use crate::core::login::clocks;
use crate::core::router::Router;
use crate::core::sessions::{Ending, Session};
use crate::core::{Core, OpenError, OpenSession};
use crate::front_ends::stream::{Running, UNREAD};
use crate::listener::{Answer, Caller, CallerStream, Reply};

/// How long either side may be silent before it is asked whether it is there.
const DPD: Duration = Duration::from_secs(30);
/// How often a client sends something through whatever is on the way.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why a client gets no tunnel: it has to log in again (401), or may come back with its token (503).
pub(super) struct Refused {
    status: StatusCode,
    pub(super) reason: &'static str,
}

/// A session that has been opened, on its way to its stream.
struct Opened {
    core: Arc<dyn Core>,
    open: OpenSession,
    connection: Arc<TlsConnection>,
    /// The connection as one of its device, as long as this is held.
    caller: Arc<callers::Caller>,
    token: Option<Zeroizing<String>>,
    /// The answer to the CONNECT.
    head: String,
    /// If the client may send its packets in records of DTLS.
    dtls: Option<OfferedDtls>,
}

/// What a client has been offered beside its connection.
struct OfferedDtls {
    registered: (Registration, mpsc::Receiver<FromClient>),
    keying: Keying,
}

/// When a client connects anew, and how long its session lasts at most.
struct Times {
    rekey: Duration,
    lasts: Option<Duration>,
}

impl FrontEnd {
    /// Opens a session for a client with a token, and takes its connection over.
    pub(super) async fn connect(&self, request: TunnelRequest, caller: &Caller) -> Reply {
        match self.open(&request, caller).await {
            Ok(opened) => {
                let router = Arc::clone(&self.router);
                Reply::Connect(Box::new(move |stream, read| {
                    let span = tracing::info_span!("session", session = opened.open.session.id);
                    Box::pin(opened.serve(stream, read, router).instrument(span))
                }))
            }
            Err(refused) => Reply::Answer(refused.answer()),
        }
    }

    async fn open(&self, request: &TunnelRequest, caller: &Caller) -> Result<Opened, Refused> {
        let client = request.agent.as_deref().map(printable);
        let mtu = request.mtu_within(self.largest_packet);
        let connection = Arc::new(TlsConnection::new(caller, mtu).of(client, request.group.clone()));
        let device_caller = Arc::new(callers::Caller::new(Arc::<TlsConnection>::clone(&connection)));
        let identity = self.identify(request, caller, &device_caller).await?;
        caller.know();
        let lasts = identity.login.map(|login| login.end.left(&clocks::now()));
        // Nobody was asked anything who comes without a login.
        let banner = if identity.login.is_none() { self.core.banner() } else { None };
        let core = Arc::clone(&self.core);
        let open =
            Arc::clone(&core).open(identity, Arc::<TlsConnection>::clone(&connection)).await.map_err(|error| {
                tracing::warn!(error = with_causes(&error), "session refused");
                refusal(&error)
            })?;
        let grant = open.session.grant();
        let dtls = self.dtls.as_ref().zip(request.dtls.clone());
        let dtls = dtls.map(|(door, keying)| OfferedDtls { registered: door.register(), keying });
        let offered = dtls.as_ref().map(|OfferedDtls { registered: (registration, _), keying }| DtlsOffer {
            port: registration.door.port_beside(caller.local.port()),
            app_id: registration.app_id,
            resumed: keying.resumed(),
            dpd: records::DPD,
        });
        let mtu = mtu.min(grant.terms.limits.largest_packet);
        let times = Times { rekey: Duration::from_secs(self.rekey_after.load(Ordering::Relaxed)), lasts };
        let head = head(request, &grant, mtu, times, banner.as_deref(), offered);
        let token = request.token.clone();
        Ok(Opened { core, open, connection, caller: device_caller, token, head, dtls })
    }
}

pub(super) fn log_in(reason: &'static str) -> Refused {
    Refused { status: StatusCode::UNAUTHORIZED, reason }
}

pub(super) fn not_now(reason: &'static str) -> Refused {
    Refused { status: StatusCode::SERVICE_UNAVAILABLE, reason }
}

impl Refused {
    fn answer(&self) -> Answer {
        let mut answer = Answer::default();
        *answer.status_mut() = self.status;
        // Clients show it to their user.
        answer.headers_mut().insert("x-reason", HeaderValue::from_static(self.reason));
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }
}

fn refusal(error: &OpenError) -> Refused {
    match error {
        OpenError::NotInGroup | OpenError::Revoked | OpenError::LoginOver => log_in(error.reason()),
        // Clients end over any other status, and have no word for their user.
        OpenError::Full
        | OpenError::UserFull
        | OpenError::OutsideHours
        | OpenError::NoAddress(_)
        | OpenError::OldFlows(_)
        | OpenError::NotEnforced(_)
        | OpenError::Store(_) => not_now(error.reason()),
    }
}

/// What a client is told of its grant.
fn head(
    request: &TunnelRequest,
    grant: &Grant,
    mtu: u16,
    times: Times,
    banner: Option<&String>,
    dtls: Option<DtlsOffer>,
) -> String {
    let Grant { lease, terms } = grant;
    // A client that takes one address only gets that of IPv4, if there is one.
    let v6 = lease.v6.filter(|_| request.takes_v6 || lease.v4.is_none());
    let offer = Offer {
        v4: lease.v4.filter(|_| request.takes_v4 || v6.is_none()),
        v6,
        routes: &terms.routes,
        resolvers: &terms.dns.servers,
        domains: &terms.dns.domains,
        mtu,
        dpd: DPD,
        keepalive: KEEPALIVE,
        rekey: times.rekey,
        lasts: times.lasts,
        idle: terms.limits.idle_timeout,
        banner: banner.map(String::as_str),
        dtls,
    };
    offer.head()
}

impl Opened {
    /// Serves the session until its client leaves, or the core ends it.
    async fn serve(self, stream: CallerStream, early: Bytes, router: Arc<Router>) {
        let Self { core, open, connection, caller, token, head, dtls } = self;
        let session = Arc::clone(&open.session);
        let _session = CallerSession::begin(&caller, &session, open.replaces);
        let records = dtls.and_then(|OfferedDtls { registered, keying }| {
            let secret = secret(keying, &stream)?;
            Some(Records::new(Arc::clone(&session), Arc::clone(&router), registered, secret))
        });
        connection.carrier.queue(head.as_bytes());
        let deliver = {
            let session = Arc::clone(&session);
            move |packets: &mut Vec<Bytes>| {
                // A client sends by one way at a time, and wants to be answered there.
                if !packets.is_empty() {
                    session.carriers.note_doubt();
                }
                router.from_client(&session, packets);
            }
        };
        let Some((running, frames)) = Running::start(&connection, Cstp, (stream, early), deliver) else { return };
        let end = follow(&connection, &session, frames, records).await;
        tracing::debug!(?end, "the tunnel is over");
        running.close();
        drop(open);
        if let Some(token) = token.filter(|_| matches!(end, ChannelEnd::Ended(_))) {
            core.log_out(token).await;
        }
        running.over().await;
    }
}

/// What the keys of DTLS come from. The client takes a pre-shared key from the same connection.
fn secret(keying: Keying, stream: &CallerStream) -> Option<Secret> {
    match keying {
        Keying::PreSharedKey => psk(stream).map(Secret::PreSharedKey),
        Keying::Resumed { master, suite } => Some(Secret::Resumed { master, suite: suite.suite }),
    }
}

fn psk(stream: &CallerStream) -> Option<Zeroizing<[u8; PSK_LEN]>> {
    let (_, tls) = stream.get_ref();
    let psk = tls.export_keying_material([0; PSK_LEN], PSK_LABEL, None);
    psk.map(Zeroizing::new).inspect_err(|error| tracing::warn!(%error, "no key for DTLS")).ok()
}

/// Follows the tunnel until it is over, and ends it when its login is.
async fn follow(
    connection: &TlsConnection,
    session: &Session,
    frames: mpsc::Receiver<Bytes>,
    mut records: Option<Records>,
) -> ChannelEnd {
    let channel = Channel::new(DPD, Instant::now());
    let mut channel = FollowedChannel::new(Arc::clone(&connection.carrier), channel, frames, UNREAD);
    // What happens in records must not put off what the channel waits for.
    let mut over = pin!(channel.over());
    let mut login_over = pin!(session.login_over());
    let mut is_over = false;
    loop {
        tokio::select! {
            () = &mut login_over, if !is_over => {
                is_over = true;
                session.close(Ending::LoginOver);
            }
            end = &mut over => return end,
            farewell = turn(&mut records) => match farewell {
                Some(Farewell::LoggedOut) => return ChannelEnd::Ended(Bytes::new()),
                Some(Farewell::Left) => return ChannelEnd::Left,
                None => {}
            },
        }
    }
}

/// Does what is next on the DTLS side, if there is one.
async fn turn(records: &mut Option<Records>) -> Option<Farewell> {
    match records {
        Some(records) => records.turn().await,
        None => pending().await,
    }
}
