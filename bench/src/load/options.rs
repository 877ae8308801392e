//! What the load generator can be told.

use std::path::PathBuf;
use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::roam;

/// Most clients: each needs an inner address, and the pool has 16 bits.
const MAX_CLIENTS: i64 = 60_000;

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// By ESP once it is proven.
    Esp,
    /// In datagrams of the QUIC connection; clients do not offer ESP.
    Quic,
    /// In frames of AnyConnect on TLS over TCP, as with `openconnect --no-dtls`; clients come with the cookie of a
    /// login.
    Tls,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// With a token each: a bearer token, or with the carrier `tls` the session token of a login, which is its cookie.
    Token,
    /// With a device certificate each, as enrolled clients do: TLS authenticates both sides.
    Certificate,
}

/// What the load generator can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many clients connect.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    pub(super) clients: u32,
    /// How many of them arrive each second.
    #[arg(long, default_value = "200/s", value_name = "N/s", value_parser = arrival)]
    pub(super) arrive: f64,
    /// How they prove who they are.
    #[arg(long, value_enum, default_value_t = Login::Token)]
    pub(super) login: Login,
    /// Echo requests each client sends per second once all are connected; 0 leaves them idle.
    #[arg(long, default_value_t = 0.2, value_name = "PACKETS", value_parser = rate)]
    pub(super) rate: f64,
    /// The gateway's policy, such as `adit-bench policy` prints [default: none].
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// How long each phase takes: sessions idle, sending, some active, and churn.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(super) duration: Duration,
    /// How packets travel.
    #[arg(long, value_enum, default_value_t = Carrier::Esp)]
    pub(super) carrier: Carrier,
    /// This share of the clients moves to another address and port while they send.
    #[arg(long, default_value = "0%", value_name = "SHARE", value_parser = share)]
    pub(super) roam: f64,
    /// How often each of these moves.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    pub(super) roam_every: Duration,
    /// Let so many clients send at 80 % of the highest rate found, while the others keep to `--rate`; 0 leaves this
    /// out.
    #[arg(long, default_value_t = 0, value_name = "CLIENTS")]
    pub(super) active: u32,
    /// Kill the gateway while all clients send, start it again after so long, and time their return.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) restart: Option<Duration>,
    /// At the end, let so many clients per second connect, log in, get one echo and leave.
    #[arg(long, value_name = "N/s", value_parser = arrival)]
    pub(super) churn: Option<f64>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

impl Options {
    /// So many clients that come as enrolled ones do, and a gateway that is killed and started again a second later.
    pub(super) fn of_restart(clients: u32) -> Self {
        let second = Duration::from_secs(1);
        Self {
            clients,
            arrive: 200.0,
            login: Login::Certificate,
            rate: 0.0,
            policy: None,
            duration: second,
            carrier: Carrier::Esp,
            roam: 0.0,
            roam_every: second,
            active: 0,
            restart: Some(second),
            churn: None,
            json: false,
        }
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// What does not go together, and what would.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let refuse =
            |what: &str, reason: String, next: String| Err(Failure::new(Exit::Usage, what.to_owned(), reason, next));
        if self.roam > 0.0 && self.rate <= 0.0 {
            let reason = "clients move while they send, and with --rate 0 they do not".to_owned();
            return refuse("--roam", reason, "give --rate more than 0".to_owned());
        }
        let is_by_tls = self.carrier == Carrier::Tls;
        if is_by_tls && self.login == Login::Certificate {
            let reason = "clients over TLS come with the token of a login".to_owned();
            return refuse("--login certificate", reason, "leave it out, or give another --carrier".to_owned());
        }
        if is_by_tls && self.roam > 0.0 {
            let reason = "no TCP connection goes on at another address".to_owned();
            return refuse("--roam", reason, "leave it out, or give another --carrier".to_owned());
        }
        if is_by_tls && self.restart.is_some() {
            let reason = "clients over TLS do not come back in this program".to_owned();
            return refuse("--restart", reason, "leave it out, or give another --carrier".to_owned());
        }
        if self.active > self.clients {
            let reason = format!("{} clients cannot be active of {}", self.active, self.clients);
            return refuse("--active", reason, format!("give --clients {} or more", self.active));
        }
        let Some(churn) = self.churn.filter(|churn| *churn > f64::from(self.clients)) else { return Ok(()) };
        let reason = format!("each client would come back within a second, while {} are few", self.clients);
        refuse("--churn", reason, format!("give --clients {} or more", churn.ceil()))
    }

    /// How many clients move about.
    pub(super) fn roamers(&self) -> u32 {
        (0..self.clients).map(|number| u32::from(roam::is_roamer(number, self.roam))).sum()
    }
}

fn arrival(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    let number = number.filter(|number| (0.1..=100_000.0).contains(number));
    number.ok_or_else(|| "a number of clients per second from 0.1/s to 100000/s is needed".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=10_000.0).contains(number));
    number.ok_or_else(|| "a number of packets per second from 0 to 10000 is needed".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| "a share from 0% to 100% is needed, such as 5%".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_sensible = (Duration::from_millis(100)..=Duration::from_secs(24 * 3600)).contains(&time);
    is_sensible.then_some(time).ok_or_else(|| "a time from 100ms to 24h is needed".to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    /// What a command line says.
    pub(in super::super) fn parsed(arguments: &[&str]) -> Options {
        Program::try_parse_from([&["load"], arguments].concat()).unwrap().options
    }

    #[test]
    fn arrivals_are_read_with_and_without_their_unit() {
        assert_eq!((arrival("200/s"), arrival("0.5")), (Ok(200.0), Ok(0.5)));
        for wrong in ["", "0", "-1/s", "200/m", "NaN", "inf/s"] {
            assert!(arrival(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_and_durations_have_bounds() {
        assert_eq!((rate("0"), rate("2.5")), (Ok(0.0), Ok(2.5)));
        assert!(rate("-0.1").is_err() && rate("NaN").is_err());
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("10").is_err() && duration("1ms").is_err());
    }

    #[test]
    fn shares_are_in_percent() {
        assert_eq!((share("5%"), share("0.5%"), share("100%")), (Ok(0.05), Ok(0.005), Ok(1.0)));
        for wrong in ["5", "-1%", "101%", "NaN%", "%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_what_would() {
        let refusal = |arguments: &[&str]| parsed(arguments).check().unwrap_err().to_string();
        assert!(refusal(&["--roam", "5%", "--rate", "0"]).contains("give --rate more than 0"));
        assert!(refusal(&["--active", "200", "--clients", "100"]).contains("--clients 200"));
        assert!(refusal(&["--churn", "100/s", "--clients", "50"]).contains("--clients 100"));
        for wrong in [["--login", "certificate"], ["--roam", "5%"], ["--restart", "1s"]] {
            assert!(refusal(&[&["--carrier", "tls"], &wrong[..]].concat()).contains("another --carrier"));
        }
        assert_eq!(parsed(&["--carrier", "tls", "--churn", "10/s"]).check(), Ok(()));
        assert_eq!(Options::of_restart(1_000).check(), Ok(()));
        assert_eq!(parsed(&["--roam", "5%", "--active", "10", "--churn", "100/s"]).check(), Ok(()));
    }

    #[test]
    fn roaming_clients_are_counted() {
        assert_eq!(parsed(&["--roam", "5%"]).roamers(), 50);
        assert_eq!(parsed(&[]).roamers(), 0);
    }
}
