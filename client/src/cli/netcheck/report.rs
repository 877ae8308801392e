//! What `netcheck` found, and how it is shown.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_program::exit::Failure;
use serde::Serialize;

use crate::captive_portal;
use crate::cli::status::joined;
use crate::obstacle;
use crate::state::Obstacle;

/// What was tried, and what answered.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Name of the profile.
    pub(super) name: String,
    /// The gateway, as `HOST:PORT`.
    pub(super) gateway: String,
    /// Whether the questions bore the mark of the client's own datagrams, which pass a tunnel and a closed host.
    pub(super) marked: bool,
    /// Whom the gateway's names were asked for at.
    pub(super) names: Vec<NameReport>,
    /// Each address of the gateway.
    pub(super) addresses: Vec<AddressReport>,
    /// The page of the network's captive portal, if one keeps this host from the gateway.
    pub(super) portal: Option<String>,
    /// The client that runs, if one does.
    pub(super) session: Option<SessionReport>,
    /// What does not get through, in words.
    pub(super) blocked: Vec<Blocked>,
    /// What could not be found out, and why.
    pub(super) notes: Vec<String>,
}

/// What one kind of resolver says.
#[derive(Debug, Serialize)]
pub(super) struct NameReport {
    /// The name.
    pub(super) name: String,
    /// Who was asked.
    pub(super) asked: &'static str,
    /// The addresses in the answers; none if there was no answer in time.
    pub(super) addresses: Vec<IpAddr>,
    /// How long the answers took, in milliseconds.
    pub(super) took_ms: f64,
}

/// What one address answers.
#[derive(Debug, Serialize)]
pub(super) struct AddressReport {
    pub(super) address: SocketAddr,
    /// This host's address on the way there.
    pub(super) source: Option<IpAddr>,
    /// The link on the way there.
    pub(super) link: Option<String>,
    /// Whether a NAT translates this host's address: `true` where that is certain, `null` where nothing shows it.
    pub(super) nat: Option<bool>,
    /// QUIC on UDP.
    pub(super) quic: Answer,
    /// TLS on TCP.
    pub(super) tls: Answer,
    /// The largest IP packet that came through to the gateway, in bytes; larger ones than 1500 were not tried.
    pub(super) path_mtu: Option<u16>,
}

/// Whether and how a question was answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    /// Round-trip time, in milliseconds.
    pub(super) rtt_ms: Option<f64>,
    /// More about it, in words.
    pub(super) detail: Option<String>,
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The gateway of the profile answers.
    Answers,
    /// Nothing came back.
    Silent,
    /// The host at that address says that nobody listens.
    Refused,
    /// This host has no route there.
    NoRoute,
    /// This host's own firewall lets nothing out.
    Firewall,
    /// Somebody answers who is not the gateway.
    Stranger,
    /// It failed in another way.
    Failed,
    /// Nobody was asked.
    NotAsked,
}

/// The client that runs.
#[derive(Debug, Serialize)]
pub(super) struct SessionReport {
    pub(super) state: String,
    pub(super) since_seconds: Option<u64>,
    pub(super) reason: Option<String>,
    pub(super) carrier: Option<String>,
    /// Seconds since packets travel by it.
    pub(super) carrier_seconds: Option<u64>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) rtt_ms: Option<f64>,
    /// Whether ESP passes: `true` while packets travel by it, `false` while they do not although the session stands and
    /// the profile permits it, else `null`.
    pub(super) esp: Option<bool>,
}

/// What does not get through.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Blocked {
    pub(super) what: String,
    /// For how long, as far as the running client knows.
    pub(super) since_seconds: Option<u64>,
}

impl Answer {
    pub(super) fn plain(outcome: Outcome) -> Self {
        Self { outcome, rtt_ms: None, detail: None }
    }

    pub(super) fn with(outcome: Outcome, detail: impl ToString) -> Self {
        Self { outcome, rtt_ms: None, detail: Some(detail.to_string()) }
    }

    pub(super) fn answers(rtt: Duration) -> Self {
        Self { rtt_ms: Some(milliseconds(rtt)), ..Self::plain(Outcome::Answers) }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.outcome == Outcome::Answers
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Silent => "no answer",
            Self::Refused => "refused",
            Self::NoRoute => "no route there",
            Self::Firewall => "dropped by this host's firewall",
            Self::Stranger => "somebody else answers",
            Self::Failed => "failed",
            Self::NotAsked => "not asked",
        }
    }
}

impl Report {
    /// Whether the gateway answers at all.
    pub(super) fn is_reachable(&self) -> bool {
        self.addresses.iter().any(|address| address.quic.is_answered() || address.tls.is_answered())
    }

    /// The failure of a gateway that answers in no way: the most telling of what stands in the way.
    pub(super) fn failure(&self) -> Option<Failure> {
        if self.is_reachable() {
            return None;
        }
        let answers = self.addresses.iter().flat_map(|address| [&address.quic, &address.tls]);
        let stranger = answers.into_iter().find(|answer| answer.outcome == Outcome::Stranger);
        let (obstacle, reason) = match (&self.portal, stranger) {
            (Some(page), _) => (Obstacle::CaptivePortal, captive_portal::in_words(page)),
            (None, Some(stranger)) => (Obstacle::IdentityMismatch, stranger.detail.clone().unwrap_or_default()),
            (None, None) => (Obstacle::NoAnswer, "nothing there answers as the gateway".to_owned()),
        };
        Some(obstacle::failure(&self.gateway, obstacle, &reason))
    }

    /// Adds what does not get through: a protocol that no address answers although another one is answered, or
    /// everything.
    pub(super) fn conclude(&mut self, port: u16) {
        let session = self.session.as_ref();
        let away = session.filter(|session| session.state != "connected").and_then(|session| session.since_seconds);
        let fallen_back = session.filter(|session| session.carrier.as_deref() == Some("tls"));
        let without_udp = fallen_back.and_then(|session| session.carrier_seconds).or(away);
        let mut blocked = |what: String, since_seconds| self.blocked.push(Blocked { what, since_seconds });
        let asked = |answer: &Answer| answer.outcome != Outcome::NotAsked;
        let none_answers = |of: fn(&AddressReport) -> &Answer| {
            let mut answers = self.addresses.iter().map(of).filter(|answer| asked(answer)).peekable();
            answers.peek().is_some() && answers.all(|answer| !answer.is_answered())
        };
        match (none_answers(|address| &address.quic), none_answers(|address| &address.tls)) {
            (true, true) => {
                blocked(format!("everything: the gateway answers neither on UDP nor on TCP port {port}"), away)
            }
            (true, false) => blocked(format!("UDP port {port}: packets can travel by `tls` only"), without_udp),
            (false, true) => {
                blocked(format!("TCP port {port}: there is nothing to fall back to where UDP is blocked"), away)
            }
            (false, false) => {}
        }
    }

    /// The report for people.
    pub(super) fn describe(&self) -> String {
        let mut lines = vec![format!("{}: {}", self.name, self.gateway)];
        for NameReport { name, asked, addresses, took_ms } in &self.names {
            let found = if addresses.is_empty() { "no answer".to_owned() } else { joined(addresses) };
            lines.push(row("name", &format!("{name} by {asked}: {found} ({took_ms:.0} ms)")));
        }
        for address in &self.addresses {
            address.describe(&mut lines);
        }
        lines.extend(self.portal.as_ref().map(|page| row("portal", page)));
        lines.extend(self.session.as_ref().map(|session| row("session", &session.describe())));
        for Blocked { what, since_seconds } in &self.blocked {
            let since = since_seconds.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
            let since = since.map_or_else(String::new, |since| format!(" (for {since})"));
            lines.push(row("blocked", &format!("{what}{since}")));
        }
        lines.extend(self.notes.iter().map(|note| row("note", note)));
        lines.push(String::new());
        lines.join("\n")
    }
}

impl AddressReport {
    fn describe(&self, lines: &mut Vec<String>) {
        let source = self.source.map_or_else(String::new, |source| format!(" from {source}"));
        let link = self.link.as_ref().map_or_else(String::new, |link| format!(" by {link}"));
        lines.push(format!("  {}{source}{link}", self.address));
        for (label, answer) in [("quic", &self.quic), ("tls", &self.tls)] {
            let rtt = answer.rtt_ms.map_or_else(String::new, |rtt| format!(", round trip {rtt:.1} ms"));
            let detail = answer.detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
            lines.push(row(&format!("  {label}"), &format!("{}{rtt}{detail}", answer.outcome.label())));
        }
        lines.extend(self.path_mtu.map(|mtu| row("  path mtu", &mtu.to_string())));
        let translated =
            "yes: this host's address there is private; how long it remembers a silent flow is not measured";
        lines.extend(self.nat.filter(|nat| *nat).map(|_| row("  nat", translated)));
    }
}

impl SessionReport {
    fn describe(&self) -> String {
        let since = self.since_seconds.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
        let mut parts = vec![since.map_or_else(|| self.state.clone(), |since| format!("{} for {since}", self.state))];
        parts.extend(self.carrier.as_ref().map(|carrier| format!("by {carrier}")));
        parts.extend(self.remote.map(|remote| format!("to {remote}")));
        parts.extend(self.rtt_ms.map(|rtt| format!("round trip {rtt:.1} ms")));
        parts.extend((self.esp == Some(false)).then(|| "ESP does not pass, or the gateway has none".to_owned()));
        parts.extend(self.reason.clone());
        parts.join(", ")
    }
}

fn row(label: &str, value: &str) -> String {
    format!("  {label:<10} {value}")
}

#[cfg(test)]
mod tests {
    use adit_program::exit::Exit;

    use super::*;

    fn address(quic: Outcome, tls: Outcome) -> AddressReport {
        AddressReport {
            address: "192.0.2.1:443".parse().unwrap(),
            source: Some("192.168.1.7".parse().unwrap()),
            link: Some("eth0".to_owned()),
            nat: Some(true),
            quic: Answer::plain(quic),
            tls: Answer::plain(tls),
            path_mtu: Some(1400),
        }
    }

    fn blocked(addresses: Vec<AddressReport>) -> Vec<String> {
        let mut report = Report { addresses, ..Report::default() };
        report.conclude(443);
        report.blocked.into_iter().map(|blocked| blocked.what).collect()
    }

    #[test]
    fn only_what_no_address_answers_is_blocked() {
        let (answers, silent, not_asked) = (Outcome::Answers, Outcome::Silent, Outcome::NotAsked);
        assert_eq!(blocked(vec![address(answers, answers), address(silent, silent)]), [""; 0]);
        assert!(
            blocked(vec![address(silent, answers), address(Outcome::NoRoute, silent)])[0].starts_with("UDP port 443")
        );
        assert!(blocked(vec![address(answers, Outcome::Refused)])[0].starts_with("TCP port 443"));
        assert!(blocked(vec![address(silent, Outcome::Stranger)])[0].starts_with("everything"));
        assert_eq!(blocked(vec![address(not_asked, answers)]), [""; 0], "what was not asked may pass");
        assert_eq!(blocked(vec![]), [""; 0]);
    }

    #[test]
    fn failure_is_the_most_telling_of_what_stands_in_the_way() {
        let exit = |quic, tls, portal: Option<&str>| {
            let addresses = vec![address(Outcome::Silent, Outcome::Silent), address(quic, tls)];
            let report = Report { addresses, portal: portal.map(str::to_owned), ..Report::default() };
            report.failure().map(|failure| (failure.exit, failure.reason))
        };
        let (silent, stranger) = (Outcome::Silent, Outcome::Stranger);
        assert_eq!(exit(silent, Outcome::Answers, None), None);
        assert_eq!(exit(stranger, Outcome::Answers, None), None, "the gateway is reached all the same");
        assert_eq!(exit(silent, silent, None).unwrap().0, Exit::Unreachable);
        for (quic, tls) in [(silent, stranger), (stranger, Outcome::Refused)] {
            assert_eq!(exit(quic, tls, None).unwrap().0, Exit::IdentityMismatch);
            let (exit, reason) = exit(quic, tls, Some("http://p.example/")).unwrap();
            assert!(exit == Exit::Unreachable && reason.contains("http://p.example/"), "{exit:?} {reason}");
        }
    }

    #[test]
    fn udp_is_blocked_since_packets_travel_by_tls_or_the_session_was_lost() {
        let since = |state: &str, carrier: Option<&str>| {
            let session = SessionReport {
                state: state.to_owned(),
                since_seconds: Some(61),
                reason: None,
                carrier: carrier.map(str::to_owned),
                carrier_seconds: carrier.map(|_| 7),
                remote: None,
                rtt_ms: None,
                esp: None,
            };
            let addresses = vec![address(Outcome::Silent, Outcome::Answers)];
            let mut report = Report { addresses, session: Some(session), ..Report::default() };
            report.conclude(443);
            report.blocked[0].since_seconds
        };
        assert_eq!(since("connected", Some("tls")), Some(7));
        assert_eq!(since("reconnecting", None), Some(61));
        assert_eq!(since("connected", Some("esp")), None, "it passed a moment ago");
    }

    #[test]
    fn text_and_json_say_the_same() {
        let mut answering = address(Outcome::Answers, Outcome::Refused);
        answering.quic = Answer::answers(Duration::from_millis(12));
        let names = vec![NameReport {
            name: "gw.example".to_owned(),
            asked: "this host's resolver",
            addresses: vec![],
            took_ms: 7.0,
        }];
        let session = SessionReport {
            state: "reconnecting".to_owned(),
            since_seconds: Some(61),
            reason: Some("no answer".to_owned()),
            carrier: None,
            carrier_seconds: None,
            remote: None,
            rtt_ms: None,
            esp: None,
        };
        let notes = vec!["the mark".to_owned()];
        let mut report =
            Report { names, addresses: vec![answering], session: Some(session), notes, ..Report::default() };
        report.conclude(443);
        let text = report.describe();
        for part in [
            "name       gw.example by this host's resolver: no answer (7 ms)",
            "192.0.2.1:443 from 192.168.1.7 by eth0",
            "quic     answers, round trip 12.0 ms",
            "tls      refused",
            "path mtu 1400",
            "nat      yes: this host's address there is private; how long it remembers a silent flow is not measured",
            "reconnecting for 1m 1s, no answer",
            "(for 1m 1s)",
            "note       the mark",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        let first = &json["addresses"][0];
        assert!(first["quic"]["outcome"] == "answers" && first["quic"]["rtt_ms"] == 12.0, "{json}");
        assert!(first["tls"]["outcome"] == "refused" && first["path_mtu"] == 1400 && first["nat"] == true, "{json}");
        assert!(json["blocked"][0]["since_seconds"] == 61, "{json}");
    }
}
