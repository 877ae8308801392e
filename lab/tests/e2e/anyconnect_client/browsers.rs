//! Users whom a gateway has log in in a browser of the client's host.

use adit_lab::Process;
use adit_testing::PATIENCE;

use super::{add, has_login, up};
use crate::anyconnect::browsers::log_in;
use crate::harness::{INTERNET, reach};
use crate::oidc::{GATEWAY, World, browse};
use crate::people::pin;

/// A gateway and its provider, and a client that has added the gateway.
fn start() -> Option<World> {
    let world = World::new()?;
    let fingerprint = pin(&world.tunnel.gateway);
    add(world.tunnel.client(), &["--pin", &fingerprint, "--browser"]).success().unwrap();
    Some(world)
}

/// Has our client log in, and gives the link that it shows.
fn begin(world: &World) -> (Process, String) {
    let client = world.tunnel.client();
    let login = client.host().spawn(client.command(&["login", "work"])).unwrap();
    // Alone on its line: it stands in what the gateway says as well.
    let link = login.wait_for_line(&format!("  {GATEWAY}/login/start?"), PATIENCE).unwrap().trim().to_owned();
    (login, link)
}

/// Has somebody log in at the provider. Gives where the gateway sends the browser in the end: to the client's host.
fn way_to_client(world: &World, link: String) -> String {
    let sent = log_in(world, link, Some("1001"));
    assert_eq!(sent.status, 303, "{}", sent.body);
    sent.headers["location"].to_str().unwrap().replace("localhost", "127.0.0.1")
}

/// What the browser is answered that goes there: the status, and where it is sent on to.
fn visit(world: &World, location: String) -> (u16, Option<String>) {
    let seen = browse(world.tunnel.client().host(), async move |browser| browser.get(&location).await);
    (seen.status, seen.headers.get("location").map(|end| end.to_str().unwrap().to_owned()))
}

#[test]
fn user_logs_in_at_our_gateway_in_a_browser() {
    let Some(mut world) = start() else { return };
    let (login, link) = begin(&world);
    let location = way_to_client(&world, link);
    assert!(!has_login(world.tunnel.client()), "the client has not heard of it yet");
    let stranger = location.replacen("/api/sso/", "/api/sso/AAAA", 1);
    assert_eq!(visit(&world, stranger), (404, None), "nothing else is a token");
    let end = Some(format!("{GATEWAY}/login/end"));
    assert_eq!(visit(&world, location), (302, end), "the client sends the browser on");
    login.output(PATIENCE).unwrap().success().unwrap();

    up(&mut world.tunnel.clients[0], "");
    reach(world.tunnel.client().host(), INTERNET[0]);
    let session = world.tunnel.gateway.sessions().unwrap().pop().unwrap();
    assert_eq!(session.front_end, "anyconnect");
}

#[test]
fn token_of_another_login_is_turned_away_and_the_right_one_taken_after_it() {
    let Some(world) = start() else { return };
    let (first, link) = begin(&world);
    let theirs = way_to_client(&world, link);
    first.kill();
    let (second, link) = begin(&world);
    assert_eq!(visit(&world, theirs), (404, None), "it is sealed for the client that is gone");
    assert_eq!(second.try_wait().unwrap(), None, "it waits on: {}", second.tail());
    let location = way_to_client(&world, link);
    assert_eq!(visit(&world, location).0, 302);
    second.output(PATIENCE).unwrap().success().unwrap();
    assert!(has_login(world.tunnel.client()));
}
