//! One accepted tunnel: its session, its capsules and its ESP carrier, from the 200 to the end of the stream.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use adit_net::carrier::esp::key_exchange::ExchangeError;
use adit_net::carrier::esp::{EspControl, EspError, EspSettings, EspSetup};
use adit_net::carrier::following::{FollowError, Following, Step};
use adit_net::carrier::quic::Datagrams;
use adit_net::http::StreamError;
use adit_net::http::stream::TunnelStream;
use adit_program::causes::with_causes;
use adit_proto::capsule::dns::DnsAssign;
use adit_proto::connect_ip::request::ConnectIpRequest;
use adit_proto::connect_ip::server::{Assignment, Server, ServerEvent};
use adit_proto::esp::field::Answer;
use adit_proto::esp::keys::SECRET_LEN;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::rekey::RekeyError;
use adit_proto::http::fault::Fault;
use adit_proto::range::from_prefixes;
use ipnet::IpNet;
use tokio::time::timeout;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::FrontEnd;
use super::answer::{FLUSH_DEADLINE, HttpRefusal, ask_for_login, refuse, unread};
use super::inbound::hand_over;
use super::request::Context;
use super::stage::Served;
use crate::core::callers::CallerSession;
use crate::core::grant::Grant;
use crate::core::login::Identity;
use crate::core::login::lasting::VOID;
use crate::core::router::Router;
use crate::core::sessions::{Connection, Ending, Session};
use crate::core::{OpenError, Orders};

/// Opens the session of an authenticated device and serves it until the stream or the connection ends.
pub(super) async fn run(
    context: &Context,
    mut stream: TunnelStream,
    request: &ConnectIpRequest,
    identity: Identity,
    served: Served,
) -> Result<(), StreamError> {
    let front_end = &*context.asker.front_end;
    let datagrams = Arc::new(Datagrams::new(context.http.quic().clone(), stream.id()));
    let connection: Arc<dyn Connection> = Arc::<Datagrams>::clone(&datagrams);
    // Closes the session when it goes out of scope.
    let mut opened = match Arc::clone(&front_end.core).open(identity, connection).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(error = with_causes(&error), "session refused");
            if matches!(error, OpenError::LoginOver) {
                return ask_for_login(&mut stream, request, VOID).await;
            }
            return refuse(&mut stream, request, &refusal(&error)).await;
        }
    };
    let session = Arc::clone(&opened.session);
    let _tunnel = served.open_tunnel();
    drop(served);
    let _session = CallerSession::begin(&context.asker.caller, &session, opened.replaces);
    let mut negotiated = negotiate(front_end, request, &stream);
    let machine =
        Server::new(request, assignment(&session.grant()), negotiated.as_ref().map(|negotiated| negotiated.answer));
    let sent = timeout(FLUSH_DEADLINE, stream.send_headers(&machine.response())).await;
    sent.unwrap_or_else(|_elapsed| Err(unread(&mut stream)))?;
    context.inbound.open(datagrams, Arc::clone(&session));
    let esp = negotiated.as_mut().map(|negotiated| esp_control(front_end, &session, negotiated));
    let following = Following::new(stream, machine, esp).with_unread_limit(FLUSH_DEADLINE);
    let span = tracing::info_span!("session", session = session.id);
    follow(following, &mut opened.orders, &session, &front_end.router).instrument(span).await
}

/// What a session that may use ESP begins with.
struct Negotiated {
    answer: Answer,
    policy: RekeyPolicy,
    secret: Zeroizing<[u8; SECRET_LEN]>,
}

/// Decides whether the session may use ESP.
fn negotiate(front_end: &FrontEnd, request: &ConnectIpRequest, stream: &TunnelStream) -> Option<Negotiated> {
    let settings = front_end.esp.load();
    let EspSettings { offer, policy } = &**settings.as_ref()?;
    let answer = offer.choose(request.esp.as_ref()?)?;
    let secret = stream.exporter_secret();
    if secret.is_none() {
        tracing::warn!("session stays on quic: its connection gives no secret");
    }
    Some(Negotiated { answer, policy: *policy, secret: Zeroizing::new(secret?) })
}

fn esp_control(front_end: &FrontEnd, session: &Arc<Session>, negotiated: &mut Negotiated) -> EspControl<Session> {
    let setup = EspSetup {
        negotiated: negotiated.answer,
        secret: &mut negotiated.secret,
        plane: Arc::clone(&front_end.plane),
        session: Arc::clone(session),
        policy: negotiated.policy,
        largest_packet: session.grant().terms.limits.largest_packet,
    };
    EspControl::server(setup, Instant::now())
}

pub(super) fn refusal(error: &OpenError) -> HttpRefusal {
    let status = match error {
        OpenError::UserFull
        | OpenError::OutsideHours
        | OpenError::NotInGroup
        | OpenError::LoginOver
        | OpenError::Revoked => 403,
        OpenError::Full
        | OpenError::NoAddress(_)
        | OpenError::OldFlows(_)
        | OpenError::NotEnforced(_)
        | OpenError::Store(_) => 503,
    };
    HttpRefusal { status, reason: error.reason() }
}

/// A grant in the words of CONNECT-IP.
pub(super) fn assignment(Grant { lease, terms }: &Grant) -> Assignment {
    let v4 = lease.v4.map(|address| IpNet::from(IpAddr::V4(address)));
    let v6 = lease.v6.map(|address| IpNet::from(IpAddr::V6(address)));
    let dns = &terms.dns;
    Assignment {
        addresses: v4.into_iter().chain(v6).collect(),
        routes: from_prefixes(&terms.routes),
        dns: (!dns.servers.is_empty()).then(|| DnsAssign::plain(&dns.servers, &dns.domains)),
    }
}

/// Follows the client's capsules and the core's orders until the stream ends. The SAs of ESP end with it.
pub(super) async fn follow(
    mut following: Following<Server, Session>,
    orders: &mut Orders,
    session: &Session,
    router: &Router,
) -> Result<(), StreamError> {
    let mut login_over = pin!(session.login_over());
    let mut is_over = false;
    loop {
        let step = tokio::select! {
            () = &mut login_over, if !is_over => {
                is_over = true;
                session.close(Ending::LoginOver);
                continue;
            }
            step = following.step() => step,
            grant = orders.next() => {
                following.machine().update(assignment(&grant));
                continue;
            }
        };
        match step {
            Ok(Step::Event(ServerEvent::Packet(packet))) => hand_over(router, session, &mut vec![packet]),
            // There is no ESP carrier that the capsule could be for.
            Ok(Step::Event(ServerEvent::Esp(_)) | Step::Drained) => {}
            Ok(Step::Ended) => {
                following.stream().finish();
                return Ok(());
            }
            Err(FollowError::Stream(error)) => return Err(error),
            Err(FollowError::Esp(error)) => return Err(following.stream().fail(breach(&error))),
            Err(FollowError::Unread) => return Err(unread(following.stream())),
        }
    }
}

/// What becomes of the stream when ESP cannot go on.
fn breach(error: &EspError) -> Fault {
    tracing::debug!(%error, "esp ended its session");
    match error {
        EspError::Rekey(RekeyError::TooOften) => Fault::Excessive("too many epochs"),
        EspError::Rekey(_) => Fault::Malformed("capsule breaks the rules of ESP"),
        EspError::Exchange(ExchangeError::Share) => Fault::Malformed("unusable key share"),
        EspError::Exchange(ExchangeError::Generate) | EspError::Keys(_) | EspError::Cipher(_) | EspError::NoSpi => {
            Fault::Internal("ESP failed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_of_the_client_is_told_apart_from_our_own() {
        assert!(matches!(breach(&RekeyError::Epoch.into()), Fault::Malformed(_)));
        assert!(matches!(breach(&ExchangeError::Share.into()), Fault::Malformed(_)));
        assert!(matches!(breach(&RekeyError::TooOften.into()), Fault::Excessive(_)));
        assert!(matches!(breach(&EspError::NoSpi), Fault::Internal(_)));
    }
}
