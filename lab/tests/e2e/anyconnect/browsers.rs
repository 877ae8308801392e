//! Users of a provider of OpenID Connect, whose client opens a browser itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use adit_testing::browser::{Seen, way_on};
use adit_testing::{PATIENCE, eventually};

use super::{Stranger, install, openconnect, reach_internet};
use crate::oidc::{GATEWAY, World, browse};
use crate::versions::{Version, with_each_version};

/// A gateway and its provider, and a client with this openconnect.
fn start(version: Version) -> Option<World> {
    let program = version.program("openconnect")?;
    let world = World::new()?;
    install(world.tunnel.client().host(), &program);
    Some(world)
}

/// Has openconnect log in by a browser that writes the link to a file, and gives that link.
fn begin(world: &World) -> (Stranger, String) {
    let host = world.tunnel.client().host();
    let (browser, opened) = (host.folder().join("browser"), host.folder().join("opened"));
    let script = format!("#!/bin/sh\nprintf %s \"$1\" >{0}.new && mv {0}.new {0}\n", opened.display());
    fs::write(&browser, script).unwrap();
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).unwrap();
    let arguments = ["--external-browser", browser.to_str().unwrap()];
    let stranger = Stranger(host.spawn(openconnect(&world.tunnel, 0, &arguments, "")).unwrap());
    let link = eventually("a browser is opened", || fs::read_to_string(&opened).ok());
    assert!(link.starts_with(&format!("{GATEWAY}/login/start?")), "{link}");
    (stranger, link)
}

/// Follows a link, and logs in as this user or cancels where there is none. Gives what came last from the gateway.
pub(crate) fn log_in(world: &World, link: String, user: Option<&'static str>) -> Seen {
    browse(world.tunnel.gateway.host(), async move |browser| {
        let page = browser.get(&link).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let callback = browser.log_in(&way_on(&page), user).await.expect_err("a way back");
        browser.get(&callback).await
    })
}

with_each_version!(user_logs_in_in_the_browser_that_the_client_opens);

fn user_logs_in_in_the_browser_that_the_client_opens(version: Version) {
    let Some(world) = start(version) else { return };
    let (stranger, link) = begin(&world);
    let sent = log_in(&world, link, Some("1001"));
    assert_eq!(sent.status, 303, "{}", sent.body);
    let location = sent.headers["location"].to_str().unwrap();
    assert!(location.starts_with("http://localhost:29786/api/sso/"), "{location}");
    assert!(world.tunnel.gateway.sessions().unwrap().is_empty(), "the client has not heard of it yet");

    // The browser is on the client's host, which openconnect listens on for IPv6 alone.
    let location = location.replace("localhost", "[::1]");
    let taken = browse(world.tunnel.client().host(), async move |browser| browser.get(&location).await);
    let end = taken.headers["location"].to_str().unwrap();
    assert_eq!((taken.status, end), (302, "https://gateway.test/login/end"), "the client sends it on");
    let session = eventually("openconnect has a session", || {
        assert_eq!(stranger.0.try_wait().unwrap(), None, "{}", stranger.0.tail());
        world.tunnel.gateway.sessions().unwrap().pop()
    });
    assert_eq!(session.front_end, "anyconnect");
    reach_internet(world.tunnel.client().host());
}

#[test]
fn what_is_sealed_for_another_client_logs_nobody_in() {
    let Some(world) = start(Version::Own) else { return };
    let (first, link) = begin(&world);
    let sent = log_in(&world, link, Some("1001"));
    let theirs = sent.headers["location"].to_str().unwrap().replace("localhost", "[::1]");
    first.0.kill();
    fs::remove_file(world.tunnel.client().host().folder().join("opened")).unwrap();

    let (second, _link) = begin(&world);
    browse(world.tunnel.client().host(), async move |browser| drop(browser.get(&theirs).await));
    assert_ne!(second.0.wait(PATIENCE).unwrap(), 0, "it cannot open the token: {}", second.0.tail());
    assert!(world.tunnel.gateway.sessions().unwrap().is_empty());
}
