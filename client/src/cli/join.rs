//! `join`: by an invite, or by a login at a gateway of which only the name is known.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_program::guarded_file::{Guard, Readers};
use adit_program::output;
use adit_proto::invite::{Invite, InviteError, PIN_LEN, Place};
use clap::Args;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::lock::ClientLock;
use super::login::{AtTerminal, LoginFlags, lasts};
use super::{ClientFiles, ConnectionArgs, Done, NameArgs, UpArgs, connect, dir_flag};
use crate::gateway_contact::{Trust, parse_pin};
use crate::join;
use crate::profile::{Profile, ProfileName, guard_failure};
use crate::public_roots;

/// Longest invite read from standard input, in bytes.
const LONGEST_INVITE: u64 = 4096;
/// Port of a gateway, unless another is named.
pub(super) const USUAL_PORT: u16 = 443;

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The invite, adit://join/HOST:PORT#…, or `-` to read it from standard input; or HOST or HOST:PORT of a gateway to
    /// log in at
    #[arg(value_name = "INVITE|HOST")]
    gateway: String,
    /// Name of the new profile [default: the gateway's host name]
    #[arg(long)]
    name: Option<ProfileName>,
    /// Overwrite a profile of this name
    #[arg(long)]
    replace: bool,
    /// Connect at once, as `up` does
    #[arg(long)]
    up: bool,
    #[command(flatten)]
    known_by: KnownBy,
    #[command(flatten)]
    login: LoginFlags,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// By what a gateway is known that is joined without an invite.
#[derive(Debug, Args)]
pub(super) struct KnownBy {
    /// Trust the certificate authorities in this PEM file, not those of the system
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    pub(super) authority: Option<PathBuf>,
    /// Trust the authority of the gateway with this fingerprint of its key, as `adit-server check` prints it; at an
    /// AnyConnect gateway it may be that of its own certificate
    #[arg(long, value_name = "FINGERPRINT", value_parser = parse_pin)]
    pub(super) pin: Option<[u8; PIN_LEN]>,
}

/// Enrols this device, and connects if that is wanted.
pub(super) async fn join(files: &ClientFiles, args: JoinArgs) -> Result<Done, Failure> {
    let given = if args.gateway == "-" { read_invite()? } else { Zeroizing::new(args.gateway) };
    let replace = args.replace;
    // Whatever is a link must be an invite: no host name holds this.
    let profile = if given.contains("://") {
        let invite = parse_invite(given.trim())?;
        if args.known_by.authority.is_some() || args.known_by.pin.is_some() {
            let reason = "the invite says by what the gateway is known";
            return Err(Failure::new(Exit::Usage, "--authority, --pin", reason, "leave the flag out"));
        }
        let name = profile_name(files, args.name, &invite.host, replace)?;
        join::join(&invite, Some(name), replace, &files.store).await?
    } else {
        let place = Place::parse(given.trim(), USUAL_PORT).map_err(|error| {
            let next = "give an invite, in quotes, or the gateway's host name, with :PORT if it is not 443";
            Failure::new(Exit::Usage, "gateway", printable(&error.to_string()), next)
        })?;
        let name = profile_name(files, args.name, &place.host, replace)?;
        let mut person = AtTerminal::new(&args.login, "");
        join::join_by_login(place, &args.known_by.trust()?, &mut person, Some(name), replace, &files.store).await?
    };
    if args.up {
        tell(files, &profile);
        let profile = NameArgs { name: Some(profile.name) };
        return connect(files, UpArgs { profile, connection: args.connection, detached: false }).await;
    }
    tell_with_next_step(files, &profile);
    Ok(Done::Ended)
}

/// What a new profile is called: as its user says, or as the gateway's host. None is replaced that a client is running
/// with: it would send the new login to the gateway of before.
pub(super) fn profile_name(
    files: &ClientFiles,
    name: Option<ProfileName>,
    host: &str,
    replace: bool,
) -> Result<ProfileName, Failure> {
    let name = match name {
        Some(name) => name,
        None => ProfileName::from_host(host)?,
    };
    if replace && ClientLock::is_held(&files.directories, &name) {
        let next = format!("end it with `adit-client{} down {name}`, and try again", dir_flag(files));
        let reason = "a client is running with it, and would send the new login to the gateway of before";
        return Err(Failure::new(Exit::Usage, format!("profile {name}"), reason, next));
    }
    Ok(name)
}

/// Says that a device has joined, and what to do next.
pub(super) fn tell_with_next_step(files: &ClientFiles, profile: &Profile) {
    tell(files, profile);
    output::line(&format!("next: adit-client{} up {}", dir_flag(files), profile.name));
}

fn tell(files: &ClientFiles, profile: &Profile) {
    let login = files.store.login(&profile.name);
    let lasts = login.map_or_else(String::new, |login| lasts(login.ends_at));
    output::line(&format!("joined {} as {}'s device {}{lasts}", profile.gateway(), profile.user, profile.device));
    output::line(&format!("profile {} saved in {}", profile.name, files.store.path(&profile.name).display()));
}

impl KnownBy {
    pub(super) fn trust(&self) -> Result<Trust, Failure> {
        if let Some(pin) = self.pin {
            return Ok(Trust::Pin(pin));
        }
        let (roots, called) = match &self.authority {
            Some(file) => (roots_of(file)?, "an authority in the file of `--authority`"),
            None => (roots_of_the_system()?, public_roots::CALLED),
        };
        Ok(Trust::Roots { roots: Arc::new(roots), called })
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, Failure> {
    let what = || file.display().to_string();
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(file)? {
        let added = roots.add(certificate).map_err(|error| error.to_string());
        added.map_err(|reason| Failure::new(Exit::Usage, what(), reason, "give certificates in PEM"))?;
    }
    Ok(roots)
}

/// The certificates in a file, at least one.
pub(super) fn certificates_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unusable =
        |reason: String| Failure::new(Exit::Usage, file.display().to_string(), reason, "give certificates in PEM");
    let content = Guard::default().read(file, Readers::Everybody).map_err(guard_failure)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let certificates = certificates.map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() { Err(unusable("there is no certificate in it".to_owned())) } else { Ok(certificates) }
}

fn roots_of_the_system() -> Result<RootCertStore, Failure> {
    public_roots::load().map_err(|reason| {
        let next = "install the package ca-certificates, or name the gateway's authority with `--authority` or `--pin`";
        Failure::new(Exit::Other, "certificates", reason, next)
    })
}

fn parse_invite(text: &str) -> Result<Invite, Failure> {
    text.parse().map_err(|error: InviteError| {
        let next = "copy the whole link, in quotes, as `adit-server invite` printed it";
        Failure::new(Exit::Usage, "invite", printable(&error.to_string()), next)
    })
}

fn read_invite() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = io::stdin().take(LONGEST_INVITE).read_to_string(&mut text);
    read.map_err(|error| {
        Failure::new(Exit::Usage, "standard input", error.to_string(), "give the invite as argument")
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_of_a_client_that_runs_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let files = ClientFiles::new(Some(&directory.path().to_owned()));
        files.directories.create_for_running().unwrap();
        let named = |name: Option<&str>, replace| {
            let name = name.map(|name| name.parse().unwrap());
            profile_name(&files, name, "vpn.example.org", replace).map(|name| name.to_string())
        };
        let running = ClientLock::acquire(&files.directories, &"vpn.example.org".parse().unwrap()).unwrap();
        let refused = named(None, true).err().unwrap();
        assert!(refused.exit == Exit::Usage && refused.next.contains("down vpn.example.org"), "{refused}");
        assert!(named(Some("vpn.example.org"), true).is_err());
        assert_eq!(named(Some("other"), true).unwrap(), "other");
        assert_eq!(named(None, false).unwrap(), "vpn.example.org", "a profile that is there is refused later");
        drop(running);
        assert_eq!(named(None, true).unwrap(), "vpn.example.org");
    }

    #[test]
    fn file_without_a_certificate_vouches_for_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("authority.pem");
        std::fs::write(&file, "nonsense").unwrap();
        let known_by = KnownBy { authority: Some(file.clone()), pin: None };
        assert_eq!(known_by.trust().err().unwrap().exit, Exit::Usage);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        std::fs::write(&file, authority.pem()).unwrap();
        assert!(matches!(known_by.trust(), Ok(Trust::Roots { .. })));
    }
}
