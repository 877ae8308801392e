//! `add`: a profile for a gateway at which users log in and which knows no devices, of the AnyConnect family.

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
use crate::protocols::anyconnect;

/// What the URL of a gateway begins with.
const SCHEME: &str = "https://";

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The gateway, https://HOST or https://HOST:PORT
    #[arg(value_name = "URL")]
    gateway: String,
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
    let Place { host, port } = place(&args.gateway)?;
    let name = match args.name {
        Some(name) => name,
        None => ProfileName::from_host(&host)?,
    };
    let room = files.store.prepare(&name, args.replace)?;
    let authorities = args.authority.as_deref().map(certificates_of).transpose()?.unwrap_or_default();
    let profile = Profile {
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
        login: LoginTable::default(),
        esp: EspTable::default(),
        workers: WorkersTable::default(),
        mark: Mark::default(),
    };
    anyconnect::login::greet(&mut GatewayContact::of(&profile, None).await?).await?;
    room.save(&profile)?;
    // It was of the gateway that had this name before.
    files.store.forget_login(&profile.name)?;
    output::line(&format!("profile {} saved in {}", profile.name, files.store.path(&profile.name).display()));
    output::line(&format!("next: adit-client{} up {}", dir_flag(files), profile.name));
    Ok(())
}

fn place(url: &str) -> Result<Place, Failure> {
    let unusable = |reason: String| {
        let next = "give https:// and the gateway's host name, with :PORT if it is not 443";
        Failure::new(Exit::Usage, "gateway", reason, next)
    };
    let rest = url.trim().strip_prefix(SCHEME).ok_or_else(|| unusable("it is no https:// link".to_owned()))?;
    let place = rest.strip_suffix('/').unwrap_or(rest);
    if place.contains('/') {
        return Err(unusable("a path in the link, which names a group at some gateways, is not supported".to_owned()));
    }
    Place::parse(place, USUAL_PORT).map_err(|error| unusable(printable(&error.to_string())))
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
        let place = |url: &str| place(url).map(|place| (place.host, place.port)).map_err(|failure| failure.exit);
        assert_eq!(place("https://vpn.example.org"), Ok(("vpn.example.org".to_owned(), 443)));
        assert_eq!(place("https://[2001:db8::1]:8443/"), Ok(("2001:db8::1".to_owned(), 8443)));
        for other in ["vpn.example.org", "http://vpn.example.org", "https://", "https://a/group", "https://a:0"] {
            assert_eq!(place(other), Err(Exit::Usage), "{other}");
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
