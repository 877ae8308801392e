//! The table `[oidc]`: an OpenID Connect provider, and how its users' browsers come back.

use std::net::SocketAddr;
use std::path::PathBuf;

use adit_program::configuration::{Complaint, Given};

use super::{PublicAddress, SecretPlace};

/// An OpenID Connect provider, and how its users' browsers come back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OidcConfig {
    /// The provider's issuer, exactly as it calls itself; without one there is no provider.
    pub issuer: Option<String>,
    /// The gateway's name at the provider.
    pub client_id: Option<String>,
    /// Where the gateway's secret at the provider is; without one the gateway is a public client.
    pub client_secret: Option<SecretPlace>,
    /// What the provider is asked for.
    pub scopes: Vec<String>,
    /// Further parameters of a login, as name and value.
    pub parameters: Vec<(String, String)>,
    /// The claim that is a user's name at the first login.
    pub name_claim: String,
    /// The claim that lists a user's groups.
    pub groups_claim: String,
    /// Authorities that the provider's certificate is checked by, instead of the system's.
    pub authority: Option<PathBuf>,
    /// Where browsers come back to; nowhere leaves device codes alone.
    pub listen: Vec<SocketAddr>,
    /// Under which name browsers reach that, if it is not the first of `public` and port 443.
    pub redirect_host: Option<PublicAddress>,
}

/// An issuer: a URL that can be asked for what it publishes.
pub(super) fn issuer(given: &Given<'_>) -> Result<String, Complaint> {
    let text = given.text()?;
    if !is_issuer(text) {
        let next =
            "write the provider's issuer exactly as its documentation has it, such as \"https://login.example.org\"";
        return Err(Complaint::unfit(format!("{given} is no issuer"), next));
    }
    Ok(text.to_owned())
}

/// Whether a text can be an issuer (OpenID Connect Core section 2): a URL without query and fragment.
pub fn is_issuer(text: &str) -> bool {
    let schemes = ["https://", "http://"];
    let is_url = schemes.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    is_url && !text.contains(['?', '#', ' '])
}

/// A text with something in it, such as the name of a claim.
pub(super) fn word(given: &Given<'_>) -> Result<String, Complaint> {
    let text = given.text()?;
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(Complaint::unfit(format!("{given} is not one word"), "write a name without spaces"));
    }
    Ok(text.to_owned())
}

/// What a login says beyond the rules: `NAME=VALUE`. What the gateway itself says cannot be changed by it.
pub(super) fn parameter(given: &Given<'_>) -> Result<(String, String), Complaint> {
    const OWN: [&str; 9] = [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "response_mode",
    ];
    let (name, value) = given.text()?.split_once('=').unwrap_or_default();
    if name.is_empty() {
        return Err(Complaint::unfit(
            format!("{given} is no parameter"),
            "write NAME=VALUE, such as \"prompt=consent\"",
        ));
    }
    if OWN.contains(&name) {
        return Err(Complaint::unfit(format!("{name} is the gateway's own"), "remove it"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::{Source, interpret};

    /// What is wrong with these lines of the table.
    fn problems(lines: &str) -> Vec<String> {
        let text = format!("public = [\"a.example\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n[oidc]\n{lines}\n");
        let (_, problems) = interpret(&text, &Source::file(Path::new("server.toml")));
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pages_of_a_login_are_reached_through_the_tunnel_as_well() {
        let services = |login: &str, listen: &str| {
            let text = format!(
                "public = [\"a.example\"]\nlocal_services = [\"tcp/22\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n\
                 [login]\nsources = [{login:?}]\n[oidc]\nlisten = {listen}\n"
            );
            let (config, problems) = interpret(&text, &Source::file(Path::new("server.toml")));
            assert_eq!(problems, []);
            config.unwrap().services_for_clients().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(services("oidc", "[\"[::]:443\", \"192.0.2.1:443\", \"127.0.0.1:8080\"]"), ["tcp/22", "tcp/443"]);
        assert_eq!(services("oidc", "[\"[::]:22\"]"), ["tcp/22"]);
        assert_eq!(services("local", "[\"[::]:443\"]"), ["tcp/22"], "nobody serves them");
    }

    #[test]
    fn issuer_is_a_url_without_anything_behind_its_path() {
        for good in ["https://a.example", "https://a.example/realms/x/", "http://127.0.0.1:13000"] {
            assert_eq!(problems(&format!("issuer = {good:?}")), Vec::<String>::new());
        }
        for bad in ["", "a.example", "https://", "ftp://a.example", "https://a.example?x", "https://a.example#x"] {
            assert_eq!(problems(&format!("issuer = {bad:?}")).len(), 1, "{bad}");
        }
    }

    #[test]
    fn parameters_cannot_take_away_what_protects_a_login() {
        assert_eq!(problems("parameters = [\"prompt=login consent\", \"x=\"]"), Vec::<String>::new());
        for bad in ["state=x", "nonce=", "code_challenge_method=plain", "response_mode=fragment", "scope=x", "=x", "x"]
        {
            assert_eq!(problems(&format!("parameters = [{bad:?}]")).len(), 1, "{bad}");
        }
    }
}
