//! Users of a provider of OpenID Connect, who join with the real client: in a browser, and by a code.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use adit_lab::{GATEWAY_V4, Host};
use adit_program::durable_file;
use adit_testing::browser::{Browser, Seen, way_on};
use adit_testing::oidc_provider::{CLIENT_SECRET, OidcProvider};
use adit_testing::{PATIENCE, eventually};
use serde_json::{Value, json};

use crate::harness::{INTERNET, Options, Tunnel, reach};
use crate::people::{PROFILE, give_policy, pin};

/// Where browsers find the gateway's pages, behind what would be a reverse proxy.
pub(crate) const GATEWAY: &str = "https://gateway.test";
const PAGES: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// A gateway that runs, and the provider that knows its users.
pub(crate) struct World {
    pub(crate) tunnel: Tunnel,
    provider: Arc<OidcProvider>,
}

impl World {
    pub(crate) fn new() -> Option<Self> {
        let settings = [("login.sources", "oidc"), ("login.recheck", "5s")];
        let mut tunnel = Tunnel::prepare(Options { clients: 1, settings: &settings })?;
        let host = tunnel.gateway.host().clone();
        let provider = Arc::new(host.run(|| OidcProvider::start("{}"))?);
        let secret = host.folder().join("oidc.secret");
        durable_file::create(&secret, CLIENT_SECRET.as_bytes(), 0o600).unwrap();
        for (key, value) in [
            ("oidc.issuer", provider.issuer()),
            ("oidc.client_id", "adit-RS256"),
            ("oidc.client_secret_file", &secret.display().to_string()),
            ("oidc.scopes", "openid,profile,email,groups"),
            ("oidc.parameters", "prompt=login consent"),
            ("oidc.listen", &PAGES.to_string()),
            ("oidc.redirect_host", "gateway.test"),
        ] {
            tunnel.gateway.set(key, value);
        }
        let policy = "[groups.ops]\nmembers = [\"oidc:ops\"]\n[groups.sales]\nmembers = [\"oidc:sales\"]\n\
                      [[rules]]\ngroups = [\"*\"]\naction = \"allow\"\nto = [\"*\"]\n";
        give_policy(&mut tunnel.gateway, policy);
        tunnel.gateway.start().unwrap();
        let world = Self { tunnel, provider };
        world.say(&json!({"users": {"1001": {"preferred_username": "alice", "groups": ["staff", "ops"]}}}));
        Some(world)
    }

    /// Changes what the provider says.
    fn say(&self, wishes: &Value) {
        let (url, wishes) = (self.provider.control(), wishes.to_string());
        browse(self.tunnel.gateway.host(), async move |browser| drop(browser.request("POST", &url, wishes).await));
    }

    /// The groups of the policy that the gateway takes alice to be in.
    fn groups(&self) -> BTreeSet<String> {
        let told = self.tunnel.gateway.admin_json(&["explain", "alice", "tcp", "198.51.100.2:80"]).unwrap();
        let groups = told["groups"].as_array().unwrap().iter();
        groups.map(|group| group["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The session of alice's only device, once she has one.
    fn connects(&mut self) {
        let client = &mut self.tunnel.clients[0];
        client.up().unwrap();
        reach(client.host(), INTERNET[0]);
        assert_eq!(self.groups(), BTreeSet::from(["ops".to_owned()]));
    }
}

/// Does something with a new browser on a host, which finds the gateway's pages there.
pub(crate) fn browse<T: Send + 'static>(host: &Host, visit: impl AsyncFnOnce(&mut Browser) -> T + Send + 'static) -> T {
    host.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { visit(&mut Browser::new(GATEWAY, PAGES)).await })
    })
}

/// A command of a user with a desktop, where whatever opens a link writes it to a file. Root has no browser.
fn at_a_desktop(command: &Command, folder: &Path, opened: &Path) -> Command {
    fs::create_dir(folder).unwrap();
    let opener = folder.join("xdg-open");
    fs::write(&opener, "#!/bin/sh\nprintf %s \"$1\" >\"$OPENED.new\" && mv \"$OPENED.new\" \"$OPENED\"\n").unwrap();
    fs::set_permissions(&opener, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut desktop = Command::new("unshare");
    desktop.args(["--user", "--map-user=1000", "--"]).arg(command.get_program()).args(command.get_args());
    desktop.env("DISPLAY", ":0").env("PATH", path).env("OPENED", opened);
    desktop
}

#[test]
fn user_joins_in_a_browser_and_is_out_once_the_provider_knows_them_no_longer() {
    let Some(mut world) = World::new() else { return };
    let (gateway, pin) = (GATEWAY_V4.to_string(), pin(&world.tunnel.gateway));
    let client = world.tunnel.client();
    let opened = client.host().folder().join("opened");
    let join = client.command(&["join", &gateway, "--pin", &pin, "--name", PROFILE]);
    let desktop = at_a_desktop(&join, &client.host().folder().join("desktop"), &opened);
    let joining = client.host().spawn(desktop).unwrap();
    let told = joining.wait_for_line("only if the page shows this code", PATIENCE).unwrap();
    let code = told.rsplit(' ').next().unwrap().to_owned();
    let link = eventually("a browser is opened", || fs::read_to_string(&opened).ok());
    assert!(link.starts_with(&format!("{GATEWAY}/login/start?")), "{link}");
    let last: Seen = browse(world.tunnel.gateway.host(), async move |browser| {
        let page = browser.get(&link).await;
        assert!(page.status == 200 && page.body.contains(&code), "the page shows {code}: {}", page.body);
        let callback = browser.log_in(&way_on(&page), Some("1001")).await.expect_err("a way back");
        browser.get(&callback).await
    });
    assert!(last.status == 200 && last.body.contains("You are alice"), "{}", last.body);
    let joined = joining.output(PATIENCE).unwrap().success().unwrap();
    assert!(joined.contains("as alice's device"), "{joined}");
    world.connects();

    world.say(&json!({"users": {"1001": {"preferred_username": "alice", "groups": ["sales"]}}}));
    eventually("other groups", || (world.groups() == BTreeSet::from(["sales".to_owned()])).then_some(()));
    assert_eq!(world.tunnel.client().status().unwrap().state, "connected");
    world.say(&json!({"users": {"1001": null}}));
    eventually("a login is needed", || (world.tunnel.client().status().unwrap().state == "login needed").then_some(()));
}

#[test]
fn user_joins_by_a_code_in_a_browser_elsewhere() {
    let Some(mut world) = World::new() else { return };
    let (gateway, pin) = (GATEWAY_V4.to_string(), pin(&world.tunnel.gateway));
    let client = world.tunnel.client();
    let join = client.command(&["join", &gateway, "--pin", &pin, "--name", PROFILE, "--no-browser"]);
    let joining = client.host().spawn(join).unwrap();
    let link = joining.wait_for_line(world.provider.issuer(), PATIENCE).unwrap().trim().to_owned();
    let last = browse(world.tunnel.gateway.host(), async move |browser| browser.log_in(&link, Some("1001")).await);
    assert_eq!(last.expect("a code has no way back").status, 200);
    let joined = joining.output(PATIENCE).unwrap().success().unwrap();
    assert!(joined.contains("as alice's device"), "{joined}");
    world.connects();
}

#[test]
fn user_who_cancels_at_the_provider_does_not_join() {
    let Some(world) = World::new() else { return };
    let (gateway, pin) = (GATEWAY_V4.to_string(), pin(&world.tunnel.gateway));
    let client = world.tunnel.client();
    let join = client.command(&["join", &gateway, "--pin", &pin, "--name", PROFILE, "--no-browser"]);
    let joining = client.host().spawn(join).unwrap();
    let link = joining.wait_for_line(world.provider.issuer(), PATIENCE).unwrap().trim().to_owned();
    browse(world.tunnel.gateway.host(), async move |browser| drop(browser.log_in(&link, None).await));
    let refused = joining.output(PATIENCE).unwrap();
    assert!(refused.code == crate::people::REFUSED && refused.stderr.contains("not accepted"), "{refused:?}");
}
