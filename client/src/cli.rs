//! The command line of `adit-client`.

mod add;
mod block;
mod cleanup;
mod detach;
mod events;
mod follow;
mod join;
mod list;
mod lock;
mod login;
mod netcheck;
mod portal;
mod session;
mod status;
mod tunnel;
mod wait;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use adit_program::log::{self, Form};
use adit_program::output;
use clap::{Args, Parser, Subcommand, ValueEnum};

use add::AddArgs;
use join::JoinArgs;
use netcheck::NetcheckArgs;
use portal::{PortalArgs, ProgramArgs};
use wait::WaitArgs;

use crate::profile::{Directories, ProfileName, ProfileStore};

/// Connects this host to Adit gateways.
#[derive(Debug, Parser)]
#[command(name = "adit-client", version, arg_required_else_help = true)]
struct Cli {
    /// Keep profiles in DIR/clients, sockets and logs in DIR/run, journals in DIR/state
    /// [default: /etc/adit/clients, /run/adit-client and /var/lib/adit-client]
    #[arg(long, value_name = "DIR", env = "ADIT_DIR", global = true)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Enrol this device, with an invite or by a login, and save a profile
    Join(JoinArgs),
    /// Save a profile for a gateway of which only the link is known, such as an AnyConnect gateway of any make
    Add(AddArgs),
    /// Log in again: before the login of a profile ends, or after it
    Login(LoginArgs),
    /// Connect, and stay connected until Ctrl-C or `down`
    Up(UpArgs),
    /// End a running client and undo its changes to this host
    Down(NameArgs),
    /// Say how a client stands
    Status(StatusArgs),
    /// Wait until a client is connected, or what its tunnel sets on this host is in force
    Wait(WaitArgs),
    /// Say what of a gateway answers from here, by which way, and what does not
    Netcheck(NetcheckArgs),
    /// List the profiles and how they stand
    List(ListArgs),
    /// Delete a profile
    Forget {
        /// The profile
        name: ProfileName,
    },
    /// Close this host for what belongs in a full tunnel, until `up` or `down`
    Block(NameArgs),
    /// Say where the network's captive portal is, or let one program out to it, for ten minutes at most
    Portal(PortalArgs),
    /// Become the program that is let out
    #[command(hide = true)]
    PortalProgram(ProgramArgs),
    /// Undo what crashed clients left on this host, and open it if they left it closed
    Cleanup(CleanupArgs),
}

#[derive(Debug, Args)]
struct LoginArgs {
    #[command(flatten)]
    profile: NameArgs,
    #[command(flatten)]
    flags: login::LoginFlags,
    /// Keep the password that is typed beside the profile, for every later login at this AnyConnect gateway
    #[arg(long)]
    save_password: bool,
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    profile: NameArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Run as the detached process of another `up`
    #[arg(long, hide = true)]
    detached: bool,
}

/// How to connect.
#[derive(Debug, Args)]
struct ConnectionArgs {
    /// Return once connected, leaving the client running
    #[arg(long)]
    detach: bool,
    /// Give up if the first connection takes longer; `0s` never gives up
    #[arg(long, value_name = "TIME", default_value = "20s", env = "ADIT_TIMEOUT")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Name of the TUN device [default: the first free of adit0, adit1, …]
    #[arg(long, value_name = "NAME", env = "ADIT_TUN")]
    tun: Option<String>,
    /// How packets travel this time
    #[arg(long, value_enum, default_value_t, env = "ADIT_CARRIER")]
    carrier: Carrier,
    /// Whether this host is closed for what belongs in a full tunnel, this time [default: as the profile says]
    #[arg(long, value_name = "BOOL", env = "ADIT_KILL_SWITCH")]
    kill_switch: Option<bool>,
}

/// Which carriers a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Carrier {
    /// By ESP where the gateway and the path can do that, else by QUIC datagrams, or by TLS over TCP where no UDP
    /// passes; at AnyConnect gateways by DTLS, else by TLS
    #[default]
    Auto,
    /// By ESP, or by QUIC datagrams while ESP does not pass; never by TLS
    Esp,
    /// By QUIC datagrams only
    Quic,
    /// By TLS over TCP only
    Tls,
}

#[derive(Debug, Args)]
struct CleanupArgs {
    /// Leave a host closed that a crashed client left so
    #[arg(long)]
    keep_closed: bool,
}

#[derive(Debug, Args)]
struct NameArgs {
    /// The profile; may be left out if there is only one
    name: Option<ProfileName>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    profile: NameArgs,
    /// Go on with a line for each change, until the client ends
    #[arg(long)]
    follow: bool,
    /// Print a JSON object; with --follow one in each line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// The directories of this client, and the profiles in them.
struct ClientFiles {
    directories: Directories,
    store: ProfileStore,
}

impl ClientFiles {
    fn new(dir: Option<&PathBuf>) -> Self {
        let directories = dir.map_or_else(Directories::system, |dir| Directories::below(dir));
        let store = ProfileStore::new(&directories.clients);
        Self { directories, store }
    }

    /// The profile named, or the only one there is.
    fn choose(&self, given: &NameArgs) -> Result<ProfileName, Failure> {
        if let Some(name) = &given.name {
            return Ok(name.clone());
        }
        let names = self.store.names()?;
        match names.as_slice() {
            [only] => Ok(only.clone()),
            [] => {
                let what = self.directories.clients.display().to_string();
                Err(Failure::new(Exit::Usage, what, "there is no profile", "make one with `adit-client join URL`"))
            }
            several => {
                let several: Vec<&str> = several.iter().map(ProfileName::as_str).collect();
                let next = format!("name one of: {}", several.join(", "));
                Err(Failure::new(Exit::Usage, "profile", "there are several", next))
            }
        }
    }
}

/// Runs the program: parses the command line, does the verb, prints a failure once, returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let detached = matches!(&cli.verb, Verb::Up(up) if up.detached);
    let form = Form::Text { colours: io::stderr().is_terminal() };
    log::start(log::filter_from_environment(), form).expect("no other log was started");
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            output::failure(&failure);
            if detached {
                detach::report_failure(&failure);
            }
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let files = ClientFiles::new(cli.dir.as_ref());
    match on_runtime(dispatch(&files, cli.verb))? {
        Done::Ended => Ok(Exit::Ok.into()),
        // Only once the runtime's threads are gone does this process start another.
        Done::Detach(args) => detach::spawn(&files, &args, cli.dir.as_deref()),
    }
}

/// What a verb came to.
enum Done {
    /// It is done.
    Ended,
    /// A client is to be started in the background.
    Detach(UpArgs),
}

fn on_runtime<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // One thread for the one connection: two would spend much of their time waiting for its lock, when packets go by
    // `quic`.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Other, "start the runtime", error.to_string(), ""))?;
    let result = runtime.block_on(verb);
    // A name look-up that hangs must not hold the program up.
    runtime.shutdown_background();
    result
}

async fn dispatch(files: &ClientFiles, verb: Verb) -> Result<Done, Failure> {
    match verb {
        Verb::Join(args) => return join::join(files, args).await,
        Verb::Add(args) => add::add(files, args).await?,
        Verb::Login(args) => login::login(files, &args).await?,
        Verb::Up(args) => return connect(files, args).await,
        Verb::Down(args) => tunnel::down(files, &files.choose(&args)?).await?,
        Verb::Status(args) if args.follow => follow::follow(files, &files.choose(&args.profile)?, args.json).await?,
        Verb::Status(args) => status::status(files, &files.choose(&args.profile)?, args.json).await?,
        Verb::Wait(args) => wait::wait(files, &args).await?,
        Verb::Netcheck(args) => netcheck::netcheck(files, &args).await?,
        Verb::List(args) => list::list(files, args.json).await?,
        Verb::Forget { name } => cleanup::forget(files, &name).await?,
        Verb::Block(args) => block::block(files, &files.choose(&args)?).await?,
        Verb::Portal(args) => portal::portal(files, &args).await?,
        Verb::PortalProgram(args) => return Err(portal::become_program(&args)),
        Verb::Cleanup(args) => cleanup::cleanup(files, args.keep_closed).await?,
    }
    Ok(Done::Ended)
}

async fn connect(files: &ClientFiles, args: UpArgs) -> Result<Done, Failure> {
    if args.connection.detach {
        let profile = files.store.load(&files.choose(&args.profile)?)?;
        // The process in the background has nobody to ask.
        login::ensure(files, &profile).await?;
        return Ok(Done::Detach(args));
    }
    tunnel::up(files, args).await.map(|()| Done::Ended)
}

/// The `--dir` flag for a suggested command, if it is needed.
fn dir_flag(files: &ClientFiles) -> String {
    if files.directories == Directories::system() {
        return String::new();
    }
    let dir = files.directories.clients.parent().map(|dir| dir.display().to_string());
    dir.map_or_else(String::new, |dir| format!(" --dir {dir}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn carrier_is_auto_unless_named() {
        let carrier = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["adit-client", "up"].iter().chain(arguments)).ok()?;
            let Verb::Up(up) = cli.verb else { return None };
            Some(up.connection.carrier)
        };
        assert_eq!(carrier(&[]), Some(Carrier::Auto));
        assert_eq!(carrier(&["home", "--carrier", "esp"]), Some(Carrier::Esp));
        assert_eq!(carrier(&["home", "--carrier", "quic"]), Some(Carrier::Quic));
        assert_eq!(carrier(&["--carrier", "tls"]), Some(Carrier::Tls));
        assert_eq!(carrier(&["--carrier", "pigeon"]), None);
    }

    #[test]
    fn name_may_be_left_out_only_if_there_is_one_profile() {
        let directory = tempfile::tempdir().unwrap();
        let files = ClientFiles::new(Some(&directory.path().to_owned()));
        let nobody = NameArgs { name: None };
        assert_eq!(files.choose(&nobody).unwrap_err().exit, Exit::Usage);
        files.store.save(&crate::profile::tests::profile("home"), false).unwrap();
        assert_eq!(files.choose(&nobody).unwrap().as_str(), "home");
        files.store.save(&crate::profile::tests::profile("work"), false).unwrap();
        let failure = files.choose(&nobody).unwrap_err();
        assert!(failure.next.contains("home, work"), "{failure}");
    }
}
