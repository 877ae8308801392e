//! `portal`: says where the network's captive portal is, or lets one program out to it past a closed kill switch.

mod environment;
mod launch;
mod program;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use adit_host::{HostError, PortalWay, close_portal_way};
use adit_program::causes::with_causes;
use adit_program::exit::{Exit, Failure};
use adit_program::file_lock::FileLock;
use adit_program::output;
use adit_program::signals::{SignalRequest, Signals};
use adit_proto::captive_portal::PageAddress;
use clap::{Args, value_parser};
use tokio::time::{sleep, timeout};

use super::{ClientFiles, NameArgs, block, dir_flag, status};
use crate::captive_portal;
use crate::own_question::LocalResolvers;
use crate::profile::{Profile, ProfileName, file_failure, guard_failure};
use crate::run::Status;
use crate::state::State;
use launch::Launched;

pub(super) use program::{ProgramArgs, become_program};

/// How long a program is let out at most.
const MOST_TIME: Duration = Duration::from_secs(10 * 60);
/// How long the way stays open by itself: not much longer than this program lives.
const LEASE: Duration = Duration::from_secs(15);
/// How often the way is opened anew.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often it is looked whether the tunnel stands, and how long the client may take to say so.
const LOOK: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The ports of pages, in clear and over TLS: the usual ones, and those that portals have most beside them.
const PAGES: [u16; 4] = [80, 443, 8080, 8443];
/// Most further ports that may be named.
const MOST_PORTS: usize = 16;

#[derive(Debug, Args)]
pub(super) struct PortalArgs {
    #[command(flatten)]
    profile: NameArgs,
    /// A further TCP port that the program may reach; 80, 443, 8080, 8443 and that of the portal's address need none
    #[arg(long = "port", value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// The program that is let out, such as a browser, and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Why a program is let out no longer.
enum Over {
    ProgramEnded(Option<i32>),
    Connected,
    HostOpened,
    TimeUp,
    Asked,
}

/// Says where the portal is, or runs a program that alone gets there.
pub(super) async fn portal(files: &ClientFiles, args: &PortalArgs) -> Result<(), Failure> {
    let name = files.choose(&args.profile)?;
    let profile = files.store.load(&name)?;
    let status = status::ask(files, &name).await?.unwrap_or_default();
    if args.program.is_empty() {
        explain(files, &name, &status);
        return Ok(());
    }
    if is_connected(&status) {
        let next = "the network lets this host out; open any page, which goes through the tunnel";
        return Err(Failure::new(Exit::Usage, format!("client {name}"), "it is connected", next));
    }
    block::must_be_closed(&name)?;
    files.directories.create_for_running()?;
    let lock = files.directories.run.join(format!("client-{name}.portal.lock"));
    let Some(_only) = FileLock::try_acquire(&lock).map_err(guard_failure)? else {
        let next = "end that one first: one program at a time is let out";
        return Err(Failure::new(Exit::Usage, format!("portal of {name}"), "a program is there already", next));
    };
    let way = way(&profile, &status, &args.ports)?;
    let over = let_out(files, &name, &way, &args.program).await;
    close_portal_way(name.as_str()).map_err(|error| refused(&name, &error))?;
    let over = over?;
    output::line(&format!("{name}: {}; the way to the portal is closed", over.in_words()));
    match over {
        Over::ProgramEnded(code) if code != Some(0) => Err(failed(&args.program, code)),
        Over::ProgramEnded(_) | Over::Connected | Over::HostOpened | Over::TimeUp | Over::Asked => Ok(()),
    }
}

/// What a program that failed means for whoever called this one. What is missing to start it, the child has said.
fn failed(program: &[OsString], code: Option<i32>) -> Failure {
    let exit = match code {
        Some(2) => Exit::Usage,
        Some(6) => Exit::Permission,
        _ => Exit::Other,
    };
    let ended = code.map_or_else(|| "it was killed".to_owned(), |code| format!("it ended with exit code {code}"));
    let program = program.first().map(|program| program.display().to_string()).unwrap_or_default();
    Failure::new(exit, program, ended, "see what it said")
}

impl Over {
    fn in_words(&self) -> &'static str {
        match self {
            Self::ProgramEnded(_) => "the program has ended",
            Self::Connected => "connected",
            Self::HostOpened => "this host was opened",
            Self::TimeUp => "ten minutes are over",
            Self::Asked => "ended",
        }
    }
}

/// Says where the portal is, and how a program gets there.
fn explain(files: &ClientFiles, name: &ProfileName, status: &Status) {
    let page = status.portal.as_deref();
    match page {
        Some(page) => output::line(&format!("{name}: {}", captive_portal::in_words(page))),
        None => output::line(&format!("{name}: no captive portal is known of")),
    }
    if !block::is_closed(name) {
        output::line("nothing keeps browsers of this host from it, as far as this user may see");
        return;
    }
    let (flag, page) = (dir_flag(files), page.unwrap_or("http://ADDRESS"));
    output::line("this host is closed; as root, this lets one program out for ten minutes at most:");
    output::line(&format!(
        "  adit-client{flag} portal {name} -- sh -c 'firefox --new-instance --profile \"$(mktemp -d)\" \"$0\"' '{page}'"
    ));
}

/// What the program may reach: pages, at the portal's own port and those that are `named` as well, and the network's
/// resolvers.
fn way(profile: &Profile, status: &Status, named: &[u16]) -> Result<PortalWay, Failure> {
    if named.len() > MOST_PORTS {
        let reason = format!("there are more than {MOST_PORTS}");
        return Err(Failure::new(Exit::Usage, "--port", reason, "name those alone that the portal's pages have"));
    }
    let mut resolvers = LocalResolvers::default();
    resolvers.refresh(&status.dns);
    let mut resolvers: BTreeSet<IpAddr> = resolvers.addresses().into_iter().collect();
    if resolvers.is_empty() {
        resolvers.extend(&status.local_dns);
    }
    if resolvers.is_empty() {
        output::note("no resolver of this network is known: the program will find no names");
    }
    let page = status.portal.as_deref().and_then(PageAddress::parse);
    Ok(PortalWay {
        profile: profile.name.to_string(),
        group: launch::unused_group()?,
        mark: profile.mark,
        ports: PAGES.into_iter().chain(page.map(|page| page.port())).chain(named.iter().copied()).collect(),
        resolvers,
    })
}

/// Runs the program until it is to be let out no longer, and sees to its end.
async fn let_out(
    files: &ClientFiles,
    name: &ProfileName,
    way: &PortalWay,
    program: &[OsString],
) -> Result<Over, Failure> {
    let mut signals = Signals::listen()?;
    way.open(LEASE).map_err(|error| refused(name, &error))?;
    if let Err(error) = way.lead_past_tunnel(LEASE) {
        // Only where there is a tunnel, out of use, does anything depend on it.
        output::note(
            "the program cannot be led past a tunnel: if it reaches nothing, `adit-client down` opens the host",
        );
        tracing::debug!(error = with_causes(&error), "the program cannot be led past a tunnel");
    }
    let resolver_file = ResolverFile::write(files, name, way)?;
    let mut launched = Launched::start(way.group, &resolver_file.0, program)?;
    let over = stay(files, name, way, &mut launched, &mut signals).await;
    launched.end().await;
    over
}

/// Keeps the way open for as long as it is to be.
async fn stay(
    files: &ClientFiles,
    name: &ProfileName,
    way: &PortalWay,
    launched: &mut Launched,
    signals: &mut Signals,
) -> Result<Over, Failure> {
    let (began, mut renewed) = (Instant::now(), Instant::now());
    loop {
        let connected = tokio::select! {
            code = launched.ended() => return Ok(Over::ProgramEnded(code)),
            signal = signals.next() => match signal {
                SignalRequest::Stop | SignalRequest::HangUp => return Ok(Over::Asked),
                // There are none. Whoever asks all clients of this host for them ends nothing.
                SignalRequest::Statistics => continue,
            },
            connected = stands(files, name) => connected,
        };
        if connected {
            return Ok(Over::Connected);
        }
        if !block::is_closed(name) {
            return Ok(Over::HostOpened);
        }
        let left = MOST_TIME.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(Over::TimeUp);
        }
        if renewed.elapsed() >= RENEWAL {
            way.open(LEASE.min(left)).map_err(|error| refused(name, &error))?;
            renewed = Instant::now();
        }
    }
}

/// Waits a little, and asks the client whether the tunnel stands. One that does not say so may be ending, or hang.
async fn stands(files: &ClientFiles, name: &ProfileName) -> bool {
    sleep(LOOK).await;
    let asked = timeout(ANSWER_WITHIN, status::ask(files, name)).await;
    matches!(asked, Ok(Ok(Some(status))) if is_connected(&status))
}

fn refused(name: &ProfileName, error: &HostError) -> Failure {
    let exit = if error.is_permission_denied() { Exit::Permission } else { Exit::Other };
    Failure::new(exit, format!("portal of {name}"), with_causes(error), "`adit-client down` opens this host altogether")
}

fn is_connected(status: &Status) -> bool {
    status.state == State::Connected.label()
}

/// The file that stands for `/etc/resolv.conf` in the program's eyes; removed on drop.
struct ResolverFile(PathBuf);

impl ResolverFile {
    fn write(files: &ClientFiles, name: &ProfileName, way: &PortalWay) -> Result<Self, Failure> {
        let path = files.directories.run.join(format!("client-{name}.portal.resolv.conf"));
        let text: String = way.resolvers.iter().map(|resolver| format!("nameserver {resolver}\n")).collect();
        let written = launch::write_for_all(&path, &text);
        written.map_err(|error| file_failure(&path.display().to_string(), &error))?;
        Ok(Self(path))
    }
}

impl Drop for ResolverFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}
