//! The command line of `adit-server`.

mod announce;
mod ask;
mod check;
mod columns;
mod invite;
mod limits;
mod list;
mod log;
mod owner;
mod policy;
mod reload;
mod source;
mod user;
mod verbs;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::config::{Config, ConfigError, Problem, PublicAddress, Source, parse_public_address};
use crate::init::Wishes;
use crate::run::RAISE_LIMITS;

/// Private VPN gateway: CONNECT-IP over HTTP/3 on port 443.
#[derive(Debug, Parser)]
#[command(name = "adit-server", version, color = clap::ColorChoice::Never, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Verb,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
struct Place {
    /// Configuration file [default: /etc/adit/server.toml]
    #[arg(long, env = "ADIT_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Set a key for this call only, such as tun.mtu=1300; environment variables such as ADIT_TUN_MTU do the same
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, global = true)]
    set: Vec<(String, String)>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new gateway: keys, store and configuration
    Init(InitFlags),
    /// Run the gateway until TERM or INT
    Run(log::LogFlags),
    /// Check the configuration, keys and store without starting
    Check {
        /// Also ask the running gateway whether it serves
        #[arg(long)]
        live: bool,
    },
    /// Make a one-time link that enrols one device of a user
    Invite(invite::InviteFlags),
    /// Make a bearer token for a standard CONNECT-IP client
    Token {
        /// The user, who is created when needed
        name: String,
    },
    /// The gateway's own users: passwords, second factors, and whether they may connect
    #[command(subcommand, arg_required_else_help = true)]
    User(user::UserVerb),
    /// List the users
    Users,
    /// List the devices
    Devices,
    /// Shut out a user with all devices, or one device, at once and for good
    Revoke {
        /// A user's name or a device's id
        #[arg(value_name = "NAME|DEVICE")]
        name: String,
    },
    /// Check a policy file
    Policy {
        #[command(subcommand)]
        verb: policy::PolicyVerb,
    },
    /// Say what happens to what a user tries to reach, and why
    Explain(policy::ExplainFlags),
    /// Have the running gateway read its configuration and policy again; nobody is dropped
    Reload(reload::ReloadFlags),
    /// Say that the gateway is about to be restarted, and when it is back; clients wait for that, and show it
    Announce(announce::AnnounceFlags),
    /// List the networks from which no stranger may try to log in now
    Bans,
    /// Forget the failed logins from an address or a network
    Unban {
        /// An address or a network
        #[arg(value_name = "ADDRESS|NETWORK")]
        network: String,
    },
    /// Forget the failed logins of a user
    Unlock {
        /// The user
        name: String,
    },
    /// List the live sessions
    Sessions,
    /// Show the gateway at a glance
    Status,
    /// Look at where users come from
    #[command(subcommand)]
    Source(source::SourceVerb),
    /// Undo what a gateway that crashed left on this host
    Cleanup,
}

#[derive(Debug, Args)]
struct InitFlags {
    /// Name or address under which clients reach the gateway; repeatable [default: the address of the default route]
    #[arg(long, value_name = "HOST[:PORT]", value_parser = parse_public_address)]
    public: Vec<PublicAddress>,
    /// Local address, for UDP and TCP; repeatable [default: all addresses with the public port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Put everything below this directory instead of /etc/adit, /var/lib/adit and /run/adit
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command line of the process and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell of a closed output.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    let json = arguments.place.json;
    match dispatch(arguments) {
        Ok(()) => Exit::Ok.into(),
        Err(refusal) => {
            refusal.print(json);
            refusal.failure.exit.into()
        }
    }
}

/// Why a verb was not done, and with a wrong configuration or state also each problem by itself.
struct Refusal {
    failure: Failure,
    problems: Vec<Problem>,
}

impl Refusal {
    /// Prints the failure for people on standard error and, when asked for, for machines as one object on standard
    /// output.
    fn print(&self, as_json: bool) {
        if as_json {
            let Failure { exit, what, reason, next } = &self.failure;
            let problem =
                |problem: &Problem| json!({ "what": problem.what, "reason": problem.reason, "next": problem.next });
            let problems: Vec<Value> = self.problems.iter().map(problem).collect();
            let mut error = json!({ "what": what, "reason": reason, "next": next, "exit": *exit as u8 });
            if !problems.is_empty() {
                error["problems"] = Value::Array(problems);
            }
            output::json(&json!({ "error": error }));
        }
        output::failure(&self.failure);
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, problems: Vec::new() }
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        Self { problems: error.problems.clone(), failure: error.into_failure() }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), Refusal> {
    let Arguments { place, verb } = arguments;
    if !matches!(verb, Verb::Init(_) | Verb::Policy { .. }) {
        owner::step_down(&verb, &crate::config::state_dir_of(&place.source()))?;
    }
    match verb {
        Verb::Init(flags) => verbs::init(&place, flags),
        Verb::Run(flags) => verbs::run(&place, &flags),
        Verb::Check { live } => check::check(&place, live),
        Verb::Invite(flags) => invite::invite(&place, &flags),
        Verb::Token { name } => invite::token(&place, &name),
        Verb::User(verb) => user::user(&place, &verb),
        Verb::Users => list::users(&place),
        Verb::Devices => list::devices(&place),
        Verb::Revoke { name } => list::revoke(&place, &name),
        Verb::Policy { verb: policy::PolicyVerb::Check { file } } => policy::check(&place, file),
        Verb::Explain(flags) => policy::explain(&place, &flags),
        Verb::Reload(flags) => reload::reload(&place, &flags),
        Verb::Announce(flags) => announce::announce(&place, &flags),
        Verb::Bans => limits::bans(&place),
        Verb::Unban { network } => limits::unban(&place, &network),
        Verb::Unlock { name } => limits::unlock(&place, &name),
        Verb::Sessions => list::sessions(&place),
        Verb::Status => list::status(&place),
        Verb::Source(verb) => source::source(&place, &verb),
        Verb::Cleanup => verbs::cleanup(&place),
    }
}

impl Place {
    fn source(&self) -> Source {
        Source::with_environment(self.config.clone(), self.set.clone())
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.source())
    }

    /// The flag that makes another call use the same file; empty when it is the usual one.
    fn flag_for(&self, config: &std::path::Path) -> String {
        if config == std::path::Path::new(crate::config::DEFAULT_PATH) {
            return String::new();
        }
        format!(" --config {}", config.display())
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "write KEY=VALUE, such as tun.mtu=1300".to_owned())?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a number with its unit, such as 15m, 24h or 7d".to_owned())
}

/// A runtime for one short exchange with the admin socket.
fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Other, "runtime", error.to_string(), RAISE_LIMITS))
}

fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_verb_takes_a_secret_as_argument() {
        fn check(verb: &clap::Command) -> usize {
            for argument in verb.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(!["token", "code", "password", "key", "secret"].contains(&id), "{} {id}", verb.get_name());
            }
            1 + verb.get_subcommands().map(check).sum::<usize>()
        }
        assert!(check(&Arguments::command()) > 15, "verbs below verbs are looked at, too");
    }
}
