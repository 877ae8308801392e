//! `add`: a profile for a gateway at which users log in and which knows no devices, of the AnyConnect family.

mod first_contact;

use std::path::PathBuf;

use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_program::output;
use adit_proto::invite::{PIN_LEN, Place};
use adit_proto::mark::Mark;
use clap::Args;
use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;

use super::join::{USUAL_PORT, certificates_of};
use super::{ClientFiles, dir_flag};
use crate::gateway_contact::{GatewayContact, parse_pin};
use crate::profile::{EspTable, GatewayProtocol, Identity, LanAccess, LoginTable, Profile, ProfileName, WorkersTable};
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
    /// Who logs in there; asked for at each login otherwise
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Name of the new profile [default: the gateway's host name]
    #[arg(long)]
    name: Option<ProfileName>,
    /// Overwrite a profile of this name
    #[arg(long)]
    replace: bool,
    /// Trust the certificate authorities in this PEM file, not those of the system
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    authority: Option<PathBuf>,
    /// Trust the authority, or the gateway's own certificate, with this fingerprint of its key
    #[arg(long, value_name = "FINGERPRINT", value_parser = parse_pin)]
    pin: Option<[u8; PIN_LEN]>,
}

/// Looks whether the gateway is there and who it says it is, and saves the profile.
pub(super) async fn add(files: &ClientFiles, args: AddArgs) -> Result<(), Failure> {
    let (Place { host, port }, path) = link(&args.gateway)?;
    let name = match args.name {
        Some(name) => name,
        None => ProfileName::from_host(&host)?,
    };
    let room = files.store.prepare(&name, args.replace)?;
    let authorities = args.authority.as_deref().map(certificates_of).transpose()?.unwrap_or_default();
    let mut profile = Profile {
        name,
        host,
        port,
        protocol: GatewayProtocol::AnyConnect,
        user: args.user.unwrap_or_default(),
        device: String::new(),
        addresses: Vec::new(),
        kill_switch: None,
        lan: LanAccess::default(),
        full_tunnel: false,
        authority_pem: authorities.iter().map(pem).collect(),
        pin: args.pin,
        identity: Identity::Login,
        login: LoginTable { path, group: args.group.unwrap_or_default() },
        esp: EspTable::default(),
        workers: WorkersTable::default(),
        mark: Mark::default(),
    };
    recognise(&mut profile).await?;
    room.save(&profile)?;
    // It was of the gateway that had this name before.
    files.store.forget_login(&profile.name)?;
    output::line(&format!("profile {} saved in {}", profile.name, files.store.path(&profile.name).display()));
    output::line(&format!("next: adit-client{} up {}", dir_flag(files), profile.name));
    Ok(())
}

/// Looks whether the gateway is there and the one that the profile means. Where the profile says nothing of that, and
/// nobody vouches for the gateway, whoever sits at the terminal does.
async fn recognise(profile: &mut Profile) -> Result<(), Failure> {
    let mut gateway = GatewayContact::of(profile, None).await?;
    let greeted = greet(&mut gateway, Entrance::of(&profile.login)).await;
    let is_told = profile.pin.is_some() || !profile.authority_pem.is_empty();
    match greeted {
        Err(failure) if failure.exit == Exit::IdentityMismatch && !is_told => {
            profile.pin = Some(first_contact::vouched_for(&gateway, failure).await?);
            let mut known = GatewayContact::of(profile, None).await?;
            greet(&mut known, Entrance::of(&profile.login)).await
        }
        greeted => greeted,
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
    use rustls::pki_types::pem::PemObject as _;

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
    fn certificates_are_kept_as_they_are() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate: CertificateDer<'static> =
            rcgen::CertificateParams::default().self_signed(&key).unwrap().into();
        assert_eq!(CertificateDer::from_pem_slice(pem(&certificate).as_bytes()).unwrap(), certificate);
    }
}
