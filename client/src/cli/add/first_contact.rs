//! The first contact with a gateway that nobody vouches for: a person looks at its certificate and decides.

use std::io::{self, IsTerminal as _};
use std::net::IpAddr;

use adit_net::tls::Seen;
use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_program::output;
use adit_program::prompt::{self, Echo};
use adit_proto::invite::PIN_LEN;
use data_encoding::HEXLOWER;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::cli::login::answer;
use crate::clock::{Validity, shown};
use crate::gateway_contact::GatewayContact;
use crate::protocols::anyconnect::login::look;

/// The only answer that means yes.
const YES: &str = "yes";
/// Most names of a certificate that are shown.
const MOST_NAMES: usize = 8;
/// What to do where nobody decides, or somebody does not trust the gateway.
const NEXT: &str = "ask the gateway's administrator for its fingerprint (`--pin`), or for the certificate of its authority \
    (`--authority`)";

/// The fingerprint by which the gateway is known from now on, if whoever sits at the terminal vouches for it. `failure`
/// says why nobody else does.
pub(super) async fn vouched_for(gateway: &GatewayContact, failure: Failure) -> Result<[u8; PIN_LEN], Failure> {
    // Whoever does not see the fingerprint cannot decide.
    if !prompt::at_terminal() || !io::stderr().is_terminal() {
        return Err(Failure { next: NEXT.to_owned(), ..failure });
    }
    let seen = look(gateway).await?;
    output::note(&described(&gateway.name(), &seen));
    let answer = answer("Trust this gateway from now on? Only `yes` means yes", Echo::Shown)?;
    if answer == YES {
        return Ok(seen.pin);
    }
    Err(Failure::new(Exit::IdentityMismatch, gateway.name(), "nobody vouches for it, and you did not say `yes`", NEXT))
}

/// What is shown of a gateway to whoever decides.
fn described(gateway: &str, seen: &Seen) -> String {
    let whose = if seen.is_of_authority { "of the authority that vouches for it" } else { "of its own key" };
    let certificate = X509Certificate::from_der(&seen.certificate).ok();
    let parsed = certificate.as_ref().map(|(_, parsed)| parsed);
    let names = parsed.map(names).filter(|names| !names.is_empty()).unwrap_or_else(|| "no name".to_owned());
    let issuer = parsed.map_or_else(String::new, |parsed| printable(&parsed.issuer().to_string()));
    let dates = parsed.and_then(Validity::of_certificate);
    let dates = dates.map_or_else(String::new, |Validity { begins, ends }| {
        format!("\n  valid        {} to {}", shown(begins), shown(ends))
    });
    format!(
        "No authority that this host trusts vouches for {gateway}. It shows a certificate\n\n  for          {names}\n  \
         issued by    {issuer}{dates}\n  fingerprint  sha256:{}\n               ({whose})\n\n\
         Anybody on the way could show one. Compare the fingerprint with what the gateway's administrator says.\n",
        HEXLOWER.encode(&seen.pin),
    )
}

/// The names that a certificate is for.
fn names(parsed: &X509Certificate<'_>) -> String {
    let extension = parsed.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|extension| &extension.value.general_names).filter_map(name);
    names.take(MOST_NAMES).collect::<Vec<_>>().join(", ")
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some(printable(name));
    }
    let GeneralName::IPAddress(address) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*address).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(*address).map(IpAddr::from));
    address.ok().map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn seen(names: &[&str], issuer: &str) -> Seen {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, issuer);
        params.not_before = rcgen::date_time_ymd(2020, 1, 2);
        params.not_after = rcgen::date_time_ymd(2040, 3, 4);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().into();
        Seen { certificate, pin: [0xab; PIN_LEN], is_of_authority: false }
    }

    #[test]
    fn names_dates_and_fingerprint_are_shown() {
        let seen = seen(&["vpn.example.org", "192.0.2.1", "2001:db8::1"], "Lab");
        let told = described("vpn.example.org:443", &seen);
        for part in [
            "for vpn.example.org:443.",
            "vpn.example.org, 192.0.2.1, 2001:db8::1\n",
            "CN=Lab\n",
            "2020-01-02T00:00:00Z to 2040-03-04T00:00:00Z",
            &format!("sha256:{}\n", "ab".repeat(32)),
            "(of its own key)",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(described("a:443", &Seen { is_of_authority: true, ..seen }).contains("(of the authority"));
    }

    #[test]
    fn nothing_in_a_certificate_reaches_the_terminal() {
        let told = described("a:443", &seen(&[], "a\u{1b}[2J\u{202e}\nfingerprint  sha256:right"));
        assert!(told.contains("no name") && told.contains("\\u{1b}[2J\\u{202e}\\nfingerprint"), "{told}");
        let nonsense = Seen { certificate: vec![1, 2, 3].into(), pin: [1; PIN_LEN], is_of_authority: false };
        assert!(described("a:443", &nonsense).contains("sha256:0101"));
    }
}
