//! Tunnels over HTTP/1.1, for networks that pass no UDP: a guest of the listener on TCP that answers `GET` with
//! `Upgrade: connect-ip` (RFC 9484 section 4.2).

use std::pin::Pin;
use std::sync::Arc;

use adit_net::carrier::following::Following;
use adit_net::carrier::tls::Capsules;
use adit_net::http::h1::{UpgradedStream, fields};
use adit_net::http::stream::TunnelStream;
use adit_program::causes::with_causes;
use adit_proto::connect_ip::request::{ConnectIpRequest, Incoming, Rejection, Request};
use adit_proto::connect_ip::server::{Server, reject};
use adit_proto::connect_ip::template::Target;
use adit_proto::http::field::Field;
use adit_proto::http::h1;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use tracing::Instrument as _;

use super::FrontEnd;
use super::answer::call_for_login;
use super::asker::{Asker, Denial};
use super::inbound::hand_over;
use super::tunnel::{assignment, follow, refusal};
use crate::core::callers::{Caller, CallerSession};
use crate::core::login::Identity;
use crate::core::login::lasting::VOID;
use crate::core::sessions::{Connection, Ending, Session};
use crate::core::{OpenError, OpenSession};
use crate::front_ends::peer::Peer;
use crate::front_ends::stream::{Running, StreamConnection, StreamProtocol, UNREAD};
use crate::listener::{self, Answer, CallerStream, Guest, Reply};

/// The connection of one session.
type CapsuleConnection = StreamConnection<Capsules>;

/// CONNECT-IP as a guest of the listener.
pub struct Upgrades(Arc<FrontEnd>);

impl Upgrades {
    /// Opens its tunnels as a front-end does.
    #[must_use]
    pub fn new(front_end: Arc<FrontEnd>) -> Self {
        Self(front_end)
    }

    async fn reply(&self, head: &Parts, caller: &listener::Caller) -> Reply {
        let request = match tunnel_request(head) {
            Ok(request) if request.target == Target::ANY => request,
            Ok(_scoped) => return Reply::Answer(answer(501, &[])),
            Err(status) => return Reply::Answer(answer(status, &[])),
        };
        let connection = Arc::new(CapsuleConnection::new(caller, self.0.largest_packet));
        let asker = Asker {
            front_end: Arc::clone(&self.0),
            peer: Arc::new(Peer::who_shows(caller.certificate.as_ref())),
            caller: Arc::new(Caller::new(Arc::<CapsuleConnection>::clone(&connection))),
        };
        let identity = match admit(&asker, &request, caller).await {
            Ok(identity) => identity,
            Err(Denial::LoginNeeded(reason)) => {
                let (status, fields) = call_for_login(&request, reason);
                return Reply::Answer(answer(status, &fields));
            }
            Err(Denial::Refused(refused)) => return Reply::Answer(answer(refused.status, &refused.fields(&request))),
        };
        let of_session: Arc<dyn Connection> = Arc::<CapsuleConnection>::clone(&connection);
        let opened = match Arc::clone(&self.0.core).open(identity, of_session).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "session refused");
                if matches!(error, OpenError::LoginOver) {
                    let (status, fields) = call_for_login(&request, VOID);
                    return Reply::Answer(answer(status, &fields));
                }
                let refused = refusal(&error);
                return Reply::Answer(answer(refused.status, &refused.fields(&request)));
            }
        };
        let machine = Server::new(&request, assignment(&opened.session.grant()), None);
        let accepted = answer_in_form_of_http3(&machine.response());
        let tunnel = Tunnel { asker, connection, opened, machine };
        Reply::TakeOver(accepted, Box::new(|stream, early| Box::pin(tunnel.serve(stream, early))))
    }
}

impl Guest for Upgrades {
    fn wants(&self, head: &Parts) -> bool {
        h1::wants_tunnel(&fields(&head.headers))
    }

    fn answer<'a>(
        &'a self,
        request: hyper::Request<hyper::body::Incoming>,
        caller: &'a listener::Caller,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move {
            let (head, _no_body) = request.into_parts();
            self.reply(&head, caller).await
        })
    }
}

async fn admit(asker: &Asker, request: &ConnectIpRequest, caller: &listener::Caller) -> Result<Identity, Denial> {
    let identity = asker.authenticate(request.authorization.as_deref()).await.map_err(Denial::Refused)?;
    caller.know();
    asker.check_login(identity, request.login.clone()).await
}

/// A session whose client is about to hear that it is open.
struct Tunnel {
    asker: Asker,
    connection: Arc<CapsuleConnection>,
    opened: OpenSession,
    machine: Server,
}

impl Tunnel {
    /// Serves the session until the client or the gateway ends it.
    async fn serve(self, stream: CallerStream, early: Bytes) {
        let Self { asker, connection, mut opened, machine } = self;
        let session = Arc::clone(&opened.session);
        let _session = CallerSession::begin(&asker.caller, &session, opened.replaces);
        let router = Arc::clone(&asker.front_end.router);
        let deliver = {
            let (router, session) = (Arc::clone(&router), Arc::clone(&session));
            move |packets: &mut Vec<Bytes>| hand_over(&router, &session, packets)
        };
        let running = Running::start(&connection, Capsules::default(), (stream, early), deliver);
        let Some((running, capsules)) = running else { return };
        let stream = TunnelStream::from(UpgradedStream::new(Arc::clone(&connection.carrier), capsules));
        let following = Following::<_, Session>::new(stream, machine, None).with_unread_limit(UNREAD);
        let span = tracing::info_span!("session", session = session.id);
        let followed = follow(following, &mut opened.orders, &session, &router).instrument(span);
        tokio::select! {
            followed = followed => if let Err(error) = followed {
                tracing::debug!(%error, "tunnel ended");
            },
            () = connection.left() => tracing::debug!("the client goes on by another connection"),
        }
        running.close();
        drop(opened);
        running.over().await;
    }
}

impl StreamProtocol for Capsules {
    const FRONT_END: &'static str = "connect-ip";
    const IS_LEFT: bool = true;

    /// HTTP/1.1 has no words for the reason; the client hears it when it asks again.
    fn farewell(_ending: Ending) -> Option<Bytes> {
        None
    }
}

/// What a request for a tunnel wants.
///
/// # Errors
/// The status to answer.
fn tunnel_request(head: &Parts) -> Result<ConnectIpRequest, u16> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let request =
        h1::tunnel_request(head.method.as_str(), path, fields(&head.headers)).map_err(|_malformed| 400_u16)?;
    match Request::parse(&request) {
        Ok(Incoming::ConnectIp(request)) => Ok(request),
        Ok(Incoming::Http(_)) | Err(Rejection::Malformed(_)) => Err(400),
        Err(Rejection::Status(status)) => Err(status),
    }
}

fn answer(status: u16, extra: &[Field]) -> Answer {
    answer_in_form_of_http3(&reject(status, extra))
}

fn answer_in_form_of_http3(response: &[Field]) -> Answer {
    let mut answer = Answer::default();
    let Ok((status, fields)) = h1::upgrade_response(response) else {
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return answer;
    };
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for field in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(field.name), HeaderValue::try_from(field.value)) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}
