//! `wait`: for scripts that need a tunnel, or what it sets on this host.

use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use clap::{Args, ValueEnum};

use super::events::ClientEvents;
use super::{ClientFiles, NameArgs, dir_flag};
use crate::profile::ProfileName;
use crate::run::Standing;
use crate::state::State;

/// How often it is looked whether a client that was not running does by now.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    #[command(flatten)]
    pub(super) profile: NameArgs,
    /// What to wait for
    #[arg(long = "for", value_name = "WHAT", value_enum, default_value_t)]
    what: Awaited,
    /// Give up if it takes longer; `0s` never gives up
    #[arg(long, value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Awaited {
    /// The session stands
    #[default]
    Connected,
    /// The session stands, and its routes are in force on this host
    Route,
    /// The session stands, and this host asks the tunnel's DNS servers, if it has any
    Dns,
}

/// Waits until a client has what is asked for, which may not even run yet.
pub(super) async fn wait(files: &ClientFiles, args: &WaitArgs) -> Result<(), Failure> {
    let (name, what) = (files.choose(&args.profile)?, args.what);
    let messages = Messages { name: &name, what, flag: dir_flag(files) };
    let mut last = None;
    let waiting = hear(files, &messages, &mut last);
    let heard = match args.timeout.is_zero() {
        true => Ok(waiting.await),
        false => tokio::time::timeout(args.timeout, waiting).await,
    };
    heard.unwrap_or_else(|_elapsed| Err(messages.timed_out(args.timeout, last.as_ref())))?;
    output::line(&format!("{name}: {}", what.reached()));
    Ok(())
}

/// Hears a client until it has what is asked for, or will not have it; `last` is how it stood last.
async fn hear(files: &ClientFiles, messages: &Messages<'_>, last: &mut Option<Standing>) -> Result<(), Failure> {
    let mut events = match ClientEvents::of(files, messages.name).await? {
        Some(events) => events,
        None => {
            // A client of a profile that is not there will not start.
            files.store.load(messages.name)?;
            start(files, messages.name).await?
        }
    };
    while let Some(event) = events.next().await? {
        match messages.verdict(&event.standing) {
            Verdict::Reached => return Ok(()),
            Verdict::NotYet => *last = Some(event.standing),
            Verdict::Never(failure) => return Err(failure),
        }
    }
    Err(messages.ended(last.as_ref()))
}

/// Waits until a client is running.
async fn start(files: &ClientFiles, name: &ProfileName) -> Result<ClientEvents, Failure> {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some(events) = ClientEvents::of(files, name).await? {
            return Ok(events);
        }
    }
}

impl Awaited {
    fn is_reached(self, standing: &Standing) -> bool {
        match self {
            Self::Connected => standing.state == State::Connected.label(),
            Self::Route => standing.route,
            Self::Dns => standing.dns,
        }
    }

    fn reached(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Route => "connected, and its routes are in force",
            Self::Dns => "connected, and names are resolved as the tunnel wants",
        }
    }

    /// What a client lacks that is connected.
    fn lacking(self) -> &'static str {
        match self {
            Self::Connected => "it is not connected",
            Self::Route => "it is connected, but its routes are not in force on this host",
            Self::Dns => "it is connected, but this host does not ask the tunnel's DNS servers",
        }
    }
}

/// What a client's standing means to whoever waits.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    NotYet,
    Never(Failure),
}

/// Says what came of waiting for a client.
struct Messages<'a> {
    name: &'a ProfileName,
    what: Awaited,
    /// The `--dir` flag of suggested commands.
    flag: String,
}

impl Messages<'_> {
    fn verdict(&self, standing: &Standing) -> Verdict {
        if self.what.is_reached(standing) {
            return Verdict::Reached;
        }
        let Self { name, flag, .. } = self;
        if standing.exit.is_some() {
            Verdict::Never(self.ended(Some(standing)))
        } else if standing.state == State::LoginNeeded.label() {
            let next = format!("log in with `adit-client{flag} login {name}`, then wait again");
            Verdict::Never(self.failure(Exit::AuthRefused, with_reason("its login is over", standing), next))
        } else if standing.state == State::Blocked.label() {
            let next = "ask the gateway's administrator; the client goes on trying meanwhile, but slowly".to_owned();
            Verdict::Never(self.failure(Exit::AuthRefused, with_reason("the gateway refuses it", standing), next))
        } else {
            Verdict::NotYet
        }
    }

    fn timed_out(&self, after: Duration, last: Option<&Standing>) -> Failure {
        let Self { name, flag, .. } = self;
        let after = humantime::format_duration(after);
        let more = format!("`adit-client{flag} status {name}` says more, or wait longer with `--timeout`");
        match last {
            None => {
                let next = format!("start it with `adit-client{flag} up --detach {name}`");
                self.failure(Exit::TimedOut, format!("none was running within {after}"), next)
            }
            Some(last) if last.state == State::Connected.label() => {
                self.failure(Exit::TimedOut, format!("after {after} {}", self.what.lacking()), more)
            }
            Some(last) => {
                self.failure(Exit::TimedOut, with_reason(&format!("after {after} it is {}", last.state), last), more)
            }
        }
    }

    /// The failure of a client that has ended, having stood like this last.
    fn ended(&self, last: Option<&Standing>) -> Failure {
        let Self { name, flag, .. } = self;
        let next = format!("start it again with `adit-client{flag} up {name}`");
        match last.and_then(|last| Some((last, exit(last.exit?)))) {
            Some((_, Exit::Ok)) => self.failure(Exit::Other, "it was told to end".to_owned(), next),
            Some((last, exit)) => self.failure(exit, with_reason("it has given up", last), next),
            None => self.failure(Exit::Other, "it has ended".to_owned(), next),
        }
    }

    fn failure(&self, exit: Exit, reason: String, next: String) -> Failure {
        Failure::new(exit, format!("client {}", self.name), reason, next)
    }
}

fn with_reason(what: &str, standing: &Standing) -> String {
    match &standing.reason {
        Some(reason) => format!("{what}: {reason}"),
        None => what.to_owned(),
    }
}

/// The exit code of a client that has ended.
fn exit(code: u8) -> Exit {
    let codes = [
        Exit::Ok,
        Exit::Usage,
        Exit::AuthRefused,
        Exit::IdentityMismatch,
        Exit::Unreachable,
        Exit::Permission,
        Exit::TimedOut,
        Exit::Unsupported,
    ];
    codes.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Exit::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(state: State) -> Standing {
        Standing { state: state.label().to_owned(), reason: Some("because".to_owned()), ..Standing::default() }
    }

    fn verdict(what: Awaited, standing: &Standing) -> Verdict {
        let name = "home".parse().unwrap();
        Messages { name: &name, what, flag: String::new() }.verdict(standing)
    }

    #[test]
    fn each_thing_is_reached_by_itself() {
        let connected = standing(State::Connected);
        assert_eq!(verdict(Awaited::Connected, &connected), Verdict::Reached);
        assert_eq!(verdict(Awaited::Route, &connected), Verdict::NotYet);
        assert_eq!(verdict(Awaited::Dns, &connected), Verdict::NotYet);
        let routed = Standing { route: true, ..connected.clone() };
        assert_eq!(verdict(Awaited::Route, &routed), Verdict::Reached);
        assert_eq!(verdict(Awaited::Dns, &routed), Verdict::NotYet);
        assert_eq!(verdict(Awaited::Dns, &Standing { dns: true, ..connected }), Verdict::Reached);
    }

    #[test]
    fn only_what_may_still_come_is_waited_for() {
        for state in [State::Disconnected, State::Connecting, State::Reconnecting, State::Disconnecting] {
            assert_eq!(verdict(Awaited::Connected, &standing(state)), Verdict::NotYet, "{state}");
        }
        for (state, next) in [(State::LoginNeeded, "adit-client login home"), (State::Blocked, "administrator")] {
            let Verdict::Never(failure) = verdict(Awaited::Connected, &standing(state)) else { panic!("{state}") };
            assert_eq!(failure.exit, Exit::AuthRefused);
            assert!(failure.reason.contains("because") && failure.next.contains(next), "{failure}");
        }
        for (code, exit) in [(0, Exit::Other), (3, Exit::AuthRefused), (5, Exit::Unreachable), (99, Exit::Other)] {
            let last = Standing { exit: Some(code), ..standing(State::Disconnected) };
            let Verdict::Never(failure) = verdict(Awaited::Dns, &last) else { panic!("{code}") };
            assert_eq!(failure.exit, exit, "{code}");
            assert!(failure.next.contains("adit-client up home"), "{failure}");
        }
    }

    #[test]
    fn time_out_says_what_is_lacking() {
        let name = "home".parse().unwrap();
        let messages = Messages { name: &name, what: Awaited::Dns, flag: String::new() };
        let (connected, away) = (standing(State::Connected), standing(State::Reconnecting));
        for (last, reason) in [
            (None, "none was running within 2s"),
            (Some(&connected), "does not ask the tunnel's DNS servers"),
            (Some(&away), "after 2s it is reconnecting: because"),
        ] {
            let failure = messages.timed_out(Duration::from_secs(2), last);
            assert_eq!(failure.exit, Exit::TimedOut);
            assert!(failure.reason.contains(reason) && failure.next.contains("adit-client"), "{failure}");
        }
    }
}
