//! `add`: a profile for a gateway of which only the link is known. Mostly it is of the AnyConnect family, which knows
//! users and no devices. One that speaks CONNECT-IP is joined.

mod first_contact;

use std::path::{Path, PathBuf};

use adit_net::tls::Certified;
use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_program::guarded_file::{Guard, Readers};
use adit_program::output;
use adit_proto::invite::Place;
use adit_proto::mark::Mark;
use clap::Args;
use data_encoding::BASE64;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::join::{KnownBy, USUAL_PORT, certificates_of, profile_name, tell_with_next_step};
use super::login::{AtTerminal, LoginFlags};
use super::{ClientFiles, dir_flag};
use crate::captive_portal::CaptiveProbe;
use crate::gateway_contact::{GatewayContact, Trust};
use crate::join::join_by_login;
use crate::profile::{
    EspTable, GatewayProtocol, Identity, LanAccess, LoginTable, Profile, ProfileName, WorkersTable, guard_failure,
};
use crate::protocols::anyconnect::login::{Entrance, greet};

/// What the URL of a gateway begins with.
const SCHEME: &str = "https://";

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The gateway, https://HOST or https://HOST:PORT; with /GROUP if its link has that
    #[arg(value_name = "URL")]
    gateway: String,
    /// The group to log in to, as the gateway's list calls it; asked for at each login otherwise
    #[arg(long)]
    group: Option<String>,
    /// A command that prints the password at each login
    #[arg(long, value_name = "CMD")]
    credential_command: Option<String>,
    /// Let the gateway have its user log in in a browser, which has to run on this host
    #[arg(long)]
    browser: bool,
    /// Which protocol to speak, `native` or `anyconnect`; the gateway is asked otherwise
    #[arg(long, value_parser = parse_protocol)]
    protocol: Option<GatewayProtocol>,
    #[command(flatten)]
    login: LoginFlags,
    /// Name of the new profile [default: the gateway's host name]
    #[arg(long)]
    name: Option<ProfileName>,
    /// Overwrite a profile of this name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    known_by: KnownBy,
    /// Show the certificate in this PEM file to the gateway, besides a password if it wants one
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The private key of that certificate, in a PEM file that only its owner may read
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

/// Looks whether the gateway is there, who it says it is, and what it speaks, and saves the profile.
pub(super) async fn add(files: &ClientFiles, args: AddArgs) -> Result<(), Failure> {
    let (place, path) = link(&args.gateway)?;
    let (group, credential_command) = (args.group.unwrap_or_default(), args.credential_command.unwrap_or_default());
    let login = LoginTable { path, group, credential_command, browser: args.browser };
    let identity = identity(args.certificate.as_deref().zip(args.key.as_deref()))?;
    let is_for_others = login != LoginTable::default() || !matches!(identity, Identity::Login);
    let protocol = named_protocol(args.protocol, is_for_others)?;
    let name = profile_name(files, args.name, &place.host, args.replace)?;
    let room = files.store.prepare(&name, args.replace)?;
    let mut profile = draft(name, &place, (login, identity), &args.login, &args.known_by)?;
    if recognise(&mut profile, protocol, &args.known_by).await? == GatewayProtocol::ConnectIp {
        drop(room);
        return join(files, &profile, args.replace, &args.login, &args.known_by).await;
    }
    // They are of the gateway that had this name before, and not for the new one, whatever fails in between.
    files.store.forget_login(&profile.name)?;
    files.store.forget_password(&profile.name)?;
    room.save(&profile)?;
    output::line(&format!("profile {} saved in {}", profile.name, files.store.path(&profile.name).display()));
    output::line(&format!("next: adit-client{} up {}", dir_flag(files), profile.name));
    Ok(())
}

/// The protocol that the command line leads to, if it leads to one.
fn named_protocol(named: Option<GatewayProtocol>, is_for_others: bool) -> Result<Option<GatewayProtocol>, Failure> {
    match named {
        Some(GatewayProtocol::ConnectIp) if is_for_others => {
            let reason = "Adit gateways take no group, path, credential command or certificate of others";
            Err(Failure::new(Exit::Usage, "--protocol native", reason, "leave out one or the other"))
        }
        None if is_for_others => Ok(Some(GatewayProtocol::AnyConnect)),
        named => Ok(named),
    }
}

/// The profile of a gateway of the AnyConnect family.
fn draft(
    name: ProfileName,
    place: &Place,
    (login, identity): (LoginTable, Identity),
    flags: &LoginFlags,
    known_by: &KnownBy,
) -> Result<Profile, Failure> {
    let authorities = known_by.authority.as_deref().map(certificates_of).transpose()?.unwrap_or_default();
    Ok(Profile {
        name,
        host: place.host.clone(),
        port: place.port,
        protocol: GatewayProtocol::AnyConnect,
        user: flags.user.clone().unwrap_or_default(),
        device: String::new(),
        others: Vec::new(),
        addresses: Vec::new(),
        kill_switch: None,
        lan: LanAccess::default(),
        captive_probe: CaptiveProbe::default(),
        full_tunnel: false,
        authority_pem: authorities.iter().map(pem).collect(),
        pin: known_by.pin,
        identity,
        login,
        esp: EspTable::default(),
        workers: WorkersTable::default(),
        mark: Mark::default(),
    })
}

/// What the gateway is shown of the user: a certificate, if there is one in these files, with its key.
fn identity(files: Option<(&Path, &Path)>) -> Result<Identity, Failure> {
    let Some((certificate, key)) = files else { return Ok(Identity::Login) };
    let chain = certificates_of(certificate)?;
    let content = Guard::default().read(key, Readers::Owner).map_err(guard_failure)?;
    let unusable = |reason: String| {
        let next = "give the key of the certificate in PEM, without a passphrase";
        Failure::new(Exit::Usage, key.display().to_string(), reason, next)
    };
    let private = PrivateKeyDer::from_pem_slice(&content).map_err(|error| unusable(error.to_string()))?;
    Certified::new(chain.clone(), private).map_err(|error| unusable(error.to_string()))?;
    let text = str::from_utf8(&content).map_err(|error| unusable(error.to_string()))?;
    Ok(Identity::Certificate { chain_pem: chain.iter().map(pem).collect(), key_pem: Zeroizing::new(text.to_owned()) })
}

/// Looks whether the gateway is there and the one that the profile means, and what it speaks. Where the profile says
/// nothing of who it is, and nobody vouches for the gateway, whoever sits at the terminal does.
async fn recognise(
    profile: &mut Profile,
    protocol: Option<GatewayProtocol>,
    known_by: &KnownBy,
) -> Result<GatewayProtocol, Failure> {
    if protocol == Some(GatewayProtocol::ConnectIp) {
        // It may listen on UDP alone.
        return Ok(GatewayProtocol::ConnectIp);
    }
    let mut gateway = GatewayContact::of(profile, None).await?;
    let is_told = profile.pin.is_some() || !profile.authority_pem.is_empty();
    let met = greeted(&mut gateway, profile, protocol, known_by).await;
    match met {
        Err(failure) if failure.exit == Exit::IdentityMismatch && !is_told => {
            profile.pin = Some(first_contact::vouched_for(&gateway, failure).await?);
            greeted(&mut GatewayContact::of(profile, None).await?, profile, protocol, known_by).await
        }
        met => met,
    }
}

/// What a gateway speaks that is there and the one meant.
async fn greeted(
    gateway: &mut GatewayContact,
    profile: &Profile,
    protocol: Option<GatewayProtocol>,
    known_by: &KnownBy,
) -> Result<GatewayProtocol, Failure> {
    if protocol.is_none() && gateway.speaks_connect_ip().await? {
        let mut on_udp = GatewayContact::find(vec![gateway.place().clone()], &trust(profile, known_by)?).await?;
        if on_udp.answers_by_quic().await {
            return Ok(GatewayProtocol::ConnectIp);
        }
        let name = gateway.name();
        output::note(&format!(
            "{name} is an Adit gateway, but does not answer on UDP: the AnyConnect protocol will do"
        ));
    }
    greet(gateway, Entrance::of(profile)).await?;
    Ok(GatewayProtocol::AnyConnect)
}

/// By what the gateway of a profile is known, to whoever joins it.
fn trust(profile: &Profile, known_by: &KnownBy) -> Result<Trust, Failure> {
    KnownBy { authority: known_by.authority.clone(), pin: profile.pin }.trust()
}

/// Enrols this device at a gateway that speaks CONNECT-IP.
async fn join(
    files: &ClientFiles,
    profile: &Profile,
    replace: bool,
    flags: &LoginFlags,
    known_by: &KnownBy,
) -> Result<(), Failure> {
    output::note(&format!("{} is an Adit gateway: this device is enrolled there", profile.gateway()));
    let place = Place { host: profile.host.clone(), port: profile.port };
    let (trust, mut person) = (trust(profile, known_by)?, AtTerminal::new(flags, ""));
    let name = Some(profile.name.clone());
    let joined = join_by_login(place, &trust, &mut person, name, replace, &files.store).await?;
    tell_with_next_step(files, &joined);
    Ok(())
}

/// A protocol, as users name it.
fn parse_protocol(text: &str) -> Result<GatewayProtocol, String> {
    match text {
        "native" => Ok(GatewayProtocol::ConnectIp),
        "anyconnect" => Ok(GatewayProtocol::AnyConnect),
        _ => Err("it is `native`, for Adit's gateways, or `anyconnect`".to_owned()),
    }
}

/// The place and the path that a link names.
fn link(url: &str) -> Result<(Place, String), Failure> {
    let unusable = |reason: String| {
        let next =
            "give https:// and the gateway's host name, with :PORT if it is not 443, and /GROUP if its link has it";
        Failure::new(Exit::Usage, "gateway", reason, next)
    };
    let rest = url.trim().strip_prefix(SCHEME).ok_or_else(|| unusable("it is no https:// link".to_owned()))?;
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#')) {
        return Err(unusable("the path of the link is none of a group".to_owned()));
    }
    let place = Place::parse(place, USUAL_PORT).map_err(|error| unusable(printable(&error.to_string())))?;
    Ok((place, format!("/{path}")))
}

/// A certificate as a file has it (RFC 7468).
fn pem(certificate: &CertificateDer<'static>) -> String {
    const LINE: usize = 64;
    let text = BASE64.encode(certificate);
    let lines = text.as_bytes().chunks(LINE).map(|line| format!("{}\n", String::from_utf8_lossy(line)));
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn gateway_is_named_by_a_link_of_https() {
        let link =
            |url: &str| link(url).map(|(place, path)| (place.host, place.port, path)).map_err(|failure| failure.exit);
        let named = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(link("https://vpn.example.org"), named("vpn.example.org", 443, "/"));
        assert_eq!(link("https://[2001:db8::1]:8443/"), named("2001:db8::1", 8443, "/"));
        assert_eq!(link("https://vpn.example.org:8443/staff/de"), named("vpn.example.org", 8443, "/staff/de"));
        for other in ["vpn.example.org", "http://vpn.example.org", "https://", "https://a:0"] {
            assert_eq!(link(other), Err(Exit::Usage), "{other}");
        }
        for path in ["/b", "b c", "b?c=d", "b#c", "b\r\nX: y", "\u{e4}"] {
            assert_eq!(link(&format!("https://a/{path}")), Err(Exit::Usage), "{path:?}");
        }
    }

    #[test]
    fn what_is_for_others_alone_says_what_a_gateway_speaks() {
        let named = |protocol, is_for_others| named_protocol(protocol, is_for_others).map_err(|failure| failure.exit);
        assert_eq!(named(None, false), Ok(None));
        assert_eq!(named(None, true), Ok(Some(GatewayProtocol::AnyConnect)));
        assert_eq!(named(Some(GatewayProtocol::ConnectIp), false), Ok(Some(GatewayProtocol::ConnectIp)));
        assert_eq!(named(Some(GatewayProtocol::ConnectIp), true), Err(Exit::Usage));
        assert_eq!(parse_protocol("native"), Ok(GatewayProtocol::ConnectIp));
        assert_eq!(parse_protocol("anyconnect"), Ok(GatewayProtocol::AnyConnect));
        assert!(parse_protocol("pigeon").is_err());
    }

    #[test]
    fn certificate_of_the_user_comes_with_its_key_which_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let made = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
            let key = write(&format!("{name}.key"), &key.serialize_pem(), 0o600);
            (write(&format!("{name}.pem"), &certificate.pem(), 0o644), key)
        };
        let ((certificate, key), (_, another)) = (made("one"), made("another"));
        let shown = |key: &Path| identity(Some((certificate.as_path(), key))).map_err(|failure| failure.reason);
        assert!(matches!(shown(&key), Ok(Identity::Certificate { key_pem, .. }) if key_pem.contains("PRIVATE KEY")));
        assert!(shown(&another).is_err(), "it is not the key of the certificate");
        assert!(shown(&write("nonsense", "nonsense", 0o600)).is_err());
        let open = write("open.key", &fs::read_to_string(&key).unwrap(), 0o640);
        assert!(shown(&open).err().unwrap().contains("lets others at a secret"));
        assert!(matches!(identity(None), Ok(Identity::Login)));
    }

    #[test]
    fn certificates_are_kept_as_they_are() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate: CertificateDer<'static> =
            rcgen::CertificateParams::default().self_signed(&key).unwrap().into();
        assert_eq!(CertificateDer::from_pem_slice(pem(&certificate).as_bytes()).unwrap(), certificate);
    }
}
