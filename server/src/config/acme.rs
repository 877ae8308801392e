//! The table `[acme]`: certificates that the gateway gets itself.

use std::path::PathBuf;

use adit_program::configuration::{Complaint, Given};
use hyper::Uri;

use super::value;

/// Which certificates the gateway gets itself, and from whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcmeConfig {
    /// The names that get one each, in lower case, none twice; without any, the gateway gets none.
    pub names: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// Whether the administrator accepts the authority's terms of service.
    pub accept_terms: bool,
    /// An address for mail from the authority.
    pub contact: Option<String>,
    /// Authorities that its own certificate is checked by, instead of the system's.
    pub authority: Option<PathBuf>,
}

/// DNS names, each once.
pub(super) fn names(given: &Given<'_>) -> Result<Vec<String>, Complaint> {
    let names = given.list(value::domain)?;
    match (1..names.len()).find(|later| names[..*later].contains(&names[*later])) {
        Some(again) => Err(Complaint::unfit(format!("{:?} is named twice", names[again]), "name each once")),
        None => Ok(names),
    }
}

/// The URL of a directory.
pub(super) fn directory(given: &Given<'_>) -> Result<String, Complaint> {
    let text = given.text()?;
    let is_url = |uri: &Uri| matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some();
    if text.parse::<Uri>().ok().filter(is_url).is_none() {
        let next = "write the URL that the authority's documentation has, such as \
                    \"https://acme-v02.api.letsencrypt.org/directory\"";
        return Err(Complaint::unfit(format!("{given} is no URL of a directory"), next));
    }
    Ok(text.to_owned())
}

/// A mail address.
pub(super) fn contact(given: &Given<'_>) -> Result<String, Complaint> {
    let text = given.text()?;
    let is_plain = |part: &str| !part.is_empty() && part.chars().all(|letter| letter.is_ascii_graphic());
    let parts = text.split_once('@');
    // More than one address, or parameters of a mail (RFC 6068), are refused by authorities.
    let is_address = parts.is_some_and(|(user, host)| is_plain(user) && is_plain(host));
    if !is_address || text.contains([',', '?', ':']) || text.matches('@').count() > 1 {
        let next = "write one address, such as \"admin@example.org\"";
        return Err(Complaint::unfit(format!("{given} is no mail address"), next));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::{Source, interpret};
    use super::AcmeConfig;

    /// What these lines of the table are, or what is wrong with them.
    fn read(lines: &str) -> Result<AcmeConfig, usize> {
        let text = format!("public = [\"a.example\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n[acme]\n{lines}\n");
        let (config, problems) = interpret(&text, &Source::file(Path::new("server.toml")));
        if problems.is_empty() { Ok(config.unwrap().acme) } else { Err(problems.len()) }
    }

    #[test]
    fn names_are_dns_names_each_once() {
        let config = read("names = [\"VPN.example.org\", \"second.example.org.\"]").unwrap();
        assert_eq!(config.names, ["vpn.example.org", "second.example.org"]);
        assert!(config.directory.starts_with("https://acme-v02.api.letsencrypt.org/") && !config.accept_terms);
        assert_eq!(read("names = []").unwrap().names, Vec::<String>::new());
        for bad in ["\"192.0.2.1\"", "\"*.example.org\"", "\"a.example\", \"A.example\"", "\"a/b\"", "\"..\""] {
            assert_eq!(read(&format!("names = [{bad}]")), Err(1), "{bad}");
        }
    }

    #[test]
    fn directory_is_a_url_and_contact_an_address() {
        assert!(read("directory = \"https://acme.example/dir\"\ncontact = \"a.b+c@example.org\"").is_ok());
        for bad in ["", "acme.example", "ftp://acme.example/", "https://", "mailto:a@b"] {
            assert_eq!(read(&format!("directory = {bad:?}")), Err(1), "{bad}");
        }
        for bad in ["", "a", "@b", "a@", "mailto:a@b", "a@b,c@d", "a@b?subject=x", "a b@c", "a@b@c"] {
            assert_eq!(read(&format!("contact = {bad:?}")), Err(1), "{bad}");
        }
    }
}
